"""The commands `candor audit` and `candor audit merge`."""

from pathlib import Path
from typing import Annotated

import typer

from candor.audit.plan import Shard
from candor.audit.report.assemble import merge as merge_parts
from candor.audit.report.signing import load_or_create_key
from candor.audit.sections.comparison import read_other
from candor.audit.session import AuditRequest, compute, finish, prepare
from candor.cli import audit_options as options
from candor.cli.audit_options import CompareDir, KeyFile, attack_names, key_file, required
from candor.cli.audit_screen import named_options, progress_bar, show_report
from candor.cli.options import Compiles, DataDir, DataName
from candor.cli.output import AsJson, console
from candor.contracts import limits
from candor.runtime.allocator import keep_freed_memory

_MERGE = "When all are done: candor audit merge FOLDER... --out FOLDER"
app = typer.Typer(help="Robustness reports that an auditor can sign.", add_completion=False)


@app.callback(invoke_without_command=True)
def audit(
    context: typer.Context,
    model: Annotated[Path | None, typer.Option(help="Model folder: weights and card.")] = None,
    data: DataName = "cifar10",
    data_dir: DataDir = None,
    images: Annotated[int, typer.Option(min=2, help="Test images, drawn by the seed.")] = 1000,
    out: Annotated[Path | None, typer.Option(help="Folder of the report.")] = None,
    attacks: options.Attacks = None,
    seed: Annotated[int, typer.Option(min=0, max=limits.MAX_SEED)] = 0,
    steps: options.Steps = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images computed together.")] = 32,
    compiles: Compiles = None,
    budget: options.BudgetName = None,
    quick: options.IsQuick = False,
    descent_steps: options.DescentSteps = None,
    descent_images: options.DescentImages = None,
    autoattack_images: options.AutoAttackImages = None,
    query_images: options.QueryImages = None,
    square_queries: options.SquareQueries = None,
    label_queries: options.LabelQueries = None,
    panel_images: options.PanelImages = None,
    noise_trials: options.NoiseTrials = None,
    smoothing_images: options.SmoothingImages = None,
    smoothing_samples: options.SmoothingSamples = None,
    clever_images: options.CleverImages = None,
    clever_samples: options.CleverSamples = None,
    explanation_images: options.ExplanationImages = None,
    gallery_images: options.GalleryImages = None,
    calibration_images: options.CalibrationImages = None,
    attacks_only: options.AttacksOnly = False,
    independent: options.Independent = None,
    undefended: options.Undefended = None,
    compare: CompareDir = None,
    shard: Annotated[str, typer.Option(help="i/n: this process's share, i from 0.")] = "0/1",
    key: KeyFile = None,
    as_json: AsJson = False,
) -> None:
    """Attack a model on test images and write a signed report; repeated, it goes on."""
    if context.invoked_subcommand is not None:
        return
    with named_options():
        request = AuditRequest(
            model=required("model", model),
            data=data,
            data_dir=data_dir,
            image_count=images,
            attacks=attack_names(attacks),
            has_extras=not attacks_only,
            seed=seed,
            steps=steps,
            batch_size=batch_size,
            budget=options.budget_name(budget, quick),
            counts=options.given_counts(context.params),
            compiles=compiles,
            independent=independent,
            undefended=undefended,
        )
        _run(request, required("out", out), shard, key, compare, as_json)


def _run(
    request: AuditRequest,
    out: Path,
    shard: str,
    key: Path | None,
    compare: Path | None,
    as_json: bool,
) -> None:
    keep_freed_memory()
    # Whatever can be wrong is looked at before the hours of work.
    share, signing_key = Shard.parse(shard), load_or_create_key(key_file(key))
    other = None if compare is None else read_other(compare)
    prepared = prepare(request, notify=console().print)
    with progress_bar() as report:
        missing = compute(prepared, out, shard=share, report=report, other=other)
    if missing:
        console().print(f"shard {shard} is done; {missing} parts belong to others. {_MERGE}")
        return
    show_report(finish(out, signing_key, other), out, as_json)


@app.command()
def merge(
    folders: Annotated[list[Path], typer.Argument(help="Folders of the shards.")],
    out: Annotated[Path, typer.Option(help="Folder of the report.")],
    compare: CompareDir = None,
    key: KeyFile = None,
    as_json: AsJson = False,
) -> None:
    """Bring the shards of one audit together and write the signed report."""
    with named_options():
        signing_key = load_or_create_key(key_file(key))
        other = None if compare is None else read_other(compare)
        merge_parts(folders, out)
        show_report(finish(out, signing_key, other), out, as_json)
