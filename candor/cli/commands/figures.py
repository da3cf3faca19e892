"""The commands `candor figures ...`: the paper's figures as PNG, SVG and PDF."""

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from PIL import Image

from candor import terms
from candor.cli.output import clear_errors, console
from candor.contracts import api, limits

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from candor.viz.figures import Point, Tile

app = typer.Typer(help="Draw the paper's figures as PNG, SVG and PDF.", no_args_is_help=True)

Sources = Annotated[
    list[Path],
    typer.Argument(help="Folders of candor audit, of candor ara --out, of models or of runs."),
]
Picture = Annotated[Path, typer.Argument(help="PNG, JPEG or WebP.")]
Models = Annotated[list[Path], typer.Option("--model", help="Model folder; one row each.")]
Solver = Annotated[str, typer.Option(help=f"One of {terms.SOLVERS}.")]
OutDir = Annotated[Path, typer.Option("--out", help="Folder for the three files.")]

_OUT = Path("out/figures")
_RHO = 0.1  # of Fig. S3
_RHOS = (0.025, 0.05, 0.075, 0.1, 0.125, 0.15, 0.175, 0.2)  # of Fig. S4, about
_NAMED_ROW = re.compile(r"cifar10-(n[1-4])")


@app.command()
def curves(sources: Sources, out: OutDir = _OUT) -> None:
    """Accuracy against RMSE, ARA shaded, the naive classifier hatched (Fig. 3)."""
    with clear_errors("figures curves"):
        from candor.robustness.measured import read_measured
        from candor.viz import figures

        _save(figures.curves([read_measured(folder) for folder in sources]), out, "curves")


@app.command()
def areas(
    sources: Sources,
    paper: Annotated[
        str | None, typer.Option(help="Also the paper's rows on that data set, e.g. cifar10.")
    ] = None,
    out: OutDir = _OUT,
) -> None:
    """Clean accuracy against both ARAs, with 95 % intervals."""
    with clear_errors("figures areas"):
        from candor.robustness.measured import read_measured
        from candor.viz import figures

        rows = _paper_rows(paper) if paper else []
        _save(figures.areas([read_measured(folder) for folder in sources], rows), out, "areas")


@app.command()
def grid(
    image: Picture,
    model: Models,
    rho: Annotated[float, typer.Option(help="RMSE of every explanation, (0, 1].")] = _RHO,
    solver: Solver = "fast",
    out: OutDir = _OUT,
) -> None:
    """One image explained for every class, a row a model (Fig. S3)."""
    with clear_errors("figures grid"):
        classes = _classes(model)
        targets = [{"index": index} for index in range(len(classes))]
        caption = f"Explanations for every class, rho {rho:g}"
        _explain_grid(image, model, targets, [rho], solver, ["input", *classes], caption, out,
                      "grid")  # fmt: skip


@app.command()
def sweep(
    image: Picture,
    model: Models,
    target: Annotated[str, typer.Option(help="Class name.")],
    rho: Annotated[
        list[float] | None, typer.Option(help="RMSE, (0, 1]; may be repeated; default 8 to 0.2.")
    ] = None,
    solver: Solver = "fast",
    out: OutDir = _OUT,
) -> None:
    """One image explained for one class at growing rho, a row a model (Fig. S4)."""
    with clear_errors("figures sweep"):
        rhos = list(rho or _RHOS)
        titles = ["input", *(f"{one:g}" for one in rhos)]
        caption = f"Explanations for {target} by rho"
        _explain_grid(image, model, [{"name": target}], rhos, solver, titles, caption, out,
                      "sweep")  # fmt: skip


def _explain_grid(
    image: Path,
    models: Sequence[Path],
    targets: Sequence[dict[str, object]],
    rhos: Sequence[float],
    solver: str,
    titles: Sequence[str],
    caption: str,
    out: Path,
    name: str,
) -> None:
    from candor.viz import figures

    encoded = image.read_bytes()
    rows = {
        folder.name: _explained(folder, encoded, targets, rhos, solver, len(titles))
        for folder in models
    }
    _save(figures.grid(titles, rows, caption), out, name)


def _explained(
    folder: Path,
    encoded: bytes,
    targets: Sequence[dict[str, object]],
    rhos: Sequence[float],
    solver: str,
    tile_count: int,
) -> list["Tile"]:
    """The image as the model sees it and every explanation, in the order asked."""
    from candor.cli.commands.query import as_request
    from candor.stack.in_process import open_local
    from candor.viz.figures import Tile

    values = {"image": {"encoded": encoded}, "targets": targets, "rhos": rhos, "solver": solver}
    with open_local(folder) as client:
        answer = client.explain(as_request(api.ExplainRequest, values))
    likely = answer.predictions_before[0]
    tiles = [Tile(_opened(answer.input_png), f"{likely.name} {likely.confidence:.0%}")]
    for found in answer.explanations:
        note = f"{found.target.name} {found.confidence_after:.0%}"
        tiles.append(Tile(_opened(found.image_png), note))
    assert len(tiles) == tile_count
    return tiles


def _opened(png: bytes) -> Image.Image:
    return Image.open(io.BytesIO(png)).convert("RGB")


def _classes(models: Sequence[Path]) -> tuple[str, ...]:
    """Those of every model alike.

    Raises:
        ValueError: they differ, or are more than a request may name.
    """
    from candor.models.folder import read_card

    first, *others = (read_card(folder).classes for folder in models)
    if any(classes != first for classes in others):
        raise ValueError(
            f"model: got {', '.join(map(str, models))}, allowed models of one data set"
        )
    if len(first) > limits.MAX_TARGETS:
        raise ValueError(f"model: got {len(first)} classes, allowed {limits.MAX_TARGETS}")
    return first


def _paper_rows(data: str) -> list["Point"]:
    from candor.viz.figures import Point
    from training.config import experiment_names, load_experiment, load_paper_row

    rows = []
    for name in experiment_names():
        row = load_paper_row(name)
        if row is None or row.accuracy is None or load_experiment(name).data != data:
            continue
        found = {"attack": row.attack_ara, "btr": row.btr_ara}
        named = _NAMED_ROW.fullmatch(name)
        label = named[1].upper() if named else name
        known = {goal: value for goal, value in found.items() if value is not None}
        rows.append(Point(label, row.accuracy / 100, known))
    if not rows:
        raise ValueError(f"paper: got {data!r}, allowed a data set the paper has rows of")
    return rows


def _save(figure: "Figure", out: Path, name: str) -> None:
    from candor.viz.figures import save

    for path in save(figure, out, name):
        console().print(f"wrote {path}", markup=False, soft_wrap=True)
