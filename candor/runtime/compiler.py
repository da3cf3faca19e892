"""The process that compiles a model, and how it is run.

It is a process of its own so that neither its time nor its end concern the worker that waits for
the result: it has the lowest priority, one thread, and is the first to go where memory is short.
"""

import argparse
import ctypes
import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

LOWEST_PRIORITY = 19  # of nice(2)
_FIRST_TO_GO = b"1000"  # of proc(5), oom_score_adj
_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of linux/prctl.h
_MESSAGE_CHARS = 300
# What torch's compiler may do beside its own process: nothing.
_TORCH_VARIABLES = {"TORCHINDUCTOR_COMPILE_THREADS": "1", "OMP_NUM_THREADS": "1"}


@dataclass(frozen=True, slots=True)
class Failure:
    """Why there is no package.

    Attributes:
        message: one line.
        may_pass: the process was ended from outside, so another one may succeed.
    """

    message: str
    may_pass: bool


def run_compiler(
    model_dir: Path, folder: Path, *, threads: int, lock: int, niceness: int = LOWEST_PRIORITY
) -> Failure | None:
    """Compile the model of a folder in a process of its own; None where its package is there now.

    The process ends with the calling thread.

    Args:
        folder: of the package, see `candor.runtime.kept.package_folder`.
        threads: of the search worker that will use the package.
        lock: descriptor of `candor.runtime.kept.compiling_lock`.
    """
    command = [sys.executable, "-m", "candor.runtime.compiler", str(model_dir), str(folder)]
    command += ["--threads", str(threads), "--niceness", str(niceness)]
    own_cache = {"TORCHINDUCTOR_CACHE_DIR": str(_scratch(folder))}
    ended = subprocess.run(
        [*command, "--parent", str(os.getpid())],
        env={**os.environ, **_TORCH_VARIABLES, **own_cache},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        pass_fds=(lock,),
        check=False,
    )
    if ended.returncode == 0:
        return None
    if ended.returncode < 0:
        name = signal.Signals(-ended.returncode).name
        return Failure(f"the compiler was ended by {name}", may_pass=True)
    said = [line for line in ended.stderr.splitlines() if line.strip()] or ["nothing"]
    return Failure(said[-1][:_MESSAGE_CHARS], may_pass=False)


def main() -> int:
    """Exit code 0 once the package is there; 1 with one line on stderr where it cannot be made."""
    command = argparse.ArgumentParser(prog="python -m candor.runtime.compiler", description=__doc__)
    command.add_argument("model_dir", type=Path)
    command.add_argument("folder", type=Path)
    command.add_argument("--threads", type=int, required=True)
    command.add_argument("--niceness", type=int, required=True)
    command.add_argument("--parent", type=int, required=True)
    options = command.parse_args()
    _step_back(options.niceness, options.parent)
    try:
        _make(options.model_dir, options.folder, options.threads)
    except Exception as err:  # the compiler's failures have no common base
        print(f"{type(err).__name__}: {' '.join(str(err).split())}", file=sys.stderr)
        return 1
    return 0


def _make(model_dir: Path, folder: Path, threads: int) -> None:
    # Imported here: at the lowest priority already, and not by who starts this process.
    from candor.runtime.packaging import package_of_folder

    try:
        package_of_folder(model_dir, folder, threads)
    finally:
        shutil.rmtree(_scratch(folder), ignore_errors=True)


def _scratch(folder: Path) -> Path:
    """What torch's compiler leaves there is of no use afterwards."""
    return folder.with_name("torch")


def _step_back(niceness: int, parent: int) -> None:
    """Behind every other process of the machine, and to the end with the one that started this."""
    os.nice(niceness)
    if not sys.platform.startswith("linux"):
        return
    with suppress(OSError):  # some sandboxes do not allow it
        Path("/proc/self/oom_score_adj").write_bytes(_FIRST_TO_GO)
    ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:  # it has ended before it could be asked for
        sys.exit(1)


if __name__ == "__main__":
    sys.exit(main())
