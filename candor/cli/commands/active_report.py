"""The command `candor active-report`."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from candor import terms
from candor.annotation.effect import effect_report, has_measurement
from candor.cli.commands.measure import ara
from candor.cli.options import DataDir, DataName
from candor.cli.output import AsJson, console, print_json
from candor.contracts import limits
from candor.contracts.json_text import json_text
from candor.data.registry import load_for_model
from candor.files.writing import write_file
from candor.models.folder import read_card
from candor.robustness.ara_files import MEASURES, read_ara

_REPORT_FILE = "active-report.json"


def active_report(
    base: Annotated[Path, typer.Option(help="Model trained without extra images.")],
    annotated: Annotated[Path, typer.Option(help="Model trained with the unchanged ones.")],
    control: Annotated[Path, typer.Option(help="Model trained with --control random.")],
    data: DataName = "cifar10",
    data_dir: DataDir = None,
    images: Annotated[int, typer.Option(min=2, help="Test images, drawn by the seed.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, max=limits.MAX_SEED)] = 0,
    solver: Annotated[str, typer.Option(help=f"One of {terms.SOLVERS}.")] = "fast",
    steps: Annotated[
        int | None, typer.Option(min=1, max=limits.MAX_STEPS, help="Default: the solver's.")
    ] = None,
    out: Annotated[
        Path, typer.Option(help="Folder for the report and each model's `candor ara`.")
    ] = Path("out/active"),
    as_json: AsJson = False,
) -> None:
    """Did the annotations help?  Three networks pairwise on the same test images.  (IV-C)

    Measurements that are in the folder already, of the same weights, images and settings, are used
    again.
    """
    steps = terms.default_steps(solver, explains=False) if steps is None else steps
    models = {"base": base, "annotated": annotated, "control": control}
    settings: dict[str, Any] = {"images": images, "seed": seed, "solver": solver, "steps": steps}
    measured = {}
    dataset = load_for_model(data, "test", data_dir, read_card(base))
    for name, model in models.items():
        folder = out / name
        if not has_measurement(folder, model, dataset, settings):
            ara(
                model=model,
                data=data,
                data_dir=data_dir,
                out=folder,
                compiles=None,
                batch_size=64,
                **settings,
            )
        measured[name] = read_ara(folder)
    report = effect_report(measured, seed)
    write_file(out / _REPORT_FILE, (json_text(report, indent=2) + "\n").encode())
    if as_json:
        print_json(report)
    else:
        _show(report)


def _show(report: dict[str, Any]) -> None:
    table = Table(title=f"{report['images']} images of {report['data']}")
    for heading in ("", *MEASURES):
        table.add_column(heading)
    for name, model in report["models"].items():
        table.add_row(name, *(f"{model[measure]['value']:.4f}" for measure in MEASURES))
    for pair in report["differences"]:
        cells = (_cell(pair[measure]) for measure in MEASURES)
        table.add_row(f"{pair['a']} - {pair['b']}", *cells)
    console().print(table)


def _cell(difference: dict[str, float]) -> str:
    return (
        f"{difference['value']:+.4f} [{difference['low']:+.4f}, {difference['high']:+.4f}] "
        f"p {difference['p_value']:.3f}"
    )
