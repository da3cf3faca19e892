"""Learning-rate schedules as functions of training progress.  Imports nothing of ours."""

import math
from collections.abc import Callable
from enum import StrEnum


class Schedule(StrEnum):
    ONE_CYCLE = "one-cycle"
    STEPS = "steps"


def learning_rate(schedule: Schedule, *, peak: float, progress: float) -> float:
    """Learning rate at ``progress`` in [0, 1) of the whole run.

    one-cycle: linear from peak / 10 to peak over the first fifth, then a half cosine to 0.
    steps: linear warm-up over the first twentieth, then peak, divided by 10 at 0.85 and at 0.975
    (III-I1: 10 epochs of warm-up, steps at 170 and 195 of 200).
    """
    return _SCHEDULES[schedule](peak, progress)


def _one_cycle(peak: float, progress: float, warm_up: float = 0.2) -> float:
    if progress < warm_up:
        return peak * (0.1 + 0.9 * progress / warm_up)
    return peak * 0.5 * (1.0 + math.cos(math.pi * (progress - warm_up) / (1.0 - warm_up)))


def _steps(peak: float, progress: float, warm_up: float = 0.05) -> float:
    if progress < warm_up:
        return peak * (0.1 + 0.9 * progress / warm_up)
    return peak * (0.1 ** sum(progress >= step for step in (0.85, 0.975)))


_SCHEDULES: dict[Schedule, Callable[[float, float], float]] = {
    Schedule.ONE_CYCLE: _one_cycle,
    Schedule.STEPS: _steps,
}
