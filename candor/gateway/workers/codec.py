"""Messages to and from workers: items packed, answers read and checked against the contract."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError

from candor.contracts import wire
from candor.contracts.errors import ErrorCode, FieldViolation, ServiceError, invalid_input
from candor.contracts.violations import sentence
from candor.contracts.worker import (
    ANSWER_ADAPTER,
    PARTIAL,
    Answer,
    CompareAnswer,
    CompareMissing,
    CompareProgress,
    DescribeAnswer,
    ItemError,
    PredictAnswer,
    SearchEnd,
)
from candor.gateway.workers.protocol import WorkerFault

Arrays = Mapping[str, NDArray[Any]]
_SALIENCIES = {"saliency", "perturbed_saliency"}


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchOutcome:
    """How a search ended: ``image`` (C, H, W), logits (V,), all float32.

    Attributes:
        is_partial: the search was ended at a deadline, before its last step.
    """

    end: SearchEnd
    image: NDArray[np.float32]
    logits_before: NDArray[np.float32]
    logits_after: NDArray[np.float32]
    is_partial: bool = False

    @property
    def byte_count(self) -> int:
        """Bytes of all arrays."""
        return self.image.nbytes + self.logits_before.nbytes + self.logits_after.nbytes


@dataclass(frozen=True, slots=True, kw_only=True)
class SaliencyPair:
    """Saliencies (H, W) float32 of an image and of its perturbed twin, and their scores."""

    scores: CompareAnswer
    saliency: NDArray[np.float32]
    perturbed_saliency: NDArray[np.float32]


def pack_item(item: BaseModel, arrays: Arrays | None = None) -> bytes:
    """The message of one item of `candor.contracts.worker` with its arrays."""
    return wire.pack(item.model_dump(mode="json"), arrays)


def read_answer(message: bytes) -> tuple[Answer, dict[str, NDArray[Any]]]:
    """The answer and the arrays of one item.

    Raises:
        WorkerFault: the message does not follow the contract.
    """
    try:
        meta, arrays = wire.unpack(message)
        return ANSWER_ADAPTER.validate_python(meta), arrays
    except wire.WireError as err:
        raise WorkerFault(f"unreadable answer: {str(err)[:200]}") from err
    except ValidationError as err:
        raise WorkerFault(f"unreadable answer: {sentence(err, 'answer')[:200]}") from err


def check_accepted(answer: Answer, arrays: Arrays) -> tuple[Answer, Arrays]:
    """The same answer and arrays.

    Raises:
        ServiceError: the worker rejected the item (INVALID_INPUT) or failed on it (INTERNAL).
    """
    if not isinstance(answer, ItemError):
        return answer, arrays
    if answer.is_internal:
        raise ServiceError(ErrorCode.INTERNAL, f"{answer.field}: {answer.message}")
    raise invalid_input([FieldViolation(answer.field, answer.message)])


def read_end(answer: Answer, arrays: Arrays) -> SearchOutcome:
    """The outcome of a search that has ended.

    Raises:
        ServiceError: the worker rejected the item.
        WorkerFault: the answer is of another kind, or an array is missing.
    """
    check_accepted(answer, arrays)
    if not isinstance(answer, SearchEnd):
        raise _unexpected("a search item", answer, arrays)
    _check_numbers(arrays)
    try:
        return SearchOutcome(
            end=answer,
            image=arrays["image"],
            logits_before=arrays["logits_before"],
            logits_after=arrays["logits_after"],
        )
    except KeyError as err:
        raise _unexpected("a search item", answer, arrays) from err


def read_saliencies(
    answer: Answer, arrays: Arrays
) -> SaliencyPair | CompareProgress | CompareMissing:
    """The saliencies that answer a compare item, how far they are, or why the model has none.

    Raises:
        ServiceError: the worker rejected the item.
        WorkerFault: the answer is of another kind, or an array is missing.
    """
    check_accepted(answer, arrays)
    if isinstance(answer, CompareMissing):
        return answer
    if isinstance(answer, CompareProgress) and arrays.keys() >= {PARTIAL}:
        return answer
    if not isinstance(answer, CompareAnswer) or not arrays.keys() >= _SALIENCIES:
        raise _unexpected("a compare item", answer, arrays)
    _check_numbers(arrays)
    return SaliencyPair(scores=answer, **{name: arrays[name] for name in _SALIENCIES})


def read_logits(answer: Answer, arrays: Arrays) -> NDArray[np.float32]:
    """The logits (V,) that answer a predict item.

    Raises:
        ServiceError: the worker rejected the item.
        WorkerFault: the answer is of another kind, or without logits.
    """
    check_accepted(answer, arrays)
    if not isinstance(answer, PredictAnswer) or "logits" not in arrays:
        raise _unexpected("a predict item", answer, arrays)
    _check_numbers(arrays)
    return np.asarray(arrays["logits"])


def read_description(answer: Answer, arrays: Arrays) -> DescribeAnswer:
    """What a worker says that it is.

    Raises:
        ServiceError: the worker rejected the item.
        WorkerFault: the answer is of another kind.
    """
    check_accepted(answer, arrays)
    if not isinstance(answer, DescribeAnswer):
        raise _unexpected("a describe item", answer, arrays)
    return answer


def as_service_error(err: WorkerFault | ServiceError) -> ServiceError:
    """The error that the client gets: INTERNAL for a fault of the worker."""
    if isinstance(err, ServiceError):
        return err
    return ServiceError(ErrorCode.INTERNAL, f"worker: {err}")


def _check_numbers(arrays: Arrays) -> None:
    """Raises WorkerFault where an array of a result holds NaN or infinity."""
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise WorkerFault(f"{name}: expected finite numbers, got others")


def _unexpected(item: str, answer: Answer, arrays: Arrays) -> WorkerFault:
    return WorkerFault(f"got {answer.kind} with arrays {sorted(arrays)} to {item}")
