"""The user's own images in folders by class."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import torch

from candor.contracts.names import UnknownClass, class_index, normalised
from candor.data.errors import DataDamaged, check_split, missing
from candor.data.images import Images
from candor.data.lazy import LazyImages
from candor.data.photos import FileDecoder, class_folders, held_out, photos_by_class
from candor.images.decode import FILE_FORMATS
from candor.images.geometry import Size
from candor.images.view import InputView

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")
_SIZES = (8, 1024)
_HELD_BYTES = 2**30  # more than this stays on disk
_SAMPLE = 1000  # images that mean and std are computed from
_REMEDY = "Put images into one folder a class: train/CLASS/*.png and test/CLASS/*.png, or CLASS/*"


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
    view = InputView(3, Size(image_size, image_size))
    training = _own_classes(root, "train", view)
    listed = training if split == "train" else _own_classes(root, split, view)
    if listed.class_names != training.class_names:
        odd = sorted(set(listed.class_names) ^ set(training.class_names))
        raise DataDamaged(f"folder: class {odd[0]!r} is in only one of the splits of {root}")
    mean, std = _statistics(training)
    return _held(replace(listed, mean=mean, std=std))


def load_labelled(root: Path, split: str | None, view: InputView, classes: Sequence[str]) -> Images:
    """The same images as a model sees them, with the model's own labels.

    Only some of the model's classes may be there, and of a class a single image, which is then for
    testing.

    Args:
        root: the folder of the images itself.
        split: "train" or "test"; None for whatever is not for training: all of a tree without
            splits.
        view: of the model.
        classes: names of all its classes; a folder has one of these names, or an index as its name.
    Raises:
        DataMissing: there are no folders of classes.
        DataDamaged: a folder is no class, two folders are one, or a file is not an image.
    """
    folder, is_shared = _folder(root, split or "test")
    names = class_folders(folder)
    labels = _labels(folder, names, classes)
    files, places = photos_by_class("folder", folder, names, SUFFIXES)
    if is_shared and split is not None:
        files, places = _share(folder, files, places, split, least=1)
    if not files:
        raise DataDamaged(f"folder: {folder}: expected images for {split}, got none")
    images = _listed(
        f"folder/{split or root.name}", folder, files, [labels[place] for place in places], view
    )
    return _held(replace(images, class_names=tuple(classes)))


def _own_classes(root: Path, split: str, view: InputView) -> LazyImages:
    """The images of a split, whose folders are the classes."""
    folder, is_shared = _folder(root, split)
    class_names = class_folders(folder)
    if len(class_names) < 2:
        raise DataDamaged(
            f"folder: {folder}: expected at least 2 folders of classes, got {len(class_names)}"
        )
    files, labels = photos_by_class("folder", folder, class_names, SUFFIXES)
    if is_shared:
        files, labels = _share(folder, files, labels, split, least=2)
    images = _listed(f"folder/{split}", folder, files, labels, view)
    return replace(images, class_names=class_names)


def _listed(
    name: str, folder: Path, files: Sequence[str], labels: Sequence[int], view: InputView
) -> LazyImages:
    """Images without names of classes, with 0 and 1 in place of mean and standard deviation."""
    return LazyImages(
        name=name,
        labels=torch.tensor(labels),
        class_names=(),
        identifiers=tuple(map(normalised, files)),
        mean=(0.0,) * view.channels,
        std=(1.0,) * view.channels,
        decoder=FileDecoder(
            name="folder", folder=folder, files=files, view=view, formats=FILE_FORMATS
        ),
    )


def _held(images: LazyImages) -> Images:
    """In memory where there is room."""
    byte_count = len(images) * torch.Size(images.shape).numel()
    return images.held() if byte_count <= _HELD_BYTES else images


def _labels(folder: Path, names: Sequence[str], classes: Sequence[str]) -> list[int]:
    """The model's label of each folder."""
    labels = [_label(folder, name, classes) for name in names]
    for place, label in enumerate(labels):
        first = labels.index(label)
        if first != place:
            raise DataDamaged(
                f"folder: {folder}: expected one folder of class {label}, got {names[first]!r} "
                f"and {names[place]!r}"
            )
    return labels


def _label(folder: Path, name: str, classes: Sequence[str]) -> int:
    try:
        return class_index(name, classes)
    except UnknownClass as err:
        if name.isascii() and name.isdigit() and int(name) < len(classes):
            return int(name)
        raise DataDamaged(
            f"folder: {folder / name}: expected a folder named as one of the model's "
            f"{len(classes)} classes or by its index: {err}"
        ) from err


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
    folder: Path, files: Sequence[str], labels: Sequence[int], split: str, *, least: int
) -> tuple[list[str], list[int]]:
    """The part of each class that a split gets; a class has ``least`` images."""
    kept: list[tuple[str, int]] = []
    for label, group in groupby(zip(files, labels, strict=True), key=itemgetter(1)):
        members = [file for file, _ in group]
        if len(members) < least:
            raise DataDamaged(
                f"folder: {folder / members[0]}: expected at least {least} images in a class, "
                f"got {len(members)}"
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
