"""The command `candor experiments`: what can be trained, and what the paper got."""

import sys
from typing import Any

from cli.output import AsJson, clear_errors, print_json

_METRICS = ("accuracy", "attack_ara", "btr_ara")


def experiments(as_json: AsJson = False) -> None:
    """List the experiments: the paper's row and its accuracy (%), attack ARA and BTR ARA (RMSE)."""
    with clear_errors("experiments"):
        from training.config import experiment_names

        rows = [_row(name) for name in experiment_names()]
        if as_json:
            print_json(rows)
        else:
            _print_table(rows)


def _row(name: str) -> dict[str, Any]:
    """``ours`` is null until the experiment has been measured."""
    from training.config import load_experiment, load_paper_row

    config, paper = load_experiment(name), load_paper_row(name)
    return {
        "name": name,
        "description": config.description,
        "data": config.data,
        "paper_row": paper.row if paper else None,
        "paper": {metric: getattr(paper, metric) for metric in _METRICS} if paper else None,
        "note": paper.note if paper else "",
        "ours": None,
    }


def _print_table(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Column, Table

    # A name is there to be copied: it is never cut.
    name = Column("experiment", no_wrap=True)
    table = Table(name, "paper row", "accuracy, %", "attack ARA", "BTR ARA")
    for row in rows:
        paper = row["paper"] or {}
        numbers = [paper.get(metric) for metric in _METRICS]
        texts = ["" if number is None else f"{number:g}" for number in numbers]
        table.add_row(row["name"], row["paper_row"] or "", *texts)
    Console(width=None if sys.stdout.isatty() else 160).print(table)
