"""What the service has to withstand, as data: `tools/scenarios.toml`."""

import tomllib
from dataclasses import dataclass
from pathlib import Path

SCENARIOS = Path(__file__).with_suffix(".toml")


@dataclass(frozen=True, slots=True, kw_only=True)
class Overload:
    """More requests than can be served; the file says what each number means."""

    steps: int
    objective_seconds: float
    warming_seconds: float
    peak_callers: int
    peak_seconds: float
    times: float
    overload_seconds: float
    settling_seconds: float
    goodput_share: float


def overload() -> Overload:
    """The scenario *overload*."""
    return Overload(**tomllib.loads(SCENARIOS.read_text())["overload"])
