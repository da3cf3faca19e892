"""What `candor ara` leaves in a folder, `ara.json` and `radii.parquet`, written and read."""

import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from candor.contracts import strict_json
from candor.contracts.card import MetricCard
from candor.contracts.json_text import json_text
from candor.contracts.radius import MEDIAN_RADIUS
from candor.files.reading import MIB, read_file
from candor.files.tables import read_table
from candor.files.writing import write_files
from candor.robustness.ara import Interval
from candor.robustness.calibration import Temperature
from candor.robustness.measure import AraMeasurement, GoalMeasurement
from candor.robustness.paired import Difference, accuracy_difference, area_difference
from candor.terms import Goal, SearchStatus

SUMMARY_FILE = "ara.json"
RADII_FILE = "radii.parquet"
_MAX_SUMMARY_BYTES, _MAX_TABLE_BYTES = MIB, 512 * MIB
_ACCURACY = {"value": "accuracy", "low": "accuracy_low", "high": "accuracy_high"}
_AREAS = {"attack_ara": Goal.ATTACK, "btr_ara": Goal.BTR}
MEASURES = ("accuracy", *_AREAS)
_COMPARABLE = ("data", "data_digest", "solver", "steps")  # what two that are compared share
# Beside them: temperature of least NLL, calibration error before and at it, BTR ARA at it.
CALIBRATION = ("temperature", "ece", "ece_at_temperature", "btr_ara_at_temperature")
_WARMER = "btr_at_temperature"  # the goal's name in the table


@dataclass(frozen=True, slots=True)
class AraFolder:
    """A finished measurement as the files have it; arrays in the order of the images.

    Attributes:
        summary: the JSON object of `summary_of`.
        indices: rows of the data set.
        is_correct: (N,) bool on the images as they came.
        radii: "attack_ara" and "btr_ara" to (N,) float64 RMSE.
    """

    summary: dict[str, Any]
    indices: list[int]
    is_correct: NDArray[np.bool_]
    radii: dict[str, NDArray[np.float64]]


def summary_of(measured: AraMeasurement, facts: dict[str, Any]) -> dict[str, Any]:
    """The JSON object of `candor ara --json`: ``facts`` first, then the numbers."""
    accuracy = measured.accuracy
    summary = facts | {
        "accuracy": accuracy.value,
        "accuracy_low": accuracy.low,
        "accuracy_high": accuracy.high,
    }
    for name, goal in _AREAS.items():
        summary[name] = _area_row(measured.goals[goal])
    found = measured.calibration
    temperature = _interval_row(found.temperature)
    summary["temperature"] = temperature | {
        "images": found.temperature.image_count,
        "is_held_out": found.is_held_out,
    }
    for ending, at in (("", found.own), ("_at_temperature", found.fitted)):
        summary[f"nll{ending}"] = at.nll
        summary[f"ece{ending}"] = _interval_row(at.error)
    summary["btr_ara_at_temperature"] = _area_row(found.btr)
    if measured.median_radius is not None:
        median = measured.median_radius
        summary[MEDIAN_RADIUS] = asdict(median.interval) | {"images": median.image_count}
    return summary


def _interval_row(found: Interval | Temperature) -> dict[str, Any]:
    return {"value": found.value, "low": found.low, "high": found.high}


def _area_row(one: GoalMeasurement) -> dict[str, Any]:
    return {
        "value": one.area.value,
        "low": one.area.low,
        "high": one.area.high,
        "unresolved": one.area.unresolved_count,
        "median_radius": float(np.median(one.radii)),
        "seconds": round(one.seconds, 3),
        "image_steps": one.image_steps,
    }


def measure_row(summary: dict[str, Any], name: str) -> dict[str, Any]:
    """Value, low and high of one of `recorded`; of an area all that is known of it."""
    if name == "accuracy":
        return {key: summary[field] for key, field in _ACCURACY.items()}
    row: dict[str, Any] = summary[name]
    return row


def write_ara(
    folder: Path,
    summary: dict[str, Any],
    measured: AraMeasurement,
    indices: Sequence[int],
    labels: Sequence[int],
    identifiers: Sequence[str],
) -> None:
    """Write both files; the last three hold one entry for each image, in order."""
    columns: dict[str, list[Any]] = {
        name: [] for name in ("image_path", "index", "label", "goal", "radius", "status")
    }
    for goal, one in (*measured.goals.items(), (_WARMER, measured.calibration.btr)):
        columns["image_path"] += identifiers
        columns["index"] += indices
        columns["label"] += labels
        columns["goal"] += [str(goal)] * len(indices)
        columns["radius"] += one.radii.tolist()
        columns["status"] += [str(status) for status in one.result.statuses]
    table = io.BytesIO()
    pq.write_table(pa.table(columns), table)
    text = json_text(summary, indent=2) + "\n"
    write_files(folder, {RADII_FILE: table.getvalue(), SUMMARY_FILE: text.encode()})


def read_ara(folder: Path) -> AraFolder:
    """What `write_ara` left in ``folder``."""
    summary = _read_summary(folder)
    try:
        rows = read_table(folder / RADII_FILE, most=_MAX_TABLE_BYTES).to_pylist()
    except pa.ArrowException as err:
        raise ValueError(f"{folder / RADII_FILE}: expected a Parquet file, got another") from err
    by_area = {name: [row for row in rows if row["goal"] == goal] for name, goal in _AREAS.items()}
    attacked = by_area["attack_ara"]
    return AraFolder(
        summary,
        [row["index"] for row in attacked],
        np.array([row["status"] != SearchStatus.ALREADY_WRONG for row in attacked]),
        {name: np.array([row["radius"] for row in chosen]) for name, chosen in by_area.items()},
    )


def differences(measured: AraFolder, other: AraFolder, *, seed: int = 0) -> dict[str, Difference]:
    """What ``measured`` has more than ``other`` on the same images, by name of `MEASURES`.

    Args:
        seed: of the resampling behind intervals and p-values.
    Raises:
        ValueError: they are not of the same images in the same order, or not by the same search.
    """
    for key in _COMPARABLE:
        mine, theirs = measured.summary[key], other.summary[key]
        if mine != theirs:
            raise ValueError(f"{key}: expected {mine!r} in both, got {theirs!r}")
    if measured.indices != other.indices:
        raise ValueError("images: expected the same in both, drawn by one seed, got others")
    correct = measured.is_correct, other.is_correct
    found = {"accuracy": accuracy_difference(*correct, generator=np.random.default_rng(seed))}
    for name in _AREAS:
        found[name] = area_difference(
            measured.radii[name],
            other.radii[name],
            naive=measured.summary["naive"],
            generator=np.random.default_rng(seed),
        )
    return found


def is_measured(folder: Path, expected: dict[str, Any]) -> bool:
    """Whether ``folder`` holds a measurement whose summary has all of ``expected``."""
    path = folder / SUMMARY_FILE
    if not path.is_file() or not (folder / RADII_FILE).is_file():
        return False
    summary = _read_summary(folder)
    return all(summary.get(key) == value for key, value in expected.items())


def _read_summary(folder: Path) -> dict[str, Any]:
    path = folder / SUMMARY_FILE
    try:
        summary = strict_json.loads(read_file(path, _MAX_SUMMARY_BYTES))
    except ValueError as err:
        raise ValueError(f"{path}: expected JSON, got something else: {err}") from err
    if not isinstance(summary, dict):
        raise ValueError(f"{path}: expected a JSON object, got a {type(summary).__name__}")
    return summary


def metric_cards(summary: dict[str, Any], method: str) -> list[MetricCard]:
    """The numbers for a model's card, see `MetricCard.named`.

    The median radius is among them where it is known.

    Args:
        method: the command that repeats them, with its ``--solver``.
    """
    return [
        MetricCard(
            name=name,
            value=row["value"],
            low=row["low"],
            high=row["high"],
            image_count=row.get("images", summary["images"]),
            data=summary["data"],
            method=method,
        ).named()
        for name in recorded(summary)
        for row in [measure_row(summary, name)]
    ]


def recorded(summary: dict[str, Any]) -> list[str]:
    """`MEASURES`, `CALIBRATION`, and the median radius where it is known."""
    return [*MEASURES, *CALIBRATION, *([MEDIAN_RADIUS] if MEDIAN_RADIUS in summary else [])]
