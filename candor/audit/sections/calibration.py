"""Stage `calibration` and its section: how true probabilities are, and BTR at two temperatures."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from candor.audit.plan import Budget, FittedTemperature
from candor.audit.records import Row
from candor.audit.report.schema_sections import CalibrationPoint, CalibrationSection
from candor.audit.sections.summary import Evidence, area
from candor.audit.stage import Batch, Subject
from candor.robustness.calibration import AtTemperature, calibration_error
from candor.robustness.measure import radii_of, search_radii
from candor.terms import FAST_RADIUS_STEPS, Goal

_POINTS = ("own", "fitted")


def calibration_rows(subject: Subject, batch: Batch, budget: Budget) -> list[Row]:
    """Confidence and NLL of every image, and BTR radii of the first ones, at both temperatures."""
    searched = batch.first(sum(place < budget.calibration_images for place in batch.positions))
    with torch.no_grad():
        logits = subject.network(batch.images)
    temperatures = (1.0, subject.temperature)
    points = [_point(subject, batch, searched, logits, value) for value in temperatures]
    is_correct = (logits.argmax(dim=1) == batch.labels).tolist()
    return [
        {"position": position, "is_correct": is_correct[row]}
        | {name: point[row] for name, point in zip(_POINTS, points, strict=True)}
        for row, position in enumerate(batch.positions)
    ]


def calibration_section(
    evidence: Evidence, temperature: FittedTemperature | None
) -> CalibrationSection | None:
    """Both temperatures side by side; None where the stage did not run."""
    rows = evidence.rows.get("calibration")
    if not rows or temperature is None:
        return None
    own, fitted = (
        _summary(evidence, rows, name, value)
        for name, value in zip(_POINTS, (1.0, temperature.value), strict=True)
    )
    return CalibrationSection(temperature=temperature, own=own, fitted=fitted)


def _point(
    subject: Subject, batch: Batch, searched: Batch, logits: Tensor, temperature: float
) -> list[Row]:
    """One row an image; without a radius where it was not searched."""
    confidences = (logits / temperature).softmax(dim=1).amax(dim=1).tolist()
    losses = functional.cross_entropy(logits / temperature, batch.labels, reduction="none")
    rows: list[dict[str, Any]] = [
        {"confidence": min(confidence, 1.0), "nll": loss, "radius": None, "is_unresolved": None}
        for confidence, loss in zip(confidences, losses.tolist(), strict=True)
    ]
    if not len(searched.labels):
        return rows
    ends = search_radii(
        AtTemperature(subject.network, temperature),
        searched.images,
        searched.labels,
        Goal.BTR,
        solver="fast",
        steps=FAST_RADIUS_STEPS,
        seeds=torch.tensor(searched.seeds("calibration")),
        batch_size=len(searched.labels),
        searcher=None if subject.searcher is None else AtTemperature(subject.searcher, temperature),
    )
    found = zip(*(values.tolist() for values in radii_of(ends)), strict=True)
    for row, (radius, is_unresolved) in zip(rows, found, strict=False):
        row |= {"radius": radius, "is_unresolved": is_unresolved}
    return rows


def _summary(
    evidence: Evidence, rows: Sequence[Row], name: str, temperature: float
) -> CalibrationPoint:
    error = calibration_error(
        [row[name]["confidence"] for row in rows],
        [row["is_correct"] for row in rows],
        generator=np.random.default_rng(evidence.seed),
    )
    searched = [row[name] for row in rows if row[name]["radius"] is not None]
    radii = np.array([row["radius"] for row in searched])
    is_unresolved = np.array([row["is_unresolved"] for row in searched], dtype=np.bool_)
    return CalibrationPoint(
        temperature=temperature,
        nll=float(np.mean([row[name]["nll"] for row in rows])),
        ece=error.value,
        ece_low=error.low,
        ece_high=error.high,
        image_count=len(rows),
        btr=area(evidence, "btr", radii, is_unresolved) if searched else None,
    )
