"""A file system of a few megabytes that fills up as a real one does.  For root on Linux."""

import ctypes
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_NEW_MOUNTS = 0x20000  # CLONE_NEWNS of linux/sched.h
_BLOCK = bytes(4096)


@contextmanager
def small_disk(folder: Path, byte_count: int) -> Iterator[None]:
    """Visible to this process and those it starts alone.

    Raises:
        OSError: this user may not mount; root may.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_NEW_MOUNTS):
        raise OSError(ctypes.get_errno(), "cannot mount a small disk, root can")
    folder.mkdir()
    _run("mount", "--make-rprivate", "/")
    _run("mount", "-t", "tmpfs", "-o", f"size={byte_count}", "tmpfs", str(folder))
    try:
        yield
    finally:
        _run("umount", "-l", str(folder))


def fill_up(ballast: Path) -> None:
    """Until the disk says ENOSPC."""
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(_BLOCK)
        except OSError:
            return


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")
