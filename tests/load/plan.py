"""The plan of a run, read from plan.toml."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

PLAN = Path(__file__).with_name("plan.toml")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    name: str
    seconds: float
    users: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowed:
    """What must hold.

    Attributes:
        failed_share: of all requests, those that failed or had a wrong response.
        rejected_share: of all requests, those rejected for lack of capacity.
        p95_seconds: by kind of request.
    """

    failed_share: float
    rejected_share: float
    p95_seconds: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Stages one after another, the mix by its weights, the pause between two requests."""

    stages: tuple[Stage, ...]
    mix: Mapping[str, int]
    pause: tuple[float, float]
    allowed: Allowed

    def users_at(self, seconds: float) -> int | None:
        """How many there are at this time after the start; None when the run is over."""
        for stage in self.stages:
            if seconds < stage.seconds:
                return stage.users
            seconds -= stage.seconds
        return None


def read_plan(path: Path = PLAN) -> Plan:
    fields = tomllib.loads(path.read_text())
    return Plan(
        stages=tuple(Stage(**stage) for stage in fields["stages"]),
        mix=fields["mix"],
        pause=(fields["pause"]["least"], fields["pause"]["most"]),
        allowed=Allowed(**fields["allowed"]),
    )
