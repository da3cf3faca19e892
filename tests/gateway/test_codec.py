"""Messages of workers, read and checked."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from candor.contracts import wire
from candor.contracts.errors import ErrorCode, ServiceError
from candor.contracts.worker import (
    ITEM_ADAPTER,
    DescribeAnswer,
    ItemError,
    PredictAnswer,
    PredictItem,
    SearchEnd,
)
from candor.gateway.workers.codec import (
    as_service_error,
    pack_item,
    read_answer,
    read_description,
    read_end,
    read_logits,
    read_saliencies,
)
from candor.gateway.workers.protocol import WorkerFault
from candor.terms import SearchStatus
from tests.gateway.linear_worker import CARD

READERS = (read_end, read_saliencies, read_logits, read_description)
LOGITS = np.array([0.5, -1.0], np.float32)
END = SearchEnd(status=SearchStatus.FOUND, rmse=0.1, lower_bound=None, steps=3, solver="fast")


def test_item_arrives_as_it_was_packed() -> None:
    image = np.random.default_rng(1).random((3, 4, 5), dtype=np.float32)
    meta, arrays = wire.unpack(pack_item(PredictItem(), {"image": image}))
    assert ITEM_ADAPTER.validate_python(meta) == PredictItem()
    np.testing.assert_array_equal(arrays["image"], image)


def test_every_kind_of_answer_is_read() -> None:
    arrays = {"image": LOGITS, "logits_before": LOGITS, "logits_after": -LOGITS}
    outcome = read_end(*read_answer(pack_item(END, arrays)))
    assert outcome.end == END
    assert not outcome.is_partial
    assert outcome.byte_count == 3 * LOGITS.nbytes
    np.testing.assert_array_equal(outcome.logits_after, -LOGITS)
    answer = read_answer(pack_item(PredictAnswer(), {"logits": LOGITS}))
    np.testing.assert_array_equal(read_logits(*answer), LOGITS)
    answer = DescribeAnswer(card=CARD)
    assert read_description(*read_answer(pack_item(answer))) == answer


@pytest.mark.parametrize("message", [b"", b"Prediction failed", wire.pack({"kind": "other"})])
def test_message_outside_the_contract_is_a_fault(message: bytes) -> None:
    with pytest.raises(WorkerFault, match="unreadable answer"):
        read_answer(message)


@pytest.mark.parametrize("read", READERS)
def test_answer_without_its_arrays_or_of_another_kind_is_a_fault(read: Callable[..., Any]) -> None:
    for answer in (PredictAnswer(), END):
        with pytest.raises(WorkerFault, match=f"got {answer.kind} with arrays"):
            read(answer, {})


@pytest.mark.parametrize("read", READERS)
def test_rejected_item_is_an_error_of_the_client_or_of_the_worker(read: Callable[..., Any]) -> None:
    with pytest.raises(ServiceError) as caught:
        read(ItemError(field="seed", message="expected 1, got 2"), {})
    assert caught.value.code is ErrorCode.INVALID_INPUT
    assert caught.value.violations[0].field == "seed"
    with pytest.raises(ServiceError) as caught:
        read(ItemError(field="", message="failed", is_internal=True), {})
    assert caught.value.code is ErrorCode.INTERNAL


def test_fault_becomes_an_internal_error() -> None:
    assert as_service_error(WorkerFault("broken")).code is ErrorCode.INTERNAL
    known = ServiceError(ErrorCode.TIMEOUT, "late")
    assert as_service_error(known) is known
