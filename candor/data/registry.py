"""Data sets by registered name: their reader and their augmentation."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from candor.data.augment import Augmentation, random_crop_flip, random_flip, random_radiograph
from candor.data.cifar10 import load_cifar10
from candor.data.coco import load_coco
from candor.data.folder import load_folder
from candor.data.imagenet import load_imagenet
from candor.data.images import Images
from candor.data.jsrt import load_jsrt


@dataclass(frozen=True, slots=True)
class _Source:
    """How a data set is read and how its training images are varied.

    ``read`` takes the data directory, the split and the edge of the images in pixels.
    """

    read: Callable[[Path, str, int], Images]
    augment: Augmentation


def _of_own_size(read: Callable[[Path, str], Images]) -> Callable[[Path, str, int], Images]:
    """A reader whose images have one size; `load_dataset` checks the requested size."""
    return lambda root, split, image_size: read(root, split)


_DATASETS: Mapping[str, _Source] = {
    "cifar10": _Source(_of_own_size(load_cifar10), random_crop_flip),
    "coco": _Source(_of_own_size(load_coco), random_flip),
    "folder": _Source(load_folder, random_crop_flip),
    "imagenet": _Source(_of_own_size(load_imagenet), random_flip),
    "jsrt": _Source(_of_own_size(load_jsrt), random_radiograph),
}


def dataset_names() -> tuple[str, ...]:
    """Names that `load_dataset` accepts, sorted."""
    return tuple(sorted(_DATASETS))


def default_data_dir() -> Path:
    """Cache folder of the user: ``$XDG_CACHE_HOME/candor/data`` or ``~/.cache/candor/data``."""
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(cache) / "candor" / "data"


def load_dataset(name: str, split: str, root: Path, *, image_size: int = 0) -> Images:
    """One split of a registered data set.

    Args:
        root: the data directory; of "folder" the folder of the images itself.
        image_size: edge of the images in pixels; 0 is the data set's own, which "folder" lacks.
    Raises:
        ValueError: unknown name or split, or another size than the data set's own; the message
            lists the permitted ones.
        DataMissing, DataDamaged: see the data set's module.
    """
    if name not in _DATASETS:
        raise ValueError(f"data: expected one of {dataset_names()}, got {name!r}")
    source = _DATASETS[name]
    images = source.read(root, split, image_size)
    own = images.shape[1]
    if image_size not in (0, own):
        raise ValueError(f"image_size: expected {own} for data {name!r}, got {image_size}")
    return replace(images, augment=source.augment)
