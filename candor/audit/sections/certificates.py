"""Stages `smoothing` and `clever`, and their sections of the report."""

import math
from collections.abc import Callable

import numpy as np
from torch import Generator, Tensor

from candor.audit.plan import Budget
from candor.audit.records import Row
from candor.audit.report.schema import CertifiedPoint, Clever, Smoothing
from candor.audit.sections.summary import Evidence, area, share
from candor.audit.stage import Batch, Subject
from candor.robustness.ara import accuracy_curve
from candor.robustness.clever import clever
from candor.robustness.smoothing import ABSTAIN, certify

SIGMA = 0.12  # the smallest of Cohen et al.; the network was not trained under noise
ALPHA = 0.001
SELECTION_SAMPLES = 100
CLEVER_BALL_L2 = 2.0
CLEVER_BATCHES = 16
_GRID_POINTS = 41


def smoothing_rows(subject: Subject, batch: Batch, budget: Budget) -> list[Row]:
    """One certificate an image."""

    def certified(image: Tensor, label: int, generator: Generator) -> Row:
        certificate = certify(
            subject.network,
            image,
            sigma=SIGMA,
            selection_samples=SELECTION_SAMPLES,
            samples=budget.smoothing_samples,
            alpha=ALPHA,
            generator=generator,
        )
        return {
            "has_abstained": certificate.prediction == ABSTAIN,
            "is_correct": certificate.prediction == label,
            "radius_l2": certificate.radius_l2,
        }

    return _one_by_one(batch, "smoothing", certified)


def clever_rows(subject: Subject, batch: Batch, budget: Budget) -> list[Row]:
    """One estimate an image, of the class that is predicted."""

    def estimated(image: Tensor, label: int, generator: Generator) -> Row:
        score = clever(
            subject.network,
            image,
            ball_l2=CLEVER_BALL_L2,
            batches=CLEVER_BATCHES,
            samples=math.ceil(budget.clever_samples / CLEVER_BATCHES),
            generator=generator,
        )
        return {"radius_l2": score.radius_l2, "is_fitted": score.is_fitted}

    return _one_by_one(batch, "clever", estimated)


def _one_by_one(
    batch: Batch, stage: str, measure: Callable[[Tensor, int, Generator], Row]
) -> list[Row]:
    """``measure`` of each image with its label and with randomness of its own."""
    images = zip(
        batch.positions, batch.images, batch.labels.tolist(), batch.seeds(stage), strict=True
    )
    return [
        {"position": position} | measure(image, label, Generator().manual_seed(seed))
        for position, image, label, seed in images
    ]


def smoothing_section(evidence: Evidence, samples: int) -> Smoothing | None:
    """Certified beside empirical, over the same images; None where the stage did not run."""
    rows = evidence.rows.get("smoothing")
    if not rows:
        return None
    root = math.sqrt(evidence.pixel_count)
    certified = np.array([row["radius_l2"] if row["is_correct"] else 0.0 for row in rows]) / root
    found = evidence.radii("attack", sorted(row["position"] for row in rows))
    grid = np.linspace(0.0, max(float(certified.max()), 1e-6), _GRID_POINTS)
    curves = zip(
        grid, accuracy_curve(certified, grid), accuracy_curve(found.values, grid), strict=True
    )
    return Smoothing(
        sigma=SIGMA,
        alpha=ALPHA,
        selection_samples=SELECTION_SAMPLES,
        samples=samples,
        abstained=share(row["has_abstained"] for row in rows),
        accuracy=share(row["is_correct"] for row in rows),
        area=area(evidence, "attack", certified),
        empirical=area(evidence, "attack", found.values, found.is_unresolved),
        points=tuple(
            CertifiedPoint(
                distance=evidence.distance(float(rmse)), certified=float(low), empirical=float(high)
            )
            for rmse, low, high in curves
        ),
    )


def clever_section(evidence: Evidence, samples: int) -> Clever | None:
    """Estimates beside the radii found; None where the stage did not run or none was correct."""
    correct = {row["position"] for row in evidence.clean if row["is_correct"]}
    rows = [row for row in evidence.rows.get("clever", ()) if row["position"] in correct]
    if not rows:
        return None
    root = math.sqrt(evidence.pixel_count)
    estimates = np.array([row["radius_l2"] for row in rows]) / root
    found = evidence.radii("attack", sorted(row["position"] for row in rows))
    return Clever(
        image_count=len(rows),
        samples=math.ceil(samples / CLEVER_BATCHES) * CLEVER_BATCHES,
        ball=evidence.distance(CLEVER_BALL_L2 / root),
        median=evidence.distance(float(np.median(estimates))),
        above_empirical=int(((estimates > found.values) & ~found.is_unresolved).sum()),
        fitted=sum(row["is_fitted"] for row in rows),
    )
