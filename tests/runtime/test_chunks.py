"""Searches that travel as numpy arrays end with the bits of one that stays."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from candor import terms
from candor.contracts import wire
from candor.contracts.worker import SearchEnd, SearchItem, SearchProgress
from candor.models.folder import LoadedModel, load_model
from candor.runtime.chunks import advance_items, check_image, check_item, predict_logits
from candor.search.solvers import SOLVERS
from candor.terms import Goal, Norm

STEPS = 12
CARRIED = {"paper": ("delta", "velocity", "best"), "fast": ("delta", "best")}


@pytest.fixture(scope="module")
def model(tiny_models_dir: Path) -> LoadedModel:
    return load_model(tiny_models_dir / "tiny")


def _item(index: int, **changes: Any) -> SearchItem:
    goal = tuple(Goal)[index % len(Goal)]
    values: dict[str, Any] = {
        "goal": goal,
        "target": index % 10,
        "rho": 0.05,
        "step_count": STEPS,
        "seed": index,
        "chunk_steps": STEPS,
    }
    return SearchItem(**(values | changes))


def _to_the_end(
    model: LoadedModel,
    image: np.ndarray,
    cuts: list[int],
    mask: np.ndarray | None = None,
    **changes: Any,
) -> Any:
    """One search, its state sent over the wire after each of ``cuts`` steps."""
    sent: dict[str, Any] = {"image": image} | ({} if mask is None else {"mask": mask})
    arrays, step = sent, 0
    for chunk_steps in cuts:
        item = _item(2, step=step, chunk_steps=chunk_steps, **changes)
        ((answer, arrays),) = advance_items(model.network, [(item, arrays)])
        if isinstance(answer, SearchEnd):
            return answer, arrays
        assert isinstance(answer, SearchProgress)
        meta, left = wire.unpack(wire.pack(answer.model_dump(mode="json"), arrays))
        arrays = {**left, **sent}
        step = meta["step"]
    raise AssertionError("never ended")


@pytest.mark.parametrize("goal", [Goal.ATTACK, Goal.EXPLAIN_FOR])
@pytest.mark.parametrize("solver", terms.SOLVERS)
def test_travelling_search_ends_with_the_same_bits(
    model: LoadedModel, images: np.ndarray, solver: str, goal: Goal
) -> None:
    label = int(predict_logits(model.network, images[:1])[0].argmax())
    changes = {"solver": solver, "goal": goal, "target": label}
    whole, whole_arrays = _to_the_end(model, images[0], [STEPS], **changes)
    cut, cut_arrays = _to_the_end(model, images[0], [1, 4, 2, 50], **changes)
    assert whole.steps == STEPS
    assert whole == cut
    for name, array in whole_arrays.items():
        assert np.array_equal(array, cut_arrays[name]), name


@pytest.mark.parametrize("solver", terms.SOLVERS)
def test_region_norm_and_contrast_travel_too(
    model: LoadedModel, images: np.ndarray, solver: str
) -> None:
    mask = np.zeros(images.shape[2:], np.float32)
    mask[4:12, 8:20], mask[12:16, 8:20] = 1.0, 0.5
    changes = {"solver": solver, "target": 3, "away_from": 5, "norm": Norm.L1_5, "mask": mask}
    whole, whole_arrays = _to_the_end(model, images[0], [STEPS], **changes)
    cut, cut_arrays = _to_the_end(model, images[0], [1, 4, 2, 50], **changes)
    assert whole == cut
    for name, array in whole_arrays.items():
        assert np.array_equal(array, cut_arrays[name]), name
    changed = (whole_arrays["image"] != images[0]).any(axis=0)
    assert changed.any()
    assert not changed[mask == 0].any()
    assert whole.rho_1 < whole.rho_1_5 < whole.rmse < whole.rho_inf
    assert whole.rho_1_5 <= 0.05
    assert whole.rmse_inside == pytest.approx(whole.rmse * (mask.size / (mask > 0).sum()) ** 0.5)
    assert 0 < whole.sparsity <= (mask > 0).mean()


def test_a_batch_may_mix_what_its_searches_ask_for(model: LoadedModel, images: np.ndarray) -> None:
    mask = np.zeros(images.shape[2:], np.float32)
    mask[:16] = 1.0
    label = int(predict_logits(model.network, images[:1])[0].argmax())
    asked: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({}, {}),
        ({"norm": "l1"}, {}),
        ({}, {"mask": mask}),
        ({"away_from": 7}, {}),
        ({"goal": Goal.ATTACK, "target": label}, {"mask": mask}),
        ({"norm": "linf"}, {"mask": mask}),
    ]
    items = [
        (_item(2, chunk_steps=7, solver="fast", **changes), {"image": images[0], **arrays})
        for changes, arrays in asked
    ]
    together = advance_items(model.network, items)
    for item, (answer, arrays) in zip(items, together, strict=True):
        ((alone, expected),) = advance_items(model.network, [item])
        assert isinstance(answer, SearchProgress)
        assert isinstance(alone, SearchProgress)
        assert answer.best_confidence == pytest.approx(alone.best_confidence, abs=1e-4)
        np.testing.assert_allclose(arrays["delta"], expected["delta"], atol=1e-3)
    contrasted, arrays = together[3]
    logits = torch.from_numpy(predict_logits(model.network, arrays["best"][None]))
    assert isinstance(contrasted, SearchProgress)
    assert contrasted.best_confidence == pytest.approx(float(logits.softmax(1)[0, 2]), abs=1e-6)
    stopped = [
        (item.model_copy(update={"chunk_steps": 0, "step": 7}), {**sent, **arrays})
        for (item, sent), (_, arrays) in zip(items, together, strict=True)
    ]
    ends = [end for end, _ in advance_items(model.network, stopped)]
    assert [end.rmse_inside is not None for end in ends] == ["mask" in sent for _, sent in items]


def test_search_told_to_stop_ends_with_the_best_it_has(
    model: LoadedModel, images: np.ndarray
) -> None:
    arrays: dict[str, Any] = {"image": images[0]}
    ((progress, left),) = advance_items(model.network, [(_item(2, chunk_steps=5), arrays)])
    assert isinstance(progress, SearchProgress)
    arrays |= left
    ((end, ended),) = advance_items(model.network, [(_item(2, step=5, chunk_steps=0), arrays)])
    assert isinstance(end, SearchEnd)
    assert end.steps == 5
    assert 0.0 < end.rmse <= 0.05
    assert not np.array_equal(ended["image"], images[0])


def test_mixed_items_come_back_in_order(model: LoadedModel, images: np.ndarray) -> None:
    items = [_item(index, chunk_steps=3 + index % 2) for index in range(5)]
    answers = advance_items(
        model.network, [(item, {"image": images[i]}) for i, item in enumerate(items)]
    )
    for index, (answer, arrays) in enumerate(answers):
        is_running = isinstance(answer, SearchProgress)
        best = arrays["best" if is_running else "image"]
        moved = [np.abs(best - image).mean() for image in images[:5]]
        assert int(np.argmin(moved)) == index
        if is_running:
            assert answer.step == 3 + index % 2
            assert "image" not in arrays  # the sender has it


def test_fitting_item_passes(model: LoadedModel, images: np.ndarray) -> None:
    assert check_item(model.card, _item(0), {"image": images[0]}) is None


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"target": 10}, "target"),
        ({"solver": "guess"}, "solver"),
        ({"norm": "l1"}, "norm"),
        ({"away_from": 3}, "away_from"),
        ({"goal": Goal.EXPLAIN_FOR, "away_from": 0}, "away_from"),
        ({"goal": Goal.EXPLAIN_FOR, "away_from": 10}, "away_from"),
    ],
)
def test_item_outside_the_model_is_rejected(
    model: LoadedModel, images: np.ndarray, changes: dict[str, Any], field: str
) -> None:
    error = check_item(model.card, _item(0, **changes), {"image": images[0]})
    assert error is not None
    assert error.field == field


def test_search_that_goes_on_needs_its_state(model: LoadedModel, images: np.ndarray) -> None:
    error = check_item(model.card, _item(0, step=3), {"image": images[0]})
    assert error is not None
    assert error.field == "delta"


def test_search_travels_with_what_its_solver_needs(model: LoadedModel, images: np.ndarray) -> None:
    for solver in terms.SOLVERS:
        item = _item(2, solver=solver, chunk_steps=2)
        ((_, arrays),) = advance_items(model.network, [(item, {"image": images[0]})])
        assert set(arrays) == {"numbers", *CARRIED[solver]}
        arrays["image"] = images[0]
        assert check_item(model.card, item.model_copy(update={"step": 2}), arrays) is None


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 32, 32), np.float32),
        np.zeros((3, 32, 31), np.float32),
        np.zeros((3, 32, 32), np.float64),
        np.full((3, 32, 32), np.nan, np.float32),
        np.full((3, 32, 32), 1.1, np.float32),
    ],
)
def test_wrong_image_is_rejected(model: LoadedModel, image: np.ndarray) -> None:
    error = check_image(model.card, {"image": image})
    assert error is not None
    assert error.field == "image"
    assert "expected" in error.message


@pytest.mark.parametrize(
    "mask",
    [
        np.zeros((32, 32), np.float32),
        np.ones((1, 32, 32), np.float32),
        np.ones((32, 32), np.float64),
        np.full((32, 32), np.nan, np.float32),
        np.full((32, 32), -0.1, np.float32),
    ],
)
def test_wrong_mask_is_rejected(model: LoadedModel, images: np.ndarray, mask: np.ndarray) -> None:
    error = check_item(model.card, _item(0), {"image": images[0], "mask": mask})
    assert error is not None
    assert error.field == "mask"
    assert "expected" in error.message


def test_prediction_of_a_batch_is_that_of_each(model: LoadedModel, images: np.ndarray) -> None:
    together = predict_logits(model.network, images[:3])
    for index in range(3):
        alone = predict_logits(model.network, images[index : index + 1])
        np.testing.assert_allclose(alone[0], together[index], atol=1e-5)


def test_contract_names_exactly_the_solvers_there_are() -> None:
    assert set(terms.SOLVERS) == set(SOLVERS)
    assert terms.DEFAULT_SOLVER in SOLVERS
