"""Both handlers against TorchServe's own context: every item its own answer, nothing raises."""

import copy
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from candor.contracts import wire
from candor.contracts.api import Method
from candor.contracts.worker import (
    COMPARED_ARRAYS,
    CompareAnswer,
    CompareItem,
    DescribeAnswer,
    DescribeItem,
    ItemError,
    PredictAnswer,
    PredictItem,
    SearchEnd,
    SearchItem,
    SearchProgress,
)
from candor.runtime import chunks
from candor.runtime.engine import Running
from candor.runtime.packaged import SearchNetworks
from candor.terms import Goal
from handlers import predict_handler, search_handler
from handlers.search_handler import SearchHandler

Call = Callable[[Sequence[dict[str, Any]]], list[list[tuple[Any, dict[str, Any]]]]]


def message(item: Any, arrays: Mapping[str, Any] | None = None) -> bytes:
    return wire.pack(item.model_dump(mode="json"), arrays)


def row(*messages: bytes) -> dict[str, Any]:
    """TorchServe hands inputs over as bytearrays."""
    return {"items": bytearray(wire.pack_list(list(messages)))}


def predict_message(image: np.ndarray) -> bytes:
    return message(PredictItem(), {"image": image})


def search_item(**changes: Any) -> SearchItem:
    fields = {"goal": Goal.EXPLAIN_FOR, "target": 3, "rho": 0.1, "step_count": 6, "chunk_steps": 3}
    return SearchItem(**fields | changes)


def search_message(image: np.ndarray, **changes: Any) -> bytes:
    return message(search_item(**changes), {"image": image})


def started(model_dir: Path) -> SearchHandler:
    handler = SearchHandler()
    options = {"handler": {"threads": 1, "model_dir": str(model_dir)}}
    handler.initialize(SimpleNamespace(model_yaml_config=options, system_properties={}))
    return handler


def only(answers: list[list[tuple[Any, dict[str, Any]]]]) -> tuple[Any, dict[str, Any]]:
    [[answer]] = answers
    return answer


@pytest.mark.parametrize("layout", [(1,), (3,), (8,), (2, 1, 0, 5)])
def test_predict_answers_every_item_of_every_row_in_order(
    predict: Call, images: np.ndarray, layout: tuple[int, ...]
) -> None:
    remaining = iter(images)
    rows = [row(*(predict_message(next(remaining)) for _ in range(count))) for count in layout]
    answers = predict(rows)
    assert [len(items) for items in answers] == list(layout)
    alone = [only(predict([row(predict_message(image))])) for image in images[: sum(layout)]]
    together = [answer for items in answers for answer in items]
    for (meta, arrays), (_, expected) in zip(together, alone, strict=True):
        assert isinstance(meta, PredictAnswer)
        np.testing.assert_allclose(arrays["logits"], expected["logits"], atol=1e-4)


@pytest.mark.parametrize("role", ["predict", "search"])
def test_any_role_describes_the_model(role: str, request: pytest.FixtureRequest) -> None:
    answer, _ = only(request.getfixturevalue(role)([row(message(DescribeItem()))]))
    assert isinstance(answer, DescribeAnswer)
    assert answer.card.name == "tiny"


def test_search_goes_on_from_the_state_it_gave(search: Call, images: np.ndarray) -> None:
    first, state = only(search([row(search_message(images[0]))]))
    assert isinstance(first, SearchProgress)
    assert first.step == 3
    state["image"] = images[0]
    last, arrays = only(search([row(message(search_item(step=first.step), state))]))
    assert isinstance(last, SearchEnd)
    whole, expected = only(search([row(search_message(images[0], chunk_steps=6))]))
    assert last.rmse == pytest.approx(whole.rmse, abs=1e-6)
    np.testing.assert_allclose(arrays["image"], expected["image"], atol=1e-5)


def test_bad_items_get_their_own_error_and_harm_no_neighbour(
    predict: Call, images: np.ndarray
) -> None:
    good = predict_message(images[0])
    bad = {
        "image": predict_message(images[0][:, :31]),
        "kind": search_message(images[0]),
        "item": b"garbage",
    }
    answers = predict(
        [row(good, *bad.values()), {"items": b"\xff" * 40}, {}, {"items": {}}, row(good)]
    )
    assert [type(meta) for meta, _ in answers[0]] == [PredictAnswer, *[ItemError] * 3]
    assert [meta.field for meta, _ in answers[0][1:]] == list(bad)
    for garbage_row in answers[1:4]:
        [(meta, _)] = garbage_row
        assert isinstance(meta, ItemError)
        assert meta.field == "items"
    assert isinstance(answers[4][0][0], PredictAnswer)


@pytest.mark.parametrize("value", [np.nan, -0.1, 1.1, np.inf])
@pytest.mark.parametrize("role", ["predict", "search"])
def test_pixels_outside_the_domain_are_rejected(
    role: str, value: float, images: np.ndarray, request: pytest.FixtureRequest
) -> None:
    image = images[0].copy()
    image[0, 0, 0] = value
    made = predict_message(image) if role == "predict" else search_message(image)
    answer, _ = only(request.getfixturevalue(role)([row(made)]))
    assert isinstance(answer, ItemError)
    assert (answer.field, answer.is_internal) == ("image", False)


@pytest.mark.parametrize(
    ("changes", "field"), [({"target": 10}, "target"), ({"solver": "magic"}, "solver")]
)
def test_a_search_that_does_not_fit_is_rejected(
    search: Call, images: np.ndarray, changes: dict[str, Any], field: str
) -> None:
    answers = search([row(search_message(images[0], **changes), search_message(images[1]))])
    (refused, _), (served, _) = answers[0]
    assert isinstance(refused, ItemError)
    assert refused.field == field
    assert isinstance(served, SearchProgress)


def test_an_unknown_field_is_named(search: Call, images: np.ndarray) -> None:
    meta = search_item().model_dump(mode="json") | {"chunk_steps": -1}
    answer, _ = only(search([row(wire.pack(meta, {"image": images[0]}))]))
    assert isinstance(answer, ItemError)
    assert "chunk_steps" in answer.field


def test_one_poisonous_prediction_fails_alone(
    predict: Call,
    images: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def poisoned(network: Any, batch: np.ndarray) -> np.ndarray:
        if any(np.array_equal(image, images[1]) for image in batch):
            raise RuntimeError("poison")
        return chunks.predict_logits(network, batch)

    monkeypatch.setattr(predict_handler, "predict_logits", poisoned)
    with caplog.at_level(logging.ERROR):
        answers = predict([row(*map(predict_message, images[:2])), row(predict_message(images[2]))])
    kinds = [type(meta) for items in answers for meta, _ in items]
    assert kinds == [PredictAnswer, ItemError, PredictAnswer]
    assert answers[0][1][0].is_internal
    assert "poison" not in answers[0][1][0].message
    assert "poison" in caplog.text


def test_one_poisonous_search_fails_alone(
    search: Call, images: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    def poisoned(network: Any, items: Sequence[tuple[SearchItem, Any]], **options: Any) -> Any:
        if any(item.target == 9 for item, _ in items):
            raise MemoryError
        return chunks.advance_items(network, items, **options)

    monkeypatch.setattr(search_handler, "advance_items", poisoned)
    made = [search_message(images[i], target=target) for i, target in enumerate((1, 9, 2))]
    kinds = [type(meta) for meta, _ in search([row(*made)])[0]]
    assert kinds == [SearchProgress, ItemError, SearchProgress]


@settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(header=st.binary(max_size=60), body=st.binary(max_size=60))
def test_no_bytes_make_a_handler_raise(predict: Call, header: bytes, body: bytes) -> None:
    framed = len(header).to_bytes(4, "little") + header + body
    answers = predict([{"items": body}, row(body, framed)])
    assert all(isinstance(meta, ItemError) for items in answers for meta, _ in items)


@pytest.mark.parametrize("choice", ["auto", "off"])
def test_search_worker_looks_for_a_compiled_network_where_it_is_told_to(
    choice: str, tiny_models_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CANDOR_COMPILE", choice)
    monkeypatch.setenv("CANDOR_COMPILED_DIR", str(tmp_path / "file" / "compiled"))
    (tmp_path / "file").write_text("no folder can be made here")
    handler = started(tiny_models_dir / "tiny")

    def describe() -> DescribeAnswer:
        (packed,) = handler.handle([row(message(DescribeItem()))], None)
        meta, _ = wire.unpack(wire.unpack_list(packed)[0])
        return DescribeAnswer.model_validate(meta)

    if choice == "auto":
        while not describe().note:
            time.sleep(0.02)
    described = describe()
    assert ("Not a directory" in described.note) is (choice == "auto")
    assert (described.engine, described.precision) == ("eager", "float32")


def test_a_chunk_runs_on_what_its_worker_has_when_it_begins(
    tiny_models_dir: Path, images: np.ndarray
) -> None:
    handler = started(tiny_models_dir / "tiny")
    network = handler._engine.now.networks.verifier
    seen = []

    class Watched(type(network)):  # type: ignore[misc]
        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            seen.append(len(batch))
            handler._engine.now = Running(SearchNetworks(network, network), note="changed")
            return super().forward(batch)

    watched = copy.copy(network)
    watched.__class__ = Watched
    handler._engine.now = Running(SearchNetworks(watched, network), "compiled", "bfloat16")
    handler.handle([row(search_message(images[0]))], None)
    assert seen == [1, 1, 1], "all steps of the chunk"
    handler.handle([row(search_message(images[0]))], None)
    assert seen == [1, 1, 1], "the next one begins anew"


def test_unknown_way_of_compiling_is_rejected(
    tiny_models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CANDOR_COMPILE", "always")
    with pytest.raises(ValueError, match="CANDOR_COMPILE: expected one of .*, got 'always'"):
        started(tiny_models_dir / "tiny")


@pytest.mark.parametrize("module", [predict_handler, search_handler])
def test_torchserve_finds_exactly_one_class(module: Any) -> None:
    from ts.utils.util import list_classes_from_module

    assert len(list_classes_from_module(module)) == 1


def test_search_worker_compares_beside_searches(search: Call, images: np.ndarray) -> None:
    arrays = dict(zip(COMPARED_ARRAYS, images[:4], strict=True))
    asked = [CompareItem(method=method, target=3) for method in (Method.GRADIENT, Method.GRAD_CAM)]
    messages = [message(asked[0], arrays), search_message(images[4]), message(asked[1], arrays)]
    [[gradient, searched, grad_cam]] = search([row(*messages)])
    assert isinstance(searched[0], SearchProgress)
    for scores, maps in (gradient, grad_cam):
        assert isinstance(scores, CompareAnswer)
        assert maps["saliency"].shape == maps["perturbed_saliency"].shape == (32, 32)
        assert maps["saliency"].dtype == np.float32
    assert not np.array_equal(gradient[1]["saliency"], grad_cam[1]["saliency"])


@pytest.mark.parametrize(
    ("target", "changes", "field"),
    [(10, {}, "target"), (3, {"perturbed": None}, "perturbed"), (3, {"explanation": 2.0}, "expl")],
)
def test_bad_compare_item_is_named(
    search: Call, images: np.ndarray, target: int, changes: dict[str, Any], field: str
) -> None:
    arrays = dict(zip(COMPARED_ARRAYS, images[:4], strict=True))
    for name, value in changes.items():
        arrays[name] = images[0] + np.float32(value) if value else images[0][:2]
    item = CompareItem(method=Method.GRADIENT, target=target)
    error, _ = only(search([row(message(item, arrays))]))
    assert isinstance(error, ItemError)
    assert error.field.startswith(field)
    assert not error.is_internal
