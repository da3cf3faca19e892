"""What `candor audit` shows: one line for an error, a bar, and the numbers of a report."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from candor.audit.errors import BlockFailed, DiskFull
from candor.audit.report import formats
from candor.audit.report.schema import Report
from candor.audit.report.signing import Verdict
from candor.audit.run import Progress
from candor.audit.session import BadOption
from candor.cli.output import NOT_COMPLETE, console, print_json

_GOES_ON = "finished parts are kept, the same command goes on"
_FILES = ("report.html", "report.pdf", "report.json", "ledger.parquet")
_HEADLINE = {"model", "image_count", "warnings", "not_tried", "accuracy", "areas", "comparison"}


@contextmanager
def named_options() -> Iterator[None]:
    """Errors name the command's options, and say where the same command goes on."""
    try:
        yield
    except BadOption as err:
        # The one option that is named otherwise than the service's field.
        field = "images" if err.field == "image_count" else err.field
        raise ValueError(f"{field}: {err.description}") from err
    except (BlockFailed, DiskFull, KeyboardInterrupt) as err:
        err.add_note(_GOES_ON)
        raise


@contextmanager
def progress_bar() -> Iterator[Callable[[Progress], None]]:
    """A bar over the network evaluations of one shard."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:.0f} %"),
        TimeRemainingColumn(),
        TextColumn("attack ARA {task.fields[area]}"),
    )
    with Bar(*columns, console=console()) as bar:
        task = bar.add_task("audit", total=None, area="-")

        def report(progress: Progress) -> None:
            bar.update(
                task,
                description=progress.stage or "done",
                completed=progress.done,
                total=progress.total,
                area="-" if progress.attack_ara is None else f"{progress.attack_ara:.4f}",
            )

        yield report


def show_report(report: Report, out: Path, as_json: bool) -> None:
    """Warnings, the three numbers, the time and the files; or the headline as JSON.

    Raises:
        typer.Exit: with code 3, where an attack failed: the report is there and not complete.
    """
    if as_json:
        print_json(report.model_dump(mode="json", include=_HEADLINE))
    else:
        _show_numbers(report, out)
    if report.not_tried:
        names = ", ".join(failed.attack for failed in report.not_tried)
        _print(f"candor audit: not complete, {names} failed on some images", style="red")
        raise typer.Exit(NOT_COMPLETE)


def _show_numbers(report: Report, out: Path) -> None:
    for warning in report.warnings:
        _print(warning, style="yellow")
    _print(f"accuracy {formats.share(report.accuracy)}")
    for area in report.areas:
        _print(f"{formats.goal(area.goal)} ARA {formats.area(area)}")
    _print(f"computed in {formats.durations(report.provenance)}")
    for name in (*_FILES, *((report.gallery.page,) if report.gallery else ())):
        _print(f"  {out / name}")


def show_verdict(verdict: Verdict, as_json: bool) -> None:
    """Each problem, or the files that the signature covers and who signed."""
    if as_json:
        fields = ("is_genuine", "problems", "key", "files")
        print_json({name: getattr(verdict, name) for name in fields})
        return
    for problem in verdict.problems:
        _print(problem, style="red")
    if verdict.is_genuine:
        _print(f"genuine: {', '.join(verdict.files)}\nsigned by {verdict.key}")


def _print(text: str, **options: Any) -> None:
    console().print(text, markup=False, soft_wrap=True, **options)
