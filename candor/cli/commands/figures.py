"""The commands `candor figures ...`: the paper's figures as PNG, SVG and PDF."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from matplotlib.figure import Figure

from candor import terms
from candor.audit.measured import read_explanations, read_measured
from candor.cli.client import as_request, image_value
from candor.cli.output import console
from candor.contracts import api
from candor.viz import figures
from candor.viz.explanation_rows import common_classes, explanation_rows, shown_classes
from training.results import paper_results

app = typer.Typer(help="Draw the paper's figures as PNG, SVG and PDF.", no_args_is_help=True)

Sources = Annotated[
    list[Path],
    typer.Argument(help="Folders of candor audit, of candor ara --out, of models or of runs."),
]
Image = Annotated[Path, typer.Argument(help="PNG, JPEG or WebP.")]
Models = Annotated[list[Path], typer.Option("--model", help="Model folder; one row each.")]
Solver = Annotated[str, typer.Option(help=f"One of {terms.SOLVERS}.")]
OutDir = Annotated[Path, typer.Option("--out", help="Folder for the three files.")]

_OUT = Path("out/figures")
_RHO = 0.1  # of Fig. S3
_RHOS = (0.025, 0.05, 0.075, 0.1, 0.125, 0.15, 0.175, 0.2)  # of Fig. S4, about


@app.command()
def curves(sources: Sources, out: OutDir = _OUT) -> None:
    """Accuracy against RMSE, ARA shaded, the naive classifier hatched (Fig. 3)."""
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
    rows = paper_results(paper) if paper else []
    _save(figures.areas([read_measured(folder) for folder in sources], rows), out, "areas")


@app.command()
def measures(sources: Sources, out: OutDir = _OUT) -> None:
    """Measures of the explanations of audits, of all and of each class, with 95 % intervals."""
    _save(figures.measures([read_explanations(folder) for folder in sources]), out, "measures")


@app.command()
def grid(
    image: Image,
    model: Models,
    rho: Annotated[float, typer.Option(help="RMSE of every explanation, (0, 1].")] = _RHO,
    solver: Solver = "fast",
    out: OutDir = _OUT,
) -> None:
    """One image explained for every class, of many for the likeliest, a row a model (Fig. S3)."""
    classes = common_classes(model)
    seen = as_request(api.ImageInput, image_value(image))
    shown = shown_classes(model[0], seen, len(classes))
    targets = [{"index": index} for index in shown]
    every = "every class" if len(shown) == len(classes) else f"the {len(shown)} likeliest"
    caption = f"Explanations for {every}, rho {rho:g}"
    rows = explanation_rows(model, _request(image, targets, [rho], solver))
    titles = ["input", *(classes[index] for index in shown)]
    _save(figures.grid(titles, rows, caption), out, "grid")


@app.command()
def sweep(
    image: Image,
    model: Models,
    target: Annotated[str, typer.Option(help="Class name.")],
    rho: Annotated[
        list[float] | None, typer.Option(help="RMSE, (0, 1]; may be repeated; default 8 to 0.2.")
    ] = None,
    solver: Solver = "fast",
    out: OutDir = _OUT,
) -> None:
    """One image explained for one class at growing rho, a row a model (Fig. S4)."""
    rhos = list(rho or _RHOS)
    titles = ["input", *(f"{value:g}" for value in rhos)]
    caption = f"Explanations for {target} by rho"
    rows = explanation_rows(model, _request(image, [{"name": target}], rhos, solver))
    _save(figures.grid(titles, rows, caption), out, "sweep")


def _request(
    image: Path, targets: Sequence[Mapping[str, Any]], rhos: Sequence[float], solver: str
) -> api.ExplainRequest:
    values = {"image": image_value(image), "targets": targets, "rhos": rhos, "solver": solver}
    return as_request(api.ExplainRequest, values)


def _save(figure: Figure, out: Path, name: str) -> None:
    for path in figures.save(figure, out, name):
        console().print(f"wrote {path}", markup=False, soft_wrap=True)
