"""The options of a benchmark, the rows that it returns, and how they are printed."""

import argparse
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from candor.contracts.json_text import json_text


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
    image_count: int
    repeats: int
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One number beside what it is compared with in the same run.

    Attributes:
        measure: number of the measure and what is measured.
        ours, baseline: medians in ``unit``; the baseline None where the goal is absolute.
        ratio: how many times better than the baseline; None without one.
        goal: the required value, in words.
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


def parser(program: str, description: str | None) -> argparse.ArgumentParser:
    """The command-line options of every benchmark; see `options_of`."""
    made = argparse.ArgumentParser(prog=program, description=description)
    made.add_argument("--images", type=int, default=200)
    made.add_argument("--repeats", type=int, default=5)
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--json", action="store_true")
    return made


def options_of(arguments: argparse.Namespace) -> Options:
    """The folders come from CANDOR_DATA and CANDOR_REFERENCE; default: this folder."""
    return Options(
        data_dir=Path(os.environ.get("CANDOR_DATA", ".")),
        reference_dir=Path(os.environ.get("CANDOR_REFERENCE", ".")),
        image_count=arguments.images,
        repeats=arguments.repeats,
        seed=arguments.seed,
    )


def show(rows: Sequence[Row], arguments: argparse.Namespace) -> None:
    """As JSON or as a table, on stdout."""
    if arguments.json:
        print(json_text(as_json(rows), indent=2))
    else:
        print_table(rows, Console(width=180))


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
