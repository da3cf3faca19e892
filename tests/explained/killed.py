"""A job whose processes are killed at chosen moments: `killed.py MODEL IMAGES OUT`.

Prints the first positions of the blocks that the last process, which is not killed, has computed.
"""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from candor.explained.local import LocalExplainer
from candor.explained.results import Results
from candor.jobs.shared_work import work_until_done
from candor.store.blocks import SharedBlocks
from tests.explained.folders import local_job

_FILES_WRITTEN = 7  # of the second block: one PNG is in its place, the rows are not


def _kill(*arguments: Any) -> Any:
    os.kill(os.getpid(), signal.SIGKILL)


def _at_a_file() -> None:
    """Between two files of a block."""
    left, replace = [_FILES_WRITTEN + 9], Path.replace

    def counted(path: Path, target: Path) -> Path:
        left[0] -= 1
        return replace(path, target) if left[0] else _kill()

    Path.replace = counted  # type: ignore[method-assign, assignment]


def _before_it_says_so() -> None:
    """A block's results are kept, and the store does not know."""
    SharedBlocks.finish = _kill  # type: ignore[method-assign]


def _before_the_table() -> None:
    """Every block is done."""
    Results.finish = _kill  # type: ignore[method-assign]


def _run(*paths: str) -> None:
    model, images, out = map(Path, paths)
    with local_job(images, out, model).opened() as work:
        work_until_done(work, lambda done: None)
        work.finish()


def _killed(change: Callable[[], None]) -> None:
    process = os.fork()
    if process == 0:
        change()
        _run(*sys.argv[1:])
        os._exit(0)
    _, status = os.waitpid(process, 0)
    assert os.WIFSIGNALED(status), f"{change.__name__}: not killed"
    assert os.WTERMSIG(status) == signal.SIGKILL


def main() -> None:
    for change in (_at_a_file, _before_it_says_so):
        _killed(change)
    computed, explain = list[int](), LocalExplainer.explain

    def noted(self: LocalExplainer, files: Any) -> Any:
        computed.append(files[0].index)
        return explain(self, files)

    LocalExplainer.explain = noted  # type: ignore[method-assign]
    _run(*sys.argv[1:])
    print(*computed)


if __name__ == "__main__":
    main()
