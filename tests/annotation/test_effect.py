"""The effect of annotated images: pairs of measurements on the same test images."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from candor.annotation.effect import effect_report
from candor.robustness.ara_files import MEASURES, AraFolder

COUNT = 40


def measured(correct_count: int, radius: float) -> AraFolder:
    area = {"value": radius / 2, "low": 0.0, "high": 1.0}
    accuracy = correct_count / COUNT
    summary: dict[str, Any] = {
        "model": "linear",
        "weights_digest": "0" * 64,
        "data": "cifar10/test",
        "data_digest": "1" * 64,
        "solver": "fast",
        "steps": 52,
        "naive": 0.1,
        "accuracy": accuracy,
        "accuracy_low": accuracy - 0.1,
        "accuracy_high": accuracy + 0.1,
        "attack_ara": area,
        "btr_ara": area,
    }
    correct = np.arange(COUNT) < correct_count
    radii = np.where(correct, radius, 0.0)
    return AraFolder(
        summary, list(range(COUNT)), correct, {"attack_ara": radii, "btr_ara": 2 * radii}
    )


def models() -> dict[str, AraFolder]:
    return {
        "base": measured(20, 0.05),
        "annotated": measured(30, 0.1),
        "control": measured(20, 0.05),
    }


def test_every_pair_has_the_difference_of_every_measure() -> None:
    report = effect_report(models(), seed=0)
    assert report["images"] == COUNT
    better, same, better_than_control = report["differences"]
    assert better["accuracy"]["value"] == pytest.approx(0.25)
    assert better["accuracy"]["low"] > 0
    assert better["attack_ara"]["p_value"] < 0.05
    for measure in MEASURES:
        assert same[measure]["value"] == 0.0
        assert better_than_control[measure]["value"] == pytest.approx(better[measure]["value"])


def test_the_same_seed_gives_the_same_report() -> None:
    assert effect_report(models(), seed=3) == effect_report(models(), seed=3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"indices": list(range(1, COUNT + 1))}, "images: expected the same in both"),
        ({"summary": {"data_digest": "2" * 64}}, "data_digest: expected '2+' in both, got '1+'"),
        ({"summary": {"steps": 20}}, "steps: expected 20 in both, got 52"),
        ({"summary": {"solver": "paper"}}, "solver: expected 'paper' in both, got 'fast'"),
    ],
)
def test_models_measured_in_another_way_are_rejected(change: dict[str, Any], message: str) -> None:
    one = models()
    if "summary" in change:
        change = {"summary": one["control"].summary | change["summary"]}
    one["control"] = replace(one["control"], **change)
    with pytest.raises(ValueError, match=message):
        effect_report(one, seed=0)
