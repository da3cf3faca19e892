"""All stages of an audit by name, and their default order."""

from collections.abc import Mapping

from candor.audit.ledger import Block
from candor.audit.plan import AuditPlan
from candor.audit.records import AttackRecord, Row
from candor.audit.sections.accuracy import clean
from candor.audit.sections.attacks import ATTACK_STAGES
from candor.audit.sections.calibration import calibration_rows
from candor.audit.sections.certificates import clever_rows, smoothing_rows
from candor.audit.sections.explanations import explanation_rows
from candor.audit.sections.probes import panel
from candor.audit.stage import Stage
from candor.explainers.measures import TRANSITION_STEPS
from candor.explainers.saliency import LIME_SAMPLES
from candor.search.solvers import SOLVERS
from candor.terms import FAST_RADIUS_STEPS

STAGES: Mapping[str, Stage[AttackRecord] | Stage[Row]] = {
    "clean": Stage(run=clean, limit=lambda budget: None, steps=lambda budget: 1),
    **ATTACK_STAGES,
    "panel": Stage(
        run=panel,
        limit=lambda budget: budget.panel_images,
        steps=lambda budget: 80 * budget.descent_steps + budget.noise_trials,
        block_images=4,
    ),
    "smoothing": Stage(
        run=smoothing_rows,
        limit=lambda budget: budget.smoothing_images,
        steps=lambda budget: budget.smoothing_samples,
        block_images=4,
    ),
    "clever": Stage(
        run=clever_rows,
        limit=lambda budget: budget.clever_images,
        steps=lambda budget: 20 * budget.clever_samples,
        block_images=4,
    ),
    "explanations": Stage(
        run=explanation_rows,
        limit=lambda budget: budget.explanation_images,
        steps=lambda budget: 12 * budget.descent_steps + LIME_SAMPLES + TRANSITION_STEPS,
        block_images=4,
    ),
    "calibration": Stage(
        run=calibration_rows,
        limit=lambda budget: None,
        steps=lambda budget: 6 * FAST_RADIUS_STEPS if budget.calibration_images else 1,
    ),
}


def checked_stages(attacks: tuple[str, ...], *, has_extras: bool = True) -> tuple[str, ...]:
    """Stages of an audit with these attacks, in the registry's order.

    Args:
        attacks: names of `ATTACK_STAGES`; at least one must see every image.
        has_extras: whether the stages that are no attacks run too.
    Raises:
        ValueError: an unknown attack, or none that sees every image.
    """
    if not any(name in SOLVERS for name in attacks):
        raise ValueError(f"attacks: expected {' or '.join(SOLVERS)} among them, got {attacks}")
    for name in attacks:
        if name not in ATTACK_STAGES:
            raise ValueError(f"attacks: expected one of {tuple(ATTACK_STAGES)}, got {name!r}")
    return tuple(
        name
        for name in STAGES
        if name == "clean" or name in attacks or (has_extras and name not in ATTACK_STAGES)
    )


def blocks(plan: AuditPlan) -> list[Block]:
    """Every block of the plan, stage by stage."""
    found = []
    for name in plan.stages:
        stage = STAGES[name]
        limit = stage.limit(plan.budget)
        count = plan.image_count if limit is None else min(limit, plan.image_count)
        size = min(plan.batch_size * stage.block_batches, stage.block_images)
        found += [Block(name, start, min(start + size, count)) for start in range(0, count, size)]
    return found
