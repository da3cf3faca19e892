"""What flies to workers: a search between two chunks, or an errand."""

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from opentelemetry.context import Context, get_current
from pydantic import ValidationError

from candor.contracts import wire
from candor.contracts.errors import ErrorCode, FieldViolation, ServiceError, invalid_input
from candor.contracts.worker import (
    ANSWER_ADAPTER,
    Answer,
    CompareAnswer,
    CompareItem,
    ItemError,
    SearchEnd,
    SearchItem,
    SearchProgress,
)
from candor.gateway.access.request_context import Priority
from candor.gateway.workers.protocol import WorkerFault

Arrays = Mapping[str, NDArray[Any]]
_SALIENCIES = {"saliency", "perturbed_saliency"}


class ServiceClass(NamedTuple):
    """Searches that share a turn: of one class, and short or long."""

    priority: Priority
    is_long: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchResult:
    """A finished search: ``image`` (C, H, W), logits (V,), all float32.

    Attributes:
        is_partial: ended before its last step because nobody could wait longer.
    """

    end: SearchEnd
    image: NDArray[np.float32]
    logits_before: NDArray[np.float32]
    logits_after: NDArray[np.float32]
    is_partial: bool = False

    @property
    def byte_count(self) -> int:
        return self.image.nbytes + self.logits_before.nbytes + self.logits_after.nbytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """Saliencies (H, W) float32 of an image and of its perturbed twin, and their scores."""

    scores: CompareAnswer
    saliency: NDArray[np.float32]
    perturbed_saliency: NDArray[np.float32]


@dataclass(slots=True, eq=False, weakref_slot=True, kw_only=True)
class Job(ABC):
    """What waits for its turn with a worker; mutable, owned by its scheduler.

    Attributes:
        future: the result; cancel it to end the work with the call under way.
        number: counts up in the order of admission.
        deaths: worker deaths in a row with this one aboard.
        is_flying: a worker has it now.
        trace: the span of the request that ordered it first.
        admitted: `time.monotonic` of its admission.
        is_started: a worker has had it.
    """

    future: asyncio.Future[Any]
    service_class: ServiceClass
    tenant: str
    number: int
    deaths: int = 0
    is_in_flight: bool = False
    trace: Context = field(default_factory=get_current)
    admitted: float = field(default_factory=time.monotonic)
    is_started: bool = False
    _on_return: list[Callable[[], None]] = field(default_factory=list)

    @property
    def age_seconds(self) -> float:
        """Since its admission."""
        return time.monotonic() - self.admitted

    @property
    @abstractmethod
    def step(self) -> int:
        """Steps done so far."""

    @property
    @abstractmethod
    def steps_left(self) -> int:
        """Search steps still to take."""

    @abstractmethod
    def packed(self, chunk_steps: int) -> bytes:
        """The item to send."""

    @abstractmethod
    def take(self, message: bytes) -> int:
        """Files the answer; returns the steps done by now."""

    def when_returned(self, call: Callable[[], None]) -> None:
        """Calls once no worker has this search any more, now if none has."""
        if self.is_in_flight:
            self._on_return.append(call)
        else:
            call()

    def land(self) -> None:
        self.is_in_flight = False
        waiting, self._on_return = self._on_return, []
        for call in waiting:
            call()

    def fail(self, error: Exception) -> None:
        if not self.future.done():
            self.future.set_exception(error)


@dataclass(slots=True, eq=False, kw_only=True)
class Search(Job):
    """Flies chunk by chunk, with others.

    Attributes:
        arrays: the image, and what a worker sent last of the state.
        progress: what the worker said of that state; None before the first chunk.
        is_answered: its best so far was asked for and given.
    """

    item: SearchItem
    arrays: Arrays
    progress: SearchProgress | None = None
    is_answered: bool = False

    @property
    def step(self) -> int:
        return self.item.step

    @property
    def steps_left(self) -> int:
        return self.item.step_count - self.item.step

    def packed(self, chunk_steps: int) -> bytes:
        meta = self.item.model_copy(update={"chunk_steps": chunk_steps})
        return wire.pack(meta.model_dump(mode="json"), self.arrays)

    def take(self, message: bytes) -> int:
        if self.future.done():
            return self.item.step
        try:
            answer, arrays = read_answer(message)
            if isinstance(answer, SearchProgress):
                return self._go_on(answer, arrays)
            result = read_end(answer, arrays)
        except (WorkerFault, ServiceError) as err:
            self.fail(as_service_error(err))
            return self.item.step
        self.future.set_result(result)
        return result.end.steps

    def _go_on(self, progress: SearchProgress, arrays: Arrays) -> int:
        if progress.step <= self.item.step:
            raise WorkerFault("search does not advance")
        self.item = self.item.model_copy(update={"step": progress.step})
        self.progress, self.arrays = progress, {**arrays, "image": self.arrays["image"]}
        return progress.step


@dataclass(slots=True, eq=False, kw_only=True)
class SaliencyJob(Job):
    """One call of its own and no more: a saliency."""

    item: CompareItem
    arrays: Arrays

    @property
    def step(self) -> int:
        return 0

    @property
    def steps_left(self) -> int:
        return 0

    def packed(self, chunk_steps: int) -> bytes:
        return wire.pack(self.item.model_dump(mode="json"), self.arrays)

    def take(self, message: bytes) -> int:
        if not self.future.done():
            try:
                self.future.set_result(_read_compared(*read_answer(message)))
            except (WorkerFault, ServiceError) as err:
                self.fail(as_service_error(err))
        return 1


@dataclass(slots=True, eq=False)
class Ending:
    """A search to be ended where it is, while it may go on for others."""

    search: Search
    future: asyncio.Future[SearchResult]

    def take(self, message: bytes) -> SearchResult | None:
        """Files the answer; the result where somebody still waits and there is one."""
        if self.future.done():
            return None
        try:
            result = read_end(*read_answer(message))
        except (WorkerFault, ServiceError) as err:
            self.fail(as_service_error(err))
            return None
        is_partial = result.end.steps < self.search.item.step_count
        result = replace(result, is_partial=is_partial)
        self.future.set_result(result)
        return result

    def fail(self, error: Exception) -> None:
        if not self.future.done():
            self.future.set_exception(error)

    def settle_with_search(self) -> bool:
        """The search's own result where it has one by now."""
        ended = self.search.future
        if not self.future.done() and ended.done() and not ended.cancelled():
            error = ended.exception()
            if error is None:
                self.future.set_result(ended.result())
            else:
                self.future.set_exception(error)
        return self.future.done()


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


def read_end(answer: Answer, arrays: Arrays) -> SearchResult:
    """The result of a search that a worker says has ended.

    Raises:
        ServiceError: the worker refused the item.
        WorkerFault: it said something else.
    """
    if isinstance(answer, ItemError):
        raise item_error(answer)
    if not isinstance(answer, SearchEnd):
        raise WorkerFault(f"got {answer.kind}")
    try:
        return SearchResult(
            end=answer,
            image=arrays["image"],
            logits_before=arrays["logits_before"],
            logits_after=arrays["logits_after"],
        )
    except KeyError as err:
        raise WorkerFault(f"got arrays {sorted(arrays)}") from err


def _read_compared(answer: Answer, arrays: Arrays) -> Compared:
    if isinstance(answer, ItemError):
        raise item_error(answer)
    if not isinstance(answer, CompareAnswer) or not arrays.keys() >= _SALIENCIES:
        raise WorkerFault(f"got {answer.kind} with {sorted(arrays)} to a compare item")
    return Compared(scores=answer, **{name: arrays[name] for name in _SALIENCIES})


def item_error(answer: ItemError) -> ServiceError:
    """What the caller is told of an item that a worker refused."""
    if answer.is_internal:
        return ServiceError(ErrorCode.INTERNAL, f"{answer.field}: {answer.message}")
    return invalid_input([FieldViolation(answer.field, answer.message)])


def as_service_error(err: WorkerFault | ServiceError) -> ServiceError:
    if isinstance(err, ServiceError):
        return err
    return ServiceError(ErrorCode.INTERNAL, f"worker: {err}")
