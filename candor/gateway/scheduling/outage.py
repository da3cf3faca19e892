"""What happens while workers are unavailable, and to searches that repeatedly kill them."""

import math
from collections.abc import Sequence

from candor.contracts.errors import ErrorCode, ServiceError
from candor.gateway.clock import Clock
from candor.gateway.scheduling.jobs import Job
from candor.gateway.workers.retry import pauses

ISOLATED_DEATHS = 2  # a job with that many deaths in a row is sent without others
POISONED_DEATHS = 4  # and is given up after two more


class Outage:
    """The time that workers have been away: when to call them again, and when to give up.

    Args:
        give_up_seconds: how long jobs wait for workers that are away.
    """

    def __init__(self, clock: Clock, give_up_seconds: float) -> None:
        self._clock = clock
        self._give_up_seconds = give_up_seconds
        self._pauses = pauses()
        self._away_since = math.inf
        self._resume_at = 0.0

    @property
    def pause_seconds(self) -> float:
        """How long to wait before the next call."""
        return max(0.0, self._resume_at - self._clock.now())

    def go_on(self) -> bool:
        """One more call that found no worker; False when it is time to give up."""
        pause = next(self._pauses)
        now = self._clock.now()
        self._away_since = min(self._away_since, now)
        self._resume_at = now + pause
        return self._resume_at <= self._away_since + self._give_up_seconds

    def end(self) -> None:
        """A worker has answered, or every job was given up."""
        self._pauses = pauses()
        self._away_since = math.inf
        self._resume_at = 0.0


def count_death(batch: Sequence[Job]) -> None:
    """A worker died with ``batch``; a job that has killed too many of them in a row fails.

    The others are sent again.
    """
    for job in batch:
        job.deaths += 1
        if job.deaths >= POISONED_DEATHS:
            message = f"its worker died {job.deaths} times in a row, the last times with it alone"
            job.fail(ServiceError(ErrorCode.SEARCH_FAILED, message))


def is_isolated(job: Job) -> bool:
    """Whether ``job`` may be what kills the workers, and so is sent without others."""
    return job.deaths >= ISOLATED_DEATHS
