"""One run of `candor nodules`: a model of JSRT's regions, scored on whole films."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from candor.contracts.card import ModelCard
from candor.contracts.names import class_index
from candor.data.augment import REGION_SIZE
from candor.data.jsrt import CLASS_NAMES, FILM_SIZE, HIT_PIXELS, Film, load_films, regions
from candor.data.registry import default_data_dir
from candor.models.folder import load_model
from candor.robustness.ara import accuracy_interval
from candor.robustness.nodules import (
    CANDIDATES,
    FilmScore,
    Point,
    candidate_points,
    grid_points,
    score_film,
)
from candor.search.goals import log_odds
from candor.search.network import checked

_BATCH = 32  # regions that are evaluated together


def score_folder(
    model: Path,
    data_dir: Path | None,
    *,
    stride: int,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Sensitivity at five false positives a film, on the test films with a nodule.  (II-B)

    Args:
        model: folder of a model of regions, one of whose classes is "nodule".
        data_dir: as `load_films` takes it; None for the user's cache.
        stride: pixels between neighbours of the grid.
        report: called with the films that are done and all of them.
    Returns:
        A JSON object: the sensitivity with its exact 95 % interval, and one entry a film.
    Raises:
        ValueError: the model is of other images, or the stride is out of range.
        DataMissing, DataDamaged: the films.
    """
    loaded = load_model(model)
    target, points = _nodule_class(loaded.card), grid_points(FILM_SIZE, REGION_SIZE, stride)
    films = [
        film
        for film in load_films(data_dir or default_data_dir(), "test")
        if film.radius is not None
    ]
    network, scores = checked(loaded.network), list[FilmScore]()
    for film in films:
        report(len(scores), len(films))
        scores.append(_score(network, film, points, target))
    report(len(films), len(films))
    found = accuracy_interval(sum(score.rank is not None for score in scores), len(scores))
    return {
        "model": str(model),
        "weights_digest": loaded.card.identity,
        "data": "jsrt/test",
        "films": len(films),
        "candidates": CANDIDATES,
        "within_pixels": HIT_PIXELS,
        "stride": stride,
        "sensitivity": {"value": found.value, "low": found.low, "high": found.high},
        "found": [_entry(film, score) for film, score in zip(films, scores, strict=True)],
    }


def _nodule_class(card: ModelCard) -> int:
    expected = (1, REGION_SIZE, REGION_SIZE)
    if card.input.shape != expected or CLASS_NAMES[1] not in card.classes:
        raise ValueError(
            f"model: expected one of regions {expected} with the class {CLASS_NAMES[1]!r}, got "
            f"{card.input.shape} with {', '.join(card.classes[:3])}"
        )
    return class_index(CLASS_NAMES[1], card.classes)


@torch.no_grad()
def _score(network: nn.Module, film: Film, points: list[Point], target: int) -> FilmScore:
    odds: list[float] = []
    for start in range(0, len(points), _BATCH):
        images = regions(film, points[start : start + _BATCH])
        logits = network(images)
        odds += log_odds(logits, torch.full((len(images),), target)).tolist()
    candidates = candidate_points(points, odds, apart=HIT_PIXELS)
    return score_film(candidates, film.centre, within=HIT_PIXELS)


def _entry(film: Film, score: FilmScore) -> dict[str, Any]:
    return {
        "film": film.path.name,
        "nodule": list(film.centre),
        "candidates": [list(point) for point in score.candidates],
        "distance": score.distance,
        "rank": score.rank,
    }
