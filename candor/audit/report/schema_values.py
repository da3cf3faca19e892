"""Numbers as every section of a report has them: distances, shares and areas with intervals."""

from typing import Annotated, Literal

from pydantic import Field

from candor.audit.plan import Frozen

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Number = Annotated[int, Field(ge=0)]


class Distance(Frozen):
    """One distance in both units."""

    rmse: float
    l2: float


class Share(Frozen):
    """``count`` of ``image_count`` images, with the exact (Clopper-Pearson) 95 % interval."""

    value: Fraction
    low: Fraction
    high: Fraction
    count: Number
    image_count: Number


class Estimate(Frozen):
    """A mean or a median over ``image_count`` images, with its 95 % bootstrap interval.

    One image says nothing of others: low and high are its value then.
    """

    value: float
    low: float
    high: float
    image_count: Number


class Area(Frozen):
    """An accuracy-robustness area with its 95 % bootstrap interval.

    Attributes:
        unresolved_count: images on which no attack succeeded; they count with the largest RMSE
            visited, so with any of them the area is a lower bound of what the attacks could show.
    """

    goal: Literal["attack", "btr"]
    value: Distance
    low: Distance
    high: Distance
    image_count: Number
    unresolved_count: Number
    median_radius: Distance
