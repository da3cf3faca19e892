"""The loop that sends calls to the workers of one model and takes them back."""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any

from pydantic import BaseModel

from candor.contracts.errors import ServiceError
from candor.gateway.clock import Clock
from candor.gateway.pools import CHUNKS, run_if_large
from candor.gateway.scheduling.jobs import Ending, Job, Search
from candor.gateway.scheduling.options import SchedulerOptions
from candor.gateway.scheduling.outage import Outage, count_death
from candor.gateway.scheduling.plan import Chunk, Plan
from candor.gateway.scheduling.telemetry import Telemetry
from candor.gateway.workers.codec import Arrays, as_service_error, pack_item
from candor.gateway.workers.protocol import (
    WorkerBackend,
    WorkerDied,
    WorkerFault,
    WorkerUnavailable,
)
from candor.gateway.workers.retry import not_ready


class Dispatcher:
    """Sends chunks and endings while there are any, as many calls at once as there are workers."""

    def __init__(
        self,
        backend: WorkerBackend,
        model: str,
        options: SchedulerOptions,
        *,
        plan: Plan,
        telemetry: Telemetry,
        clock: Clock,
    ) -> None:
        self._backend = backend
        self._model = model
        self._options = options
        self._plan = plan
        self._telemetry = telemetry
        self._clock = clock
        self._outage = Outage(clock, options.worker_retry_seconds)
        self._endings: list[Ending] = []
        self._calls: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._changed: asyncio.Future[None] | None = None
        self._loop_task: asyncio.Task[None] | None = None

    @property
    def call_count(self) -> int:
        """Calls in flight."""
        return len(self._calls)

    def changed(self) -> asyncio.Future[None]:
        """Is done when the next call is sent or back; all who ask meanwhile get the same."""
        if self._changed is None:
            self._changed = asyncio.get_running_loop().create_future()
        return self._changed

    def wake(self) -> None:
        """Looks at the queue again; the first time starts the loop."""
        if self._loop_task is None:
            loop = asyncio.get_running_loop()
            self._loop_task = loop.create_task(self._run(), name=f"searches of {self._model}")
        self._wake.set()

    def end(self, ending: Ending) -> None:
        """Sends a call for the best of a search so far, before the next chunk."""
        self._endings.append(ending)
        self.wake()

    async def close(self) -> None:
        """Stops at once; whatever has not ended fails with MODEL_NOT_READY."""
        if self._loop_task is None:
            return
        tasks = [self._loop_task, *self._calls]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._fail_all(not_ready(self._model, "shutting down"))

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            await self._clock.sleep(self._outage.pause_seconds)
            while len(self._calls) < self._options.worker_count and self._launch():
                pass
            self._telemetry.load(self._plan.queue, self._plan.estimates.backlog_seconds)
            await self._wake.wait()

    def _launch(self) -> bool:
        """Sends the next call; False where there is nothing to send."""
        work = self._next_endings() or self._next_chunk()
        if work is None:
            return False
        task = asyncio.create_task(work)
        self._calls.add(task)
        self._note_change()
        task.add_done_callback(self._returned)
        return True

    def _note_change(self) -> None:
        changed, self._changed = self._changed, None
        if changed is not None:
            changed.set_result(None)

    def _returned(self, task: "asyncio.Task[None]") -> None:
        self._calls.discard(task)
        self._note_change()
        self._wake.set()

    def _next_endings(self) -> Coroutine[Any, Any, None] | None:
        limit = self._options.max_batch
        waiting = [ending for ending in self._endings if not ending.settle_with_search()]
        waiting.sort(key=lambda ending: ending.deadline)
        endings, self._endings = waiting[:limit], waiting[limit:]
        return self._send_endings(endings) if endings else None

    def _next_chunk(self) -> Coroutine[Any, Any, None] | None:
        chunk = self._plan.next_chunk()
        if chunk is None:
            return None
        for job in chunk.batch:
            if isinstance(job, Search) and not job.is_started:
                self._telemetry.search_started(job, self._clock.now())
            job.is_started = True
        return self._send_chunk(chunk)

    async def _send_chunk(self, chunk: Chunk) -> None:
        batch, started_at = chunk.batch, self._clock.now()
        try:
            with self._telemetry.span(batch, chunk.steps):
                answers = await self._call(batch, chunk.steps)
        except WorkerUnavailable as err:
            if isinstance(err, WorkerDied):
                count_death(batch)
            self._worker_is_away(err)
        except Exception as err:
            _fail(batch, err)
        else:
            self._take_chunk(chunk, answers, self._clock.now() - started_at)
        finally:
            for job in batch:
                job.mark_returned()

    def _take_chunk(self, chunk: Chunk, answers: Sequence[bytes], seconds: float) -> None:
        """Stores the answers and counts what they cost."""
        after = [job.take(answer) for job, answer in zip(chunk.batch, answers, strict=True)]
        costs = self._plan.returned(chunk, after, seconds)
        for job, (_, cost) in zip(chunk.batch, costs, strict=True):
            self._telemetry.charge(job, cost)
        if chunk.is_of_searches:
            self._telemetry.chunk_ended(len(chunk.batch), seconds)
            self._report_firsts(chunk, [steps for steps, _ in costs])

    def _report_firsts(self, chunk: Chunk, taken: Sequence[int]) -> None:
        for search, step, steps in zip(chunk.batch, chunk.before, taken, strict=True):
            if step == 0 < steps:
                self._telemetry.search_progressed(search, self._clock.now())

    async def _send_endings(self, endings: list[Ending]) -> None:
        """A call of its own that takes no step: it is back soon and delays the others little."""
        started_at = self._clock.now()
        searches = [ending.search for ending in endings]
        try:
            with self._telemetry.span(searches, 0):
                answers = await self._call(searches, 0)
        except WorkerUnavailable as err:
            self._endings = endings + self._endings
            self._worker_is_away(err)
        except Exception as err:
            _fail(endings, err)
        else:
            self._plan.ending_returned(len(endings), self._clock.now() - started_at)
            for ending, answer in zip(endings, answers, strict=True):
                self._take_ending(ending, answer)

    def _take_ending(self, ending: Ending, answer: bytes) -> None:
        outcome = ending.take(answer)
        if outcome is not None and outcome.is_partial:
            ending.search.is_answered = True
            self._telemetry.search_ended(ending.search, outcome)

    async def _call(self, jobs: Sequence[Job], steps: int) -> list[bytes]:
        size = sum(job.byte_count for job in jobs)
        # Taken together here: while a thread packs them, another call may bring a newer state.
        parts = [job.parts(steps) for job in jobs]
        items = await run_if_large(CHUNKS, size, _packed, parts)
        answers = await self._backend.call(self._model, "search", items)
        if len(answers) != len(items):
            raise WorkerFault(f"expected {len(items)} answers, got {len(answers)}")
        self._outage.end()
        return answers

    def _worker_is_away(self, err: WorkerUnavailable) -> None:
        """The call will be repeated, unless workers have been away for too long."""
        if not self._outage.go_on():
            # All of them: every other batch would only wait as long and fail as well.
            self._fail_all(not_ready(self._model, str(err)))
            self._outage.end()

    def _fail_all(self, error: ServiceError) -> None:
        _fail([*self._plan.queue, *self._endings], error)


def _packed(parts: Sequence[tuple[BaseModel, Arrays]]) -> list[bytes]:
    return [pack_item(item, arrays) for item, arrays in parts]


def _fail(waiting: Sequence[Job | Ending], error: Exception) -> None:
    known = as_service_error(error) if isinstance(error, WorkerFault) else error
    for one in waiting:
        one.fail(known)
