"""Progress of a job as the contract states it, with the time left."""

import time
from collections.abc import Callable

from candor.audit.run import Progress
from candor.contracts.reports import ReportProgress

WAITS_FOR_SPACE = "waits for disk space"


class Pace:
    """Estimates the seconds left from the pace since the first look."""

    def __init__(self) -> None:
        self._first: tuple[int, float] | None = None

    def seconds_left(self, done: int, total: int) -> float | None:
        """None before anything was done since then."""
        now = time.monotonic()
        done_before, started = self._first = self._first or (done, now)
        gained = done - done_before
        return (total - done) * (now - started) / gained if gained else None


class JobProgress:
    """Translates the audit's progress.

    Args:
        image_count: images of the whole job.
        send: takes every new state.
    """

    def __init__(self, image_count: int, send: Callable[[ReportProgress], None]) -> None:
        self._image_count = image_count
        self._send = send
        self._pace = Pace()
        self._last: ReportProgress | None = None

    def report_waiting(self) -> None:
        """Report that the job waits for space on the disk."""
        last = self._last or ReportProgress(
            fraction=0.0,
            stage="",
            images_done=0,
            image_count=self._image_count,
            attack_ara=None,
            seconds_left=None,
        )
        self._send(last.model_copy(update={"stage": WAITS_FOR_SPACE, "seconds_left": None}))

    def report(self, progress: Progress) -> None:
        """What `candor.audit.session.compute` reports after every block."""
        self._last = ReportProgress(
            fraction=progress.done / progress.total,
            stage=progress.stage,
            images_done=progress.images_done,
            image_count=self._image_count,
            attack_ara=progress.attack_ara,
            seconds_left=self._pace.seconds_left(progress.done, progress.total),
        )
        self._send(self._last)
