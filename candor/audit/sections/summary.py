"""Numbers of the report from rows of the ledger.  Pure: the same rows give the same numbers."""

import math
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from candor.attacks.autoattack import replacement_of_standard
from candor.attacks.verification import Status
from candor.audit.ensemble import Radii, combine, count_status
from candor.audit.records import AttackRecord, RecordKey, Row
from candor.audit.report.schema import (
    AttackRow,
    BudgetRow,
    ClassRow,
    Curve,
    CurvePoint,
    NotTried,
    PublishedRow,
    Reference,
)
from candor.audit.report.schema_values import Area, Distance, Share
from candor.robustness.ara import accuracy_curve, accuracy_interval
from candor.robustness.measure import radii_area

GoalName = Literal["attack", "btr"]
GOAL_NAMES: tuple[GoalName, ...] = ("attack", "btr")
ENOUGH_IMAGES = 100  # below, one image moves accuracy by more than a point

# Tables I and II of arXiv 1906.02896, CIFAR-10, ResNet-44: accuracy, attack ARA, BTR ARA in RMSE.
_PAPER_ROWS = (
    ("N1 standard", "Table I", 0.922, 0.0013, 0.0014),
    ("N2 adversarial training, L2 eps 0.01", "Table II", 0.874, 0.0107, 0.0153),
    ("N3 L_adv tandem + HHAT L2,min", "Table II", 0.684, 0.0197, 0.0450),
    ("N4 L_adv tandem, loss target 1.5", "Table II", 0.687, 0.0151, 0.0423),
)
_PAPER_DATA = "cifar10"

# RobustBench, CIFAR-10, L2 0.5, in per cent: clean, and under standard AutoAttack.
ROBUSTBENCH_EPS_L2, _ROBUSTBENCH_IMAGES = 0.5, 10_000
ROBUSTBENCH_ROWS = (
    ("Wang2023Better, WRN-28-10", 95.16, 83.68),
    ("Rade2021Helper, PreActResNet-18", 90.57, 76.15),
    ("Engstrom2019Robustness, ResNet-50", 90.83, 69.24),
    ("Rice2020Overfitting, PreActResNet-18", 88.67, 67.68),
    ("Ding2020MMA, WRN-28-4", 88.02, 66.09),
    ("Standard, WRN-28-10", 94.78, 0.0),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Finished rows of an audit.

    Attributes:
        rows: of the stages that are no attacks, by stage; one that did not run is absent.
        records: of the attacks by name, in the order of the plan, which settles ties.
        naive, pixel_count: as in `Report`.
        seed: of the bootstrap's draws.
    """

    rows: Mapping[str, Sequence[Row]]
    records: Mapping[str, Sequence[AttackRecord]]
    naive: float
    pixel_count: int
    seed: int

    @property
    def clean(self) -> Sequence[Row]:
        return self.rows["clean"]

    @property
    def positions(self) -> list[int]:
        return sorted(row["position"] for row in self.clean)

    def all_records(self) -> list[AttackRecord]:
        """Records of every attack, in the order that settles ties."""
        return [record for records in self.records.values() for record in records]

    def smallest(self) -> set[RecordKey]:
        """Keys of the records that give an image's radius, for both goals."""
        winners = [winner for goal in GOAL_NAMES for winner in self.radii(goal).winners]
        return {winner.key for winner in winners if winner is not None}

    def radii(self, goal: str, positions: Sequence[int] | None = None) -> Radii:
        """The ensemble's radii for ``goal``."""
        return combine(self.all_records(), goal, positions or self.positions)

    def distance(self, rmse: float) -> Distance:
        return Distance(rmse=rmse, l2=rmse * math.sqrt(self.pixel_count))


def share(flags: Iterable[bool]) -> Share:
    """How many of the flags are true, with the exact interval."""
    values = list(flags)
    return _share_of(sum(values), len(values))


def _share_of(count: int, image_count: int) -> Share:
    interval = accuracy_interval(count, image_count)
    return Share(
        value=interval.value,
        low=interval.low,
        high=interval.high,
        count=count,
        image_count=image_count,
    )


def area(
    evidence: Evidence,
    goal: GoalName,
    values: NDArray[np.float64],
    is_unresolved: NDArray[np.bool_] | None = None,
) -> Area:
    """Exact area of radii (N,) with the bootstrap's interval."""
    measured = radii_area(values, is_unresolved, naive=evidence.naive, seed=evidence.seed)
    return Area(
        goal=goal,
        value=evidence.distance(measured.value),
        low=evidence.distance(measured.low),
        high=evidence.distance(measured.high),
        image_count=measured.image_count,
        unresolved_count=measured.unresolved_count,
        median_radius=evidence.distance(float(np.median(values))),
    )


def ensemble_areas(evidence: Evidence, positions: Sequence[int] | None = None) -> tuple[Area, ...]:
    """Both ARAs by the smallest radius of every image."""
    radii = {goal: evidence.radii(goal, positions) for goal in GOAL_NAMES}
    return tuple(
        area(evidence, goal, found.values, found.is_unresolved) for goal, found in radii.items()
    )


def subset_positions(evidence: Evidence) -> list[int]:
    """Images that every attack was tried on, with all its goals and budgets."""
    seen = [
        {record.position for record in records}
        - {record.position for record in records if not record.is_tried}
        for records in evidence.records.values()
    ]
    return sorted(set.intersection(*seen)) if seen else []


def curve(evidence: Evidence, goal: GoalName) -> Curve:
    """Accuracy at 0 and just above every radius."""
    values = evidence.radii(goal).values
    grid = np.unique(np.concatenate([[0.0], values]))
    return Curve(
        goal=goal,
        points=tuple(
            CurvePoint(distance=evidence.distance(float(rmse)), accuracy=float(accuracy))
            for rmse, accuracy in zip(grid, accuracy_curve(values, grid), strict=True)
        ),
    )


def class_rows(evidence: Evidence, names: Sequence[str]) -> tuple[ClassRow, ...]:
    """One row a class that has images."""
    labels = {row["position"]: row["label"] for row in evidence.clean}
    correct = {row["position"]: row["is_correct"] for row in evidence.clean}
    radii = {
        goal: dict(zip(found.positions.tolist(), found.values.tolist(), strict=True))
        for goal in GOAL_NAMES
        for found in [evidence.radii(goal)]
    }
    rows = []
    for label, name in enumerate(names):
        members = [position for position in evidence.positions if labels[position] == label]
        if not members:
            continue
        means = {
            goal: evidence.distance(float(np.mean([radii[goal][p] for p in members])))
            for goal in GOAL_NAMES
        }
        rows.append(
            ClassRow(
                name=name,
                accuracy=share(correct[position] for position in members),
                attack_mean_radius=means["attack"],
                btr_mean_radius=means["btr"],
            )
        )
    return tuple(rows)


def attack_rows(
    evidence: Evidence, settings: Mapping[str, Mapping[str, Any]]
) -> tuple[AttackRow, ...]:
    """One row an attack, goal and budget."""
    smallest = evidence.smallest()
    return tuple(
        _attack_row(evidence, group, smallest, goal, eps, settings[name])
        for name, records in evidence.records.items()
        for goal in GOAL_NAMES
        for eps, group in _by_budget(records, goal).items()
    )


def budget_rows(evidence: Evidence) -> tuple[BudgetRow, ...]:
    """Accuracy under every attack of fixed budget, an image that is wrong anyway included."""
    rows = []
    for name, records in evidence.records.items():
        for eps, group in _by_budget(records, "attack").items():
            if eps is None:
                continue
            tried = [record for record in group if record.is_tried]
            rows.append(
                BudgetRow(
                    attack=name,
                    eps=evidence.distance(eps / math.sqrt(evidence.pixel_count)),
                    accuracy=share(r.radius is None for r in tried) if tried else None,
                    not_tried=len(group) - len(tried),
                )
            )
    return tuple(rows)


def not_tried(evidence: Evidence) -> tuple[NotTried, ...]:
    """Attacks that failed on some of their images."""
    return tuple(
        NotTried(
            attack=name,
            image_count=len({record.position for record in failed}),
            planned_count=len({record.position for record in records}),
            reasons=tuple(sorted({record.failure or "" for record in failed})),
        )
        for name, records in evidence.records.items()
        if (failed := [record for record in records if not record.is_tried])
    )


def sentence(failed: NotTried) -> str:
    """What a report says of an attack that failed."""
    return (
        f"{failed.attack} failed on {failed.image_count} of {failed.planned_count} images and "
        f"was not tried there: nothing is known of them by it ({'; '.join(failed.reasons)})."
    )


def references(data: str, pixel_count: int) -> tuple[Reference, ...]:
    """The paper's rows where they are of the same data set."""
    if data.split("/")[0] != _PAPER_DATA:
        return ()
    root = math.sqrt(pixel_count)
    return tuple(
        Reference(
            name=name,
            source=f"arXiv 1906.02896, {table}",
            accuracy=accuracy,
            attack_ara=Distance(rmse=attack, l2=attack * root),
            btr_ara=Distance(rmse=btr, l2=btr * root),
        )
        for name, table, accuracy, attack, btr in _PAPER_ROWS
    )


def published(evidence: Evidence, data: str) -> tuple[PublishedRow, ...]:
    """RobustBench's rows where AutoAttack ran in their ball on images of their data set."""
    balls = {record.eps_l2 for record in evidence.records.get("autoattack", ())}
    if data.split("/")[0] != _PAPER_DATA or ROBUSTBENCH_EPS_L2 not in balls:
        return ()
    return tuple(
        PublishedRow(
            name=name,
            source="RobustBench",
            eps_l2=ROBUSTBENCH_EPS_L2,
            accuracy=_share_of(round(clean * 100), _ROBUSTBENCH_IMAGES),
            robust_accuracy=_share_of(round(robust * 100), _ROBUSTBENCH_IMAGES),
        )
        for name, clean, robust in ROBUSTBENCH_ROWS
    )


def warnings(evidence: Evidence, areas: Sequence[Area], class_count: int) -> list[str]:
    """What a reader must know before believing the areas, the gravest first."""
    found = [sentence(failed) for failed in not_tried(evidence)]
    replacement = replacement_of_standard(class_count)
    if replacement is not None and "autoattack" in evidence.records:
        found.append(
            f"autoattack ran a custom set ({', '.join(replacement)}), not standard AutoAttack: "
            "its targeted attacks need four classes or more."
        )
    count = len(evidence.clean)
    if count < ENOUGH_IMAGES:
        width = areas[0].high.rmse - areas[0].low.rmse
        found.append(
            f"{count} images are too few: the 95 % interval of the attack ARA is {width:.4f} RMSE "
            f"wide. Use at least {ENOUGH_IMAGES}, and 1,000 to compare models."
        )
    for measured in areas:
        if measured.unresolved_count:
            found.append(
                f"No attack resolved {measured.unresolved_count} of {count} images for goal "
                f"{measured.goal}; they count with the largest RMSE tried, which is not their "
                "distance."
            )
    return found


def _by_budget(
    records: Sequence[AttackRecord], goal: str
) -> dict[float | None, list[AttackRecord]]:
    groups: dict[float | None, list[AttackRecord]] = {}
    for record in records:
        if record.goal == goal:
            groups.setdefault(record.eps_l2, []).append(record)
    return groups


def _attack_row(
    evidence: Evidence,
    records: Sequence[AttackRecord],
    smallest: Set[RecordKey],
    goal: GoalName,
    eps: float | None,
    settings: Mapping[str, Any],
) -> AttackRow:
    tried = [record for record in records if record.is_tried]
    found = [record for record in records if record.status is Status.FOUND]
    radii = [record.radius for record in found if record.radius is not None]
    messages = {message for record in records for message in record.warnings or ()}
    return AttackRow(
        attack=records[0].attack,
        goal=goal,
        eps_l2=eps,
        image_count=len(tried),
        not_tried=len(records) - len(tried),
        found=len(found),
        unresolved=count_status(records, Status.UNRESOLVED),
        already_wrong=count_status(records, Status.ALREADY_WRONG),
        unverified=count_status(records, Status.UNVERIFIED),
        wins=sum(record.key in smallest for record in found),
        holds_rounded=sum(bool(record.holds_rounded) for record in found),
        median_radius=evidence.distance(float(np.median(radii))) if radii else None,
        area=_own_area(evidence, tried, goal) if eps is None and tried else None,
        settings=dict(settings),
        warnings=tuple(sorted(messages)),
    )


def _own_area(evidence: Evidence, records: Sequence[AttackRecord], goal: GoalName) -> Area:
    own = combine(records, goal, sorted(record.position for record in records))
    return area(evidence, goal, own.values, own.is_unresolved)
