"""The command `candor experiments`: what can be trained, what the paper got and what we got."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from candor.cli.output import AsJson, clear_errors, print_json
from candor.stack.archives import MODELS_DIR

if TYPE_CHECKING:
    from candor.contracts.card import ModelCard
    from training.config import TrainConfig

_LABELS = ("accuracy, %", "attack ARA", "BTR ARA")
_METRICS = {"accuracy": 100.0, "attack_ara": 1.0, "btr_ara": 1.0}  # by what a card's is multiplied


def experiments(
    models_dir: Annotated[
        Path, typer.Option(help="Folder of model folders, whose cards say what was measured.")
    ] = MODELS_DIR,
    as_json: AsJson = False,
) -> None:
    """List the experiments: accuracy (%), attack ARA and BTR ARA (RMSE) of the paper and ours."""
    with clear_errors("experiments"):
        from training.config import experiment_names

        cards = _cards(models_dir)
        rows = [_row(name, cards) for name in experiment_names()]
        if as_json:
            print_json(rows)
        else:
            _print_table(rows)


def _cards(models_dir: Path) -> dict[str, tuple[Path, "ModelCard"]]:
    """Cards by the experiment their recipe names; of several the first by folder name.

    Both of models with one version and of those with a folder for each.
    """
    from candor.models.folder import CARD_FILE, read_card

    cards: dict[str, tuple[Path, ModelCard]] = {}
    paths = [*models_dir.glob(f"*/{CARD_FILE}"), *models_dir.glob(f"*/*/{CARD_FILE}")]
    for path in sorted(paths):
        card = read_card(path.parent)
        place = path.relative_to(models_dir.parent)
        cards.setdefault(str(card.recipe.get("experiment")), (place, card))
    return cards


def _row(name: str, cards: dict[str, tuple[Path, "ModelCard"]]) -> dict[str, Any]:
    """``ours`` is null until a model of the experiment is in the store."""
    from training.config import load_experiment, load_paper_row

    config, paper = load_experiment(name), load_paper_row(name)
    return {
        "name": name,
        "description": config.description,
        "data": config.data,
        "paper_row": paper.row if paper else None,
        "paper": {metric: getattr(paper, metric) for metric in _METRICS} if paper else None,
        "note": paper.note if paper else "",
        "ours": _ours(config, *cards[name]) if name in cards else None,
    }


def _ours(config: "TrainConfig", path: Path, card: "ModelCard") -> dict[str, Any]:
    """The card's numbers in the paper's units; null where it has none on the test images."""
    recipe = card.recipe
    measured = {item.name: item for item in card.metrics if item.data == f"{config.data}/test"}
    numbers: dict[str, Any] = dict.fromkeys(_METRICS)
    for name, factor in _METRICS.items():
        if name in measured:
            item = measured[name]
            values = {"value": item.value, "low": item.low, "high": item.high}
            numbers[name] = {key: factor * value for key, value in values.items()}
            numbers[name]["images"] = item.image_count
    expected = config.as_dict()
    return {
        **numbers,
        "epochs": recipe.get("epochs"),
        "hours": round(recipe["seconds"] / 3600, 2) if "seconds" in recipe else None,
        "changed": sorted(key for key in expected.keys() & recipe if recipe[key] != expected[key]),
        "card": str(path),
    }


def _print_table(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Column, Table

    # A name is there to be copied: it is never cut.
    name = Column("experiment", no_wrap=True)
    headings = [text for label in _LABELS for text in (label, "ours")]
    table = Table(name, "paper row", *headings)
    for row in rows:
        paper, ours = row["paper"] or {}, row["ours"] or {}
        texts = [
            text
            for metric in _METRICS
            for text in (_number(paper.get(metric)), _interval(ours.get(metric)))
        ]
        table.add_row(row["name"], row["paper_row"] or "", *texts)
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:g}"


def _interval(measured: dict[str, Any] | None) -> str:
    if measured is None:
        return ""
    low, high = (f"{measured[key]:.3g}" for key in ("low", "high"))
    return f"{measured['value']:.3g} [{low}, {high}]"
