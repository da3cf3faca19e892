"""Parquet files, read with bounds on what their content takes: a small file may stand for much."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from candor.files.reading import GIB, UnusableFile, open_file

_BATCH_ROWS = 1024
MAX_FILE_BYTES = 16 * GIB


def read_table(
    path: Path, *, columns: Sequence[str] | None = None, most: int = MAX_FILE_BYTES
) -> pa.Table:
    """The table of a Parquet file.

    Args:
        columns: the ones to read; None for all.
        most: bytes of the file, and of its content in memory.
    Raises:
        UnusableFile: larger, or no file.
        KeyError: it lacks one of the columns.
        OSError, pa.ArrowException: it cannot be read, or is no Parquet file.
    """
    with open_file(path, most) as stream:
        file = pq.ParquetFile(stream)
        missing = [name for name in columns or () if name not in file.schema_arrow.names]
        if missing:
            raise KeyError(f"expected a column {missing[0]}, got none")
        groups = (file.metadata.row_group(at) for at in range(file.metadata.num_row_groups))
        _check(path, sum(group.total_byte_size for group in groups), most)
        batches, size = [], 0
        for batch in file.iter_batches(_BATCH_ROWS, columns=columns):
            size += batch.nbytes
            _check(path, size, most)
            batches.append(batch)
        schema = batches[0].schema if batches else file.schema_arrow
        table = pa.Table.from_batches(batches, schema)
        return table.replace_schema_metadata(file.schema_arrow.metadata)


def _check(path: Path, size: int, most: int) -> None:
    if size > most:
        raise UnusableFile(
            f"{path}: expected content of at most {most} bytes, got {size} bytes or more"
        )
