"""Which requests are admitted, so that what is admitted is answered in time.

Searches of a queue that is too long are begun and not finished: all of them share the workers, all
of them become late, and what was computed for them is lost.  So a request is admitted only where
the work before it takes a fraction of its time, whatever it costs itself; the newest are rejected,
at once, with the time after which there is room.  A short queue answers as many requests a second
as a long one, because the workers are as busy.  What stands before a request is what fair shares
leave there: a tenant with a long queue is rejected, and no other.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from candor.contracts.errors import ErrorCode, ServiceError
from candor.gateway.access.request_context import Priority
from candor.gateway.scheduling.estimates import Estimates
from candor.gateway.scheduling.jobs import ServiceClass
from candor.gateway.scheduling.options import SchedulerOptions

# Of a request's time, for the work of others before it: twice what it is estimated at is in time.
_QUEUE_SHARE = 0.5
_RETRY_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """The searches that a request asks for.

    Attributes:
        step_counts: of each search that would be new; others share one that is under way.
        open_count: searches, shared ones too, whose best so far may have to be fetched.
        deadline: when the results must be there, in the time of the scheduler's clock.
        allows_partial: at the deadline the best so far is enough.
    """

    tenant: str
    service_class: ServiceClass
    step_counts: Sequence[int]
    open_count: int
    deadline: float = math.inf
    allows_partial: bool = True


class QueueLimits:
    """Admits requests to the queue of one model."""

    def __init__(self, estimates: Estimates, options: SchedulerOptions, model: str) -> None:
        self._estimates = estimates
        self._options = options
        self._model = model

    def check(self, wanted: Wanted, now: float, call_count: int) -> None:
        """Raises where the request is not admitted.

        Args:
            call_count: calls in flight.
        Raises:
            ServiceError: TIMEOUT, not even an idle gateway would meet the deadline; OVERLOADED.
        """
        self._check_deadline(wanted, now, call_count)
        self._check_queue(wanted, now)
        self._check_promises(wanted, now)
        self.check_room(len(wanted.step_counts))

    def check_room(self, count: int) -> None:
        """Raises: ServiceError: OVERLOADED, ``count`` more jobs would be too many."""
        limit = self._options.worker_count * self._options.max_batch + self._options.max_waiting
        there = self._estimates.job_count
        if there + count > limit:
            what = f"expected at most {limit} searches, got {count} more with {there} there"
            raise self._overloaded(what, self._estimates.backlog_seconds / 2)

    def _check_deadline(self, wanted: Wanted, now: float, call_count: int) -> None:
        left = wanted.deadline - now
        needed = self._needed_seconds(wanted, call_count)
        if left >= needed:
            return
        what = "a first result" if wanted.allows_partial else "the whole result"
        reason = f"{what} takes about {needed:.3g} seconds, got {max(0.0, left):.3g} for the search"
        if left >= self._idle_seconds(wanted):
            raise self._overloaded(reason, needed - left)
        raise ServiceError(ErrorCode.TIMEOUT, f"deadline: {reason}")

    def _needed_seconds(self, wanted: Wanted, call_count: int) -> float:
        estimates, deadline = self._estimates, wanted.deadline
        if not wanted.step_counts:
            return estimates.chunk_seconds + estimates.endings_seconds(deadline)
        tenant, service_class = wanted.tenant, wanted.service_class
        if wanted.allows_partial:
            return estimates.first_result_seconds(
                tenant, service_class, call_count, count=wanted.open_count, deadline=deadline
            )
        return estimates.whole_result_seconds(wanted.step_counts, tenant, service_class, call_count)

    def _idle_seconds(self, wanted: Wanted) -> float:
        if wanted.allows_partial or not wanted.step_counts:
            return self._estimates.idle_first_seconds(wanted.open_count)
        return self._estimates.idle_whole_seconds(wanted.step_counts)

    def _check_queue(self, wanted: Wanted, now: float) -> None:
        """Those before a request may be slower than estimated, so half of its time is theirs."""
        limit = _QUEUE_SHARE * self._patience(wanted, now)
        steps = sum(wanted.step_counts)
        if steps and math.isfinite(limit) and not self._estimates.has_measured:
            self._check_first_requests()
        before = self._estimates.seconds_before(steps, wanted.tenant, wanted.service_class)
        if steps and before > limit:
            what = (
                f"expected at most {limit:.3g} seconds of searches before a new one, got about "
                f"{before:.3g}"
            )
            raise self._overloaded(what, before - limit / 2)  # not all at the first free place

    def _check_first_requests(self) -> None:
        """Until the first chunk is back and says what one costs, no more than fill the workers."""
        most, there = (
            self._options.worker_count * self._options.max_batch,
            self._estimates.job_count,
        )
        if there >= most:
            what = f"expected at most {most} searches before the first has been measured"
            raise self._overloaded(what, _RETRY_SECONDS)

    def _patience(self, wanted: Wanted, now: float) -> float:
        """How long the whole result may take; infinite where the best so far comes early enough."""
        is_report = wanted.service_class.priority is Priority.REPORT
        longest = math.inf if is_report else self._options.objective_seconds
        left = wanted.deadline - now
        if wanted.allows_partial:
            return math.inf if left <= longest else longest
        return min(longest, left)

    def _check_promises(self, wanted: Wanted, now: float) -> None:
        if not wanted.allows_partial or math.isinf(wanted.deadline):
            return
        if self._estimates.breaks_promise(wanted.open_count, wanted.deadline, now):
            what = (
                f"the best so far of {wanted.open_count} searches would come in the way of "
                "responses that other requests were promised"
            )
            raise self._overloaded(what, _RETRY_SECONDS)

    def _overloaded(self, what: str, retry_seconds: float) -> ServiceError:
        """OVERLOADED, with whole seconds, at least 1, after which there may be room."""
        return ServiceError(
            ErrorCode.OVERLOADED,
            f"model {self._model!r}: {what}",
            retry_seconds=float(max(1, math.ceil(retry_seconds))),
        )
