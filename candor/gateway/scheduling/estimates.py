"""What the queue of one model allows to predict: room, backlog, and the time to a result."""

import math
from collections.abc import Sequence

from candor.contracts.errors import ErrorCode, ServiceError
from candor.contracts.worker import SearchItem
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

    def check_room(self, count: int, model: str) -> None:
        """Raises: ServiceError: OVERLOADED, ``count`` more searches would be too many."""
        options = self._options
        limit = options.worker_count * options.max_batch + options.max_waiting
        if len(self._queue) + count > limit:
            message = (
                f"model {model!r}: expected at most {limit} searches, got {count} more with "
                f"{len(self._queue)} there"
            )
            raise ServiceError(ErrorCode.OVERLOADED, message, retry_seconds=self._retry_seconds())

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
        items: Sequence[SearchItem],
        tenant: str,
        service_class: ServiceClass,
        call_count: int,
    ) -> float:
        """Until all of ``items`` would be done; before any measurement, until the first result.

        A search that misses its deadline has cost as much as one that meets it, so the estimate is
        cautious; but a guess without measurements would reject too many.
        """
        first = self.first_result_seconds(tenant, service_class, call_count)
        if not self._sizer.has_measured:
            return first
        steps = sum(item.step_count for item in items)
        alone = max(item.step_count for item in items) * self._sizer.step_seconds(1)
        shared = _CAUTION * (steps + self._steps_left()) * self._search_step_seconds()
        return first + max(alone, shared)

    def _ending_calls(self, count: int) -> tuple[int, int]:
        """Calls one after another for the best so far of so many searches, and the size of one."""
        size = max(1, min(count, self._options.max_batch))
        return max(1, math.ceil(count / (size * self._options.worker_count))), size

    @property
    def _full_batch(self) -> int:
        return self._sizer.batch_limit(self._options.max_batch)

    def _search_step_seconds(self) -> float:
        """One step of one search, with full batches and all workers busy."""
        size = self._full_batch
        return self._sizer.step_seconds(size) / (size * self._options.worker_count)

    def _retry_seconds(self) -> float:
        """Until half of the backlog is done, whole seconds, at least 1."""
        return float(max(1, math.ceil(self.backlog_seconds / 2)))

    def _steps_left(self) -> int:
        return sum(job.steps_left for job in self._queue)
