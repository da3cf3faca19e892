"""What was measured of one model, as figures show it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from candor.robustness.ara import accuracy_curve

GOALS = ("attack", "btr")


@dataclass(frozen=True, slots=True)
class Span:
    """A number between the ends of its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """Accuracy against RMSE, constant from each point to the next, both (P,) float64."""

    rmse: NDArray[np.float64]
    accuracy: NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One model on one data set.

    Attributes:
        accuracy: share of clean images; None where it was not measured.
        areas, curves: by goal, ARA in RMSE; a card has no curves.
        naive: accuracy of always naming the most frequent class; None with no curve.
        search: what found the areas: a solver, or "ensemble"; "" where nobody knows.
    """

    name: str
    accuracy: Span | None
    areas: Mapping[str, Span]
    curves: Mapping[str, Steps] = field(default_factory=dict)
    naive: float | None = None
    search: str = ""

    @property
    def label(self) -> str:
        """The name, and by which search it was measured."""
        return f"{self.name} (by {self.search})" if self.search else self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredExplanations:
    """Measures of the explanations of one model.

    Attributes:
        image_counts: explained images by target class, `ALL` first.
        measures: by title, then by class; a class that has no value is absent.
    """

    name: str
    image_counts: Mapping[str, int]
    measures: Mapping[str, Mapping[str, Span]]


ALL = "all"


def steps_of(radii: ArrayLike) -> Steps:
    """The accuracy curve of radii (N,) RMSE, with a step at each."""
    grid = np.unique(np.concatenate([[0.0], np.asarray(radii)]))
    return Steps(rmse=grid, accuracy=accuracy_curve(radii, grid))
