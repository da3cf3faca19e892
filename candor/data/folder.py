"""The user's own images in folders by class."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import numpy as np
import torch

from candor.contracts.names import normalised
from candor.data.errors import DataDamaged, check_split, missing
from candor.data.images import Images
from candor.data.lazy import LazyImages
from candor.data.photos import PhotoDecoder, View, class_folders, held_out, photos_by_class
from candor.images.decode import FILE_FORMATS

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")
_SIZES = (8, 1024)
_HELD_BYTES = 2**30  # more than this stays on disk
_SAMPLE = 1000  # images that mean and std are computed from
_REMEDY = "Put images into one folder a class: train/CLASS/*.png and test/CLASS/*.png, or CLASS/*"


@dataclass(frozen=True, slots=True, kw_only=True)
class _CentralDecoder(PhotoDecoder):
    """Trains on the test views, so that they can be held in memory."""

    def drawn(self, index: int, draws: np.ndarray) -> np.ndarray:
        return self.central(index)


def load_folder(root: Path, split: str, image_size: int) -> Images:
    """One split of ``root/{train,test}/CLASS/*`` (or ``val``), or of ``root/CLASS/*``.

    In a tree without splits a fifth of each class, chosen by the hash of the file's name, is for
    testing.  Every image is the central square at ``image_size``, exactly as the service computes
    it from the same file; up to 1 GiB of them are held in memory.  Mean and standard deviation are
    those of 1,000 training images, drawn by a fixed seed.

    Args:
        root: the folder of the images itself.
        split: "train" or "test".
        image_size: edge of the square images, pixels.
    Raises:
        ValueError: ``image_size`` or ``split`` out of range.
        DataMissing: there are no folders of classes, or none for testing beside ``train``.
        DataDamaged: fewer than two classes, a class with too few images, different classes for
            testing and training, or a file that is not an image.
    """
    check_split(split)
    low, high = _SIZES
    if not low <= image_size <= high:
        raise ValueError(
            f"image_size: expected [{low}, {high}] for data 'folder', got {image_size}"
        )
    training = _listed(root, "train", image_size)
    listed = training if split == "train" else _listed(root, split, image_size)
    if listed.class_names != training.class_names:
        odd = sorted(set(listed.class_names) ^ set(training.class_names))
        raise DataDamaged(f"folder: class {odd[0]!r} is in only one of the splits of {root}")
    mean, std = _statistics(training)
    images = replace(listed, mean=mean, std=std)
    return images.held() if len(images) * 3 * image_size**2 <= _HELD_BYTES else images


def _listed(root: Path, split: str, image_size: int) -> LazyImages:
    """The images of a split, with 0 and 1 in place of mean and standard deviation."""
    folder, is_shared = _folder(root, split)
    class_names = class_folders(folder)
    if len(class_names) < 2:
        raise DataDamaged(
            f"folder: {folder}: expected at least 2 folders of classes, got {len(class_names)}"
        )
    files, labels = photos_by_class("folder", folder, class_names, SUFFIXES)
    if is_shared:
        files, labels = _share(folder, files, labels, split)
    return LazyImages(
        name=f"folder/{split}",
        labels=torch.tensor(labels),
        class_names=class_names,
        identifiers=tuple(map(normalised, files)),
        mean=(0.0,) * 3,
        std=(1.0,) * 3,
        decoder=_CentralDecoder(
            name="folder",
            folder=folder,
            files=files,
            view=View(image_size, image_size, image_size, image_size),
            formats=FILE_FORMATS,
        ),
    )


def _folder(root: Path, split: str) -> tuple[Path, bool]:
    """The folder of a split, and whether the other split shares it."""
    names = ("train",) if split == "train" else ("test", "val")
    for name in names:
        if (root / name).is_dir():
            return root / name, False
    is_split = any((root / name).is_dir() for name in ("train", "test", "val"))
    if is_split or not root.is_dir() or not class_folders(root):
        raise missing("folder", f"the {split} split", [root / name for name in names], _REMEDY)
    return root, True


def _share(
    folder: Path, files: Sequence[str], labels: Sequence[int], split: str
) -> tuple[list[str], list[int]]:
    """The part of each class that a split gets."""
    kept: list[tuple[str, int]] = []
    for label, group in groupby(zip(files, labels, strict=True), key=itemgetter(1)):
        members = [file for file, _ in group]
        if len(members) < 2:
            raise DataDamaged(
                f"folder: {folder / members[0]}: expected at least 2 images in a class, got 1"
            )
        tested = held_out(members)
        kept += [(file, label) for file in members if (file in tested) == (split == "test")]
    return [file for file, _ in kept], [label for _, label in kept]


def _statistics(images: LazyImages) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel on the [0, 1] scale."""
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    sample = images.images(order[:_SAMPLE].sort().values).double()
    mean = sample.mean((0, 2, 3))
    std = sample.std((0, 2, 3), correction=0).clamp_min(0.01)  # of images of one colour
    return tuple(mean.tolist()), tuple(std.tolist())
