"""Rows of a figure: one image explained by several models in this process."""

from collections.abc import Sequence
from pathlib import Path

from candor.contracts import api
from candor.models.folder import read_card
from candor.stack.in_process import open_local
from candor.viz.figures import Tile
from candor.viz.images import opened

MOST_COLUMNS = 12  # wider figures cannot be read


def explanation_rows(models: Sequence[Path], request: api.ExplainRequest) -> dict[str, list[Tile]]:
    """By model folder's name: the image as the model sees it, then its explanations in order.

    Raises:
        ArtifactError: a model folder is missing, damaged or contradicts itself.
        ServiceError: a model cannot answer the request.
    """
    return {folder.name: _row(folder, request) for folder in models}


def common_classes(models: Sequence[Path]) -> tuple[str, ...]:
    """The classes of all models.

    Raises:
        ValueError: they differ.
    """
    first, *others = (read_card(folder).classes for folder in models)
    if any(classes != first for classes in others):
        names = ", ".join(map(str, models))
        raise ValueError(f"model: expected models of one data set, got {names}")
    return first


def shown_classes(folder: Path, image: api.ImageInput, class_count: int) -> list[int]:
    """Indices of the classes that a figure shows: all, or of many those the model finds likeliest.

    Raises:
        ArtifactError, ServiceError: see `explanation_rows`.
    """
    if class_count <= MOST_COLUMNS:
        return list(range(class_count))
    with open_local(folder) as client:
        response = client.predict(api.PredictRequest(image=image, top_k=MOST_COLUMNS))
    return [found.index for found in response.predictions]


def _row(folder: Path, request: api.ExplainRequest) -> list[Tile]:
    with open_local(folder) as client:
        response = client.explain(request)
    likely = response.predictions_before[0]
    tiles = [Tile(opened(response.input_png), f"{likely.name} {likely.confidence:.0%}")]
    for found in response.explanations:
        note = f"{found.target.name} {found.confidence_after:.0%}"
        tiles.append(Tile(opened(found.image_png), note))
    return tiles
