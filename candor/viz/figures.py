"""The paper's figures, drawn with matplotlib; nothing here computes or reads a result.

Figures are made without pyplot: no display, no global state.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill
from typing import Any, Protocol

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

from candor.files.writing import write_files
from candor.fonts import FAMILY, drawable
from candor.robustness.measured import ALL, GOALS, Measured, MeasuredExplanations, Span

FORMATS = ("png", "svg", "pdf")
# Okabe and Ito's colours, told apart by most colour-blind people.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
_TITLES = {"attack": "Attack", "btr": "Better than random (BTR)"}
_STYLE: dict[Any, Any] = {
    "font.size": 9.0,
    "font.family": FAMILY,
    "text.parse_math": False,  # a name may have dollar signs
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.constrained_layout.use": True,
    "savefig.dpi": 200,
    "svg.fonttype": "none",
    "svg.hashsalt": "candor",  # the same figure is the same file
    "pdf.fonttype": 42,
}
_NAIVE_TOLERANCE = 1e-3
_TILE_INCHES = 1.15
_MOST_CLASSES = 30  # of a figure's rows
_ROW_SHARE = 0.6  # of a row's height that the models' marks take
_LINE_CHARS, _MOST_LINES = 18, 2  # of a tile's texts


@dataclass(frozen=True, slots=True)
class Tile:
    """One image of a grid and the line under it."""

    image: Image.Image
    note: str


class Point(Protocol):
    """A row of the paper: accuracy as a share, ARA in RMSE by goal."""

    @property
    def name(self) -> str: ...

    @property
    def accuracy(self) -> float: ...

    @property
    def areas(self) -> Mapping[str, float]: ...


@mpl.rc_context(_STYLE)
def save(figure: Figure, out: Path, name: str) -> list[Path]:
    """The figure as PNG, SVG and PDF in ``out``, the same bytes for the same figure."""
    paths = [out / f"{name}.{kind}" for kind in FORMATS]
    undated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}
    contents = {}
    for path, kind in zip(paths, FORMATS, strict=True):
        content = io.BytesIO()
        figure.savefig(content, format=kind, metadata=undated[kind])
        contents[path.name] = content.getvalue()
    write_files(out, contents)
    return paths


@mpl.rc_context(_STYLE)
def curves(models: Sequence[Measured]) -> Figure:
    """Accuracy against RMSE, ARA shaded, the naive classifier hatched.  (Fig. 3)

    Raises:
        ValueError: a model has no curve, or they were measured on different data.
    """
    naive = _common_naive(models)
    figure, panels = _panels()
    for goal, axes in zip(GOALS, panels, strict=True):
        limit = 1.04 * max(float(model.curves[goal].rmse[-1]) for model in models)
        for model, colour in zip(models, _cycle(len(models)), strict=True):
            steps, area = model.curves[goal], model.areas[goal]
            rmse = np.append(steps.rmse, limit)
            accuracy = np.append(steps.accuracy, steps.accuracy[-1])
            label = f"{model.label}, ARA {area.value:.4f}"
            axes.step(rmse, 100 * accuracy, where="post", color=colour, label=drawable(label))
            floor = np.minimum(naive, accuracy)
            axes.fill_between(
                rmse, 100 * floor, 100 * accuracy, step="post", color=colour, alpha=0.12, lw=0
            )
        axes.axhspan(0, 100 * naive, facecolor="none", edgecolor="0.6", hatch="///", lw=0)
        axes.set(xlim=(0, limit), ylim=(0, 100), title=_TITLES[goal], xlabel="RMSE")
        axes.legend(frameon=False)
    panels[0].set_ylabel("accuracy, %")
    return figure


@mpl.rc_context(_STYLE)
def areas(models: Sequence[Measured], rows: Sequence[Point] = ()) -> Figure:
    """Clean accuracy against ARA with 95 % intervals; rows of the paper in grey.

    Raises:
        ValueError: a model has no accuracy or no area.
    """
    figure, panels = _panels()
    for goal, axes in zip(GOALS, panels, strict=True):
        _paper_points(axes, goal, rows)
        for model, colour in zip(models, _cycle(len(models)), strict=True):
            accuracy, area = _accuracy(model), _area(model, goal)
            axes.errorbar(
                area.value,
                100 * accuracy.value,
                xerr=_ends(area),
                yerr=100 * _ends(accuracy),
                fmt="o",
                capsize=2,
                color=colour,
                label=drawable(model.label),
            )
        axes.set(title=_TITLES[goal], xlabel=f"{goal} ARA, RMSE")
        axes.set_xlim(left=0)
        axes.legend(frameon=False)
    panels[0].set_ylabel("accuracy, %")
    return figure


@mpl.rc_context(_STYLE)
def measures(models: Sequence[MeasuredExplanations]) -> Figure:
    """Measures of explanations with 95 % intervals: of all, and of each target class.

    Of many classes those of the most images; a measure that no model has is left out.
    """
    titles = [title for title in models[0].measures if any(m.measures[title] for m in models)]
    classes = _shown_classes(models)
    figure = Figure(figsize=(1.6 * len(titles) + 1.4, 0.26 * len(classes) + 1.3))
    panels = figure.subplots(1, len(titles), sharey=True, squeeze=False)[0]
    for title, axes in zip(titles, panels, strict=True):
        for place, (model, colour) in enumerate(zip(models, _cycle(len(models)), strict=True)):
            spans = model.measures[title]
            rows = [row for row, name in enumerate(classes) if name in spans]
            shown = [spans[classes[row]] for row in rows]
            axes.errorbar(
                [span.value for span in shown],
                [row + _ROW_SHARE * (place - (len(models) - 1) / 2) / len(models) for row in rows],
                xerr=np.hstack([_ends(span) for span in shown]) if shown else None,
                fmt="o",
                markersize=3,
                capsize=2,
                color=colour,
                label=drawable(model.name),
            )
        axes.set(title=title)
        axes.xaxis.set_major_locator(MaxNLocator(3))
    counts = [max(model.image_counts.get(name, 0) for model in models) for name in classes]
    texts = [drawable(f"{name}, n={n}") for name, n in zip(classes, counts, strict=True)]
    panels[0].set_yticks(range(len(classes)), texts)
    panels[0].invert_yaxis()
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", frameon=False)
    return figure


@mpl.rc_context(_STYLE)
def grid(titles: Sequence[str], rows: Mapping[str, Sequence[Tile]], caption: str) -> Figure:
    """Images in rows, one a model, under column titles.  (Figs. S3, S4)"""
    size = (_TILE_INCHES * len(titles) + 0.4, (_TILE_INCHES + 0.35) * len(rows) + 0.5)
    figure = Figure(figsize=size)
    figure.suptitle(drawable(caption))
    places = figure.subplots(len(rows), len(titles), squeeze=False)
    for name, tiles, row in zip(rows, rows.values(), places, strict=True):
        row[0].set_ylabel(drawable(name))
        for tile, axes in zip(tiles, row, strict=True):
            axes.imshow(np.asarray(tile.image), interpolation="nearest")
            axes.set_xlabel(_fitted(tile.note), fontsize=7)
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
    for title, axes in zip(titles, places[0], strict=True):
        axes.set_title(_fitted(title), fontsize=8)
    return figure


def _fitted(text: str) -> str:
    """In lines as wide as a tile; a name that is too long for them is cut."""
    return fill(drawable(text), _LINE_CHARS, max_lines=_MOST_LINES, placeholder=" ...")


def _shown_classes(models: Sequence[MeasuredExplanations]) -> list[str]:
    """`ALL` first; of many classes those of the most images."""
    counts: dict[str, int] = {}
    for model in models:
        for name, count in model.image_counts.items():
            counts[name] = counts.get(name, 0) + count
    classes = sorted(counts.keys() - {ALL}, key=lambda name: (-counts[name], name))
    return [ALL, *sorted(classes[:_MOST_CLASSES])]


def _panels() -> tuple[Figure, Sequence[Axes]]:
    figure = Figure(figsize=(8.0, 3.4))
    panels = figure.subplots(1, len(GOALS))
    for axes in panels:
        axes.xaxis.set_major_locator(MaxNLocator(5))
    return figure, panels


def _cycle(count: int) -> list[str]:
    return [_COLOURS[place % len(_COLOURS)] for place in range(count)]


def _common_naive(models: Sequence[Measured]) -> float:
    for model in models:
        if model.naive is None:
            raise ValueError(
                "source: expected folders of candor audit or candor ara --out, "
                f"got {model.name}, which has no curve"
            )
    naive = [model.naive for model in models if model.naive is not None]
    if max(naive) - min(naive) > _NAIVE_TOLERANCE:
        raise ValueError(f"source: expected models on the same data, got naive accuracies {naive}")
    return naive[0]


def _accuracy(model: Measured) -> Span:
    if model.accuracy is None:
        raise ValueError(
            f"source: expected an accuracy on the card, got {model.name}: run candor ara"
        )
    return model.accuracy


def _area(model: Measured, goal: str) -> Span:
    if goal not in model.areas:
        raise ValueError(
            f"source: expected a card with a {goal} ARA, got {model.name}: run candor ara"
        )
    return model.areas[goal]


def _ends(span: Span) -> np.ndarray:
    """(2, 1) lengths of the error bar below and above."""
    lengths = np.array([[span.value - span.low], [span.high - span.value]])
    positive: np.ndarray = np.maximum(lengths, 0.0)
    return positive


def _paper_points(axes: Axes, goal: str, rows: Sequence[Point]) -> None:
    known = [row for row in rows if goal in row.areas]
    if not known:
        return
    x, y = [row.areas[goal] for row in known], [100 * row.accuracy for row in known]
    axes.scatter(x, y, s=14, color="0.7", label="paper")
    for row in known:
        if len(row.name) <= 2:  # N1 to N4
            axes.annotate(
                row.name, (row.areas[goal], 100 * row.accuracy), (3, 3), textcoords="offset points"
            )
