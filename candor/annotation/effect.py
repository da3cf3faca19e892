"""The effect of training with annotated images, on the same test images.  (IV-C)"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from candor.data.images import Images
from candor.models.folder import read_card
from candor.robustness.ara_files import AraFolder, differences, is_measured, measure_row

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
        ValueError: the models were measured on different images or by different searches.
    """
    first = next(iter(measured.values()))
    return {
        "data": first.summary["data"],
        "data_digest": first.summary["data_digest"],
        "images": len(first.indices),
        "models": {name: _model_summary(one.summary) for name, one in measured.items()},
        "differences": [
            {"a": a, "b": b, **_difference(measured[a], measured[b], seed)} for a, b in _PAIRS
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


def _difference(a: AraFolder, b: AraFolder, seed: int) -> dict[str, Any]:
    return {name: asdict(one) for name, one in differences(a, b, seed=seed).items()}
