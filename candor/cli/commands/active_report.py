"""The command `candor active-report`."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from candor import terms
from candor.cli.commands.measure import ara
from candor.cli.options import DataDir, DataName
from candor.cli.output import AsJson, clear_errors, console, print_json
from candor.contracts import limits
from candor.terms import SearchStatus

if TYPE_CHECKING:
    from candor.robustness.paired import Difference

_MEASURES = ("accuracy", "attack_ara", "btr_ara")
_PAIRS = (("annotated", "base"), ("control", "base"), ("annotated", "control"))
_REPORT_FILE = "active-report.json"


def active_report(
    base: Annotated[Path, typer.Option(help="Model trained without extra images.")],
    annotated: Annotated[Path, typer.Option(help="Model trained with the unchanged ones.")],
    control: Annotated[Path, typer.Option(help="Model trained with --control random.")],
    data: DataName = "cifar10",
    data_dir: DataDir = None,
    images: Annotated[int, typer.Option(min=2, help="Test images, drawn by the seed.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, max=limits.MAX_SEED)] = 0,
    solver: Annotated[str, typer.Option(help=f"One of {terms.SOLVERS}.")] = terms.DEFAULT_SOLVER,
    steps: Annotated[int, typer.Option(min=1, max=limits.MAX_STEPS)] = terms.DEFAULT_STEPS,
    out: Annotated[
        Path, typer.Option(help="Folder for the report and each model's `candor ara`.")
    ] = Path("out/active"),
    as_json: AsJson = False,
) -> None:
    """Did the annotations help?  Three networks pairwise on the same test images.  (IV-C)

    Measurements that are in the folder already, of the same weights and settings, are used again.
    """
    models = {"base": base, "annotated": annotated, "control": control}
    settings: dict[str, Any] = {"images": images, "seed": seed, "solver": solver, "steps": steps}
    with clear_errors("active-report"):
        measured = {}
        for name, model in models.items():
            folder = out / name
            if not _is_measured(folder, model, data, settings):
                ara(
                    model=model,
                    data=data,
                    data_dir=data_dir,
                    out=folder,
                    compiles=None,
                    batch_size=64,
                    **settings,
                )
            measured[name] = _read(folder)
        report = _report(measured, seed)
        (out / _REPORT_FILE).write_text(json.dumps(report, indent=2) + "\n")
        if as_json:
            print_json(report)
        else:
            _show(report)


@dataclass(frozen=True, slots=True)
class _Measured:
    """What `candor ara` wrote of one model: radii and correctness in the order of the images."""

    summary: dict[str, Any]
    indices: list[int]
    correct: np.ndarray
    radii: dict[str, np.ndarray]


def _is_measured(folder: Path, model: Path, data: str, settings: dict[str, Any]) -> bool:
    from candor.models.folder import read_card

    path = folder / "ara.json"
    if not path.is_file() or not (folder / "radii.parquet").is_file():
        return False
    summary = json.loads(path.read_text())
    asked = {**settings, "data": f"{data}/test", "weights_digest": read_card(model).weights_sha256}
    return all(summary.get(key) == value for key, value in asked.items())


def _read(folder: Path) -> _Measured:
    import pyarrow.parquet as pq

    summary = json.loads((folder / "ara.json").read_text())
    rows = pq.read_table(folder / "radii.parquet").to_pylist()
    by_goal = {
        f"{goal}_ara": [row for row in rows if row["goal"] == goal] for goal in ("attack", "btr")
    }
    attacked = by_goal["attack_ara"]
    return _Measured(
        summary,
        [row["index"] for row in attacked],
        np.array([row["status"] != SearchStatus.ALREADY_WRONG for row in attacked]),
        {name: np.array([row["radius"] for row in chosen]) for name, chosen in by_goal.items()},
    )


def _report(measured: dict[str, _Measured], seed: int) -> dict[str, Any]:
    """Every model's own numbers and every pair's differences."""
    first = next(iter(measured.values()))
    for name, one in measured.items():
        if (one.indices, one.summary["data_digest"]) != (
            first.indices,
            first.summary["data_digest"],
        ):
            raise ValueError(f"{name}: measured on other images; measure all with the same data")
    return {
        "data": first.summary["data"],
        "data_digest": first.summary["data_digest"],
        "images": len(first.indices),
        "models": {
            name: {
                "model": one.summary["model"],
                "weights_digest": one.summary["weights_digest"],
                "accuracy": {
                    "value": one.summary["accuracy"],
                    "low": one.summary["accuracy_low"],
                    "high": one.summary["accuracy_high"],
                },
                "attack_ara": one.summary["attack_ara"],
                "btr_ara": one.summary["btr_ara"],
            }
            for name, one in measured.items()
        },
        "differences": [
            {
                "a": a,
                "b": b,
                **{
                    measure: asdict(_difference(measured[a], measured[b], measure, seed))
                    for measure in _MEASURES
                },
            }
            for a, b in _PAIRS
        ],
    }


def _difference(a: _Measured, b: _Measured, measure: str, seed: int) -> "Difference":
    from candor.robustness.paired import accuracy_difference, area_difference

    generator = np.random.default_rng(seed)
    if measure == "accuracy":
        return accuracy_difference(a.correct, b.correct, generator=generator)
    return area_difference(
        a.radii[measure], b.radii[measure], naive=a.summary["naive"], generator=generator
    )


def _show(report: dict[str, Any]) -> None:
    from rich.table import Table

    table = Table(title=f"{report['images']} images of {report['data']}")
    for heading in ("", *_MEASURES):
        table.add_column(heading)
    for name, model in report["models"].items():
        table.add_row(name, *(f"{model[measure]['value']:.4f}" for measure in _MEASURES))
    for pair in report["differences"]:
        cells = (_cell(pair[measure]) for measure in _MEASURES)
        table.add_row(f"{pair['a']} - {pair['b']}", *cells)
    console().print(table)


def _cell(difference: dict[str, float]) -> str:
    return (
        f"{difference['value']:+.4f} [{difference['low']:+.4f}, {difference['high']:+.4f}] "
        f"p {difference['p_value']:.3f}"
    )
