"""Measures of explanations: the rows of the ledger as numbers with intervals."""

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np

from candor.audit.records import Row
from candor.audit.report.schema_sections import ExplanationMeasures
from candor.audit.report.schema_values import Estimate
from candor.audit.sections.summary import Evidence, share
from candor.robustness.ara import Statistic, median_radius, sample_interval

SIZES = ("rho_1", "rho_1_5", "rho_2", "rho_inf", "sparsity")


def measured(
    evidence: Evidence, rows: Sequence[Row], classes: Sequence[str]
) -> tuple[ExplanationMeasures, ...]:
    """Of all ``rows``, at least one, then of each class that some are for."""
    targets = sorted({row["target"] for row in rows})
    parts = [(classes[target], [r for r in rows if r["target"] == target]) for target in targets]
    return tuple(_of(evidence, part, target) for target, part in [(None, rows), *parts])


def right_median_radius(evidence: Evidence) -> Estimate | None:
    """RMSE at which the ensemble has changed half of the right predictions; None where unknown."""
    radii = evidence.radii("attack")
    correct = {row["position"]: row["is_correct"] for row in evidence.clean}
    found = median_radius(
        radii.values,
        is_correct=np.array([correct[place] for place in radii.positions.tolist()]),
        is_unresolved=radii.is_unresolved,
        generator=np.random.default_rng(evidence.seed),
    )
    if found is None:
        return None
    return Estimate(**asdict(found.interval), image_count=found.image_count)


def _of(evidence: Evidence, rows: Sequence[Row], target: str | None) -> ExplanationMeasures:
    def estimate(name: str, statistic: Statistic) -> Estimate | None:
        values = [row[name] for row in rows if row[name] is not None]
        if not values:
            return None
        generator = np.random.default_rng(evidence.seed)
        found = sample_interval(values, statistic, generator=generator)
        return Estimate(**asdict(found), image_count=len(values))

    answers = [row["oracle_score"] for row in rows if row["oracle_score"] is not None]
    return ExplanationMeasures.model_validate(
        {
            "target": target,
            "image_count": len(rows),
            "validity": share(row["validity"] for row in rows),
            "oracle_score": share(answers) if answers else None,
            "cout": estimate("cout", np.mean),
            "nearest_real": estimate("nearest_real", np.median),
            **{name: estimate(name, np.median) for name in SIZES},
        }
    )
