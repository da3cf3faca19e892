"""The folder of results: one folder a finished block, and at the end one table of all.

A block's folder has its PNG files and `ROWS_FILE`, which is written last: a block is there wholly
or not at all, and the same block has the same files, whoever computes it and however often.
"""

from collections.abc import Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pyarrow as pa

from candor.explained.explainer import Explained
from candor.explained.rows import (
    SCHEMA,
    TABLE_FILE,
    ExplanationRow,
    table_of,
    write_table,
)
from candor.files.tables import read_table
from candor.files.writing import replacing, write_files
from candor.store.blocks import Block

BLOCKS_FOLDER = "blocks"
ROWS_FILE = "rows.parquet"
_KINDS = ("original", "explanation")


class Results:
    """The results in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def has(self, block: Block) -> bool:
        """Whether the block is finished."""
        return (self.folder / _home(block) / ROWS_FILE).is_file()

    def write(self, block: Block, entries: Sequence[Explained]) -> None:
        """Keep a finished block; returns once it would survive a power cut.

        Raises:
            OSError: it was not kept.
        """
        files: dict[str, bytes] = {}
        rows = []
        for entry in entries:
            row, images = _placed(block, entry)
            rows.append(row)
            files |= images
        table = BytesIO()
        write_table(table, table_of(rows))
        write_files(self.folder / _home(block), files | {ROWS_FILE: table.getvalue()})

    def finish(self, blocks: Sequence[Block]) -> pa.Table:
        """Write the table of all images, in their order; returns it.

        Raises:
            OSError: a block is missing, or the table cannot be written.
        """
        parts = [read_table(self.folder / _home(block) / ROWS_FILE) for block in blocks]
        table = pa.concat_tables([part.cast(SCHEMA) for part in parts]).combine_chunks()
        with replacing(self.folder / TABLE_FILE) as stream:
            write_table(stream, table)
        return table


def _placed(block: Block, entry: Explained) -> tuple[ExplanationRow, dict[str, bytes]]:
    """The row with the names of its files, and the files by their names in the block's folder."""
    if entry.original_png is None or entry.explanation_png is None:
        return entry.row, {}
    original, explanation = (f"{entry.row.index:07d}-{kind}.png" for kind in _KINDS)
    row = replace(
        entry.row,
        original_file=f"{_home(block)}/{original}",
        explanation_file=f"{_home(block)}/{explanation}",
    )
    return row, {original: entry.original_png, explanation: entry.explanation_png}


def _home(block: Block) -> str:
    return f"{BLOCKS_FOLDER}/{block.start:07d}"
