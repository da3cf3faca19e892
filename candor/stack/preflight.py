"""What can be known before a start, and is said at once instead of after minutes of waiting."""

import resource
import tempfile
from pathlib import Path

from candor.stack.config import StackConfig
from candor.stack.errors import StackError

_MIB = 1024 * 1024
# Less than any process was seen to need: what is below certainly fails.
_BASE_MIB = 250  # JVM and gateway
_WORKER_MIB = 150
_ADDRESS_SPACE_MIB = 3072
_GROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")
_MEMORY = Path("/proc/meminfo")


def check_folders(config: StackConfig) -> None:
    """Raises: StackError: a folder that the service writes into is read-only, or its disk full."""
    _check_writable("archives-dir", config.archives_dir)
    if config.has_report_worker:
        _check_writable("reports", config.reports_dir)


def check_memory(model_count: int, search_workers: int) -> None:
    """Raises: StackError: so many models certainly need more memory than there is."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY and limit < _ADDRESS_SPACE_MIB * _MIB:
        raise StackError(
            f"memory: expected at least {_ADDRESS_SPACE_MIB} MiB of address space for a process, "
            f"got {limit // _MIB} MiB; ulimit -v sets it"
        )
    needed = _BASE_MIB + model_count * (1 + search_workers) * _WORKER_MIB
    available = _available_mib()
    if available < needed:
        raise StackError(
            f"memory: expected at least {needed} MiB for {model_count} models, "
            f"got {available} MiB; serve fewer models or give more memory"
        )


def _check_writable(option: str, folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(4096))
    except OSError as err:
        raise StackError(f"{option}: {folder} cannot be written: {err.strerror}") from err


def _available_mib() -> int:
    """What the machine has free, or what its control group allows where that is less."""
    free = _number_after("MemAvailable:", _MEMORY) // 1024
    try:
        return min(free, int(_GROUP_LIMIT.read_text()) // _MIB)
    except (OSError, ValueError):  # no limit, or "max"
        return free


def _number_after(name: str, file: Path) -> int:
    """In KiB; more than any machine has where the system does not say."""
    try:
        line = next(line for line in file.read_text().splitlines() if line.startswith(name))
        return int(line.split()[1])
    except (OSError, StopIteration, ValueError, IndexError):
        return 2**50
