"""The tables of RELIABILITY.md, one a section.

A command passes the rows it measured; the text between `<!-- NAME -->` and `<!-- end NAME -->` is
written from them, all around it by hand.
"""

import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tools import sections
from tools.bench.machine import cores

RELIABILITY = Path(__file__).resolve().parents[1] / "RELIABILITY.md"
COLUMNS = ("what", "tried", "lost", "measured", "held")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One thing tried and what came of it.

    Attributes:
        what: in words.
        tried: requests, inputs or faults.
        lost: of them those with a wrong response or none, where the contract promised one.
        measured: numbers beside what they are allowed, in words.
        is_held: whether all of it kept what is promised.
    """

    what: str
    tried: int
    lost: int
    measured: str
    is_held: bool

    def cells(self) -> tuple[str, ...]:
        """Their texts in the order of `COLUMNS`."""
        held = "yes" if self.is_held else "no"
        return (self.what, f"{self.tried:,}", f"{self.lost:,}", self.measured, held)


def print_table(rows: Sequence[Row], console: Console) -> None:
    table = Table(*COLUMNS)
    for row in rows:
        table.add_row(*row.cells())
    console.print(table)


def write_section(name: str, rows: Sequence[Row], command: str, path: Path = RELIABILITY) -> None:
    """Replaces the table of a section, and says by which command, when and on what machine.

    Args:
        name: of the section's markers, such as "load", "fuzz" or "faults".
        command: that measured, such as "make load".
    Raises:
        ValueError: ``path`` has no such section, or a cell would break the table.
    """
    made = time.strftime("%Y-%m-%d")
    lines = [
        f"`{command}`, {made}, {cores()}, Python {platform.python_version()}.",
        "",
        _line(COLUMNS),
        _line(("---",) * len(COLUMNS)),
        *(_line(row.cells()) for row in rows),
    ]
    sections.write_section(path, name, "\n".join(lines))


def _line(cells: Sequence[str]) -> str:
    for cell in cells:
        if "|" in cell or "\n" in cell:
            raise ValueError(f"cell: expected one line without |, got {cell!r}")
    return f"| {' | '.join(cells)} |"
