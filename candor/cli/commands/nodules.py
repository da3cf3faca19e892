"""The command `candor nodules`."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import Progress
from rich.table import Table

from candor.audit.nodule_session import score_folder
from candor.cli.options import DataDir
from candor.cli.output import AsJson, console, print_json


def nodules(
    model: Annotated[Path, typer.Option(help="Model folder: of JSRT's regions.")],
    data_dir: DataDir = None,
    stride: Annotated[
        int, typer.Option(min=1, max=2048, help="Pixels between neighbours of the grid.")
    ] = 64,
    as_json: AsJson = False,
) -> None:
    """Sensitivity at five false positives a film, as the paper scores JSRT.  (II-B)"""
    with Progress(console=console()) as bar:
        task = bar.add_task("films", total=None)
        summary = score_folder(
            model,
            data_dir,
            stride=stride,
            report=lambda done, total: bar.update(task, completed=done, total=total),
        )
    if as_json:
        print_json(summary)
    else:
        _show(summary)


def _show(summary: dict[str, Any]) -> None:
    table = Table("film", "nodule at", "nearest candidate", "found by candidate")
    for film in summary["found"]:
        x, y = film["nodule"]
        table.add_row(
            film["film"],
            f"{x:.0f}, {y:.0f}",
            f"{film['distance']:.0f} px",
            str(film["rank"] or "-"),
        )
    out, found = console(), summary["sensitivity"]
    out.print(table)
    out.print(
        f"sensitivity {found['value']:.1%} [{found['low']:.1%}, {found['high']:.1%}] of "
        f"{summary['films']} films with a nodule, at {summary['candidates']} candidates a film "
        f"(within {summary['within_pixels']:.0f} px); the paper's network has 66 %"
    )
