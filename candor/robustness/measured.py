"""What was measured of a model, from whichever folder holds it.

An audit has `report.json`, `candor ara --out` leaves `ara.json` and `radii.parquet`, a model folder
has a card, a run folder has a model folder.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

GOALS = ("attack", "btr")


@dataclass(frozen=True, slots=True)
class Span:
    """A number between the ends of its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """Accuracy against RMSE, constant from each point to the next, both (P,) float64."""

    rmse: NDArray[np.float64]
    accuracy: NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One model on one data set.

    Attributes:
        accuracy: share of clean images; None where nobody measured it.
        areas, curves: by goal, ARA in RMSE; a card has no curves.
        naive: accuracy of always naming the most frequent class; None with no curve.
    """

    name: str
    accuracy: Span | None
    areas: Mapping[str, Span]
    curves: Mapping[str, Steps] = field(default_factory=dict)
    naive: float | None = None


def read_measured(folder: Path) -> Measured:
    """Raises: ValueError: no such folder, or nothing measured in it."""
    if (folder / "report.json").is_file():
        return _from_report(folder / "report.json")
    if (folder / "ara.json").is_file():
        try:
            return _from_radii(folder)
        except KeyError as err:
            raise ValueError(
                f"source: {folder / 'ara.json'} has no {err}, allowed what candor ara writes now"
            ) from err
    for place in (folder, folder / "model"):
        if (place / "card.json").is_file():
            return _from_card(place)
    raise ValueError(
        f"source: got {folder}, allowed a folder with report.json (candor audit), ara.json "
        "(candor ara), card.json or model/card.json"
    )


def _from_report(path: Path) -> Measured:
    from candor.audit.report.schema import Report

    report = Report.model_validate_json(path.read_bytes())
    share = report.accuracy
    return Measured(
        name=report.model.name,
        accuracy=Span(share.value, share.low, share.high),
        areas={
            area.goal: Span(area.value.rmse, area.low.rmse, area.high.rmse) for area in report.areas
        },
        curves={
            curve.goal: Steps(
                rmse=np.array([point.distance.rmse for point in curve.points]),
                accuracy=np.array([point.accuracy for point in curve.points]),
            )
            for curve in report.curves
        },
        naive=report.naive,
    )


def _from_radii(folder: Path) -> Measured:
    import pyarrow.parquet as pq

    summary = json.loads((folder / "ara.json").read_bytes())
    table = pq.read_table(folder / "radii.parquet", columns=["goal", "radius"])
    goals, radii = table["goal"].to_numpy(), table["radius"].to_numpy()
    low, high = summary["accuracy_low"], summary["accuracy_high"]
    return Measured(
        name=Path(summary["model"]).name,
        accuracy=Span(summary["accuracy"], low, high),
        areas={goal: _span(summary[f"{goal}_ara"]) for goal in GOALS},
        curves={goal: _steps(radii[goals == goal]) for goal in GOALS},
        naive=summary["naive"],
    )


def _steps(radii: NDArray[np.float64]) -> Steps:
    from candor.robustness.ara import accuracy_curve

    grid = np.unique(np.concatenate([[0.0], radii]))
    return Steps(rmse=grid, accuracy=accuracy_curve(radii, grid))


def _span(values: Mapping[str, Any]) -> Span:
    return Span(values["value"], values["low"], values["high"])


def _from_card(folder: Path) -> Measured:
    from candor.models.folder import read_card

    card = read_card(folder)
    spans = {metric.name: Span(metric.value, metric.low, metric.high) for metric in card.metrics}
    areas = {goal: spans[f"{goal}_ara"] for goal in GOALS if f"{goal}_ara" in spans}
    return Measured(name=card.name, accuracy=spans.get("accuracy"), areas=areas)
