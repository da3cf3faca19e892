"""What the paper reports of each experiment, and what the models of a store measured."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from candor.contracts.card import MetricCard, ModelCard
from candor.models.folder import CARD_FILE, read_card
from training.config import TrainConfig
from training.engine import Precision
from training.experiment import experiment_names, load_experiment, load_paper_row

METRICS = {"accuracy": 100.0, "attack_ara": 1.0, "btr_ara": 1.0}  # by what a card's is multiplied
_NAMED_ROW = re.compile(r"cifar10-(n[1-4])")


@dataclass(frozen=True, slots=True)
class PaperResult:
    """A row of the paper: accuracy as a share, ARA in RMSE by goal ("attack", "btr")."""

    name: str
    accuracy: float
    areas: Mapping[str, float]


def experiment_results(models_dir: Path) -> list[dict[str, Any]]:
    """One JSON-able row an experiment; its ``ours`` is null until the store has a model of it."""
    cards = _cards(models_dir)
    return [_row(name, cards) for name in experiment_names()]


def paper_results(data: str) -> list[PaperResult]:
    """The paper's rows on one data set.

    Raises:
        ValueError: it has none.
    """
    rows = []
    for name in experiment_names():
        row = load_paper_row(name)
        if row is None or row.accuracy is None or load_experiment(name).data != data:
            continue
        found = {"attack": row.attack_ara, "btr": row.btr_ara}
        named = _NAMED_ROW.fullmatch(name)
        label = named[1].upper() if named else name
        known = {goal: value for goal, value in found.items() if value is not None}
        rows.append(PaperResult(label, row.accuracy / 100, known))
    if not rows:
        raise ValueError(f"paper: expected a data set the paper has rows of, got {data!r}")
    return rows


def _cards(models_dir: Path) -> dict[str, tuple[Path, ModelCard]]:
    """Cards by the experiment their recipe names; of several the first by folder name.

    Both of models with one version and of those with a folder for each.
    """
    cards: dict[str, tuple[Path, ModelCard]] = {}
    paths = [*models_dir.glob(f"*/{CARD_FILE}"), *models_dir.glob(f"*/*/{CARD_FILE}")]
    for path in sorted(paths):
        if any(part.startswith(".") for part in path.relative_to(models_dir).parts):
            continue  # a draft, or a folder that a system made
        card = read_card(path.parent)
        place = path.relative_to(models_dir.parent)
        cards.setdefault(str(card.recipe.get("experiment")), (place, card))
    return cards


def _row(name: str, cards: dict[str, tuple[Path, ModelCard]]) -> dict[str, Any]:
    config, paper = load_experiment(name), load_paper_row(name)
    return {
        "name": name,
        "description": config.description,
        "data": config.data,
        "paper_row": paper.row if paper else None,
        "paper": {metric: getattr(paper, metric) for metric in METRICS} if paper else None,
        "note": paper.note if paper else "",
        "ours": _ours(config, *cards[name]) if name in cards else None,
    }


def _ours(config: TrainConfig, path: Path, card: ModelCard) -> dict[str, Any]:
    """The card's numbers in the paper's units; null where it has none on the test images.

    An ARA is by `fast` where the card has it, and ``by_paper`` has those by the paper's own search.
    """
    recipe = card.recipe
    numbers: dict[str, Any] = dict.fromkeys(METRICS)
    by_paper: dict[str, Any] = {}
    for name, factor in METRICS.items():
        found = [_number(item, factor) for item in card.measured(name, f"{config.data}/test")]
        numbers[name] = found[0] if found else None
        beside = [one for one in found[1:] if one.get("search") == "paper"]
        if beside:
            by_paper[name] = beside[0]
    expected = config.as_dict()
    return {
        **numbers,
        "by_paper": by_paper,
        "epochs": recipe.get("epochs"),
        "hours": round(recipe["seconds"] / 3600, 2) if "seconds" in recipe else None,
        "changed": sorted(_changed(expected, recipe)),
        "card": str(path),
    }


def _changed(expected: Mapping[str, Any], recipe: Mapping[str, Any]) -> Iterator[str]:
    """Fields in which a run was another; one that was measured when it began is not."""
    for key in expected.keys() & recipe:
        if recipe[key] != expected[key] and expected[key] != Precision.FASTEST:
            yield key


def _number(item: MetricCard, factor: float) -> dict[str, Any]:
    ends = {"value": item.value, "low": item.low, "high": item.high}
    number = {key: factor * value for key, value in ends.items()}
    search = {"search": item.search} if item.search else {}
    return number | {"images": item.image_count} | search
