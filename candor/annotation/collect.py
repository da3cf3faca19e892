"""Searches training images for candidates and stores what it finds.  (III-H)"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic

import torch
from sqlalchemy.orm import Session
from torch import Tensor

from candor.annotation.candidates import OverlyConfident, overly_confident
from candor.contracts.names import class_difference
from candor.data.images import Images
from candor.data.registry import load_for_model
from candor.images.encode import png_of
from candor.images.pixels import Levels, image_of
from candor.models.folder import LoadedModel, load_model
from candor.store.blocks import DEFAULT_LEASE_SECONDS, Block
from candor.store.candidates import CandidateWriter, NewCandidate, NewT, SetKey, SetWriter
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

    split: ClassVar[str] = "train"

    @contextmanager
    def opened(self) -> "Iterator[SetWork[Any]]":
        """This process's part.

        Raises:
            ArtifactError, DataMissing, DataDamaged, StoreError: model, data or store.
            ValueError: more images than there are, or other classes than the model's or than those
                of the same search in the store.
        """
        store = open_store(self.store)
        try:
            loaded = load_model(self.model)
            dataset = load_for_model(self.data, self.split, self.data_dir, loaded.card)
            yield self.work(loaded, dataset, store)
        finally:
            store.close()

    def work(self, loaded: LoadedModel, dataset: Images, store: Store) -> "SetWork[Any]":
        """This process's part, of what is open already."""
        return CollectionWork(loaded, dataset, self.collection, store, self.lease_seconds)


class SetWork(ABC, Generic[NewT]):
    """One worker's part in a search of images that are drawn by a seed.

    Args:
        dataset: the split the images are drawn from.
        key: of the search, see `search_key`.

    Attributes:
        written_by: what keeps such a search.

    Raises:
        ValueError: more images than there are, or other classes than the model's or than those of
            the same search in the store.
    """

    written_by: ClassVar[type[SetWriter[Any]]]

    def __init__(
        self,
        loaded: LoadedModel,
        dataset: Images,
        collection: Collection,
        store: Store,
        key: SetKey,
        lease_seconds: float = DEFAULT_LEASE_SECONDS,
    ) -> None:
        _check_fits(loaded, dataset, collection.image_count)
        named = {"model": loaded.card.name, "data": dataset.name}
        writer = self.written_by(store, key, **named, class_names=dataset.class_names)
        if difference := class_difference(writer.class_names(), dataset.class_names):
            raise ValueError(f"data: other classes than the search in the store: {difference}")
        self._loaded, self._dataset, self._collection = loaded, dataset, collection
        self._writer: SetWriter[NewT] = writer
        generator = torch.Generator().manual_seed(collection.seed)
        self._order = torch.randperm(len(dataset), generator=generator)
        self._known = writer.count()
        self.count = collection.image_count
        self._blocks = writer.blocks(lease_seconds=lease_seconds)
        size = collection.batch_size * _BATCHES_PER_BLOCK
        self._blocks.extend(self.count, size, first=writer.searched())

    def work_one(self) -> bool:
        """Search one block of images; False where there is none that nobody works on."""
        return self._blocks.work_one(self._search)

    def left(self) -> int:
        """Images that are not searched."""
        return self._blocks.left()

    def blocks_left(self) -> int:
        """Blocks that are not searched."""
        return self._blocks.open_count()

    @abstractmethod
    def summary(self) -> dict[str, int | str]:
        """What the search has found, as JSON-able values."""

    @abstractmethod
    def rows(self, chosen: Tensor, before: int) -> list[NewT]:
        """What is found in images, (B,) int64, from place ``before`` of the seeded order on."""

    def _search(self, block: Block) -> Callable[[Session], None]:
        rows = self.rows(self._order[block.start : block.stop], block.start)

        def keep(session: Session) -> None:
            self._writer.add(session, rows, self._blocks.done_until(session) or 0)

        return keep


class CollectionWork(SetWork[NewCandidate]):
    """One worker's part in a collection."""

    written_by = CandidateWriter

    def __init__(
        self,
        loaded: LoadedModel,
        dataset: Images,
        collection: Collection,
        store: Store,
        lease_seconds: float = DEFAULT_LEASE_SECONDS,
    ) -> None:
        self._key = search_key(loaded, dataset, collection)
        super().__init__(loaded, dataset, collection, store, self._key, lease_seconds)

    def summary(self) -> dict[str, int | str]:
        return {
            "images": self._writer.searched(),  # of an earlier one with more images, all of these
            "candidates": self._writer.count(),
            "new": self._writer.count() - self._known,
            "weights_digest": self._key.weights_sha256,
            "data_digest": self._key.data_sha256,
        }

    def rows(self, chosen: Tensor, before: int) -> list[NewCandidate]:
        collection, pixels = self._collection, _pixels(self._dataset, chosen)
        found = overly_confident(
            self._loaded.network,
            pixels,
            self._dataset.labels[chosen],
            steps=collection.steps,
            solver=collection.solver,
            seed=collection.seed + before,
            batch_size=collection.batch_size,
        )
        return _rows(self._dataset, chosen, pixels, found)


def search_key(loaded: LoadedModel, dataset: Images, collection: Collection) -> SetKey:
    """What makes two searches the same."""
    return SetKey(
        weights_sha256=loaded.card.identity,
        data_sha256=dataset.digest(),
        solver=collection.solver,
        steps=collection.steps,
        seed=collection.seed,
    )


def _check_fits(loaded: LoadedModel, dataset: Images, image_count: int) -> None:
    """Raises ValueError: more images than there are, or other classes than the model's."""
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
                original_png=png_of(image_of(original)),
                adversarial_png=png_of(image_of(changed)),
                original_sha256=digest(original),
                adversarial_sha256=digest(changed),
            )
        )
    return rows


def digest(levels: Levels) -> str:
    """SHA-256 of the values, in the order of (C, H, W)."""
    return hashlib.sha256(levels.tobytes()).hexdigest()
