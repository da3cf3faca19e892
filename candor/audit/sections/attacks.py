"""Attack stages by name: what runs on a block of images and what it costs."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor, nn

from candor.attacks import carlini_wagner, ddn, fmn, pgd
from candor.attacks.autoattack import (
    CHEAP_STEPS,
    autoattack,
    replacement_of_standard,
    target_count,
)
from candor.attacks.candidates import Candidates
from candor.attacks.fgsm import fgsm
from candor.attacks.label_only import label_only
from candor.attacks.projection import random_start
from candor.attacks.square import square
from candor.attacks.verification import tighten, verify
from candor.audit.plan import Budget
from candor.audit.records import AttackRecord
from candor.audit.stage import Batch, Stage, Subject
from candor.robustness.measure import GOALS, search_radii
from candor.runtime.threads import spread_over
from candor.search.solvers import SOLVERS
from candor.terms import Goal, SearchStatus

EPS_L2 = (0.25, 0.5, 1.0)  # of AutoAttack, PGD and FGSM; 0.5 is RobustBench's
SQUARE_EPS_L2 = 1.0
LABEL_EPS_L2 = 1.0


def solver_stage(solver: str) -> Stage[AttackRecord]:
    """Both goals by a solver of `candor.search`."""

    def run(subject: Subject, batch: Batch, budget: Budget) -> list[AttackRecord]:
        records: list[AttackRecord] = []
        for goal in GOALS:
            ends = search_radii(
                subject.network,
                batch.images,
                batch.labels,
                goal,
                solver=solver,
                steps=budget.steps,
                seeds=torch.tensor(batch.seeds(solver)),
                batch_size=len(batch.labels),
                searcher=subject.searcher,
            )
            is_found = [status is SearchStatus.FOUND for status in ends.statuses]
            proposed = Candidates(
                images=ends.images,
                is_found=torch.tensor(is_found),
                lower_bounds=ends.lower_bounds.nan_to_num(0.0),
                steps=ends.steps,
            )
            records += _verified(subject, batch, goal, proposed, solver)
        return records

    return Stage(
        run=run,
        limit=lambda budget: None,
        steps=lambda budget: len(GOALS) * 3 * budget.steps,
        settings=lambda budget, class_count: {"steps": budget.steps},
    )


def _descent(
    name: str,
    attack: Callable[[nn.Module, Tensor, Tensor, Goal, int], Candidates],
    settings: Mapping[str, Any],
    *,
    searches: int = 1,
    step_factor: int = 1,
) -> Stage[AttackRecord]:
    """Both goals by a minimal-norm attack; ``step_factor`` times the budget's steps a search."""

    def run(subject: Subject, batch: Batch, budget: Budget) -> list[AttackRecord]:
        records: list[AttackRecord] = []
        steps = step_factor * budget.descent_steps
        for goal in GOALS:
            proposed = attack(subject.padded, batch.images, batch.labels, goal, steps)
            records += _tightened(subject, batch, goal, proposed, name)
        return records

    return Stage(
        run=run,
        limit=lambda budget: budget.descent_images,
        steps=lambda budget: len(GOALS) * searches * step_factor * 3 * budget.descent_steps,
        settings=lambda budget, class_count: {
            "steps": step_factor * budget.descent_steps,
            **settings,
        },
    )


def _fgsm(subject: Subject, batch: Batch, budget: Budget) -> list[AttackRecord]:
    records: list[AttackRecord] = []
    for eps in EPS_L2:
        proposed = fgsm(subject.padded, batch.images, batch.labels, eps)
        records += _tightened(subject, batch, Goal.ATTACK, proposed, "fgsm", eps)
    return records


def _pgd(subject: Subject, batch: Batch, budget: Budget) -> list[AttackRecord]:
    records: list[AttackRecord] = []
    for eps in EPS_L2:
        start = random_start(batch.images, eps, batch.seeds("pgd"))
        proposed = pgd.pgd(
            subject.padded,
            batch.images,
            batch.labels,
            eps,
            steps=budget.descent_steps,
            start=start,
        )
        records += _tightened(subject, batch, Goal.ATTACK, proposed, "pgd", eps)
    return records


def _autoattack(subject: Subject, batch: Batch, budget: Budget) -> list[AttackRecord]:
    records: list[AttackRecord] = []
    proposed: Candidates | None = None
    for eps in EPS_L2:
        proposed, warnings = autoattack(
            subject.attacked,
            batch.images,
            batch.labels,
            eps,
            batch.seeds("autoattack"),
            smaller=proposed,
            batch_size=batch.size,
            spread=partial(spread_over, subject.attacked),
        )
        records += _tightened(subject, batch, Goal.ATTACK, proposed, "autoattack", eps, warnings)
    return records


def _autoattack_settings(class_count: int) -> dict[str, Any]:
    """The set that really runs, which below four classes is not the standard one."""
    replacement, library = replacement_of_standard(class_count), version("pyautoattack")
    shared = {"eps_l2": list(EPS_L2), "pgd_steps_before": CHEAP_STEPS}
    if replacement is None:
        targets = {"targets": target_count(class_count)}
        return {**shared, "version": f"standard, pyautoattack {library}", **targets}
    named = f"custom ({' + '.join(replacement)}), pyautoattack {library}"
    return {**shared, "version": named}


def _square(subject: Subject, batch: Batch, budget: Budget) -> list[AttackRecord]:
    proposed, warnings = square(
        subject.attacked,
        batch.images,
        batch.labels,
        SQUARE_EPS_L2,
        batch.seeds("square"),
        queries=budget.square_queries,
        batch_size=batch.size,
        spread=partial(spread_over, subject.attacked),
    )
    return _tightened(subject, batch, Goal.ATTACK, proposed, "square", SQUARE_EPS_L2, warnings)


def _label_only(subject: Subject, batch: Batch, budget: Budget) -> list[AttackRecord]:
    proposed = label_only(
        subject.network,
        batch.images,
        batch.labels,
        LABEL_EPS_L2,
        batch.seeds("label-only"),
        queries=budget.label_queries,
    )
    return _tightened(subject, batch, Goal.ATTACK, proposed, "label-only", LABEL_EPS_L2)


def _tightened(
    subject: Subject,
    batch: Batch,
    goal: Goal,
    proposed: Candidates,
    attack: str,
    eps: float | None = None,
    warnings: Sequence[str] | None = None,
) -> list[AttackRecord]:
    tight = tighten(subject.padded, batch.images, batch.labels, goal, proposed)
    return _verified(subject, batch, goal, tight, attack, eps, warnings)


def _verified(
    subject: Subject,
    batch: Batch,
    goal: Goal,
    proposed: Candidates,
    attack: str,
    eps: float | None = None,
    warnings: Sequence[str] | None = None,
) -> list[AttackRecord]:
    ends = verify(subject.network, batch.images, batch.labels, goal, proposed)
    return [
        AttackRecord.of(
            end, position=position, attack=attack, goal=goal, eps_l2=eps, warnings=warnings
        )
        for position, end in zip(batch.positions, ends, strict=True)
    ]


ATTACK_STAGES: Mapping[str, Stage[AttackRecord]] = {
    **{solver: solver_stage(solver) for solver in SOLVERS},
    "ddn": _descent(
        "ddn",
        ddn.ddn,
        {"first_norm": ddn.FIRST_NORM, "norm_change": ddn.NORM_CHANGE},
    ),
    "fmn": _descent(
        "fmn",
        fmn.fmn,
        {"norm_change": [fmn.FIRST_CHANGE, fmn.LAST_CHANGE]},
    ),
    "cw": _descent(
        "cw",
        carlini_wagner.carlini_wagner,
        {"searches": carlini_wagner.SEARCHES, "learning_rate": carlini_wagner.LEARNING_RATE},
        searches=carlini_wagner.SEARCHES,
        step_factor=2,  # Adam is 4 % off on a linear model after 60 steps, 0.1 % after 150
    ),
    "fgsm": Stage(
        run=_fgsm,
        limit=lambda budget: budget.descent_images,
        steps=lambda budget: 3 * len(EPS_L2),
        settings=lambda budget, class_count: {"eps_l2": list(EPS_L2)},
    ),
    "pgd": Stage(
        run=_pgd,
        limit=lambda budget: budget.descent_images,
        steps=lambda budget: 3 * len(EPS_L2) * budget.descent_steps,
        settings=lambda budget, class_count: {
            "eps_l2": list(EPS_L2),
            "steps": budget.descent_steps,
            "step_length": f"{pgd.STEP_SHARE} eps / steps",
        },
    ),
    "autoattack": Stage(
        run=_autoattack,
        limit=lambda budget: budget.autoattack_images,
        steps=lambda budget: 20_000,
        settings=lambda budget, class_count: _autoattack_settings(class_count),
        block_images=64,
        block_batches=2,
    ),
    "square": Stage(
        run=_square,
        limit=lambda budget: budget.query_images,
        steps=lambda budget: budget.square_queries,
        settings=lambda budget, class_count: {
            "eps_l2": SQUARE_EPS_L2,
            "queries": budget.square_queries,
        },
        block_images=64,
    ),
    "label-only": Stage(
        run=_label_only,
        limit=lambda budget: budget.query_images,
        steps=lambda budget: budget.label_queries,
        settings=lambda budget, class_count: {
            "eps_l2": LABEL_EPS_L2,
            "queries": budget.label_queries,
        },
        block_images=4,
    ),
}
