"""The commands `candor audit`, `candor audit merge`, `candor verify`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from candor.audit.session import AuditRequest, BadOption, compute, finish, prepare
from candor.cli.options import Compiles, DataDir, DataName
from candor.cli.output import AsJson, clear_errors, console, print_json
from candor.contracts import limits

if TYPE_CHECKING:
    from candor.audit.report.schema import Report
    from candor.audit.run import Progress

_GOES_ON = "finished parts are kept, the same command goes on"
app = typer.Typer(help="Robustness reports that an auditor can sign.", add_completion=False)

KeyFile = Annotated[
    Path | None,
    typer.Option("--key", help="Ed25519 private key (PEM); default: one made for this user."),
]
CompareDir = Annotated[
    Path | None, typer.Option("--compare", help="Folder of a report on the same images.")
]


@app.callback(invoke_without_command=True)
def audit(
    context: typer.Context,
    model: Annotated[Path | None, typer.Option(help="Model folder: weights and card.")] = None,
    data: DataName = "cifar10",
    data_dir: DataDir = None,
    images: Annotated[int, typer.Option(min=2, help="Test images, drawn by the seed.")] = 1000,
    out: Annotated[Path | None, typer.Option(help="Folder of the report.")] = None,
    attacks: Annotated[
        str | None, typer.Option(help="Attacks by name, with commas; default: all.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=limits.MAX_SEED)] = 0,
    steps: Annotated[
        int | None, typer.Option(min=1, max=limits.MAX_STEPS, help="Of the solvers.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images computed together.")] = 32,
    compiles: Compiles = None,
    quick: Annotated[bool, typer.Option("--quick", help="Small budgets, for a look.")] = False,
    attacks_only: Annotated[
        bool, typer.Option("--attacks-only", help="Without panel, certificates, explanations.")
    ] = False,
    independent: Annotated[
        Path | None, typer.Option(help="Another model: transfer, and agreement on explanations.")
    ] = None,
    undefended: Annotated[
        Path | None, typer.Option(help="A model without defence, for the ablation check.")
    ] = None,
    compare: CompareDir = None,
    shard: Annotated[str, typer.Option(help="i/n: this process's share, i from 0.")] = "0/1",
    key: KeyFile = None,
    as_json: AsJson = False,
) -> None:
    """Attack a model on test images and write a signed report; repeated, it goes on."""
    if context.invoked_subcommand is not None:
        return
    with _one_reason("audit"):
        request = AuditRequest(
            model=_given("model", model),
            data=data,
            data_dir=data_dir,
            image_count=images,
            attacks=_names(attacks),
            has_extras=not attacks_only,
            seed=seed,
            steps=steps,
            batch_size=batch_size,
            is_quick=quick,
            compiles=compiles,
            independent=independent,
            undefended=undefended,
        )
        _run(request, _given("out", out), shard, key, compare, as_json)


def _run(
    request: AuditRequest,
    out: Path,
    shard: str,
    key: Path | None,
    compare: Path | None,
    as_json: bool,
) -> None:
    from candor.audit.plan import Shard
    from candor.audit.report.signing import load_or_create_key
    from candor.audit.sections.comparison import read_other
    from candor.runtime.allocator import keep_freed_memory

    keep_freed_memory()
    # Whatever can be wrong is looked at before the hours of work.
    share, signing_key = Shard.parse(shard), load_or_create_key(key_file(key))
    other = None if compare is None else read_other(compare)
    prepared = prepare(request, notify=console().print)
    with _progress_bar() as report:
        missing = compute(prepared, out, shard=share, report=report)
    if missing:
        console().print(
            f"shard {shard} is done; {missing} parts belong to others. When all are done: "
            "candor audit merge FOLDER... --out FOLDER"
        )
        return
    _show(finish(out, signing_key, other), out, as_json)


@app.command()
def merge(
    folders: Annotated[list[Path], typer.Argument(help="Folders of the shards.")],
    out: Annotated[Path, typer.Option(help="Folder of the report.")],
    compare: CompareDir = None,
    key: KeyFile = None,
    as_json: AsJson = False,
) -> None:
    """Bring the shards of one audit together and write the signed report."""
    with _one_reason("audit merge"):
        from candor.audit.report.assemble import merge as merge_parts
        from candor.audit.report.signing import load_or_create_key
        from candor.audit.sections.comparison import read_other

        signing_key = load_or_create_key(key_file(key))
        other = None if compare is None else read_other(compare)
        merge_parts(folders, out)
        _show(finish(out, signing_key, other), out, as_json)


def verify(
    folder: Annotated[Path, typer.Argument(help="Folder of a report.")],
    public_key: Annotated[
        str | None, typer.Option(help="Base64 of the key it must be signed with.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check a report's signature and files; names what was changed, then exits with 1."""
    with _one_reason("verify"):
        from candor.audit.report.signing import verify_folder

        verdict = verify_folder(folder, public_key)
        if as_json:
            print_json(
                {
                    "is_genuine": verdict.is_genuine,
                    "problems": verdict.problems,
                    "key": verdict.key,
                    "files": verdict.files,
                }
            )
        else:
            for problem in verdict.problems:
                console().print(problem, style="red", markup=False, soft_wrap=True)
            if verdict.is_genuine:
                names = ", ".join(verdict.files)
                console().print(f"genuine: {names}\nsigned by {verdict.key}", soft_wrap=True)
    if not verdict.is_genuine:
        raise typer.Exit(1)


@contextmanager
def _one_reason(command: str) -> Iterator[None]:
    """Every failure as one line; a user of a report never sees a stack trace."""
    with clear_errors(command):
        from candor.audit.errors import BlockFailed, DiskFull

        try:
            yield
        except BadOption as err:
            # The one option that is named otherwise than the service's field.
            field = "images" if err.field == "image_count" else err.field
            raise ValueError(f"{field}: {err.description}") from err
        except (BlockFailed, DiskFull) as err:
            raise ValueError(f"{err}; {_GOES_ON}") from err
        except (ValueError, OSError, typer.Exit):
            raise
        except KeyboardInterrupt as err:
            raise ValueError(f"stopped; {_GOES_ON}") from err
        except Exception as err:
            raise ValueError(f"internal ({type(err).__name__}: {err})") from err


@contextmanager
def _progress_bar() -> "Iterator[Callable[[Progress], None]]":
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:.0f} %"),
        TimeRemainingColumn(),
        TextColumn("attack ARA {task.fields[area]}"),
    )
    with Bar(*columns, console=console()) as bar:
        task = bar.add_task("audit", total=None, area="-")

        def report(progress: "Progress") -> None:
            area = "-" if progress.attack_ara is None else f"{progress.attack_ara:.4f}"
            bar.update(
                task,
                description=progress.stage or "done",
                completed=progress.done,
                total=progress.total,
                area=area,
            )

        yield report


def _given(name: str, path: Path | None) -> Path:
    if path is None:
        raise ValueError(f"{name}: got nothing, allowed a folder (--{name})")
    return path


def key_file(path: Path | None) -> Path:
    """The key named, or the user's own."""
    from candor.audit.report.signing import default_key_file

    return path or default_key_file()


def _names(attacks: str | None) -> tuple[str, ...]:
    """All where none are named."""
    return tuple(name.strip() for name in (attacks or "").split(",") if name.strip())


def _show(report: "Report", out: Path, as_json: bool) -> None:
    if as_json:
        print_json(_headline(report))
        return
    from candor.audit.report import formats

    screen = console()
    for warning in report.warnings:
        screen.print(warning, style="yellow", markup=False, soft_wrap=True)
    screen.print(f"accuracy {formats.share(report.accuracy)}", markup=False, soft_wrap=True)
    for area in report.areas:
        text = f"{formats.goal(area.goal)} ARA {formats.area(area)}"
        screen.print(text, markup=False, soft_wrap=True)
    text = f"computed in {formats.durations(report.provenance)}"
    screen.print(text, markup=False, soft_wrap=True)
    for name in ("report.html", "report.pdf", "report.json", "ledger.parquet"):
        screen.print(f"  {out / name}", markup=False, soft_wrap=True)


def _headline(report: "Report") -> dict[str, Any]:
    return report.model_dump(
        mode="json", include={"model", "image_count", "warnings", "accuracy", "areas", "comparison"}
    )
