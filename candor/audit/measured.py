"""Reads what was measured of a model from any folder that holds such numbers.

An audit has `report.json`, `candor ara --out` leaves `ara.json` and `radii.parquet`, a model folder
has a card, a run folder has a model folder.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from candor.audit.report.schema import Report
from candor.contracts.violations import read_model
from candor.files.reading import MIB, read_file
from candor.models.folder import read_card
from candor.robustness.ara_files import measure_row, read_ara
from candor.robustness.measured import (
    ALL,
    GOALS,
    Measured,
    MeasuredExplanations,
    Span,
    Steps,
    steps_of,
)

REPORT = "report.json"
# Of a figure's panels; the fields of `ExplanationMeasures`.  rho_2 is what was asked for.
_TITLES = {
    "validity": "validity",
    "oracle score": "oracle_score",
    "COUT": "cout",
    "nearest real": "nearest_real",
    "sparsity": "sparsity",
    "rho_1": "rho_1",
    "rho_1.5": "rho_1_5",
}


def read_measured(folder: Path) -> Measured:
    """The newest kind of measurement that ``folder`` holds.

    Raises:
        ValueError: there is no such folder, or nothing was measured in it.
    """
    if (folder / REPORT).is_file():
        return _from_report(folder / REPORT)
    if (folder / "ara.json").is_file():
        try:
            return _from_ara(folder)
        except KeyError as err:
            raise ValueError(
                f"source: {folder / 'ara.json'} has no {err}; candor ara has to measure it again"
            ) from err
    for place in (folder, folder / "model"):
        if (place / "card.json").is_file():
            return _from_card(place)
    raise ValueError(
        "source: expected a folder with report.json (candor audit), ara.json (candor ara), "
        f"card.json or model/card.json, got {folder}"
    )


def read_explanations(folder: Path) -> MeasuredExplanations:
    """The measures of explanations in the report of an audit.

    Raises:
        ValueError: there is no report, or explanations were not part of it.
    """
    if not (folder / REPORT).is_file():
        raise ValueError(f"source: expected a folder of candor audit, got {folder}")
    report = read_model(Report, read_file(folder / REPORT, 512 * MIB))
    rows = () if report.explanations is None else report.explanations.measures
    if not rows:
        raise ValueError(
            f"source: expected an audit with measures of explanations, got {folder}: run candor "
            "audit without --attacks-only"
        )
    return MeasuredExplanations(
        name=report.model.name,
        image_counts={row.target or ALL: row.image_count for row in rows},
        measures={
            title: {
                row.target or ALL: Span(found.value, found.low, found.high)
                for row in rows
                if (found := getattr(row, name)) is not None
            }
            for title, name in _TITLES.items()
        },
    )


def _from_report(path: Path) -> Measured:
    report = read_model(Report, read_file(path, 512 * MIB))
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
        search="ensemble",
    )


def _from_ara(folder: Path) -> Measured:
    found = read_ara(folder)
    summary = found.summary
    return Measured(
        name=Path(summary["model"]).name,
        accuracy=_span(measure_row(summary, "accuracy")),
        areas={goal: _span(summary[f"{goal}_ara"]) for goal in GOALS},
        curves={goal: steps_of(found.radii[f"{goal}_ara"]) for goal in GOALS},
        naive=summary["naive"],
        search=summary["solver"],
    )


def _span(values: Mapping[str, Any]) -> Span:
    return Span(values["value"], values["low"], values["high"])


def _from_card(folder: Path) -> Measured:
    card = read_card(folder)
    found = {name: card.measured(name) for name in ("accuracy", *(f"{goal}_ara" for goal in GOALS))}
    spans = {
        name: Span(metrics[0].value, metrics[0].low, metrics[0].high)
        for name, metrics in found.items()
        if metrics
    }
    areas = {goal: spans[f"{goal}_ara"] for goal in GOALS if f"{goal}_ara" in spans}
    searches = [metrics[0].search for name, metrics in found.items() if metrics and "ara" in name]
    return Measured(
        name=card.name,
        accuracy=spans.get("accuracy"),
        areas=areas,
        search=searches[0] if searches else "",
    )
