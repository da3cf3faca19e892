"""The table of explained images."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from candor.explained.rows import SCHEMA, ExplanationRow, read_rows, table_of, write_table
from candor.files.reading import UnusableFile

ASKED = {
    "solver": "fast",
    "step_count": 8,
    "seed": 0,
    "rho": 0.05,
    "norm": "l2",
    "model": "tiny",
    "model_version": "1",
    "model_digest": "d" * 64,
}
ROWS = [
    ExplanationRow(
        index=0, image="a/é.png", class_index=3, class_confidence=0.75, flips=True, **ASKED
    ),
    ExplanationRow(index=1, image="b.png", error="expected a PNG, got text", **ASKED),
]


def test_a_table_of_rows_is_read_as_it_was_written_and_its_bytes_follow_from_the_rows(
    tmp_path: Path,
) -> None:
    for name in ("one", "two"):
        with (tmp_path / name).open("wb") as stream:
            write_table(stream, table_of(ROWS))
    assert read_rows(tmp_path / "one") == ROWS
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_later_version_may_add_columns_and_another_table_is_one_line(tmp_path: Path) -> None:
    table = table_of(ROWS)
    pq.write_table(table.append_column("new", pa.array([1, 2])), tmp_path / "later.parquet")
    assert read_rows(tmp_path / "later.parquet") == ROWS
    pq.write_table(table.drop_columns(["rmse"]), tmp_path / "other.parquet")
    with pytest.raises(UnusableFile, match="expected a column rmse, got none"):
        read_rows(tmp_path / "other.parquet")
    (tmp_path / "text").write_text("no table")
    with pytest.raises(UnusableFile, match="expected a table of explained images"):
        read_rows(tmp_path / "text")


def test_every_column_of_the_table_may_be_missing_but_those_that_were_asked_for() -> None:
    assert SCHEMA.names[:2] == ["index", "image"]
    assert table_of([]).schema == SCHEMA
