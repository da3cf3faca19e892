"""The command `candor ara`."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from candor import terms
from candor.audit.ara_session import measure_folder
from candor.cli.options import Compiles, DataDir, DataName
from candor.cli.output import AsJson, console, print_json
from candor.contracts import limits
from candor.models.folder import record_metrics
from candor.robustness.ara_files import (
    differences,
    measure_row,
    metric_cards,
    read_ara,
    recorded,
)
from candor.robustness.measure import AraPlan, Report
from candor.robustness.paired import Difference


def ara(
    model: Annotated[Path, typer.Option(help="Model folder: weights and card.")],
    data: DataName = "cifar10",
    data_dir: DataDir = None,
    images: Annotated[int, typer.Option(min=2, help="Test images, drawn by the seed.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, max=limits.MAX_SEED)] = 0,
    solver: Annotated[
        str, typer.Option(help="fast, or paper: that of the paper, whose areas are larger.")
    ] = "fast",
    steps: Annotated[
        int | None, typer.Option(min=1, max=limits.MAX_STEPS, help="Default: the solver's.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1)] = 64,
    compiles: Compiles = None,
    out: Annotated[Path | None, typer.Option(help="Folder for ara.json and radii.parquet.")] = None,
    compare: Annotated[
        Path | None, typer.Option(help="--out of another model on the same images.")
    ] = None,
    record: Annotated[bool, typer.Option("--record", help="Write the result to the card.")] = False,
    as_json: AsJson = False,
) -> None:
    """Accuracy, attack ARA and BTR ARA of a model on test images, with 95 % intervals."""
    steps = terms.default_steps(solver, explains=False) if steps is None else steps
    if compare is not None and out is None:
        raise ValueError("--compare: expected --out FOLDER beside it, got none")
    other = None if compare is None else read_ara(compare)
    plan = AraPlan(solver=solver, steps=steps, seed=seed, batch_size=batch_size)
    with progress_bar(images, steps) as report:
        summary = measure_folder(
            model,
            data,
            data_dir,
            images,
            plan,
            out=out,
            compiles=compiles,
            report=report,
            notify=console().print,
        )
    if record:
        settings = f"--images {images} --seed {seed} --solver {solver} --steps {steps}"
        engine = "--compile" if summary["engine"] == "compiled" else "--no-compile"
        method = f"candor ara --data {data} {settings} --batch-size {batch_size} {engine}"
        record_metrics(model, metric_cards(summary, method))
    found = {} if other is None or out is None else differences(read_ara(out), other)
    if as_json:
        rows = {name: asdict(difference) for name, difference in found.items()}
        print_json(summary | ({"compared": rows} if rows else {}))
        return
    _show(summary)
    if other is not None:
        _show_differences(found, other.summary)


@contextmanager
def progress_bar(image_count: int, steps: int) -> Iterator[Report]:
    """One bar for each goal, over the steps of all searches; shown from the first report on."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=console())
    tasks: dict[str, TaskID] = {}

    def report(name: str, finished: int, image_steps: int) -> None:
        bar.start()
        if name not in tasks:
            tasks[name] = bar.add_task(str(name), total=image_count * steps)
        # Searches that ended early count as whole, so that the bar reaches its end.
        bar.update(tasks[name], completed=max(image_steps, finished * steps))

    try:
        yield report
    finally:
        if tasks:
            bar.stop()


def _show(summary: dict[str, Any]) -> None:
    where = f"{summary['images']} images of {summary['data']}"
    table = Table(title=f"{summary['model']} on {where}, by {summary['solver']}")
    for heading in ("measure", "value", "95 % interval", "unresolved", "image-steps", "seconds"):
        table.add_column(heading)
    for name in recorded(summary):
        row = measure_row(summary, name)
        rest = [str(row.get(key, "")) for key in ("unresolved", "image_steps", "seconds")]
        table.add_row(name, f"{row['value']:.5f}", f"{row['low']:.4f} to {row['high']:.4f}", *rest)
    console().print(table)


def _show_differences(found: dict[str, Difference], other: dict[str, Any]) -> None:
    table = Table(title=f"more than {other['model']} on the same {other['images']} images")
    for heading in ("measure", "difference", "95 % interval, paired", "p"):
        table.add_column(heading)
    for name, one in found.items():
        interval = f"{one.low:+.4f} to {one.high:+.4f}"
        table.add_row(name, f"{one.value:+.5f}", interval, f"{one.p_value:.2g}")
    console().print(table)
