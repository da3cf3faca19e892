"""The user's labelled images as a model of theirs takes them: only some classes may be there."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from candor.contracts.names import UnknownClass, class_index
from candor.data.errors import DataDamaged, missing
from candor.data.folder import SUFFIXES
from candor.data.images import ImageSet
from candor.data.photos import class_folders, photos_by_class
from candor.files.reading import read_file
from candor.images.decode import FILE_FORMATS, FILE_LIMITS, UnusableImage, open_image
from candor.images.pixels import MODES, levels_of

_REMEDY = "Put images into one folder a class, CLASS/*, named as the class or by its index"


def load_labelled(
    root: Path,
    classes: Sequence[str],
    channels: int,
    prepare: Callable[[Image.Image], Image.Image],
) -> ImageSet:
    """Images of ``root/CLASS/*`` (or ``root/test``, ``root/val``), with the model's own labels.

    Args:
        classes: names of all classes; a folder has one of these names, or an index as its name.
        channels: 1 or 3.
        prepare: makes an opened image one of the model's size.
    Raises:
        DataMissing: there are no folders of classes.
        DataDamaged: a folder is no class, or a file is not an image.
    """
    places = [root / name for name in ("test", "val") if (root / name).is_dir()] or [root]
    folder = places[0]
    if not folder.is_dir() or not class_folders(folder):
        raise missing("folder", "a folder of each class", [folder], _REMEDY)
    names = class_folders(folder)
    labels = [_label(folder, name, classes) for name in names]
    files, places_of_names = photos_by_class("folder", folder, names, SUFFIXES)
    pixels = [_levels(folder / file, channels, prepare) for file in files]
    return ImageSet(
        name=f"folder/{root.name}",
        pixels=torch.from_numpy(np.stack(pixels)),
        labels=torch.tensor([labels[place] for place in places_of_names]),
        class_names=tuple(classes),
        identifiers=tuple(files),
        mean=(0.0,) * channels,
        std=(1.0,) * channels,
    )


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


def _levels(path: Path, channels: int, prepare: Callable[[Image.Image], Image.Image]) -> np.ndarray:
    try:
        content = read_file(path, FILE_LIMITS.byte_count)
        image = open_image(content, formats=FILE_FORMATS, limits=FILE_LIMITS)
    except (OSError, UnusableImage) as err:
        raise DataDamaged(f"folder: {path}: {err}") from err
    return levels_of(prepare(image.convert(MODES[channels])))
