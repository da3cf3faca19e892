"""What `candor robustify` says of a model before and after."""

from typing import Any

from rich.table import Table

from candor.cli.output import console
from candor.cli.robustify_session import Robustified, Standing
from candor.contracts.radius import MEDIAN_RADIUS, radius_note
from candor.models.folder import read_card
from candor.robustness.ara_files import differences, read_ara
from candor.robustness.paired import Difference

_AREAS = {"attack_ara": "attack ARA", "btr_ara": "BTR ARA"}


def show_comparison(found: Robustified) -> None:
    """Both side by side, the gain with its interval, and whether the budget was kept."""
    out, both = console(), (found.before, found.after)
    count = str(found.before.ara["images"])
    title = "areas and radii in RMSE; the radius is that of right predictions"
    table = Table("measure", found.before.name, found.after.name, "images", title=title)
    accuracies = [_percent(one) for one in both]
    table.add_row("accuracy", *accuracies, str(found.before.accuracy.image_count))
    for key, title in _AREAS.items():
        table.add_row(f"{title} by fast", *(_area(one.ara[key]) for one in both), count)
    right = "/".join(str(one.ara.get(MEDIAN_RADIUS, {}).get("images", "-")) for one in both)
    table.add_row("median attack radius", *map(_radius, both), right)
    out.print(table)
    gain = gain_of(found)
    interval = f"[{gain.low:+.4f}, {gain.high:+.4f}]"
    out.print(f"attack ARA on the same {count} images: {gain.value:+.4f} {interval}")
    out.print(_verdict(lost(found), found.budget))
    median = found.after.ara.get(MEDIAN_RADIUS)
    rho = read_card(found.model).recommended_rho
    out.print(radius_note(None if median is None else median["value"], rho))


def record_of(found: Robustified) -> dict[str, Any]:
    """The same, JSON-able."""
    gain, loss = gain_of(found), lost(found)
    return {
        "model": str(found.model),
        "before": _record(found.before),
        "after": _record(found.after),
        "attack_ara_gain": {"value": gain.value, "low": gain.low, "high": gain.high},
        "accuracy_lost": loss,
        "accuracy_budget": found.budget,
        "is_within_budget": _is_kept(loss, found.budget),
    }


def gain_of(found: Robustified) -> Difference:
    """Attack ARA after minus before, on the same images, with the paired interval."""
    after, before = (read_ara(found.folder / part) for part in ("after", "before"))
    return differences(after, before)["attack_ara"]


def lost(found: Robustified) -> float:
    """Share of all test images that were right and, on balance, are not any more."""
    return found.before.accuracy.value - found.after.accuracy.value


def _radius(one: Standing) -> str:
    row = one.ara.get(MEDIAN_RADIUS)
    return "-" if row is None else _area(row)


def _record(one: Standing) -> dict[str, Any]:
    return {"name": one.name, "accuracy": one.accuracy.model_dump(mode="json"), "ara": one.ara}


def _percent(one: Standing) -> str:
    found = one.accuracy
    return f"{found.value:.1%} [{found.low:.1%}, {found.high:.1%}]"


def _area(row: dict[str, Any]) -> str:
    return f"{row['value']:.4f} [{row['low']:.4f}, {row['high']:.4f}]"


def _is_kept(loss: float, budget: float) -> bool:
    """But for rounding: 3 of 100 images are 3%."""
    return loss <= budget + 1e-9


def _verdict(loss: float, budget: float) -> str:
    allowed = f"{100 * budget:.1f} points of accuracy"
    if not _is_kept(loss, budget):
        return (
            f"The budget was not kept: {100 * loss:.1f} of {allowed} are lost. A smaller "
            "--accuracy-budget, more --epochs or more images help."
        )
    if loss <= 0:
        return f"The budget was kept: none of {allowed} is lost."
    return f"The budget was kept: {100 * loss:.1f} of {allowed} are lost."
