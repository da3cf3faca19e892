"""Combines the records of all attacks into one radius for each image.

The smallest verified radius counts; where no attack found one the image is unresolved and the
largest RMSE any of them tried stands in, so that it never counts as distance 0.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from candor.attacks.verification import Status
from candor.audit.records import AttackRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Radii:
    """The ensemble's radii for one goal.

    Attributes:
        positions: (N,) int64, ascending.
        values: (N,) float64 RMSE; 0 where already wrong, the lower bound where unresolved.
        is_unresolved: (N,) bool.
        winners: (N,) the record that gave the radius, None where unresolved.
    """

    positions: NDArray[np.int64]
    values: NDArray[np.float64]
    is_unresolved: NDArray[np.bool_]
    winners: tuple[AttackRecord | None, ...]


def combine(records: Iterable[AttackRecord], goal: str, positions: Sequence[int]) -> Radii:
    """The smallest radius of every image among the attacks that saw it.

    Args:
        records: of all attacks, in the order that settles ties.
        positions: images wanted, ascending; each has at least one record.
    """
    smallest: dict[int, tuple[float, AttackRecord]] = {}
    bounds = dict.fromkeys(positions, 0.0)
    for record in records:
        position, radius = record.position, record.radius
        if record.goal != goal or position not in bounds:
            continue
        if radius is None:
            bounds[position] = max(bounds[position], record.lower_bound or 0.0)
        elif position not in smallest or radius < smallest[position][0]:
            smallest[position] = radius, record
    chosen = [smallest.get(position) for position in positions]
    return Radii(
        positions=np.array(positions, dtype=np.int64),
        values=np.array(
            [
                bounds[position] if found is None else found[0]
                for position, found in zip(positions, chosen, strict=True)
            ]
        ),
        is_unresolved=np.array([found is None for found in chosen]),
        winners=tuple(None if found is None else found[1] for found in chosen),
    )


def count_status(records: Iterable[AttackRecord], status: Status) -> int:
    """Records that ended with ``status``."""
    return sum(record.status is status for record in records)
