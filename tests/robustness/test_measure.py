"""The measurement of `candor ara` on a linear network, whose radii are known, and its files."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from candor.robustness.ara_files import (
    CALIBRATION,
    MEASURES,
    is_measured,
    measure_row,
    metric_cards,
    read_ara,
    summary_of,
    write_ara,
)
from candor.robustness.measure import (
    AraMeasurement,
    AraPlan,
    measure_ara,
    radii_area,
    radii_of,
    temperature_of,
)
from candor.terms import Goal
from tests.fixtures.audit import SHAPE
from tests.search.linear import LinearClassifier, nearest_rmse

PLAN = AraPlan(solver="fast", steps=52, seed=3, batch_size=4)
NAIVE = 0.5


@pytest.fixture(scope="module")
def labelled() -> tuple[LinearClassifier, Tensor, Tensor]:
    network = LinearClassifier(SHAPE, 2)
    images = 0.4 + 0.2 * torch.rand(6, *SHAPE, generator=torch.Generator().manual_seed(1))
    labels = network(images).argmax(1)
    labels[0] = 1 - labels[0]
    return network, images, labels


@pytest.fixture(scope="module")
def measured(labelled: tuple[LinearClassifier, Tensor, Tensor]) -> AraMeasurement:
    return measure_ara(*labelled, PLAN, naive=NAIVE)


def test_radii_are_the_distances_to_the_boundary(
    labelled: tuple[LinearClassifier, Tensor, Tensor], measured: AraMeasurement
) -> None:
    exact = nearest_rmse(*labelled).tolist()
    radii = measured.goals[Goal.ATTACK].radii
    assert radii[0] == 0.0
    assert radii[1:] == pytest.approx(exact[1:], rel=0.01)


def test_accuracy_and_areas_follow_from_the_radii(measured: AraMeasurement) -> None:
    assert measured.accuracy.value == pytest.approx(5 / 6)
    for one in measured.goals.values():
        radii, is_unresolved = radii_of(one.result)
        assert one.area == radii_area(radii, is_unresolved, naive=NAIVE, seed=PLAN.seed)
        assert one.area.low <= one.area.value <= one.area.high


def test_of_two_classes_no_temperature_moves_a_btr_radius(measured: AraMeasurement) -> None:
    """(1 + exp(d / T)) / 2 > 1 exactly where d > 0, as for an attack."""
    found = measured.calibration
    assert found.btr.radii == pytest.approx(measured.goals[Goal.BTR].radii, rel=1e-3)
    assert (found.temperature.image_count, found.is_held_out) == (6, False)
    assert found.fitted.nll <= found.own.nll


def test_the_temperature_is_that_of_the_held_out_images(
    labelled: tuple[LinearClassifier, Tensor, Tensor],
) -> None:
    network, images, labels = labelled
    others = (images[:4], labels[:4])
    found = measure_ara(network, images, labels, PLAN, naive=NAIVE, held_out=others).calibration
    assert found.temperature == temperature_of(network, *others, batch_size=PLAN.batch_size)
    assert found.is_held_out


def test_files_hold_what_was_measured(measured: AraMeasurement, tmp_path: Path) -> None:
    facts = {"model": "m", "data": "small/test", "images": 6, "naive": NAIVE}
    summary = summary_of(measured, facts)
    indices = [5, 4, 3, 2, 1, 0]
    write_ara(tmp_path, summary, measured, indices, [0] * 6, list("abcdef"))
    found = read_ara(tmp_path)
    assert (found.summary, found.indices) == (summary, indices)
    assert found.is_correct.tolist() == [False] + [True] * 5
    for name, goal in (("attack_ara", Goal.ATTACK), ("btr_ara", Goal.BTR)):
        np.testing.assert_array_equal(found.radii[name], measured.goals[goal].radii)
    assert is_measured(tmp_path, facts)
    assert not is_measured(tmp_path, facts | {"images": 7})
    assert not is_measured(tmp_path / "elsewhere", facts)


def test_cards_carry_every_number_and_by_which_search(
    labelled: tuple[LinearClassifier, Tensor, Tensor], measured: AraMeasurement
) -> None:
    summary = summary_of(measured, {"data": "small/test", "images": 6})
    by_paper = metric_cards(summary, "candor ara --solver paper --steps 450")
    assert {card.name for card in by_paper if card.search} == {
        "attack_ara_by_paper", "btr_ara_by_paper", "btr_ara_at_temperature_by_paper"
    }  # fmt: skip
    cards = metric_cards(summary, "candor ara --solver fast --steps 52")
    assert tuple(card.name for card in cards) == (*MEASURES, *CALIBRATION, "median_radius")
    assert {card.search for card in cards if "_ara" in card.name} == {"fast"}
    # Of the right predictions alone: the first image is wrong.
    exact = nearest_rmse(*labelled)[1:].median().item()
    assert cards[-1].value == pytest.approx(exact, rel=0.01)
    assert cards[-1].low <= cards[-1].value <= cards[-1].high
    assert [card.image_count for card in cards] == [6] * 7 + [5]
    for card in cards:
        row = measure_row(summary, card.name)
        assert (card.value, card.low, card.high) == (row["value"], row["low"], row["high"])
