"""All stages of an audit by name, and their default order.  Imports siblings."""

from collections.abc import Mapping

from audit.ledger import Block
from audit.plan import AuditPlan
from audit.stages import ATTACK_STAGES, Stage, clean

STAGES: Mapping[str, Stage] = {
    "clean": Stage(run=clean, limit=lambda budget: None, steps=lambda budget: 1),
    **ATTACK_STAGES,
}
DEFAULT_STAGES = tuple(STAGES)


def checked_stages(attacks: tuple[str, ...], has_extras: bool = True) -> tuple[str, ...]:
    """Stages of an audit with these attacks, in the registry's order.

    Args:
        attacks: names of `ATTACK_STAGES`; at least one must see every image.
        has_extras: whether the stages that are no attacks run too.
    Raises:
        ValueError: an unknown attack, or none that sees every image.
    """
    for name in attacks:
        if name not in ATTACK_STAGES:
            raise ValueError(f"attacks: got {name!r}, allowed {tuple(ATTACK_STAGES)}")
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
        size = min(plan.batch_size, stage.block_images)
        found += [Block(name, start, min(start + size, count)) for start in range(0, count, size)]
    return found
