"""glibc allocator settings for CPU tensors."""

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
_LARGEST_MMAP_THRESHOLD = 32 * 1024 * 1024  # glibc refuses more on 64 bit


def keep_freed_memory() -> bool:
    """Let the process reuse freed buffers instead of asking the kernel for zeroed pages again.

    Activations of a CIFAR batch are 8 MiB each; by default every one is mapped, faulted in page by
    page and unmapped again.  Call it once at process start; it holds for the whole process.

    Returns:
        Whether the allocator took the settings (only glibc has them).
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
        and mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        and mallopt(_M_TOP_PAD, 64 * 1024 * 1024)
    )
