"""What a benchmark hands over and how it is printed.  Imports the standard library and rich."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What every measure of `make bench` is given.

    Attributes:
        data_dir, reference_dir: folders of real data and of the released checkpoints.
        image_count: real images of the measures that compare solvers.
        repeats: of everything timed; the median counts.
        seed: of the images and targets drawn.
    """

    data_dir: Path
    reference_dir: Path
    image_count: int = 200
    repeats: int = 5
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One number beside what it is compared with in the same run.

    Attributes:
        measure: number of the measure and what is measured.
        ours, baseline: medians in ``unit``; the baseline None where the goal is absolute.
        ratio: how many times better than the baseline; None without one.
        goal: what was asked for, in words.
        is_met: whether it was reached.
        n: images, requests or repeats behind the numbers.
        detail: spread or distribution, in words.
    """

    measure: str
    ours: float
    baseline: float | None
    unit: str
    ratio: float | None
    goal: str
    is_met: bool
    n: int
    detail: str = ""


def as_json(rows: Sequence[Row]) -> list[dict[str, Any]]:
    return [asdict(row) for row in rows]


def print_table(rows: Sequence[Row], console: Console) -> None:
    table = Table("measure", "ours", "baseline", "unit", "ratio", "goal", "met", "n", "detail")
    for row in rows:
        table.add_row(
            row.measure,
            f"{row.ours:.4g}",
            "" if row.baseline is None else f"{row.baseline:.4g}",
            row.unit,
            "" if row.ratio is None else f"{row.ratio:.2f}",
            row.goal,
            "yes" if row.is_met else "no",
            str(row.n),
            row.detail,
        )
    console.print(table)
