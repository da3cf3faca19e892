"""Tables of what `predict`, `explain`, `probe` and `compare` found, for people."""

from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from candor.cli.output import console
from candor.contracts import api
from candor.terms import Norm


def title_of(model: api.ModelRef, image: Path) -> str:
    """What a table is about."""
    mark = " (accepted without data)" if model.is_accepted_without_data else ""
    return f"{model.name}{mark} on {image}"


def show_classes(title: str, classes: Sequence[api.ClassConfidence]) -> None:
    table = Table(title=title)
    table.add_column("class")
    table.add_column("confidence", justify="right")
    for entry in classes:
        table.add_row(entry.name, f"{entry.confidence:.4f}")
    console().print(table)


def show_explanations(image: Path, response: api.ExplainResponse) -> None:
    table = Table(title=title_of(response.model, image))
    for heading in ("target", "rho", "RMSE", "before", "after", "says now", "status", "steps"):
        table.add_column(heading)
    for item in response.explanations:
        table.add_row(
            _asked(item),
            f"{item.rho:g}" if item.norm is Norm.L2 else f"{item.rho:g} in {item.norm}",
            f"{item.rmse:.5f}",
            f"{item.confidence_before:.4f}",
            f"{item.confidence_after:.4f}",
            f"{item.predicted_after.name} {item.predicted_after.confidence:.3f}",
            item.status,
            str(item.steps),
        )
    console().print(table)
    console().print(_sizes(response.explanations))
    for note in dict.fromkeys(item.radius_note for item in response.explanations):
        console().print(note)


def _sizes(explanations: Sequence[api.Explanation]) -> Table:
    """How much every explanation changed, in each norm; "inside" is the RMSE in the region."""
    table = Table(title="size of the change")
    has_region = any(item.rmse_inside is not None for item in explanations)
    for heading in ("target", *Norm, "pixels changed", *(("inside",) if has_region else ())):
        table.add_column(heading)
    for item in explanations:
        sizes = (item.rho_1, item.rho_1_5, item.rmse, item.rho_inf)
        inside = () if item.rmse_inside is None else (f"{item.rmse_inside:.5f}",)
        numbers = (f"{size:.5f}" for size in sizes)
        table.add_row(_asked(item), *numbers, f"{item.sparsity:.1%}", *inside)
    return table


def _asked(item: api.Explanation) -> str:
    """What an explanation was asked for: more of this class, or less, than of another."""
    verb = "more" if item.direction is api.Direction.FOR else "less"
    rival = "" if item.away_from is None else f" than {item.away_from.name}"
    return f"{verb} {item.target.name}{rival}"


def show_probe(image: Path, response: api.ProbeResponse) -> None:
    table = Table(title=f"{title_of(response.model, image)}, label {response.label.name}")
    for heading in ("goal", "status", "radius (RMSE)", "falls to", "label then", "steps"):
        table.add_column(heading)
    for item in response.results:
        radius = f"> {item.lower_bound:.5f}" if item.radius is None else f"{item.radius:.5f}"
        if item.rmse_inside is not None:
            radius += f", inside {item.rmse_inside:.5f}"
        table.add_row(
            item.goal,
            item.status,
            radius,
            f"{item.falls_to.name} {item.falls_to.confidence:.3f}",
            f"{item.label_confidence_after:.4f}",
            str(item.steps),
        )
    console().print(table)


def show_comparison(image: Path, response: api.CompareResponse) -> None:
    target, moved = response.explanation.target.name, response.perturbation
    table = Table(
        title=f"{title_of(response.model, image)}, target {target}",
        caption=f"perturbed by RMSE {moved.rmse:.4f}: {target} "
        f"{moved.confidence_before:.1%} -> {moved.confidence_after:.1%}",
    )
    share = f"AE's energy in the top {response.top_share:.0%}"
    for heading in ("method", share, "rank correlation", "cosine"):
        table.add_column(heading)
    for item in response.methods:
        table.add_row(
            item.method,
            f"{item.energy_share:.1%}",
            f"{item.rank_correlation:.3f}",
            f"{item.cosine:.3f}",
        )
    console().print(table)
    console().print(response.explanation.radius_note)
    for one in response.missing:
        console().print(f"{one.method}: {one.reason}")
