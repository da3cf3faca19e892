"""What the queue of one model allows to predict: its backlog, and the time to a result."""

import math
from collections.abc import Sequence

from candor.gateway.scheduling.chunk_sizer import ChunkSizer
from candor.gateway.scheduling.jobs import ServiceClass
from candor.gateway.scheduling.options import SchedulerOptions
from candor.gateway.scheduling.policy import JobQueue
from candor.gateway.scheduling.promises import Promises

_CAUTION = 1.25  # of an estimate: chunks and first chunks of others take longer than on average


class Estimates:
    """Predictions from the queue as it is and from the chunks measured so far."""

    def __init__(
        self, queue: JobQueue, sizer: ChunkSizer, options: SchedulerOptions, promises: Promises
    ) -> None:
        self._queue = queue
        self._promises = promises
        self._sizer = sizer
        self._options = options

    @property
    def job_count(self) -> int:
        """Jobs in the queue."""
        return len(self._queue)

    @property
    def batch_size(self) -> int:
        """Most searches in the next chunk: the workers share what there is."""
        share = math.ceil(len(self._queue) / self._options.worker_count)
        return max(1, min(self._full_batch, share))

    @property
    def chunk_seconds(self) -> float:
        """How long the next chunk takes at worst."""
        return self._sizer.chunk_length(self.batch_size)

    def endings_seconds(self, deadline: float) -> float:
        """How long the best so far of everything promised by ``deadline`` takes at worst.

        They share calls of their own, as many at once as there are workers, before any chunk.
        """
        rounds, size = self._ending_calls(self._promises.due_by(deadline))
        # Several calls in a row vary more than the peak of one shows.
        return rounds * self._sizer.ending_length(size) * (_CAUTION if rounds > 1 else 1.0)

    def likely_endings_seconds(self, deadline: float, more: int = 0) -> float:
        """`endings_seconds` with ``more`` searches, not at worst: to reject what may be in time
        would be worse than to try.
        """
        rounds, size = self._ending_calls(self._promises.due_by(deadline) + more)
        return rounds * self._sizer.likely_ending_length(size)

    def breaks_promise(self, count: int, deadline: float, now: float) -> bool:
        """Whether ``count`` more searches with this deadline would make an earlier promise late."""
        return any(
            now + self.chunk_seconds + self.likely_endings_seconds(one, count) > one
            for one in self._promises.deadlines_from(deadline)
        )

    @property
    def backlog_seconds(self) -> float:
        """Computing that the admitted searches still need, all workers together."""
        return self._steps_left() * self._search_step_seconds()

    def first_result_seconds(
        self,
        tenant: str,
        service_class: ServiceClass,
        call_count: int,
        *,
        count: int = 1,
        deadline: float = -math.inf,
    ) -> float:
        """Until ``count`` searches that arrive now could be ended, one of them with a result.

        Args:
            call_count: calls in flight.
            deadline: what is promised by then comes before.
        """
        batch_count = self._options.worker_count * self._full_batch
        chunks = self._queue.count_before(tenant, service_class) // batch_count
        chunks += math.ceil(call_count / self._options.worker_count)
        first_step = self._sizer.step_seconds(min(count, self._full_batch))
        endings = self.likely_endings_seconds(deadline, count)
        return chunks * self.chunk_seconds + first_step + endings

    def whole_result_seconds(
        self,
        step_counts: Sequence[int],
        tenant: str,
        service_class: ServiceClass,
        call_count: int,
    ) -> float:
        """Until searches of so many steps would be done; before any measurement, until the first
        result.

        A search that misses its deadline has cost as much as one that meets it, so the estimate is
        cautious; but a guess without measurements would reject too many.
        """
        first = self.first_result_seconds(tenant, service_class, call_count)
        before = self.seconds_before(sum(step_counts), tenant, service_class)
        return first + max(
            self._alone_seconds(step_counts), before + self._own_seconds(step_counts)
        )

    def seconds_before(self, steps: int, tenant: str, service_class: ServiceClass) -> float:
        """Computing that fair shares do before the last of so many new steps, cautiously."""
        if not self.has_measured:
            return 0.0
        done_first = self._queue.steps_until_done(tenant, service_class, steps) - steps
        return _CAUTION * done_first * self._search_step_seconds()

    def idle_first_seconds(self, count: int) -> float:
        """`first_result_seconds` of a gateway without other searches."""
        rounds, size = self._ending_calls(count)
        first_step = self._sizer.step_seconds(min(count, self._full_batch))
        return first_step + rounds * self._sizer.likely_ending_length(size)

    def idle_whole_seconds(self, step_counts: Sequence[int]) -> float:
        """`whole_result_seconds` of a gateway without other searches."""
        own = max(self._alone_seconds(step_counts), self._own_seconds(step_counts))
        return self.idle_first_seconds(1) + own

    def finishing_seconds(self, steps: int) -> float:
        """For so many steps of a search that is in every chunk from now on."""
        return steps * self._sizer.step_seconds(self.batch_size) if self.has_measured else 0.0

    @property
    def has_measured(self) -> bool:
        """Whether there is more to go by than a guess."""
        return self._sizer.has_measured

    def _alone_seconds(self, step_counts: Sequence[int]) -> float:
        steps = max(step_counts, default=0)
        return steps * self._sizer.step_seconds(1) if self.has_measured else 0.0

    def _own_seconds(self, step_counts: Sequence[int]) -> float:
        if not self.has_measured:
            return 0.0
        return _CAUTION * sum(step_counts) * self._search_step_seconds()

    def _ending_calls(self, count: int) -> tuple[int, int]:
        """Calls one after another for the best so far of so many searches, and the size of one."""
        size = max(1, min(count, self._options.max_batch))
        return max(1, math.ceil(count / (size * self._options.worker_count))), size

    @property
    def _full_batch(self) -> int:
        return self._sizer.batch_limit(self._options.max_batch)

    def _search_step_seconds(self) -> float:
        """One step of one search, with full batches and all workers busy."""
        return self._sizer.search_step_seconds(self._full_batch) / self._options.worker_count

    def _steps_left(self) -> int:
        return sum(job.steps_left for job in self._queue)
