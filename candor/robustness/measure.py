"""Accuracy and both ARAs of a network: what to measure, the measurement, its result.

`candor ara` is `measure_ara`.  `candor audit` takes `search_radii` as one attack of several,
verifies each image alone, and takes `radii_area` of the smallest radii.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from candor.robustness.ara import (
    AraResult,
    Interval,
    MedianRadius,
    accuracy_interval,
    accuracy_robustness_area,
    median_radius,
)
from candor.robustness.calibration import (
    AtTemperature,
    Calibration,
    Temperature,
    calibration,
    fitted_temperature,
)
from candor.runtime.threads import in_shares
from candor.search.batch import plan_goal, run_searches
from candor.search.result import SearchResult
from candor.terms import Goal, SearchStatus

GOALS = (Goal.ATTACK, Goal.BTR)
# Called with what is measured, the searches that have finished and the image-steps done so far.
Report = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class AraPlan:
    """What to measure.

    Attributes:
        solver: one of `candor.terms.SOLVERS`.
        steps: of each search, >= 1.
        seed: of the searches (it counts up from image to image) and of the bootstrap.
        batch_size: searches that run together.
    """

    solver: str
    steps: int
    seed: int = 0
    batch_size: int = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class GoalMeasurement:
    """One goal over all images.

    Attributes:
        result: of the searches, in the order of the images.
        area: ARA of the radii, RMSE.
        seconds: of the searches.     image_steps: gradient steps of all images together.
    """

    result: SearchResult
    area: AraResult
    seconds: float
    image_steps: int

    @property
    def radii(self) -> NDArray[np.float64]:
        """(N,) RMSE; see `radii_of`."""
        return radii_of(self.result)[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationMeasurement:
    """A network's probabilities as they are, and at the temperature that makes them truest.

    Attributes:
        temperature: of least NLL.     is_held_out: whether on other images than were measured.
        own, fitted: at the network's own temperature and at that one, on the images measured.
        btr: at that temperature.
    """

    temperature: Temperature
    is_held_out: bool
    own: Calibration
    fitted: Calibration
    btr: GoalMeasurement


@dataclass(frozen=True, slots=True, kw_only=True)
class AraMeasurement:
    """What was measured of one network.

    Attributes:
        accuracy: on the images as they came.
        goals: attack and BTR.
        median_radius: of the attack; None where it is not known, see `candor.robustness.ara`.
        calibration: and BTR once more, at the temperature of least NLL.
    """

    accuracy: Interval
    goals: Mapping[Goal, GoalMeasurement]
    median_radius: MedianRadius | None
    calibration: CalibrationMeasurement


def measure_ara(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    plan: AraPlan,
    *,
    naive: float,
    held_out: tuple[Tensor, Tensor] | None = None,
    report: Report = lambda name, finished, image_steps: None,
) -> AraMeasurement:
    """Accuracy, attack ARA, BTR ARA and calibration of one network.  (III-A)

    Args:
        network: in evaluation mode; maps (B, C, H, W) to logits (B, V).
        images: (N, C, H, W) float32 in [0, 1].     labels: (N,) int64.
        naive: accuracy of always naming the most frequent class, [0, 1].
        held_out: images and labels that the temperature is found on; None for those measured.
        report: called after every few steps.
    Raises:
        ValueError: there is no such solver.
    """
    goals = {
        goal: _measure_goal(network, images, labels, goal, plan, naive, report) for goal in GOALS
    }
    attack = goals[Goal.ATTACK].result
    logits = attack.logits_before
    is_correct = logits.argmax(1) == labels
    data = held_out or (images, labels)
    temperature = temperature_of(network, *data, batch_size=plan.batch_size)
    name = f"{Goal.BTR} at temperature {temperature.value:.2f}"
    warmer = AtTemperature(network, temperature.value)
    own, fitted = (
        calibration(
            logits.numpy(),
            labels.numpy(),
            temperature=value,
            generator=np.random.default_rng(plan.seed),
        )
        for value in (1.0, temperature.value)
    )
    return AraMeasurement(
        accuracy=accuracy_interval(int(is_correct.sum()), len(labels)),
        goals=goals,
        median_radius=median_of(attack, is_correct, seed=plan.seed),
        calibration=CalibrationMeasurement(
            temperature=temperature,
            is_held_out=held_out is not None,
            own=own,
            fitted=fitted,
            btr=_measure_goal(warmer, images, labels, Goal.BTR, plan, naive, report, name),
        ),
    )


@torch.no_grad()
def temperature_of(
    network: nn.Module, images: Tensor, labels: Tensor, *, batch_size: int
) -> Temperature:
    """`fitted_temperature` of a network on labelled images (N, C, H, W)."""
    logits = torch.cat([network(part) for part in torch.split(images, batch_size)])
    return fitted_temperature(logits.numpy(), labels.numpy())


def search_radii(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    goal: Goal,
    *,
    solver: str,
    steps: int,
    seeds: Tensor,
    batch_size: int,
    searcher: nn.Module | None = None,
    report: Callable[[int, int], None] = lambda finished, image_steps: None,
) -> SearchResult:
    """The smallest image that reaches ``goal``, for each of ``images``, by a solver.

    Args:
        network, images, labels: as in `measure_ara`.
        seeds: (N,) int64; decide the direction taken where a gradient is exactly zero.
        searcher: takes the steps; by default ``network``.
        report: called with the searches that have finished and the image-steps done so far.
    """
    return run_searches(
        network,
        images,
        replace(plan_goal(goal, labels, steps=steps), seeds=seeds),
        solver=solver,
        batch_size=batch_size,
        searcher=searcher,
        report=report,
        execute=in_shares,
    )


def radii_of(result: SearchResult) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """(N,) RMSE, the lower bound where unresolved, and (N,) bool, whether it is unresolved."""
    is_unresolved = np.array([status is SearchStatus.UNRESOLVED for status in result.statuses])
    return np.where(is_unresolved, result.lower_bounds.numpy(), result.rmse.numpy()), is_unresolved


def median_of(result: SearchResult, is_correct: Tensor, *, seed: int) -> MedianRadius | None:
    """`median_radius` of attacks, (N,) bool, with the bootstrap's draws from ``seed``."""
    radii, is_unresolved = radii_of(result)
    return median_radius(
        radii,
        is_correct=is_correct.numpy(),
        is_unresolved=is_unresolved,
        generator=np.random.default_rng(seed),
    )


def radii_area(
    radii: ArrayLike, is_unresolved: ArrayLike | None, *, naive: float, seed: int
) -> AraResult:
    """`accuracy_robustness_area` with the bootstrap's draws from ``seed``."""
    return accuracy_robustness_area(
        radii,
        naive=naive,
        generator=np.random.default_rng(seed),
        is_unresolved=is_unresolved,
    )


def _measure_goal(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    goal: Goal,
    plan: AraPlan,
    naive: float,
    report: Report,
    name: str | None = None,
) -> GoalMeasurement:
    started, steps_done = time.monotonic(), 0

    def count(finished: int, image_steps: int) -> None:
        nonlocal steps_done
        steps_done = image_steps
        report(name or goal, finished, image_steps)

    result = search_radii(
        network,
        images,
        labels,
        goal,
        solver=plan.solver,
        steps=plan.steps,
        seeds=torch.arange(plan.seed, plan.seed + len(labels)),
        batch_size=plan.batch_size,
        report=count,
    )
    seconds = time.monotonic() - started
    area = radii_area(*radii_of(result), naive=naive, seed=plan.seed)
    return GoalMeasurement(result=result, area=area, seconds=seconds, image_steps=steps_done)
