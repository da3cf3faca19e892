"""Options of the commands that write signed reports."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from candor.audit.plan import BUDGETS, COUNTS
from candor.audit.report.signing import default_key_file
from candor.contracts import limits

KeyFile = Annotated[
    Path | None,
    typer.Option("--key", help="Ed25519 private key (PEM); default: one made for this user."),
]
CompareDir = Annotated[
    Path | None, typer.Option("--compare", help="Folder of a report on the same images.")
]


Attacks = Annotated[str | None, typer.Option(help="Attacks by name, with commas; default: all.")]
AttacksOnly = Annotated[
    bool, typer.Option("--attacks-only", help="Without panel, certificates, explanations.")
]
Steps = Annotated[int | None, typer.Option(min=1, max=limits.MAX_STEPS, help="Of the solvers.")]
Independent = Annotated[
    Path | None, typer.Option(help="Another model: transfer, oracle score, nearest real images.")
]
Undefended = Annotated[
    Path | None, typer.Option(help="A model without defence, for the ablation check.")
]
BudgetName = Annotated[
    str | None,
    typer.Option("--budget", help=f"{', '.join(BUDGETS)}; default: {limits.DEFAULT_BUDGET}."),
]
IsQuick = Annotated[bool, typer.Option("--quick", help="The same as --budget quick.")]


def _count(text: str, *, least: int = 0) -> Any:
    return typer.Option(min=least, max=limits.MAX_REPORT_IMAGES, help=text, show_default=False)


# One of `candor.audit.plan.Budget` each, by the field's name.
DescentSteps = Annotated[int | None, _count("Of DDN, FMN, PGD, and half of C&W's.", least=1)]
DescentImages = Annotated[int | None, _count("Seen by DDN, FMN, C&W, FGSM and PGD.")]
AutoAttackImages = Annotated[int | None, _count("Seen by AutoAttack.")]
QueryImages = Annotated[int | None, _count("Seen by Square and the hard-label attack.")]
SquareQueries = Annotated[int | None, _count("Of Square, an image.", least=1)]
LabelQueries = Annotated[int | None, _count("Of the hard-label attack, an image.", least=1)]
PanelImages = Annotated[int | None, _count("Seen by the masking panel.")]
NoiseTrials = Annotated[int | None, _count("Random perturbations in the panel.", least=1)]
SmoothingImages = Annotated[int | None, _count("Certified by smoothing.")]
SmoothingSamples = Annotated[int | None, _count("Noisy copies of a certified image.", least=1)]
CleverImages = Annotated[int | None, _count("With an estimate by CLEVER.")]
CleverSamples = Annotated[int | None, _count("Gradients of an estimated image.", least=1)]
ExplanationImages = Annotated[int | None, _count("Explained images.")]
GalleryImages = Annotated[int | None, _count("Of each part of the gallery; 0: no gallery.")]
CalibrationImages = Annotated[int | None, _count("With a BTR radius at two temperatures.")]


def budget_name(name: str | None, is_quick: bool) -> str:
    """The budget asked for.

    Raises:
        ValueError: there is none of that name, or ``--quick`` and ``--budget`` disagree.
    """
    expected = ("quick",) if is_quick else tuple(BUDGETS)
    chosen = name or ("quick" if is_quick else limits.DEFAULT_BUDGET)
    if chosen not in expected:
        where = " with --quick" if is_quick else ""
        raise ValueError(f"budget: expected {' or '.join(expected)}{where}, got {chosen!r}")
    return chosen


def given_counts(options: Mapping[str, Any]) -> dict[str, int]:
    """The counts that a command was given, by the name of the budget's field."""
    return {name: options[name] for name in COUNTS if options[name] is not None}


def key_file(path: Path | None) -> Path:
    """The key named, or the user's own."""
    return path or default_key_file()


def required(name: str, path: Path | None) -> Path:
    """The folder of an option that only some of an application's commands need."""
    if path is None:
        raise ValueError(f"{name}: expected a folder (--{name}), got nothing")
    return path


def attack_names(text: str | None) -> tuple[str, ...]:
    """Names between commas; none where nothing was given."""
    return tuple(name.strip() for name in (text or "").split(",") if name.strip())
