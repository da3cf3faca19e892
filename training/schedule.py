"""Learning-rate schedules as functions of training progress."""

import math
from collections.abc import Callable
from enum import StrEnum
from functools import partial


class Schedule(StrEnum):
    ONE_CYCLE = "one-cycle"
    STEPS = "steps"
    STEPS_COCO = "steps-coco"
    STEPS_IMAGENET = "steps-imagenet"


def learning_rate(schedule: Schedule, *, peak: float, progress: float) -> float:
    """Learning rate at ``progress`` in [0, 1) of the whole run.

    one-cycle: linear from peak / 10 to peak over the first fifth, then a half cosine to 0.
    steps: linear warm-up over the first twentieth, then peak, divided by 10 at 0.85 and at 0.975
    (III-I1: 10 epochs of warm-up, steps at 170 and 195 of 200).
    steps-coco, steps-imagenet: the same with 10, 55, 70 of 80 epochs (III-I3) and 10, 50, 60 of 65
    (III-I2).
    """
    return _SCHEDULES[schedule](peak, progress)


def _one_cycle(peak: float, progress: float, warm_up: float = 0.2) -> float:
    if progress < warm_up:
        return peak * (0.1 + 0.9 * progress / warm_up)
    return peak * 0.5 * (1.0 + math.cos(math.pi * (progress - warm_up) / (1.0 - warm_up)))


def _steps(
    peak: float,
    progress: float,
    warm_up: float = 0.05,
    drops: tuple[float, float] = (0.85, 0.975),
) -> float:
    if progress < warm_up:
        return peak * (0.1 + 0.9 * progress / warm_up)
    return peak * (0.1 ** sum(progress >= drop for drop in drops))


_SCHEDULES: dict[Schedule, Callable[[float, float], float]] = {
    Schedule.ONE_CYCLE: _one_cycle,
    Schedule.STEPS: _steps,
    Schedule.STEPS_COCO: partial(_steps, warm_up=10 / 80, drops=(55 / 80, 70 / 80)),
    Schedule.STEPS_IMAGENET: partial(_steps, warm_up=10 / 65, drops=(50 / 65, 60 / 65)),
}
