"""ILSVRC 2012 from its usual tree of folders."""

from collections.abc import Sequence
from pathlib import Path

import torch

from candor.contracts.card import Preprocessing
from candor.data.errors import DataDamaged, check_split, home_of, missing, places_of
from candor.data.lazy import Decoder, LazyImages
from candor.data.photos import (
    MEAN,
    STD,
    FileDecoder,
    PhotoDecoder,
    View,
    class_folders,
    photos_by_class,
)
from candor.images.view import InputView

VIEW = View(size=224, low_edge=256, high_edge=480, test_edge=256)  # III-I2
FOLDERS = {"train": "train", "test": "val"}
_FORMATS = ("JPEG", "PNG")  # one official file is a PNG with the ending .JPEG
_REMEDY = (
    "Get ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar (image-net.org, Challenge 2012), "
    "unpack each into one folder a class (n01440764 ...)"
)


def load_imagenet(root: Path, split: str, view: InputView | None = None) -> LazyImages:
    """One split of ``root/imagenet/{train,val}/nXXXXXXXX/*.JPEG``; "test" reads ``val``.

    Classes are the folders in the order of their names, which is the usual order of the labels.  A
    subset of the classes is accepted if both splits have the same.  The test view is the paper's:
    the central 224 pixels at a shorter edge of 256, which the card of a model trained on it says.

    Args:
        root: the data directory; ``root`` may also be the ``imagenet`` folder itself.
        split: "train" or "test".
        view: of a model; None for the paper's views.
    Raises:
        DataMissing: the folder of the split does not exist.
        DataDamaged: files that are not in folders of classes, an empty class, or other classes in
            the other split.  A file that is not a JPEG is found when it is read.
    """
    check_split(split)
    home = home_of("imagenet", root)
    folder = home / FOLDERS[split]
    if not folder.is_dir():
        places = places_of("imagenet", root, FOLDERS[split])
        raise missing("imagenet", f"the {split} split", places, _REMEDY)
    class_names = class_folders(folder)
    if len(class_names) < 2:
        raise DataDamaged(
            f"imagenet: {folder}: expected at least 2 folders of classes, got {len(class_names)}"
        )
    for other in FOLDERS.values():
        if (home / other).is_dir() and class_folders(home / other) != class_names:
            odd = sorted(set(class_folders(home / other)) ^ set(class_names))
            raise DataDamaged(f"imagenet: class {odd[0]} is in only one of train and val of {home}")
    files, labels = photos_by_class("imagenet", folder, class_names, (".jpeg", ".jpg"))
    return LazyImages(
        name=f"imagenet/{split}",
        labels=torch.tensor(labels),
        class_names=class_names,
        identifiers=tuple(files),
        mean=MEAN,
        std=STD,
        preprocessing=Preprocessing(crop=VIEW.size / VIEW.test_edge),
        decoder=_decoder(folder, files, view),
    )


def _decoder(folder: Path, files: Sequence[str], view: InputView | None) -> Decoder:
    if view is None:
        return PhotoDecoder(
            name="imagenet", folder=folder, files=files, view=VIEW, formats=_FORMATS
        )
    return FileDecoder(name="imagenet", folder=folder, files=files, view=view, formats=_FORMATS)
