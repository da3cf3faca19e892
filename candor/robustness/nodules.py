"""Scores of a JSRT network as the paper has them.  (arXiv 1906.02896, II-B)

Five candidate points are nominated on every film.  A film counts as found where the centre of its
nodule lies within 2.5 cm (143 px) of one of them, so that no film has more than five false
positives.  The paper does not say how the points are found; here a network of regions is asked at
the points of a grid, and the surest ones are taken that lie at least as far from each other.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

CANDIDATES = 5
Point = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class FilmScore:
    """The candidates of one film with a nodule.

    Attributes:
        candidates: (x, y) in pixels, the surest first.
        distance: pixels between the nodule's centre and the nearest of them.
        rank: place of the first candidate that hits, from 1; None where none does.
    """

    candidates: tuple[Point, ...]
    distance: float
    rank: int | None


def grid_points(length: int, region: int, stride: int) -> list[Point]:
    """Centres (x, y) of regions that lie wholly in a square film, row by row; all in pixels.

    Raises:
        ValueError: ``stride`` is not between 1 and the film's length.
    """
    if not 1 <= stride <= length:
        raise ValueError(f"stride: expected [1, {length}], got {stride}")
    places = [float(place) for place in range(region // 2, length - region // 2 + 1, stride)]
    return [(x, y) for y in places for x in places]


def candidate_points(
    points: Sequence[Point], scores: ArrayLike, *, apart: float, count: int = CANDIDATES
) -> tuple[Point, ...]:
    """The points with the highest scores, none nearer than ``apart`` to a surer one.

    Args:
        points: N points (x, y).     scores: (N,) float, one each; the first wins a tie.
        apart: pixels.
        count: at most so many.
    """
    order = np.argsort(-np.asarray(scores, dtype=np.float64), kind="stable")
    chosen: list[Point] = []
    for place in order.tolist():
        if len(chosen) == count:
            break
        if all(distance >= apart for distance in _distances(points[place], chosen)):
            chosen.append(points[place])
    return tuple(chosen)


def score_film(candidates: Sequence[Point], centre: Point, *, within: float) -> FilmScore:
    """Whether a nodule was found: one at exactly ``within`` pixels counts.

    Args:
        candidates: at least one point.     centre: of the nodule.
    """
    distances = _distances(centre, candidates)
    hits = np.flatnonzero(distances <= within)
    return FilmScore(
        candidates=tuple(candidates),
        distance=float(distances.min()),
        rank=int(hits[0]) + 1 if len(hits) else None,
    )


def _distances(point: Point, others: Sequence[Point]) -> NDArray[np.float64]:
    there = np.asarray(others, dtype=np.float64).reshape(-1, 2)
    result: NDArray[np.float64] = np.hypot(*(there - np.asarray(point)).T)
    return result
