"""The bar that shows how many images are done."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

from candor.cli.output import console


@contextmanager
def images_bar(image_count: int) -> Iterator[Callable[[int], None]]:
    """Yields what takes the images done so far."""
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console()) as bar:
        task = bar.add_task("images", total=image_count)
        yield lambda done: bar.update(task, completed=done)
