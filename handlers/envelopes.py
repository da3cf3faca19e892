"""From TorchServe rows to packed responses; one bad item never harms another."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from candor.contracts import wire
from candor.contracts.violations import violations_of
from candor.contracts.worker import ITEM_ADAPTER, DescribeAnswer, DescribeItem, Item, ItemError
from candor.terms import NotFinite

INPUT_NAME = "items"  # key of TorchServe's input map
_INTERNAL = ItemError(field="", message="the worker failed on this item", is_internal=True)
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Task:
    """An item that can be computed, with its arrays."""

    item: Item
    arrays: Mapping[str, Any]


Check = Callable[[Task], ItemError | None]
Compute = Callable[[Sequence[Task]], Sequence[bytes]]


def answer_rows(
    rows: Sequence[Mapping[str, Any]],
    described: DescribeAnswer,
    check: Check,
    compute: Compute,
) -> list[bytes]:
    """One packed list of responses for each row; never raises.

    Args:
        rows: a TorchServe batch; each holds packed items under `INPUT_NAME`.
        described: the response to who asks what this worker is.
        check: why this role and model cannot serve a task; None where it can.
        compute: packed responses to good tasks, in order; may raise.
    """
    entries = [_read_row(row, described, check) for row in rows]
    tasks = [entry for row in entries for entry in row if isinstance(entry, Task)]
    responses = iter(_compute_all(tasks, compute))
    return [
        wire.pack_list([next(responses) if isinstance(entry, Task) else entry for entry in row])
        for row in entries
    ]


def seal(response: BaseModel, arrays: Mapping[str, Any] | None = None) -> bytes:
    """One response with its arrays, as one message on the wire."""
    return wire.pack(response.model_dump(mode="json"), arrays)


def wrong_kind(item: Item, expected: str) -> ItemError:
    """The response to an item that another worker serves."""
    return ItemError(field="kind", message=f"expected {expected!r}, got {item.kind!r}")


def _read_row(
    row: Mapping[str, Any], described: DescribeAnswer, check: Check
) -> list[Task | bytes]:
    try:
        messages = wire.unpack_list(bytes(row[INPUT_NAME]))
    except KeyError:
        return [seal(ItemError(field=INPUT_NAME, message="missing"))]
    except (wire.WireError, TypeError, ValueError) as err:
        return [seal(ItemError(field=INPUT_NAME, message=str(err)))]
    return [_read_item(message, described, check) for message in messages]


def _read_item(message: bytes, described: DescribeAnswer, check: Check) -> Task | bytes:
    """A task to compute, or the response where there is nothing to compute."""
    try:
        return _task_or_response(message, described, check)
    except wire.WireError as err:
        return seal(ItemError(field="item", message=str(err)))
    except ValidationError as err:
        return seal(_first_violation(err))
    except Exception:
        _LOG.exception("an item could not be read")
        return seal(_INTERNAL)


def _task_or_response(message: bytes, described: DescribeAnswer, check: Check) -> Task | bytes:
    meta, arrays = wire.unpack(message)
    task = Task(ITEM_ADAPTER.validate_python(meta), arrays)
    if isinstance(task.item, DescribeItem):
        return seal(described)
    error = check(task)
    return task if error is None else seal(error)


def _first_violation(err: ValidationError) -> ItemError:
    first = violations_of(err, whole="item")[0]
    return ItemError(field=first.field, message=first.description)


def _compute_all(tasks: Sequence[Task], compute: Compute) -> list[bytes]:
    """In one batch; where that fails one by one, so that only the poisoned item gets an error."""
    if not tasks:
        return []
    try:
        return _responses_of(tasks, compute)
    except Exception as err:
        if len(tasks) == 1 and isinstance(err, NotFinite):
            _LOG.error("%s", err)
            return [seal(ItemError(field="model", message=str(err), is_internal=True))]
        if len(tasks) == 1:
            _LOG.exception("an item could not be computed")
            return [seal(_INTERNAL)]
        _LOG.warning("a batch of %d items failed; retrying one by one", len(tasks))
    return [response for task in tasks for response in _compute_all([task], compute)]


def _responses_of(tasks: Sequence[Task], compute: Compute) -> list[bytes]:
    responses = list(compute(tasks))
    if len(responses) != len(tasks):
        raise RuntimeError(f"expected {len(tasks)} responses, got {len(responses)}")
    return responses
