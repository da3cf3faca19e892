"""The commands `candor audit`, `candor audit merge`, `candor verify`.  Heavy parts import late."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from candor.contracts import limits
from cli.datasets import DataDir, DataName, open_dataset
from cli.output import AsJson, clear_errors, console, print_json

if TYPE_CHECKING:
    from audit.model import Report
    from audit.plan import AuditPlan
    from audit.run import Progress
    from audit.stages import Subject
    from candor.artifact import LoadedModel
    from candor.data.images import ImageSet

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
        request = _Request(
            model=_given("model", model),
            out=_given("out", out),
            data=data,
            data_dir=data_dir,
            image_count=images,
            attacks=attacks,
            has_extras=not attacks_only,
            seed=seed,
            steps=steps,
            batch_size=batch_size,
            is_quick=quick,
            independent=independent,
            undefended=undefended,
        )
        _run(request, shard, key, compare, as_json)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    """Options that decide the numbers, and the folder they go to."""

    model: Path
    out: Path
    data: str
    data_dir: Path | None
    image_count: int
    attacks: str | None
    has_extras: bool
    seed: int
    steps: int | None
    batch_size: int
    is_quick: bool
    independent: Path | None
    undefended: Path | None


def _run(
    request: _Request, shard: str, key: Path | None, compare: Path | None, as_json: bool
) -> None:
    from audit.assemble import write_report
    from audit.comparison import read_other
    from audit.facts import collect, write_facts
    from audit.ledger import Ledger
    from audit.plan import Shard
    from audit.run import run_blocks
    from audit.signing import load_or_create_key
    from candor.allocator import keep_freed_memory

    keep_freed_memory()
    # Whatever can be wrong is looked at before the hours of work.
    share, signing_key = Shard.parse(shard), load_or_create_key(_key_file(key))
    other = None if compare is None else read_other(compare)
    subject, dataset, plan = _prepare(request)
    facts = collect(subject.network, subject.card, dataset)
    ledger = Ledger(request.out, plan)
    write_facts(request.out, facts)
    with _progress_bar() as report:
        missing = run_blocks(ledger, plan, subject, dataset, shard=share, report=report)
    if missing:
        console().print(
            f"shard {shard} is done; {missing} parts belong to others. When all are done: "
            "candor audit merge FOLDER... --out FOLDER"
        )
        return
    command = _command(subject.card.name, plan)
    _show(
        write_report(request.out, signing_key, command=command, other=other), request.out, as_json
    )


def _prepare(request: _Request) -> "tuple[Subject, ImageSet, AuditPlan]":
    from audit.plan import QUICK, AuditPlan, Budget, code_digest
    from audit.registry import checked_stages
    from audit.stages import Subject
    from candor.artifact import load_model

    loaded = load_model(request.model)
    beside = {
        name: None if path is None else load_model(path)
        for name, path in {
            "independent": request.independent,
            "undefended": request.undefended,
        }.items()
    }
    dataset = open_dataset(request.data, "test", request.data_dir)
    _check_count(request.image_count, len(dataset))
    budget = QUICK if request.is_quick else Budget()
    if request.steps is not None:
        budget = budget.model_copy(update={"steps": request.steps})
    plan = AuditPlan(
        weights_sha256=loaded.card.weights_sha256,
        data=dataset.name,
        data_sha256=dataset.digest(),
        code_sha256=code_digest(),
        image_count=request.image_count,
        seed=request.seed,
        stages=checked_stages(_names(request.attacks), has_extras=request.has_extras),
        batch_size=request.batch_size,
        budget=budget,
        independent_sha256=_weights(beside["independent"]),
        undefended_sha256=_weights(beside["undefended"]),
    )
    networks = {name: None if found is None else found.network for name, found in beside.items()}
    return Subject(network=loaded.network, card=loaded.card, **networks), dataset, plan


def _weights(loaded: "LoadedModel | None") -> str | None:
    return None if loaded is None else loaded.card.weights_sha256


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
        from audit.assemble import merge as merge_parts
        from audit.assemble import write_report
        from audit.comparison import read_other
        from audit.facts import read_facts
        from audit.ledger import read_plan
        from audit.signing import load_or_create_key

        signing_key = load_or_create_key(_key_file(key))
        other = None if compare is None else read_other(compare)
        merge_parts(folders, out)
        command = _command(read_facts(out).model.name, read_plan(out))
        _show(write_report(out, signing_key, command=command, other=other), out, as_json)


def verify(
    folder: Annotated[Path, typer.Argument(help="Folder of a report.")],
    public_key: Annotated[
        str | None, typer.Option(help="Base64 of the key it must be signed with.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check a report's signature and files; names what was changed, then exits with 1."""
    with _one_reason("verify"):
        from audit.signing import verify_folder

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
        try:
            yield
        except (ValueError, OSError, typer.Exit):
            raise
        except KeyboardInterrupt as err:
            raise ValueError("stopped; the same command goes on") from err
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


def _key_file(path: Path | None) -> Path:
    from audit.signing import default_key_file

    return path or default_key_file()


def _check_count(count: int, available: int) -> None:
    if count > available:
        raise ValueError(f"images: got {count}, allowed [2, {available}]")


def _names(attacks: str | None) -> tuple[str, ...]:
    from audit.stages import ATTACK_STAGES

    if attacks is None:
        return tuple(ATTACK_STAGES)
    return tuple(name.strip() for name in attacks.split(",") if name.strip())


def _command(model_name: str, plan: "AuditPlan") -> str:
    """What to type for the same ledger; models by name, for paths say nothing elsewhere."""
    from audit.plan import QUICK
    from audit.stages import ATTACK_STAGES

    attacks = ",".join(name for name in plan.stages if name in ATTACK_STAGES)
    words = [
        f"candor audit --model {model_name} --data {plan.data.split('/')[0]}",
        f"--images {plan.image_count} --seed {plan.seed} --attacks {attacks}",
        f"--steps {plan.budget.steps} --batch-size {plan.batch_size}",
    ]
    if plan.budget.model_copy(update={"steps": QUICK.steps}) == QUICK:
        words.append("--quick")
    if "panel" not in plan.stages:
        words.append("--attacks-only")
    if plan.independent_sha256 is not None:
        words.append("--independent MODEL")
    if plan.undefended_sha256 is not None:
        words.append("--undefended MODEL")
    return " ".join(words)


def _show(report: "Report", out: Path, as_json: bool) -> None:
    if as_json:
        print_json(_headline(report))
        return
    from audit import formats

    screen = console()
    for warning in report.warnings:
        screen.print(warning, style="yellow", markup=False, soft_wrap=True)
    screen.print(f"accuracy {formats.share(report.accuracy)}", markup=False, soft_wrap=True)
    for area in report.areas:
        text = f"{formats.goal(area.goal)} ARA {formats.area(area)}"
        screen.print(text, markup=False, soft_wrap=True)
    for name in ("report.html", "report.pdf", "report.json", "ledger.parquet"):
        screen.print(f"  {out / name}", markup=False, soft_wrap=True)


def _headline(report: "Report") -> dict[str, Any]:
    return report.model_dump(
        mode="json", include={"model", "image_count", "warnings", "accuracy", "areas", "comparison"}
    )
