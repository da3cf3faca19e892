"""Continuous batching of searches, one scheduler a model.  Imports contracts and the backend.

A search travels in chunks: pack what runs into one call, "advance these by k steps", take the
states back.  A newcomer joins at the next chunk and a finished one leaves.  The state lives here,
so a killed worker costs one repeated chunk and a cancelled search simply gets no next one.
"""

import asyncio
import contextlib
import math
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from candor.contracts import wire
from candor.contracts.errors import ErrorCode, FieldViolation, ServiceError, invalid_input
from candor.contracts.worker import (
    ANSWER_ADAPTER,
    Answer,
    ItemError,
    SearchEnd,
    SearchItem,
    SearchProgress,
)
from gateway.backend import WorkerBackend, WorkerFault, WorkerUnavailable, not_ready, pauses

FIRST_CHUNK_STEPS = 5
MAX_CHUNK_STEPS = 50
_NEW_SHARE = 0.3  # weight of the newest measurement in the average
_FALLBACK_STEP_SECONDS = 0.015  # before anything was measured; only for the hint when to retry

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchResult:
    """A finished search: ``image`` (C, H, W), logits (V,), all float32."""

    end: SearchEnd
    image: NDArray[np.float32]
    logits_before: NDArray[np.float32]
    logits_after: NDArray[np.float32]


@dataclass(slots=True, eq=False)
class _Search:
    """One search between two chunks; mutable, owned by its scheduler."""

    item: SearchItem
    arrays: Arrays
    future: asyncio.Future[SearchResult]

    def packed(self, chunk_steps: int) -> bytes:
        meta = self.item.model_copy(update={"chunk_steps": chunk_steps})
        return wire.pack(meta.model_dump(mode="json"), self.arrays)


class ChunkClock:
    """How many steps fill a chunk, from the measured seconds a step at each batch size."""

    def __init__(self, chunk_seconds: float) -> None:
        self._chunk_seconds = chunk_seconds
        self._step_seconds: dict[int, float] = {}

    def steps(self, batch_size: int) -> int:
        if not self._step_seconds:
            return FIRST_CHUNK_STEPS
        wanted = int(self._chunk_seconds / self.step_seconds(batch_size))
        return min(MAX_CHUNK_STEPS, max(1, wanted))

    def step_seconds(self, batch_size: int) -> float:
        """Of one step of the whole batch; the nearest size measured stands in for a new one."""
        if not self._step_seconds:
            return _FALLBACK_STEP_SECONDS
        nearest = min(self._step_seconds, key=lambda size: abs(size - batch_size))
        return self._step_seconds[nearest]

    def record(self, batch_size: int, step_count: int, seconds: float) -> None:
        if step_count < 1:
            return
        measured = max(seconds / step_count, 1e-6)
        known = self._step_seconds.get(batch_size, measured)
        self._step_seconds[batch_size] = known + _NEW_SHARE * (measured - known)


class SearchScheduler:
    """Runs the searches of one model; make and use it inside one event loop."""

    def __init__(
        self,
        backend: WorkerBackend,
        model: str,
        *,
        max_batch: int = 32,
        max_waiting: int = 512,
        chunk_seconds: float = 0.075,
        worker_retry_seconds: float = 60.0,
    ) -> None:
        self._backend = backend
        self._model = model
        self._max_batch = max_batch
        self._max_waiting = max_waiting
        self._worker_retry_seconds = worker_retry_seconds
        self._clock = ChunkClock(chunk_seconds)
        self._active: list[_Search] = []
        self._waiting: deque[_Search] = deque()
        self._wake = asyncio.Event()
        self._loop_task: asyncio.Task[None] | None = None

    async def run(
        self, items: Sequence[SearchItem], image: NDArray[np.float32]
    ) -> list[SearchResult]:
        """The results of ``items``, all of one picture, in order.

        Cancelling the caller, or the failure of one item, ends the others with their chunk.

        Raises:
            ServiceError: OVERLOADED at once; else that of the first item to fail.
        """
        searches = self._admit(items, image)
        try:
            return await asyncio.gather(*(search.future for search in searches))
        finally:
            for search in searches:
                search.future.cancel()

    async def close(self) -> None:
        """Stops at once; searches still running fail with MODEL_NOT_READY."""
        if self._loop_task is None:
            return
        self._loop_task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._loop_task
        self._fail([*self._active, *self._waiting], not_ready(self._model, "shutting down"))

    def _admit(self, items: Sequence[SearchItem], image: NDArray[np.float32]) -> list[_Search]:
        self._drop_done()
        free = self._max_batch - len(self._active) + self._max_waiting - len(self._waiting)
        if len(items) > free:
            raise self._overloaded(len(items))
        loop = asyncio.get_running_loop()
        searches = [_Search(item, {"image": image}, loop.create_future()) for item in items]
        self._waiting.extend(searches)
        if self._loop_task is None:
            self._loop_task = loop.create_task(self._work(), name=f"searches of {self._model}")
        self._wake.set()
        return searches

    def _overloaded(self, count: int) -> ServiceError:
        message = (
            f"model {self._model!r}: got {count} more searches with {len(self._waiting)} waiting, "
            f"allowed {self._max_waiting} waiting"
        )
        return ServiceError(ErrorCode.OVERLOADED, message, retry_seconds=self._backlog_seconds())

    def _backlog_seconds(self) -> float:
        """Until half of what is queued is done, whole seconds, at least 1."""
        queued = [*self._active, *self._waiting]
        steps = sum(search.item.step_count - search.item.step for search in queued)
        seconds = steps * self._clock.step_seconds(self._max_batch) / self._max_batch
        return float(max(1, math.ceil(seconds / 2)))

    async def _work(self) -> None:
        while True:
            self._wake.clear()
            while self._next_batch():
                try:
                    await self._chunk_until_answered()
                except Exception as err:  # our own mistake: fail these searches, keep serving
                    self._fail(self._active, err)
            await self._wake.wait()

    def _drop_done(self) -> None:
        self._active = [search for search in self._active if not search.future.done()]
        self._waiting = deque(search for search in self._waiting if not search.future.done())

    def _next_batch(self) -> list[_Search]:
        """Fills free places first come, first served; what was cancelled or finished is gone."""
        self._drop_done()
        while self._waiting and len(self._active) < self._max_batch:
            self._active.append(self._waiting.popleft())
        return self._active

    async def _chunk_until_answered(self) -> None:
        """One chunk, asked again while the worker is away; newcomers join, the cancelled leave."""
        give_up = time.monotonic() + self._worker_retry_seconds
        for pause in pauses():
            batch = list(self._next_batch())
            try:
                await self._chunk(batch)
                return
            except WorkerFault as err:
                self._fail(batch, ServiceError(ErrorCode.INTERNAL, f"worker: {err}"))
                return
            except WorkerUnavailable as err:
                if time.monotonic() + pause > give_up:
                    # The waiting ones too: each batch would only wait as long and fail as well.
                    self._fail([*batch, *self._waiting], not_ready(self._model, str(err)))
                    return
            await asyncio.sleep(pause)

    async def _chunk(self, batch: list[_Search]) -> None:
        if not batch:
            return
        chunk_steps = self._clock.steps(len(batch))
        packed = [search.packed(chunk_steps) for search in batch]
        steps_before = [search.item.step for search in batch]
        started = time.perf_counter()
        answers = await self._backend.call(self._model, "search", packed)
        seconds = time.perf_counter() - started
        if len(answers) != len(batch):
            raise WorkerFault(f"got {len(answers)} answers to {len(batch)} searches")
        steps_after = [_take(*pair) for pair in zip(batch, answers, strict=True)]
        taken = max(after - before for after, before in zip(steps_after, steps_before, strict=True))
        self._clock.record(len(batch), taken, seconds)

    def _fail(self, searches: Sequence[_Search], error: Exception) -> None:
        for search in searches:
            if not search.future.done():
                search.future.set_exception(error)


def _take(search: _Search, message: bytes) -> int:
    """Files one answer with its search; returns the steps the search has done by now."""
    try:
        answer, arrays = read_answer(message)
    except WorkerFault as err:
        return _end(search, ServiceError(ErrorCode.INTERNAL, f"worker: {err}"))
    if isinstance(answer, SearchProgress):
        if answer.step <= search.item.step:
            return _end(search, ServiceError(ErrorCode.INTERNAL, "worker: search does not advance"))
        search.item = search.item.model_copy(update={"step": answer.step})
        search.arrays = arrays
        return answer.step
    if isinstance(answer, SearchEnd):
        _finish(search, answer, arrays)
        return answer.steps
    if isinstance(answer, ItemError):
        return _end(search, item_error(answer))
    return _end(search, ServiceError(ErrorCode.INTERNAL, f"worker: got {answer.kind}"))


def _end(search: _Search, error: ServiceError) -> int:
    if not search.future.done():
        search.future.set_exception(error)
    return search.item.step


def _finish(search: _Search, end: SearchEnd, arrays: Arrays) -> None:
    if search.future.done():
        return
    try:
        search.future.set_result(SearchResult(end=end, **arrays))
    except TypeError:
        _end(search, ServiceError(ErrorCode.INTERNAL, f"worker: got arrays {sorted(arrays)}"))


def read_answer(message: bytes) -> tuple[Answer, dict[str, NDArray[Any]]]:
    """Answer and arrays of one item.

    Raises:
        WorkerFault: not of the contract.
    """
    try:
        meta, arrays = wire.unpack(message)
        return ANSWER_ADAPTER.validate_python(meta), arrays
    except (wire.WireError, ValidationError) as err:
        raise WorkerFault(f"unreadable answer: {str(err)[:200]}") from err


def item_error(answer: ItemError) -> ServiceError:
    """What the caller is told of an item that a worker refused."""
    if answer.is_internal:
        return ServiceError(ErrorCode.INTERNAL, f"{answer.field}: {answer.message}")
    return invalid_input([FieldViolation(answer.field, answer.message)])
