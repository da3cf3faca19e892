"""Searches training images for candidates and stores what it finds.  (III-H)"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from candor.annotation.candidates import OverlyConfident, overly_confident
from candor.contracts.names import class_difference
from candor.data.images import Images
from candor.images.encode import encode_png
from candor.models.folder import LoadedModel
from candor.store.candidates import CandidateWriter, NewCandidate, SetKey
from candor.store.engine import Store

_BATCHES_PER_SAVE = 4  # saved together; a search that is stopped loses no more than these


@dataclass(frozen=True, slots=True, kw_only=True)
class Collection:
    """One search of training images.

    Attributes:
        image_count: training images, drawn by the seed.
        solver, steps, seed: of the search.
        batch_size: images computed together.
    """

    image_count: int
    solver: str
    steps: int
    seed: int
    batch_size: int


def collect(
    loaded: LoadedModel,
    dataset: Images,
    collection: Collection,
    store: Store,
    report: Callable[[int], None],
) -> dict[str, int | str]:
    """Search the images that are left of a collection and summarise it as JSON-able values.

    Args:
        dataset: the split the images are drawn from.
        report: takes the number of images searched so far.
    Raises:
        ValueError: more images than there are, or other classes than the model's or than those of
            the same search in the store.
    """
    _check(loaded, dataset, collection.image_count)
    key = SetKey(
        weights_sha256=loaded.card.identity,
        data_sha256=dataset.digest(),
        solver=collection.solver,
        steps=collection.steps,
        seed=collection.seed,
    )
    names = dataset.class_names
    writer = CandidateWriter(
        store, key, model=loaded.card.name, data=dataset.name, class_names=names
    )
    if difference := class_difference(writer.class_names(), names):
        raise ValueError(f"data: other classes than the search in the store: {difference}")
    known = writer.count()
    _search(loaded, dataset, collection, writer, report)
    return {
        "images": writer.searched(),  # of an earlier search with more images, all of these
        "candidates": writer.count(),
        "new": writer.count() - known,
        "weights_digest": key.weights_sha256,
        "data_digest": key.data_sha256,
    }


def _check(loaded: LoadedModel, dataset: Images, image_count: int) -> None:
    if image_count > len(dataset):
        raise ValueError(f"images: expected a number in [1, {len(dataset)}], got {image_count}")
    if difference := class_difference(dataset.class_names, loaded.card.classes):
        raise ValueError(f"model: {difference}")


def _search(
    loaded: LoadedModel,
    dataset: Images,
    collection: Collection,
    writer: CandidateWriter,
    report: Callable[[int], None],
) -> None:
    generator = torch.Generator().manual_seed(collection.seed)
    order = torch.randperm(len(dataset), generator=generator)
    searched = writer.searched()
    report(searched)
    while searched < collection.image_count:
        before = searched
        count = min(collection.batch_size * _BATCHES_PER_SAVE, collection.image_count - before)
        chosen = order[before : before + count]
        pixels = _pixels(dataset, chosen)
        found = overly_confident(
            loaded.network,
            pixels,
            dataset.labels[chosen],
            steps=collection.steps,
            solver=collection.solver,
            seed=collection.seed + before,
            batch_size=collection.batch_size,
            report=_added_to(before, report),
        )
        searched += count
        writer.save(_rows(dataset, chosen, pixels, found), searched)


def _added_to(before: int, report: Callable[[int], None]) -> Callable[[int, int], None]:
    return lambda finished, image_steps: report(before + finished)


def _pixels(dataset: Images, chosen: Tensor) -> Tensor:
    """(B, C, H, W) uint8, as annotators are shown them."""
    return (dataset.images(chosen) * 255.0).round().to(torch.uint8)


def _rows(
    dataset: Images, chosen: Tensor, pixels: Tensor, found: OverlyConfident
) -> list[NewCandidate]:
    rows = []
    for row, index in enumerate(chosen[found.indices].tolist()):
        original, changed = pixels[found.indices[row]].numpy(), found.pixels[row].numpy()
        rows.append(
            NewCandidate(
                data_index=index,
                identifier=dataset.identifiers[index],
                label=int(dataset.labels[index]),
                adversarial_class=int(found.classes[row]),
                margin=float(found.margins[row]),
                rmse=float(found.rmse[row]),
                original_png=_png(original),
                adversarial_png=_png(changed),
                original_sha256=_digest(original),
                adversarial_sha256=_digest(changed),
            )
        )
    return rows


def _png(pixels: NDArray[np.uint8]) -> bytes:
    return encode_png(pixels.astype(np.float32) / np.float32(255.0))


def _digest(pixels: NDArray[np.uint8]) -> str:
    return hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()
