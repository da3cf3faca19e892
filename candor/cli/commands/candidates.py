"""The command `candor candidates`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

from candor import terms
from candor.annotation.collect import Collection, collect
from candor.cli.options import DataDir, DataName
from candor.cli.output import AsJson, console, print_json
from candor.cli.store_options import DEFAULT_STORE, StoreAddress, opened_store
from candor.contracts import limits
from candor.data.registry import load_for_model
from candor.models.folder import load_model
from candor.runtime.allocator import keep_freed_memory


def candidates(
    model: Annotated[Path, typer.Option(help="Model folder: weights and card.")],
    data: DataName = "cifar10",
    data_dir: DataDir = None,
    images: Annotated[int, typer.Option(min=1, help="Training images, drawn by the seed.")] = 1000,
    store: StoreAddress = DEFAULT_STORE,
    seed: Annotated[int, typer.Option(min=0, max=limits.MAX_SEED)] = 0,
    solver: Annotated[str, typer.Option(help=f"One of {terms.SOLVERS}.")] = terms.DEFAULT_SOLVER,
    steps: Annotated[int, typer.Option(min=1, max=limits.MAX_STEPS)] = terms.DEFAULT_STEPS,
    batch_size: Annotated[int, typer.Option(min=1)] = 64,
    as_json: AsJson = False,
) -> None:
    """Overly confident adversarial images of training data, into the store for annotators.

    The same command goes on where a stopped one left off; with more --images it searches the rest.
    """
    with opened_store(store) as opened:
        keep_freed_memory()
        loaded = load_model(model)
        dataset = load_for_model(data, "train", data_dir, loaded.card)
        collection = Collection(
            image_count=images, solver=solver, steps=steps, seed=seed, batch_size=batch_size
        )
        with _progress_bar(images) as report:
            summary = collect(loaded, dataset, collection, opened, report)
        if as_json:
            print_json(summary)
        else:
            console().print(
                f"{summary['candidates']} candidates ({summary['new']} new) "
                f"of {summary['images']} images of {dataset.name}"
            )


@contextmanager
def _progress_bar(image_count: int) -> Iterator[Callable[[int], None]]:
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console()) as bar:
        task = bar.add_task("images", total=image_count)
        yield lambda searched: bar.update(task, completed=searched)
