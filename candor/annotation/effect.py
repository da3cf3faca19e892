"""The effect of training with annotated images, on the same test images.  (IV-C)"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from candor.data.images import Images
from candor.models.folder import read_card
from candor.robustness.ara_files import MEASURES, AraFolder, is_measured, measure_row
from candor.robustness.paired import Difference, accuracy_difference, area_difference

_PAIRS = (("annotated", "base"), ("control", "base"), ("annotated", "control"))


def has_measurement(folder: Path, model: Path, data: Images, settings: dict[str, Any]) -> bool:
    """Whether ``folder`` holds a measurement of this model on these images and settings."""
    digests = {"weights_digest": read_card(model).identity, "data_digest": data.digest()}
    return is_measured(folder, settings | digests | {"data": data.name})


def effect_report(measured: dict[str, AraFolder], seed: int) -> dict[str, Any]:
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
        "accuracy": measure_row(summary, "accuracy"),
        "attack_ara": summary["attack_ara"],
        "btr_ara": summary["btr_ara"],
    }


def _check_same_images(measured: dict[str, AraFolder]) -> None:
    images = [(one.indices, one.summary["data_digest"]) for one in measured.values()]
    for name, own in zip(measured, images, strict=True):
        if own != images[0]:
            raise ValueError(f"{name}: measured on other images; measure all with the same data")


def _difference(a: AraFolder, b: AraFolder, measure: str, seed: int) -> Difference:
    generator = np.random.default_rng(seed)
    if measure == "accuracy":
        return accuracy_difference(a.is_correct, b.is_correct, generator=generator)
    return area_difference(
        a.radii[measure], b.radii[measure], naive=a.summary["naive"], generator=generator
    )
