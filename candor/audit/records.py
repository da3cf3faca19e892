"""What one attack did to one image for one goal: the entry of an audit's ledger."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

from candor.attacks.verification import Status, Verified
from candor.terms import Goal

# An entry of a stage that is no attack, as its JSON object.
Row = dict[str, Any]


class RecordKey(NamedTuple):
    """What distinguishes the records of one audit.

    Attributes:
        position: of the image in the order of the audit.
        eps_l2: largest L2 the attack may use, None for minimal-norm attacks.
    """

    position: int
    attack: str
    goal: Goal
    eps_l2: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AttackRecord:
    """How one attack on one image ended.

    Attributes:
        position, attack, goal, eps_l2: its `RecordKey`.
        status: how it ended.
        radius: RMSE of the verified image; 0 if already wrong, None without one.
        lower_bound: RMSE up to which nothing was found; None with a radius and where not tried.
        rounded_radius: RMSE after rounding to 8 bits; None without an image.
        holds_rounded: whether the goal still holds then.
        image_sha256: of the verified image's float32 bytes, C order.
        steps: gradient steps or queries.
        warnings: of the library that ran the attack; None where no library did.
        failure: why the attack failed; None unless not tried.
    """

    position: int
    attack: str
    goal: Goal
    eps_l2: float | None = None
    status: Status
    radius: float | None = None
    lower_bound: float | None = None
    rounded_radius: float | None = None
    holds_rounded: bool | None = None
    image_sha256: str | None = None
    steps: int = 0
    warnings: tuple[str, ...] | None = None
    failure: str | None = None

    @property
    def is_tried(self) -> bool:
        """Whether the attack says anything of the image."""
        return self.status is not Status.NOT_TRIED

    @property
    def key(self) -> RecordKey:
        return RecordKey(self.position, self.attack, self.goal, self.eps_l2)

    @classmethod
    def of(
        cls,
        end: Verified,
        *,
        position: int,
        attack: str,
        goal: Goal,
        eps_l2: float | None = None,
        warnings: Sequence[str] | None = None,
    ) -> Self:
        """The record of a verified end."""
        return cls(
            position=position,
            attack=attack,
            goal=goal,
            eps_l2=eps_l2,
            status=end.status,
            radius=end.radius,
            lower_bound=end.lower_bound,
            rounded_radius=end.rounded_radius,
            holds_rounded=end.holds_rounded,
            image_sha256=end.image_sha256,
            steps=end.steps,
            warnings=None if warnings is None else tuple(warnings),
            failure=end.failure,
        )

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self:
        """From what `to_row` made.

        Raises:
            KeyError, ValueError: a field is missing or not of its kind.
        """
        warnings = row.get("warnings")
        return cls(
            position=row["position"],
            attack=row["attack"],
            goal=Goal(row["goal"]),
            eps_l2=row["eps_l2"],
            status=Status(row["status"]),
            radius=row["radius"],
            lower_bound=row["lower_bound"],
            rounded_radius=row["rounded_radius"],
            holds_rounded=row["holds_rounded"],
            image_sha256=row["picture_sha256"],
            steps=row["steps"],
            warnings=None if warnings is None else tuple(warnings),
            failure=row.get("failure"),
        )

    def to_row(self) -> Row:
        """The JSON object of a part; its names and their order are those of all earlier parts."""
        row: Row = {
            "position": self.position,
            "attack": self.attack,
            "goal": str(self.goal),
            "eps_l2": self.eps_l2,
            "status": str(self.status),
            "radius": self.radius,
            "lower_bound": self.lower_bound,
            "rounded_radius": self.rounded_radius,
            "holds_rounded": self.holds_rounded,
            "picture_sha256": self.image_sha256,
            "steps": self.steps,
        }
        if self.warnings is not None:
            row["warnings"] = list(self.warnings)
        if self.failure is not None:
            row["failure"] = self.failure
        return row
