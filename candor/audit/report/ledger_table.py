"""The ledger of a finished audit as one Parquet table."""

import io
from collections.abc import Collection, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from candor.audit.records import AttackRecord, RecordKey, Row

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


def ledger_bytes(
    clean: Sequence[Row],
    records: Sequence[AttackRecord],
    smallest: Collection[RecordKey],
    root: float,
) -> bytes:
    """The Parquet file: one row an image, attack, goal and budget, in the order of the audit.

    Args:
        clean: rows of the stage `clean`.
        smallest: keys of the records that gave a radius.
        root: factor from RMSE to L2.
    """
    facts = {row["position"]: row for row in clean}
    columns: dict[str, list[object]] = {name: [] for name in _SCHEMA.names}
    for record in sorted(records, key=lambda record: record.position):
        fact, radius = facts[record.position], record.radius
        row = record.to_row()
        entry = {
            **{name: fact[name] for name in ("index", "identifier", "label", "prediction")},
            **{name: row[name] for name in ("position", "attack", "goal", "eps_l2", "status")},
            **{name: row[name] for name in ("holds_rounded", "picture_sha256", "steps")},
            "radius_rmse": radius,
            "radius_l2": None if radius is None else radius * root,
            "lower_bound_rmse": record.lower_bound,
            "rounded_radius_rmse": record.rounded_radius,
            "is_smallest": record.key in smallest,
        }
        for name, value in entry.items():
            columns[name].append(value)
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns, schema=_SCHEMA), buffer)
    return buffer.getvalue()


def record_of_ledger_row(row: Row) -> AttackRecord:
    """The record behind a row of the file; its position is the image's index in the data set."""
    return AttackRecord.from_row(
        {
            **row,
            "position": row["index"],
            "radius": row["radius_rmse"],
            "lower_bound": row["lower_bound_rmse"],
            "rounded_radius": row["rounded_radius_rmse"],
        }
    )
