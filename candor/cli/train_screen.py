"""What a training run shows of its progress."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from candor.cli.output import console
from training.distributed import rank
from training.loop import Progress


@contextmanager
def training_bar(epochs: int) -> Iterator[Callable[[Progress], None]]:
    """Of the first process of a run alone."""
    columns = (BarColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
    with Bar(*columns, console=console(), disable=rank() > 0) as bar:
        task = bar.add_task("starting", total=None)

        def report(step: Progress) -> None:
            text = (
                f"epoch {step.epoch + 1}/{epochs} loss {step.cross_entropy:.3f} "
                f"accuracy {step.accuracy:.3f} psi {step.psi:.3g}"
            )
            bar.update(task, completed=step.step, total=step.step_count, description=text)

        yield report
