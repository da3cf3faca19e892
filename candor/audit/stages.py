"""Attack stages by name: what runs on a block of images and what it costs.

A stage turns one block of images into rows of the ledger.  It is a pure function of the subject,
the block and the budget, so blocks may run anywhere and in any order.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor, nn

from candor.attacks import carlini_wagner, ddn, fmn, pgd
from candor.attacks.autoattack import autoattack
from candor.attacks.batching import PaddedBatches
from candor.attacks.candidates import Candidates
from candor.attacks.fgsm import fgsm
from candor.attacks.label_only import label_only
from candor.attacks.margin import holds
from candor.attacks.projection import random_start
from candor.attacks.square import square
from candor.attacks.verification import tighten, verify
from candor.audit.ledger import Row
from candor.audit.plan import Budget, image_seed
from candor.contracts.card import ModelCard
from candor.runtime.threads import in_shares
from candor.search.batch import plan_goal, run_searches
from candor.search.solvers import SOLVERS
from candor.terms import Goal, SearchStatus

EPS_L2 = (0.25, 0.5, 1.0)  # of AutoAttack, PGD and FGSM; 0.5 is RobustBench's
SQUARE_EPS_L2 = 1.0
LABEL_EPS_L2 = 1.0
GOALS = (Goal.ATTACK, Goal.BTR)
_FILE_NAMES = {"image_sha256": "picture_sha256"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What is audited.

    Attributes:
        network: in evaluation mode, weights without gradient.
        card: its card; the classes, the input and the name.
        searcher: the same network compiled, for the solvers' steps; None for ``network`` itself.
        independent, undefended: further networks for transfer and ablation, None where not given.
    """

    network: nn.Module
    card: ModelCard
    searcher: nn.Module | None = None
    independent: nn.Module | None = None
    undefended: nn.Module | None = None

    @property
    def padded(self) -> nn.Module:
        """``network`` as the attacks on a whole batch call it."""
        return PaddedBatches(self.network)


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """The images of one block.

    Attributes:
        positions: (B,) place in the order of the audit.     indices: (B,) rows of the data set.
        identifiers: one name an image.
        images: (B, C, H, W) float32 in [0, 1].     labels: (B,) int64.
        seed: of the audit.
    """

    positions: Sequence[int]
    indices: Sequence[int]
    identifiers: Sequence[str]
    images: Tensor
    labels: Tensor
    seed: int

    def seeds(self, stage: str) -> list[int]:
        """One seed an image; see `image_seed`."""
        return [image_seed(self.seed, index, stage) for index in self.indices]

    def first(self, count: int) -> "Batch":
        """The first ``count`` images."""
        return replace(
            self,
            positions=self.positions[:count],
            indices=self.indices[:count],
            identifiers=self.identifiers[:count],
            images=self.images[:count],
            labels=self.labels[:count],
        )


Runner = Callable[[Subject, Batch, Budget], list[Row]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One part of an audit.

    Attributes:
        run: rows of one block.
        limit: images it sees by the budget, None for all.
        steps: about how many network evaluations an image costs, for the time left.
        settings: hyper-parameters, for the report.
        block_images: largest block; small where an image takes long, for a kill loses a block.
    """

    run: Runner
    limit: Callable[[Budget], int | None]
    steps: Callable[[Budget], int]
    settings: Callable[[Budget], Mapping[str, Any]] = field(default=lambda budget: {})
    block_images: int = 1024


@torch.no_grad()
def clean(subject: Subject, batch: Batch, budget: Budget) -> list[Row]:
    """Predictions on the images as they came, each alone."""
    rows: list[Row] = []
    for row, label in enumerate(batch.labels.tolist()):
        logits = subject.network(batch.images[row : row + 1])
        own = batch.labels[row : row + 1]
        rows.append(
            {
                "position": batch.positions[row],
                "index": batch.indices[row],
                "identifier": batch.identifiers[row],
                "label": label,
                "prediction": int(logits.argmax(1)),
                "confidence": float(logits.softmax(1)[0, label]),
                "is_correct": not bool(holds(logits, own, Goal.ATTACK)),
                "is_above_chance": not bool(holds(logits, own, Goal.BTR)),
            }
        )
    return rows


def solver_stage(solver: str) -> Stage:
    """Both goals by a solver of `candor.search`."""

    def run(subject: Subject, batch: Batch, budget: Budget) -> list[Row]:
        rows: list[Row] = []
        for goal in GOALS:
            seeds = torch.tensor(batch.seeds(solver))
            plan = replace(plan_goal(goal, batch.labels, steps=budget.steps), seeds=seeds)
            ends = run_searches(
                subject.network,
                batch.images,
                plan,
                solver=solver,
                batch_size=len(batch.labels),
                searcher=subject.searcher,
                execute=in_shares,
            )
            is_found = [status is SearchStatus.FOUND for status in ends.statuses]
            proposed = Candidates(
                images=ends.images,
                is_found=torch.tensor(is_found),
                lower_bounds=ends.lower_bounds.nan_to_num(0.0),
                steps=ends.steps,
            )
            rows += _verified_rows(subject, batch, goal, proposed, solver)
        return rows

    return Stage(
        run=run,
        limit=lambda budget: None,
        steps=lambda budget: len(GOALS) * 3 * budget.steps,
        settings=lambda budget: {"steps": budget.steps},
    )


def _descent(
    name: str,
    attack: Callable[[nn.Module, Tensor, Tensor, Goal, int], Candidates],
    settings: Mapping[str, Any],
    *,
    searches: int = 1,
    step_factor: int = 1,
) -> Stage:
    """Both goals by a minimal-norm attack; ``step_factor`` times the budget's steps a search."""

    def run(subject: Subject, batch: Batch, budget: Budget) -> list[Row]:
        rows: list[Row] = []
        steps = step_factor * budget.descent_steps
        for goal in GOALS:
            proposed = attack(subject.padded, batch.images, batch.labels, goal, steps)
            rows += _tightened_rows(subject, batch, goal, proposed, name)
        return rows

    return Stage(
        run=run,
        limit=lambda budget: budget.descent_images,
        steps=lambda budget: len(GOALS) * searches * step_factor * 3 * budget.descent_steps,
        settings=lambda budget: {"steps": step_factor * budget.descent_steps, **settings},
    )


def _fgsm(subject: Subject, batch: Batch, budget: Budget) -> list[Row]:
    rows: list[Row] = []
    for eps in EPS_L2:
        proposed = fgsm(subject.padded, batch.images, batch.labels, eps)
        rows += _tightened_rows(subject, batch, Goal.ATTACK, proposed, "fgsm", eps)
    return rows


def _pgd(subject: Subject, batch: Batch, budget: Budget) -> list[Row]:
    rows: list[Row] = []
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
        rows += _tightened_rows(subject, batch, Goal.ATTACK, proposed, "pgd", eps)
    return rows


def _autoattack(subject: Subject, batch: Batch, budget: Budget) -> list[Row]:
    rows: list[Row] = []
    for eps in EPS_L2:
        proposed, warnings = autoattack(
            subject.network, batch.images, batch.labels, eps, batch.seeds("autoattack")
        )
        for row in _tightened_rows(subject, batch, Goal.ATTACK, proposed, "autoattack", eps):
            rows.append(row | {"warnings": warnings})
    return rows


def _square(subject: Subject, batch: Batch, budget: Budget) -> list[Row]:
    proposed, warnings = square(
        subject.network,
        batch.images,
        batch.labels,
        SQUARE_EPS_L2,
        batch.seeds("square"),
        queries=budget.square_queries,
    )
    rows = _tightened_rows(subject, batch, Goal.ATTACK, proposed, "square", SQUARE_EPS_L2)
    return [row | {"warnings": warnings} for row in rows]


def _label_only(subject: Subject, batch: Batch, budget: Budget) -> list[Row]:
    proposed = label_only(
        subject.network,
        batch.images,
        batch.labels,
        LABEL_EPS_L2,
        batch.seeds("label-only"),
        queries=budget.label_queries,
    )
    return _tightened_rows(subject, batch, Goal.ATTACK, proposed, "label-only", LABEL_EPS_L2)


def _tightened_rows(
    subject: Subject,
    batch: Batch,
    goal: Goal,
    proposed: Candidates,
    attack: str,
    eps: float | None = None,
) -> list[Row]:
    tight = tighten(subject.padded, batch.images, batch.labels, goal, proposed)
    return _verified_rows(subject, batch, goal, tight, attack, eps)


def _verified_rows(
    subject: Subject,
    batch: Batch,
    goal: Goal,
    proposed: Candidates,
    attack: str,
    eps: float | None = None,
) -> list[Row]:
    ends = verify(subject.network, batch.images, batch.labels, goal, proposed)
    return [
        {
            "position": position,
            "attack": attack,
            "goal": str(goal),
            "eps_l2": eps,
            # Files keep the name that they had before.
            **{_FILE_NAMES.get(name, name): value for name, value in asdict(end).items()},
        }
        for position, end in zip(batch.positions, ends, strict=True)
    ]


ATTACK_STAGES: Mapping[str, Stage] = {
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
        settings=lambda budget: {"eps_l2": list(EPS_L2)},
    ),
    "pgd": Stage(
        run=_pgd,
        limit=lambda budget: budget.descent_images,
        steps=lambda budget: 3 * len(EPS_L2) * budget.descent_steps,
        settings=lambda budget: {
            "eps_l2": list(EPS_L2),
            "steps": budget.descent_steps,
            "step_length": f"{pgd.STEP_SHARE} eps / steps",
        },
    ),
    "autoattack": Stage(
        run=_autoattack,
        limit=lambda budget: budget.autoattack_images,
        steps=lambda budget: 20_000,
        settings=lambda budget: {
            "eps_l2": list(EPS_L2),
            "version": f"standard, pyautoattack {version('pyautoattack')}",
        },
        block_images=1,
    ),
    "square": Stage(
        run=_square,
        limit=lambda budget: budget.autoattack_images,
        steps=lambda budget: budget.square_queries,
        settings=lambda budget: {"eps_l2": SQUARE_EPS_L2, "queries": budget.square_queries},
        block_images=4,
    ),
    "label-only": Stage(
        run=_label_only,
        limit=lambda budget: budget.autoattack_images,
        steps=lambda budget: budget.label_queries,
        settings=lambda budget: {"eps_l2": LABEL_EPS_L2, "queries": budget.label_queries},
        block_images=4,
    ),
}
