"""How numbers of a report are written, the same in HTML and PDF."""

from collections.abc import Callable, Mapping
from math import isclose
from typing import Any

from candor.audit.report.schema import Provenance, Report
from candor.audit.report.schema_sections import Gallery, HumanFlipRate
from candor.audit.report.schema_values import Area, Distance, Estimate, Share

# Why an area of the paper's and one of a report are not of the same kind.
PAPER_SEARCH = (
    "The paper's areas are by its own search of 450 steps, those of this report by the smallest "
    "change that any of its attacks found. The better search finds the smaller area: of the "
    "authors' best network the paper's search gives an attack ARA of 0.0207 and fast one of 0.0136 "
    "on the same 200 images."
)


def distance(value: Distance | None) -> str:
    """Both units, or a dash."""
    return "-" if value is None else f"{value.rmse:.4f} (L2 {value.l2:.3f})"


def percent(value: float) -> str:
    """A fraction as per cent."""
    return f"{100 * value:.1f} %"


def share(value: Share | None) -> str:
    """A share with its interval and counts, or that nothing was tried."""
    if value is None:
        return "not tried"
    interval = f"[{100 * value.low:.1f}, {100 * value.high:.1f}]"
    return f"{percent(value.value)} {interval}, {value.count} of {value.image_count}"


def estimate(value: Estimate | None) -> str:
    """A mean or median with its interval, which one image has none of; or a dash."""
    if value is None:
        return "-"
    ends = "" if value.image_count == 1 else f" [{value.low:.3g}, {value.high:.3g}]"
    return f"{value.value:.3g}{ends}"


def human_flip_rate(value: HumanFlipRate | None) -> str:
    """The rate with its interval and how it came about, or that nobody was asked."""
    if value is None:
        return "not measured: candor annotations ask and flips bring people's verdicts to the card"
    interval = f"[{100 * value.low:.1f}, {100 * value.high:.1f}]"
    return f"{percent(value.value)} {interval} of {value.image_count} explanations: {value.method}"


def own_beside_published(report: Report) -> tuple[str, str] | None:
    """Clean and robust accuracy of this report in the ball of the published rows, if there is one.

    Raises:
        StopIteration: the report has published rows and no AutoAttack in their ball.
    """
    if not report.published:
        return None
    eps = report.published[0].eps_l2
    row = next(
        row for row in report.budgets if row.attack == "autoattack" and isclose(row.eps.l2, eps)
    )
    return share(report.accuracy), share(row.accuracy)


def area(value: Area) -> str:
    """An area with its interval, both units."""
    rmse = f"{value.value.rmse:.4f} [{value.low.rmse:.4f}, {value.high.rmse:.4f}]"
    return f"{rmse}; L2 {value.value.l2:.3f} [{value.low.l2:.3f}, {value.high.l2:.3f}]"


def settings(values: Mapping[str, Any]) -> str:
    """Hyper-parameters as one line."""
    return ", ".join(f"{name} {value}" for name, value in values.items())


def gallery_parts(gallery: Gallery) -> str:
    """Why its images were chosen, and how many for each reason."""
    return ", ".join(f"{part.title}: {part.image_count}" for part in gallery.parts)


def number(value: float) -> str:
    """Four significant digits."""
    return f"{value:.4g}"


def p_value(value: float) -> str:
    """Three digits, or an upper limit."""
    return "< 0.0001" if value < 1e-4 else f"{value:.3g}"


def duration(seconds: float) -> str:
    """Hours, minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min {rest} s" if hours else f"{minutes} min {rest} s"


def durations(provenance: Provenance) -> str:
    """All of it, and stage by stage."""
    stages = (f"{name} {duration(each)}" for name, each in provenance.stage_seconds.items())
    return ": ".join(filter(None, (duration(provenance.compute_seconds), ", ".join(stages))))


GOAL_TITLES = {"attack": "attack", "btr": "BTR (better than random)"}


def goal(name: str) -> str:
    """A goal's name for people."""
    return GOAL_TITLES[name]


FILTERS: Mapping[str, Callable[..., Any]] = {
    "distance": distance,
    "percent": percent,
    "share": share,
    "estimate": estimate,
    "human_flip_rate": human_flip_rate,
    "own_beside_published": own_beside_published,
    "area": area,
    "settings": settings,
    "gallery_parts": gallery_parts,
    "number": number,
    "p_value": p_value,
    "durations": durations,
    "goal": goal,
}
