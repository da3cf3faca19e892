"""Continuous batching of searches, one scheduler a model.

A search travels in chunks: pack what runs into one call, "advance these by k steps", take the
states back.  A newcomer joins at the next chunk and a finished one leaves.  The state lives here,
so a killed worker costs one repeated chunk, a cancelled search simply gets no next one, any search
can sit out a chunk, and the best so far can be had at any time.
"""

import asyncio
import itertools
import math
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from candor.contracts.errors import ErrorCode, ServiceError
from candor.contracts.worker import CompareItem, SearchItem
from candor.gateway.access.request_context import Priority
from candor.gateway.observability.metrics import Metrics
from candor.gateway.scheduling.chunk_sizer import ChunkClock
from candor.gateway.scheduling.jobs import (
    Arrays,
    Ending,
    Job,
    SaliencyJob,
    Search,
    SearchResult,
    ServiceClass,
    as_service_error,
)
from candor.gateway.scheduling.policy import POISONED_DEATHS, SearchQueue
from candor.gateway.workers.protocol import (
    WorkerBackend,
    WorkerDied,
    WorkerFault,
    WorkerUnavailable,
    not_ready,
    pauses,
)
from candor.tracing import NO_TRACING, Tracing, shared_span

OnCharge = Callable[[str, float], None]
_CAUTION = 1.25  # of an estimate: chunks and newcomers' first chunks take longer than on average


class SearchScheduler:
    """Runs the searches of one model; make and use it inside one event loop.

    Args:
        value_count: C*H*W of the model's images.
        worker_count: chunks computed at once, each by a worker of its own.
        max_batch: searches in one chunk.
        max_waiting: searches beyond those that all workers hold at once.
        short_steps: a search of at most so many steps counts as short, see
            `candor.gateway.scheduling.policy`.
        worker_retry_seconds: how long searches outlive workers that are away.
        metrics: told of every search; its own where none is given.
        on_charge: told of every tenant's seconds of computing.
        tracing: makes a span of every chunk.
    """

    def __init__(
        self,
        backend: WorkerBackend,
        model: str,
        *,
        value_count: int,
        worker_count: int = 1,
        max_batch: int = 32,
        max_waiting: int = 512,
        chunk_seconds: float = 0.1,
        short_steps: int = 40,
        worker_retry_seconds: float = 60.0,
        metrics: Metrics | None = None,
        on_charge: OnCharge = lambda tenant, seconds: None,
        tracing: Tracing = NO_TRACING,
    ) -> None:
        self._backend = backend
        self._model = model
        self._worker_count = worker_count
        self._max_batch = max_batch
        self._max_waiting = max_waiting
        self._short_steps = short_steps
        self._worker_retry_seconds = worker_retry_seconds
        self._metrics = metrics or Metrics([model])
        self._on_charge = on_charge
        self._tracer = tracing.tracer
        self._clock = ChunkClock(chunk_seconds, value_count)
        self._queue = SearchQueue()
        self._endings: list[Ending] = []
        self._numbers = itertools.count()
        self._calls: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._loop_task: asyncio.Task[None] | None = None
        self._pauses = pauses()
        self._away_since = math.inf
        self._resume_at = 0.0

    @property
    def search_count(self) -> int:
        """Searches not over, and those over that a worker still has."""
        return len(self._queue)

    def check_room(self, count: int) -> None:
        """Raises: ServiceError: OVERLOADED, ``count`` more searches would be too many."""
        limit = self._worker_count * self._max_batch + self._max_waiting
        if len(self._queue) + count > limit:
            message = (
                f"model {self._model!r}: got {count} more searches with {len(self._queue)} there, "
                f"allowed {limit}"
            )
            raise ServiceError(ErrorCode.OVERLOADED, message, retry_seconds=self._backlog_seconds())

    def submit(
        self,
        item: SearchItem,
        image: NDArray[np.float32],
        *,
        tenant: str = "",
        priority: Priority = Priority.EXPLAIN,
    ) -> Search:
        """The search, under way; its future brings the result or a ServiceError.

        Cancelling the future ends the search with its chunk.  Ask `check_room` first.
        """
        loop = asyncio.get_running_loop()
        search = Search(
            item=item,
            arrays={"image": image},
            future=loop.create_future(),
            service_class=self.service_class(priority, item),
            tenant=tenant,
            number=next(self._numbers),
        )
        self._admit(search)
        return search

    def run(
        self,
        item: CompareItem,
        arrays: Arrays,
        *,
        tenant: str = "",
        priority: Priority = Priority.EXPLAIN,
    ) -> SaliencyJob:
        """The same for a call of its own, which takes its turn among the long searches."""
        saliency_job = SaliencyJob(
            item=item,
            arrays=arrays,
            future=asyncio.get_running_loop().create_future(),
            service_class=ServiceClass(priority, is_long=True),
            tenant=tenant,
            number=next(self._numbers),
        )
        self._admit(saliency_job)
        return saliency_job

    def end_now(self, search: Search) -> asyncio.Future[SearchResult]:
        """The best of a search so far, verified, about `ending_seconds` from now.

        The search itself goes on; where it ends of itself meanwhile, that is the result.
        """
        ending = Ending(search, asyncio.get_running_loop().create_future())
        self._endings.append(ending)
        self._start()
        return ending.future

    def service_class(self, priority: Priority, item: SearchItem) -> ServiceClass:
        return ServiceClass(priority, is_long=item.step_count > self._short_steps)

    @property
    def ending_seconds(self) -> float:
        """How long `end_now` takes at worst: the chunk on its way, then its own call."""
        return self._clock.chunk_length(self._batch_size()) + self._clock.ending_length()

    def first_result_seconds(self, tenant: str, service_class: ServiceClass) -> float:
        """Until a search that came now could be ended with a result, estimated."""
        places = self._worker_count * self._clock.batch_limit(self._max_batch)
        chunks = self._queue.count_before(tenant, service_class) // places
        chunks += math.ceil(len(self._calls) / self._worker_count)
        chunk = self._clock.chunk_length(self._batch_size())
        return chunks * chunk + self._clock.step_seconds(1) + self._clock.ending_length()

    def whole_seconds(
        self, items: Sequence[SearchItem], tenant: str, service_class: ServiceClass
    ) -> float:
        """Until all of ``items`` would be done, estimated; a guess would turn too many away.

        What misses its deadline has cost as much as what meets it, so the estimate is cautious.
        """
        first = self.first_result_seconds(tenant, service_class)
        if not self._clock.has_measured:
            return first
        steps = sum(item.step_count for item in items)
        alone = max(item.step_count for item in items) * self._clock.step_seconds(1)
        shared = _CAUTION * (steps + self._steps_left()) * self._image_step_seconds()
        return first + max(alone, shared)

    def positions(self, service_class: ServiceClass) -> dict[int, int]:
        """See `SearchQueue.positions`."""
        return self._queue.positions(service_class)

    async def close(self) -> None:
        """Stops at once; searches still running fail with MODEL_NOT_READY."""
        if self._loop_task is None:
            return
        tasks = [self._loop_task, *self._calls]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._fail_all(not_ready(self._model, "shutting down"))

    def _admit(self, job: Job) -> None:
        job.future.add_done_callback(lambda _: self._settle(job))
        self._queue.add(job)
        self._start()

    def _start(self) -> None:
        if self._loop_task is None:
            loop = asyncio.get_running_loop()
            self._loop_task = loop.create_task(self._work(), name=f"searches of {self._model}")
        self._wake.set()

    def _settle(self, job: Job) -> None:
        """Out of the queue once it is over and no worker has it; only then its place is free."""
        future = job.future
        is_ended = not future.cancelled() and future.exception() is None  # seen, whoever has left
        if isinstance(job, Search):
            if is_ended:
                self._tell_end(job, future.result())
            elif future.cancelled() and not job.is_answered:
                self._metrics.search_cancelled(self._model)
        job.when_returned(lambda: self._remove(job))

    def _remove(self, job: Job) -> None:
        self._queue.remove(job)
        self._wake.set()

    def _tell_end(self, search: Search, result: SearchResult) -> None:
        end = result.end
        self._metrics.search_ended(
            self._model, search.item.goal, end.status, steps=end.steps, rmse=end.rmse
        )

    def _tell_load(self) -> None:
        active = sum(job.is_started for job in self._queue)
        self._metrics.set_load(
            self._model,
            active=active,
            waiting=len(self._queue) - active,
            pending_seconds=self._steps_left() * self._image_step_seconds(),
        )

    def _batch_size(self) -> int:
        """Of the next chunk at most: the workers share what there is."""
        share = math.ceil(len(self._queue) / self._worker_count)
        return max(1, min(self._clock.batch_limit(self._max_batch), share))

    def _image_step_seconds(self) -> float:
        """Of one step of one search, with full batches and all workers at it."""
        size = self._clock.batch_limit(self._max_batch)
        return self._clock.step_seconds(size) / (size * self._worker_count)

    def _backlog_seconds(self) -> float:
        """Until half of what is queued is done, whole seconds, at least 1."""
        seconds = self._steps_left() * self._image_step_seconds()
        return float(max(1, math.ceil(seconds / 2)))

    def _steps_left(self) -> int:
        return sum(search.steps_left for search in self._queue)

    async def _work(self) -> None:
        while True:
            self._wake.clear()
            await asyncio.sleep(max(0.0, self._resume_at - time.monotonic()))
            while len(self._calls) < self._worker_count and self._launch():
                pass
            self._tell_load()
            await self._wake.wait()

    def _launch(self) -> bool:
        """Sends the next call on its way; False where there is nothing to send."""
        work = self._next_endings() or self._next_chunk()
        if work is None:
            return False
        task = asyncio.create_task(work)
        self._calls.add(task)
        task.add_done_callback(self._returned)
        return True

    def _returned(self, task: "asyncio.Task[None]") -> None:
        self._calls.discard(task)
        self._wake.set()

    def _next_endings(self) -> Coroutine[Any, Any, None] | None:
        self._endings = [one for one in self._endings if not one.settle_with_search()]
        if not self._endings:
            return None
        endings = self._endings[: self._max_batch]
        self._endings = self._endings[self._max_batch :]
        return self._end(endings)

    def _next_chunk(self) -> Coroutine[Any, Any, None] | None:
        size = self._batch_size()
        batch = self._queue.next_batch(size, self._clock.chunk_length(size))
        if not batch:
            return None
        for job in batch:
            job.is_in_flight = True
            if isinstance(job, Search) and not job.is_started:
                self._metrics.search_started(self._model, job.age_seconds)
            job.is_started = True
        return self._chunk(batch)

    async def _chunk(self, batch: list[Job]) -> None:
        is_saliency_job = isinstance(batch[0], SaliencyJob)
        before = [job.step for job in batch]
        chunk_steps = 0
        if not is_saliency_job:
            service_class = batch[0].service_class
            chunk_steps = self._clock.begin(service_class, len(batch), has_newcomer=0 in before)
        begun = time.perf_counter()
        try:
            items = [job.packed(chunk_steps) for job in batch]
            with self._span(batch, chunk_steps):
                answers = await self._call(items)
        except WorkerUnavailable as err:
            self._strike(batch, err)
        except Exception as err:
            _fail(batch, err)
        else:
            seconds = time.perf_counter() - begun
            after = [one.take(answer) for one, answer in zip(batch, answers, strict=True)]
            taken = [max(0, end - begin) for begin, end in zip(before, after, strict=True)]
            self._charge(batch, taken, seconds)
            # An errand takes no step of a search, but whoever came meanwhile waited as long.
            steps = 0 if is_saliency_job else max(taken)
            self._clock.record(len(batch), steps, seconds, is_cut=steps < chunk_steps)
            if not is_saliency_job:
                self._tell_chunk(batch, before, taken, seconds)
        finally:
            for job in batch:
                job.land()

    def _tell_chunk(
        self, batch: Sequence[Job], before: list[int], taken: list[int], seconds: float
    ) -> None:
        self._metrics.chunk_ended(self._model, len(batch), seconds)
        for search, begin, steps in zip(batch, before, taken, strict=True):
            if begin == 0 < steps:
                self._metrics.search_progressed(self._model, search.age_seconds)

    def _charge(self, batch: Sequence[Job], steps: list[int], seconds: float) -> None:
        """Shares ``seconds`` of a worker out over the batch by the steps each was taken."""
        for job, count in zip(batch, steps, strict=True):
            job.deaths = 0
            cost = seconds * count / max(1, sum(steps))
            self._queue.charge(job, cost)
            self._metrics.computed(job.tenant, cost)
            self._on_charge(job.tenant, cost)

    def _span(self, batch: Sequence[Job], steps: int) -> AbstractContextManager[object]:
        attributes = {
            "candor.model": self._model,
            "candor.searches": len(batch),
            "candor.steps": steps,
        }
        parents = [job.trace for job in batch]
        return shared_span(self._tracer, "chunk", parents, attributes)

    async def _end(self, endings: list[Ending]) -> None:
        """A call of its own that takes no step: soon back, and it delays the others little."""
        begun = time.perf_counter()
        try:
            searches = [ending.search for ending in endings]
            with self._span(searches, 0):
                answers = await self._call([search.packed(0) for search in searches])
        except WorkerUnavailable as err:
            self._endings = endings + self._endings
            self._note_absence(err)
        except Exception as err:
            _fail(endings, err)
        else:
            self._clock.record_ending(time.perf_counter() - begun)
            for ending, answer in zip(endings, answers, strict=True):
                result = ending.take(answer)
                if result is not None and result.is_partial:
                    ending.search.is_answered = True
                    self._tell_end(ending.search, result)
                    self._metrics.search_cut(self._model)

    async def _call(self, items: list[bytes]) -> list[bytes]:
        answers = await self._backend.call(self._model, "search", items)
        if len(answers) != len(items):
            raise WorkerFault(f"got {len(answers)} answers to {len(items)} searches")
        self._forget_absence()
        return answers

    def _strike(self, batch: list[Job], err: WorkerUnavailable) -> None:
        """The chunk will be repeated; a search that keeps killing its worker will not."""
        if isinstance(err, WorkerDied):
            for search in batch:
                search.deaths += 1
                if search.deaths >= POISONED_DEATHS:
                    message = (
                        f"its worker died {search.deaths} times in a row, at last alone with it"
                    )
                    search.fail(ServiceError(ErrorCode.SEARCH_FAILED, message))
        self._note_absence(err)

    def _note_absence(self, err: WorkerUnavailable) -> None:
        pause = next(self._pauses)
        now = time.monotonic()
        self._away_since = min(self._away_since, now)
        self._resume_at = now + pause
        if self._resume_at > self._away_since + self._worker_retry_seconds:
            # All of them: every other batch would only wait as long and fail as well.
            self._fail_all(not_ready(self._model, str(err)))
            self._forget_absence()

    def _forget_absence(self) -> None:
        self._pauses = pauses()
        self._away_since = math.inf
        self._resume_at = 0.0

    def _fail_all(self, error: ServiceError) -> None:
        _fail([*self._queue, *self._endings], error)


def _fail(waiting: Sequence[Job | Ending], error: Exception) -> None:
    known = as_service_error(error) if isinstance(error, WorkerFault) else error
    for one in waiting:
        one.fail(known)
