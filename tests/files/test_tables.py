"""Parquet files are bounded by their content, not only by their size."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from candor.files.reading import UnusableFile
from candor.files.tables import read_table


def test_table_is_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    columns = {"number": list(range(5000)), "text": [f"{i}" for i in range(5000)]}
    written = pa.table(columns).replace_schema_metadata({"key": "value"})
    pq.write_table(written, path, row_group_size=1500)
    assert read_table(path).equals(written, check_metadata=True)
    assert read_table(path, columns=["text"]).column_names == ["text"]
    with pytest.raises(KeyError, match="expected a column none"):
        read_table(path, columns=["text", "none"])


def test_table_without_rows_is_read(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    pq.write_table(pa.table({"number": pa.array([], pa.int64())}), path)
    assert read_table(path).to_pylist() == []


@pytest.mark.parametrize("use_dictionary", [True, False], ids=["dictionary", "plain"])
def test_small_file_of_much_content_is_refused(tmp_path: Path, use_dictionary: bool) -> None:
    path = tmp_path / "bomb.parquet"
    text = pa.array(["x" * 2**20] * 64)
    pq.write_table(pa.table({"text": text}), path, use_dictionary=use_dictionary)
    most = 8 * 2**20
    assert path.stat().st_size < most
    with pytest.raises(UnusableFile, match=f"expected content of at most {most} bytes, got"):
        read_table(path, most=most)
    assert read_table(path, most=80 * 2**20).num_rows == 64


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/null", "/"])
def test_what_is_no_file_is_refused(path: str) -> None:
    with pytest.raises(UnusableFile, match="expected a file, got a"):
        read_table(Path(path))
