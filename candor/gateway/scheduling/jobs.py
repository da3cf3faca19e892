"""The work that is sent to workers: a search between two chunks, or a saliency job."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from opentelemetry.context import Context, get_current
from pydantic import BaseModel

from candor.contracts.errors import ServiceError
from candor.contracts.worker import CompareItem, CompareProgress, SearchItem, SearchProgress
from candor.gateway.access.request_context import Priority
from candor.gateway.workers.codec import (
    Arrays,
    SearchOutcome,
    as_service_error,
    read_answer,
    read_end,
    read_saliencies,
)
from candor.gateway.workers.protocol import WorkerFault

_GIVEN = ("image", "mask")  # what a search begins with and keeps


class ServiceClass(NamedTuple):
    """Jobs that share a turn: those of one priority, short or long."""

    priority: Priority
    is_long: bool


@dataclass(slots=True, eq=False, weakref_slot=True, kw_only=True)
class Job(ABC):
    """Work that waits for its turn with a worker; mutable, owned by its scheduler.

    Attributes:
        future: the result; cancel it to end the work with the call under way.
        number: counts up in the order of admission.
        admitted: when it was admitted, in the time of the scheduler's clock.
        deaths: worker deaths in a row with this job in the batch.
        is_in_flight: a worker has it now.
        trace: the span of the request that submitted it first.
        is_started: a worker has had it.
    """

    future: asyncio.Future[Any]
    service_class: ServiceClass
    tenant: str
    number: int
    admitted: float
    deaths: int = 0
    is_in_flight: bool = False
    trace: Context = field(default_factory=get_current)
    is_started: bool = False
    _on_return: list[Callable[[], None]] = field(default_factory=list)

    @property
    @abstractmethod
    def step(self) -> int:
        """Steps done so far."""

    @property
    @abstractmethod
    def byte_count(self) -> int:
        """Bytes of its arrays."""

    @property
    @abstractmethod
    def steps_left(self) -> int:
        """Search steps still to take."""

    @abstractmethod
    def parts(self, chunk_steps: int) -> tuple[BaseModel, Arrays]:
        """What to send, an item and its arrays; neither is ever changed."""

    @abstractmethod
    def take(self, message: bytes) -> int:
        """Stores the worker's answer; returns the steps done by now."""

    def when_returned(self, call: Callable[[], None]) -> None:
        """Calls once no worker has this job any more, at once if none has it now."""
        if self.is_in_flight:
            self._on_return.append(call)
        else:
            call()

    def mark_returned(self) -> None:
        """Says that no worker has this job any more."""
        self.is_in_flight = False
        waiting, self._on_return = self._on_return, []
        for call in waiting:
            call()

    def fail(self, error: Exception) -> None:
        """Ends the job with ``error``, unless it is over already."""
        _fail(self.future, error)


@dataclass(slots=True, eq=False, kw_only=True)
class Search(Job):
    """A search; it travels chunk by chunk, in a batch with others.

    Attributes:
        arrays: image and mask, and the state as a worker sent it last.
        progress: what the worker said of that state; None before the first chunk.
        is_answered: its best so far was requested and delivered.
    """

    item: SearchItem
    arrays: Arrays
    progress: SearchProgress | None = None
    is_answered: bool = False

    @property
    def step(self) -> int:
        return self.item.step

    @property
    def byte_count(self) -> int:
        return _byte_count(self.arrays)

    @property
    def steps_left(self) -> int:
        return self.item.step_count - self.item.step

    def parts(self, chunk_steps: int) -> tuple[BaseModel, Arrays]:
        return self.item.model_copy(update={"chunk_steps": chunk_steps}), self.arrays

    def take(self, message: bytes) -> int:
        if self.future.done():
            return self.item.step
        try:
            answer, arrays = read_answer(message)
            if isinstance(answer, SearchProgress):
                return self._advance(answer, arrays)
            outcome = read_end(answer, arrays)
        except (WorkerFault, ServiceError) as err:
            self.fail(as_service_error(err))
            return self.item.step
        self.future.set_result(outcome)
        return outcome.end.steps

    def _advance(self, progress: SearchProgress, arrays: Arrays) -> int:
        if progress.step <= self.item.step:
            raise WorkerFault("search does not advance")
        self.item = self.item.model_copy(update={"step": progress.step})
        given = {name: self.arrays[name] for name in _GIVEN if name in self.arrays}
        self.progress, self.arrays = progress, {**arrays, **given}
        return progress.step


@dataclass(slots=True, eq=False, kw_only=True)
class SaliencyJob(Job):
    """One method's saliency of a comparison: its calls have no other job in the batch.

    Attributes:
        arrays: those of the item, with what the last call computed.
    """

    item: CompareItem
    arrays: Arrays

    @property
    def step(self) -> int:
        return self.item.part

    @property
    def byte_count(self) -> int:
        return _byte_count(self.arrays)

    @property
    def steps_left(self) -> int:
        return 0

    def parts(self, chunk_steps: int) -> tuple[BaseModel, Arrays]:
        return self.item, self.arrays

    def take(self, message: bytes) -> int:
        part = self.item.part + 1
        if not self.future.done():
            try:
                answer, arrays = read_answer(message)
                found = read_saliencies(answer, arrays)
            except (WorkerFault, ServiceError) as err:
                self.fail(as_service_error(err))
                return part
            if isinstance(found, CompareProgress):
                self.item = self.item.model_copy(update={"part": part})
                self.arrays = {**self.arrays, **arrays}
            else:
                self.future.set_result(found)
        return part


@dataclass(slots=True, eq=False)
class Ending:
    """A request for the best of a search so far, while the search may go on for others.

    Attributes:
        deadline: when it was promised, in the time of the scheduler's clock.
    """

    search: Search
    future: asyncio.Future[SearchOutcome]
    deadline: float

    def take(self, message: bytes) -> SearchOutcome | None:
        """Stores the worker's answer; returns the outcome where there is one and it is awaited."""
        if self.future.done():
            return None
        try:
            outcome = read_end(*read_answer(message))
        except (WorkerFault, ServiceError) as err:
            self.fail(as_service_error(err))
            return None
        is_partial = outcome.end.steps < self.search.item.step_count
        outcome = replace(outcome, is_partial=is_partial)
        self.future.set_result(outcome)
        return outcome

    def fail(self, error: Exception) -> None:
        """Ends the request with ``error``, unless it is over already."""
        _fail(self.future, error)

    def settle_with_search(self) -> bool:
        """Takes the search's own outcome where it has ended; returns whether this is over."""
        ended = self.search.future
        if not self.future.done() and ended.done() and not ended.cancelled():
            error = ended.exception()
            if error is None:
                self.future.set_result(ended.result())
            else:
                self.future.set_exception(error)
        return self.future.done()


def _byte_count(arrays: Arrays) -> int:
    return sum(array.nbytes for array in arrays.values())


def _fail(future: asyncio.Future[Any], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
