"""Searches training images for candidates and stores what it finds.  (III-H)"""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sqlalchemy.orm import Session
from torch import Tensor

from candor.annotation.candidates import OverlyConfident, overly_confident
from candor.contracts.names import class_difference
from candor.data.images import Images
from candor.data.registry import load_for_model
from candor.images.encode import encode_png
from candor.models.folder import LoadedModel, load_model
from candor.store.blocks import DEFAULT_LEASE_SECONDS, Block
from candor.store.candidates import CandidateWriter, NewCandidate, SetKey
from candor.store.engine import Store, open_store

_BATCHES_PER_BLOCK = 4  # saved together; a search that is stopped loses no more than these


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


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectionJob:
    """A collection that processes share; every one of them has the same.

    Attributes:
        model: model folder.
        data, data_dir: registered name of the data set and the folder of data sets.
        store: address of the store, which also shares out the work.
        lease_seconds: silence after which another worker takes a worker's images.
    """

    model: Path
    data: str
    data_dir: Path | None
    collection: Collection
    store: str
    lease_seconds: float = DEFAULT_LEASE_SECONDS

    @contextmanager
    def opened(self) -> Iterator["CollectionWork"]:
        """This process's part.

        Raises:
            ArtifactError, DataMissing, DataDamaged, StoreError: model, data or store.
            ValueError: more images than there are, or other classes than the model's or than those
                of the same search in the store.
        """
        store = open_store(self.store)
        try:
            loaded = load_model(self.model)
            dataset = load_for_model(self.data, "train", self.data_dir, loaded.card)
            yield CollectionWork(loaded, dataset, self.collection, store, self.lease_seconds)
        finally:
            store.close()


class CollectionWork:
    """One worker's part in a collection.

    Args:
        dataset: the split the images are drawn from.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        dataset: Images,
        collection: Collection,
        store: Store,
        lease_seconds: float = DEFAULT_LEASE_SECONDS,
    ) -> None:
        _check(loaded, dataset, collection.image_count)
        key = SetKey(
            weights_sha256=loaded.card.identity,
            data_sha256=dataset.digest(),
            solver=collection.solver,
            steps=collection.steps,
            seed=collection.seed,
        )
        names = dataset.class_names
        self._key = key
        self._writer = CandidateWriter(
            store, key, model=loaded.card.name, data=dataset.name, class_names=names
        )
        if difference := class_difference(self._writer.class_names(), names):
            raise ValueError(f"data: other classes than the search in the store: {difference}")
        self._loaded, self._dataset, self._collection = loaded, dataset, collection
        generator = torch.Generator().manual_seed(collection.seed)
        self._order = torch.randperm(len(dataset), generator=generator)
        self._known = self._writer.count()
        self.count = collection.image_count
        self._blocks = self._writer.blocks(lease_seconds=lease_seconds)
        size = collection.batch_size * _BATCHES_PER_BLOCK
        self._blocks.extend(self.count, size, first=self._writer.searched())

    def work_one(self) -> bool:
        """Search one block of images; False where there is none that nobody works on."""
        return self._blocks.work_one(self._search)

    def left(self) -> int:
        """Images that are not searched."""
        return self._blocks.left()

    def blocks_left(self) -> int:
        """Blocks that are not searched."""
        return self._blocks.open_count()

    def summary(self) -> dict[str, int | str]:
        """What the search has found, as JSON-able values."""
        return {
            "images": self._writer.searched(),  # of an earlier one with more images, all of these
            "candidates": self._writer.count(),
            "new": self._writer.count() - self._known,
            "weights_digest": self._key.weights_sha256,
            "data_digest": self._key.data_sha256,
        }

    def _search(self, block: Block) -> Callable[[Session], None]:
        collection, chosen = self._collection, self._order[block.start : block.stop]
        pixels = _pixels(self._dataset, chosen)
        found = overly_confident(
            self._loaded.network,
            pixels,
            self._dataset.labels[chosen],
            steps=collection.steps,
            solver=collection.solver,
            seed=collection.seed + block.start,
            batch_size=collection.batch_size,
        )
        rows = _rows(self._dataset, chosen, pixels, found)

        def keep(session: Session) -> None:
            self._writer.add(session, rows, self._blocks.done_until(session) or 0)

        return keep


def _check(loaded: LoadedModel, dataset: Images, image_count: int) -> None:
    if image_count > len(dataset):
        raise ValueError(f"images: expected a number in [1, {len(dataset)}], got {image_count}")
    if difference := class_difference(dataset.class_names, loaded.card.classes):
        raise ValueError(f"model: {difference}")


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
