"""Data sets by registered name: their reader and their augmentation."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from candor.contracts.card import ModelCard
from candor.contracts.names import UnknownClass, class_index
from candor.data.augment import Augmentation, random_crop_flip, random_flip, random_radiograph
from candor.data.cifar10 import load_cifar10
from candor.data.coco import load_coco
from candor.data.folder import load_folder, load_labelled
from candor.data.imagenet import load_imagenet
from candor.data.images import Images
from candor.data.jsrt import load_jsrt
from candor.data.stored import seen
from candor.images.view import InputView


@dataclass(frozen=True, slots=True)
class _Source:
    """How a data set is read and how its training images are varied.

    ``read`` takes the data directory, the split and the edge of the images in pixels; ``see`` the
    directory, the split, and view and classes of a model.
    """

    read: Callable[[Path, str, int], Images]
    see: Callable[[Path, str, InputView, Sequence[str]], Images]
    augment: Augmentation


def _of_own_size(read: Callable[[Path, str], Images]) -> Callable[[Path, str, int], Images]:
    """A reader whose images have one size; `load_dataset` checks the requested size."""
    return lambda root, split, image_size: read(root, split)


def _regions(
    read: Callable[[Path, str], Images],
) -> Callable[[Path, str, InputView, Sequence[str]], Images]:
    """A reader of parts that it cuts out of files itself: no file is what a model sees."""

    def see(root: Path, split: str, view: InputView, classes: Sequence[str]) -> Images:
        images = read(root, split)
        if images.shape != view.shape:
            raise ValueError(
                f"data: expected images of the model's size {view.shape}, got {images.name} with "
                f"{images.shape}, whose regions have one size"
            )
        return _relabelled(images, classes)

    return see


def _cifar10(root: Path, split: str, view: InputView, classes: Sequence[str]) -> Images:
    return _relabelled(seen(load_cifar10(root, split), view), classes)


def _imagenet(root: Path, split: str, view: InputView, classes: Sequence[str]) -> Images:
    images = load_imagenet(root, split, view)
    is_named = set(images.class_names) <= set(classes)
    # Its classes are named by synsets, which few models do, in an order that all models share.
    if len(images.class_names) == len(classes) and not is_named:
        return replace(images, class_names=tuple(classes))
    return _relabelled(images, classes)


_DATASETS: Mapping[str, _Source] = {
    "cifar10": _Source(_of_own_size(load_cifar10), _cifar10, random_crop_flip),
    "coco": _Source(_of_own_size(load_coco), _regions(load_coco), random_flip),
    "folder": _Source(load_folder, load_labelled, random_crop_flip),
    "imagenet": _Source(_of_own_size(load_imagenet), _imagenet, random_flip),
    "jsrt": _Source(_of_own_size(load_jsrt), _regions(load_jsrt), random_radiograph),
}


def dataset_names() -> tuple[str, ...]:
    """Names that `load_dataset` accepts, sorted."""
    return tuple(sorted(_DATASETS))


def default_data_dir() -> Path:
    """Cache folder of the user: ``$XDG_CACHE_HOME/candor/data`` or ``~/.cache/candor/data``."""
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(cache) / "candor" / "data"


def load_dataset(name: str, split: str, root: Path, *, image_size: int = 0) -> Images:
    """One split of a registered data set, for a network that is made for it.

    Args:
        root: the data directory; of "folder" the folder of the images itself.
        image_size: edge of the images in pixels; 0 is the data set's own, which "folder" lacks.
    Raises:
        ValueError: unknown name or split, or another size than the data set's own; the message
            lists the permitted ones.
        DataMissing, DataDamaged: see the data set's module.
    """
    source = _source(name)
    images = source.read(root, split, image_size)
    own = images.shape[1]
    if image_size not in (0, own):
        raise ValueError(f"image_size: expected {own} for data {name!r}, got {image_size}")
    return replace(images, augment=source.augment)


def load_for_model(name: str, split: str, root: Path | None, card: ModelCard) -> Images:
    """One split of a registered data set as a model sees it, with the model's own labels.

    Every image is what the service makes of its file, by the card's preprocessing; of "coco" and
    "jsrt", whose images are regions of files, as `load_dataset` returns it.  Classes are matched
    by their names, and all are the model's, whether they occur or not.

    Args:
        root: the data directory; None for a cache folder of the user.
    Raises:
        ValueError: unknown name or split, regions of another size, or a class that the model lacks.
        DataMissing, DataDamaged: see the data set's module.
    """
    source = _source(name)
    images = source.see(root or default_data_dir(), split, InputView.of(card), card.classes)
    return replace(images, augment=source.augment)


def _source(name: str) -> _Source:
    if name not in _DATASETS:
        raise ValueError(f"data: expected one of {dataset_names()}, got {name!r}")
    return _DATASETS[name]


def _relabelled(images: Images, classes: Sequence[str]) -> Images:
    """The labels of a model for those of a data set."""
    own = tuple(classes)
    is_nameless = own == tuple(map(str, range(len(images.class_names))))
    if own == images.class_names or is_nameless:
        return replace(images, class_names=own)
    try:
        places = torch.tensor([class_index(name, own) for name in images.class_names])
    except UnknownClass as err:
        raise ValueError(
            f"data: expected classes of the model, got those of {images.name}: {err}"
        ) from err
    return replace(images, class_names=own, labels=places[images.labels])
