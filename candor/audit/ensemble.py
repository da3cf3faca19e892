"""Rows of all attacks to one radius an image, and the Parquet ledger.

The smallest verified radius counts; where no attack found one the image is unresolved and the
largest RMSE any of them tried stands in, so that it never counts as distance 0.
"""

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from candor.attacks.verification import Status
from candor.audit.ledger import Row

LEDGER_FILE = "ledger.parquet"
_SCHEMA = pa.schema(
    [
        ("position", pa.int64()),
        ("index", pa.int64()),
        ("identifier", pa.string()),
        ("label", pa.int64()),
        ("prediction", pa.int64()),
        ("attack", pa.string()),
        ("goal", pa.string()),
        ("eps_l2", pa.float64()),
        ("status", pa.string()),
        ("radius_rmse", pa.float64()),
        ("radius_l2", pa.float64()),
        ("lower_bound_rmse", pa.float64()),
        ("rounded_radius_rmse", pa.float64()),
        ("holds_rounded", pa.bool_()),
        ("picture_sha256", pa.string()),
        ("steps", pa.int64()),
        ("is_smallest", pa.bool_()),
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Radii:
    """The ensemble's radii for one goal.

    Attributes:
        positions: (N,) int64, ascending.
        values: (N,) float64 RMSE; 0 where already wrong, the lower bound where unresolved.
        is_unresolved: (N,) bool.
        winners: (N,) the row that gave the radius, None where unresolved.
    """

    positions: NDArray[np.int64]
    values: NDArray[np.float64]
    is_unresolved: NDArray[np.bool_]
    winners: tuple[Row | None, ...]


def combine(rows: Iterable[Row], goal: str, positions: Sequence[int]) -> Radii:
    """The smallest radius of every image among the attacks that saw it.

    Args:
        rows: of all attacks, in the order that settles ties.
        positions: images wanted, ascending; each has at least one row.
    """
    winners: dict[int, Row] = {}
    bounds = dict.fromkeys(positions, 0.0)
    for row in rows:
        position = row["position"]
        if row["goal"] != goal or position not in bounds:
            continue
        if row["radius"] is None:
            bounds[position] = max(bounds[position], row["lower_bound"])
        elif position not in winners or row["radius"] < winners[position]["radius"]:
            winners[position] = row
    chosen = tuple(winners.get(position) for position in positions)
    return Radii(
        positions=np.array(positions, dtype=np.int64),
        values=np.array(
            [
                bounds[position] if row is None else row["radius"]
                for position, row in zip(positions, chosen, strict=True)
            ]
        ),
        is_unresolved=np.array([row is None for row in chosen]),
        winners=chosen,
    )


def ledger_bytes(
    clean: Sequence[Row], rows: Sequence[Row], winners: Iterable[Row | None], root: float
) -> bytes:
    """The Parquet file: one row an image, attack and goal, in the order of the audit.

    Args:
        clean: rows of the stage `clean`.
        winners: rows that gave a radius (the same objects as in ``rows``).
        root: factor from RMSE to L2.
    """
    facts = {row["position"]: row for row in clean}
    smallest = {id(row) for row in winners if row is not None}
    columns: dict[str, list[object]] = {name: [] for name in _SCHEMA.names}
    for row in sorted(rows, key=lambda row: row["position"]):
        fact, radius = facts[row["position"]], row["radius"]
        entry = {
            **{name: fact[name] for name in ("index", "identifier", "label", "prediction")},
            **{name: row[name] for name in ("position", "attack", "goal", "eps_l2", "status")},
            **{name: row[name] for name in ("holds_rounded", "picture_sha256", "steps")},
            "radius_rmse": radius,
            "radius_l2": None if radius is None else radius * root,
            "lower_bound_rmse": row["lower_bound"],
            "rounded_radius_rmse": row["rounded_radius"],
            "is_smallest": id(row) in smallest,
        }
        for name, value in entry.items():
            columns[name].append(value)
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns, schema=_SCHEMA), buffer)
    return buffer.getvalue()


def count_status(rows: Iterable[Row], status: Status) -> int:
    """Rows that ended with ``status``."""
    return sum(row["status"] == status for row in rows)
