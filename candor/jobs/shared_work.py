"""Works on what many processes share until nothing is left."""

import time
from collections.abc import Callable
from typing import Protocol

_PAUSE_SECONDS = 0.5  # between two looks for a block, while other workers have all that are left


class SharedWork(Protocol):
    """Work in blocks that any number of workers take one after another."""

    @property
    def count(self) -> int:
        """Parts of the whole work, for example images."""

    def work_one(self) -> bool:
        """Do one block; False where there is none that nobody works on."""

    def left(self) -> int:
        """Parts that are not done."""

    def blocks_left(self) -> int:
        """Blocks that are not done."""


def work_until_done(
    work: SharedWork,
    report: Callable[[int], None],
    *,
    pause: Callable[[float], object] = time.sleep,
) -> None:
    """Take blocks until every one is done, by this worker or another.

    A block of a worker that disappears becomes free when its lease ends, so this waits for others.

    Args:
        report: takes the parts done so far, of all workers.
        pause: waits so many seconds; what it raises ends the work.
    """
    while left := work.left():
        report(work.count - left)
        if not work.work_one():
            pause(_PAUSE_SECONDS)
    report(work.count)
