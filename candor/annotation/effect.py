"""The effect of training with annotated images, on the same test images.  (IV-C)"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from candor.models.folder import read_card
from candor.robustness.paired import Difference, accuracy_difference, area_difference
from candor.terms import SearchStatus

MEASURES = ("accuracy", "attack_ara", "btr_ara")
_PAIRS = (("annotated", "base"), ("control", "base"), ("annotated", "control"))


@dataclass(frozen=True, slots=True)
class MeasuredModel:
    """What `candor ara` wrote of one model.

    Attributes:
        summary: the content of ara.json.
        indices: of the test images, in the order of the arrays.
        correct: (N,) bool, whether the unchanged image is classified correctly.
        radii: (N,) float64 in RMSE, by "attack_ara" and "btr_ara".
    """

    summary: dict[str, Any]
    indices: list[int]
    correct: np.ndarray
    radii: dict[str, np.ndarray]


def is_measured(folder: Path, model: Path, data: str, settings: dict[str, Any]) -> bool:
    """Whether ``folder`` holds a measurement of these weights with these settings."""
    path = folder / "ara.json"
    if not path.is_file() or not (folder / "radii.parquet").is_file():
        return False
    summary = json.loads(path.read_text())
    wanted = {**settings, "data": f"{data}/test", "weights_digest": read_card(model).weights_sha256}
    return all(summary.get(key) == value for key, value in wanted.items())


def read_measurement(folder: Path) -> MeasuredModel:
    """The measurement that `candor ara --out` wrote."""
    summary = json.loads((folder / "ara.json").read_text())
    rows = pq.read_table(folder / "radii.parquet").to_pylist()
    by_goal = {
        f"{goal}_ara": [row for row in rows if row["goal"] == goal] for goal in ("attack", "btr")
    }
    attacked = by_goal["attack_ara"]
    return MeasuredModel(
        summary,
        [row["index"] for row in attacked],
        np.array([row["status"] != SearchStatus.ALREADY_WRONG for row in attacked]),
        {name: np.array([row["radius"] for row in chosen]) for name, chosen in by_goal.items()},
    )


def effect_report(measured: dict[str, MeasuredModel], seed: int) -> dict[str, Any]:
    """Every model's own numbers and every pair's differences, JSON-able.

    Args:
        measured: by "base", "annotated" and "control".
        seed: of the resampling behind intervals and p-values.
    Raises:
        ValueError: the models were measured on different images.
    """
    first = next(iter(measured.values()))
    _check_same_images(measured)
    return {
        "data": first.summary["data"],
        "data_digest": first.summary["data_digest"],
        "images": len(first.indices),
        "models": {name: _model_summary(one.summary) for name, one in measured.items()},
        "differences": [
            {
                "a": a,
                "b": b,
                **{
                    measure: asdict(_difference(measured[a], measured[b], measure, seed))
                    for measure in MEASURES
                },
            }
            for a, b in _PAIRS
        ],
    }


def _model_summary(summary: dict[str, Any]) -> dict[str, Any]:
    return {
        "model": summary["model"],
        "weights_digest": summary["weights_digest"],
        "accuracy": {
            "value": summary["accuracy"],
            "low": summary["accuracy_low"],
            "high": summary["accuracy_high"],
        },
        "attack_ara": summary["attack_ara"],
        "btr_ara": summary["btr_ara"],
    }


def _check_same_images(measured: dict[str, MeasuredModel]) -> None:
    images = [(one.indices, one.summary["data_digest"]) for one in measured.values()]
    for name, own in zip(measured, images, strict=True):
        if own != images[0]:
            raise ValueError(f"{name}: measured on other images; measure all with the same data")


def _difference(a: MeasuredModel, b: MeasuredModel, measure: str, seed: int) -> Difference:
    generator = np.random.default_rng(seed)
    if measure == "accuracy":
        return accuracy_difference(a.correct, b.correct, generator=generator)
    return area_difference(
        a.radii[measure], b.radii[measure], naive=a.summary["naive"], generator=generator
    )
