"""The command `candor experiments`: what can be trained, what the paper got and what we got."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Column, Table

from candor.cli.output import AsJson, console, print_json
from candor.stack.archives import MODELS_DIR
from training.results import METRICS, experiment_results

_LABELS = ("accuracy, %", "attack ARA", "BTR ARA")


def experiments(
    models_dir: Annotated[
        Path, typer.Option(help="Folder of model folders, whose cards hold what was measured.")
    ] = MODELS_DIR,
    as_json: AsJson = False,
) -> None:
    """List the experiments: accuracy (%), attack ARA and BTR ARA (RMSE) of the paper and ours."""
    rows = experiment_results(models_dir)
    if as_json:
        print_json(rows)
    else:
        _print_table(rows)


def _print_table(rows: list[dict[str, Any]]) -> None:
    # Users copy the name: it is never cut.
    name = Column("experiment", no_wrap=True)
    headings = [text for label in _LABELS for text in (label, "ours")]
    table = Table(name, "paper row", *headings)
    for row in rows:
        paper, ours = row["paper"] or {}, row["ours"] or {"by_paper": {}}
        texts = [
            text for metric in METRICS for text in (_number(paper.get(metric)), _ours(ours, metric))
        ]
        table.add_row(row["name"], row["paper_row"] or "", *texts)
    console(is_error=False, width=None if sys.stdout.isatty() else 160).print(table)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:g}"


def _ours(ours: dict[str, Any], metric: str) -> str:
    """The headline, and under it what the paper's own search found."""
    found = [ours.get(metric), ours["by_paper"].get(metric)]
    return "\n".join(_interval(one) for one in found if one)


def _interval(measured: dict[str, Any]) -> str:
    low, high = (f"{measured[key]:.3g}" for key in ("low", "high"))
    search = f" by {measured['search']}" if "search" in measured else ""
    return f"{measured['value']:.3g} [{low}, {high}]{search}"
