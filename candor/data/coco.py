"""Objects of COCO 2017, each as an image."""

import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from candor.contracts import strict_json
from candor.contracts.names import checked_name
from candor.data.errors import DataDamaged, check_split, home_of, missing, places_of
from candor.data.lazy import LazyImages
from candor.data.photos import MEAN, STD, PhotoDecoder, View
from candor.files.reading import GIB, read_file

VIEW = View(size=96, low_edge=96, high_edge=120, test_edge=108)  # III-I3
_MAX_ANNOTATIONS_BYTES = 4 * GIB  # the official ones have 470 MB
FOLDERS = {"train": "train2017", "test": "val2017"}
_REMEDY = (
    "Get annotations_trainval2017.zip, train2017.zip and val2017.zip (cocodataset.org, Download) "
    "and unpack them side by side"
)


def load_coco(root: Path, split: str) -> LazyImages:
    """The bounding box of every object of one split as an image with its category.  (III-I3)

    The annotations are ``root/coco/annotations/instances_{train,val}2017.json``, the images the
    JPEG files in ``root/coco/{train,val}2017``; "test" reads ``val``.  The paper neither pads boxes
    nor sets a smallest size, and neither does this reader.  It leaves out only boxes narrower or
    lower than one pixel, which show nothing, and crowds (``iscrowd``), whose box contains many
    objects.  Labels are the categories of the training annotations in the order of their ids, for
    both splits; without these annotations those of the split itself.

    Args:
        root: the data directory; ``root`` may also be the ``coco`` folder itself.
        split: "train" or "test".
    Raises:
        DataMissing: the annotations or the folder of images do not exist.
        DataDamaged: annotations that are not JSON of this form, that name an image, a category or
            a file that does not exist, or a box outside its image; a category of the split that
            the training annotations lack or call otherwise.
    """
    check_split(split)
    home = home_of("coco", root)
    annotations = f"annotations/instances_{FOLDERS[split]}.json"
    source, folder = home / annotations, home / FOLDERS[split]
    if not (source.is_file() and folder.is_dir()):
        places = places_of("coco", root, annotations, FOLDERS[split])
        raise missing("coco", f"the {split} split", places, _REMEDY)
    content = _content(source)
    categories = own = _categories(source, content)
    taxonomy = home / f"annotations/instances_{FOLDERS['train']}.json"
    if split != "train" and taxonomy.is_file():
        categories = _categories(taxonomy, _content(taxonomy))
        _check_taxonomy(own, source, categories, taxonomy)
    objects = _objects(source, content, folder, categories)
    if not objects:
        raise DataDamaged(f"coco: {source}: annotations has no objects")
    return LazyImages(
        name=f"coco/{split}",
        labels=torch.tensor([each.label for each in objects]),
        class_names=tuple(categories.values()),
        identifiers=tuple(each.identifier for each in objects),
        mean=MEAN,
        std=STD,
        decoder=PhotoDecoder(
            name="coco",
            folder=folder,
            files=[each.file for each in objects],
            view=VIEW,
            formats=("JPEG",),
            boxes=np.array([each.box for each in objects]),
        ),
    )


@dataclass(frozen=True, slots=True)
class _Object:
    """One annotation that becomes an image; the box is left, top, right, bottom in pixels."""

    file: str
    box: tuple[float, float, float, float]
    label: int
    identifier: str


def _categories(source: Path, content: Mapping[str, Any]) -> dict[int, str]:
    """Names of the categories by id, in the order of the ids."""
    found: dict[int, str] = {}
    for row, category in enumerate(content["categories"]):
        place = f"coco: {source}: categories[{row}]"
        try:
            number, name = category["id"], category["name"]
        except (KeyError, TypeError) as err:
            raise DataDamaged(f"coco: {source}: images or categories lack {err}") from err
        if type(number) is not int or number in found:
            raise DataDamaged(f"{place}.id: expected an integer, each once, got {number!r}")
        try:
            found[number] = checked_name(name) if isinstance(name, str) else ""
        except ValueError as err:
            raise DataDamaged(f"{place}.name: {err}") from err
        if not found[number] or list(found.values()).count(found[number]) > 1:
            raise DataDamaged(f"{place}.name: expected a name, each once, got {name!r}")
    return dict(sorted(found.items()))


def _check_taxonomy(
    own: Mapping[int, str], source: Path, training: Mapping[int, str], taxonomy: Path
) -> None:
    """A split may lack categories of the training annotations, and have no others."""
    for number, name in own.items():
        known = training.get(number)
        if known != name:
            got = "none" if known is None else repr(known)
            raise DataDamaged(
                f"coco: {source}: categories: id {number}: expected the name it has in "
                f"{taxonomy.name}, which is {got}, got {name!r}"
            )


def _objects(
    source: Path, content: Mapping[str, Any], folder: Path, categories: Mapping[int, str]
) -> list[_Object]:
    """The objects in the order of the annotations."""
    label_of = {number: label for label, number in enumerate(categories)}
    try:
        images = {image["id"]: image for image in content["images"]}
    except (KeyError, TypeError) as err:
        raise DataDamaged(f"coco: {source}: images or categories lack {err}") from err
    _check_files(source, images.values(), folder)
    objects = []
    for row, annotation in enumerate(content["annotations"]):
        place = f"coco: {source}: annotations[{row}]"
        try:
            found = _object(annotation, images, label_of, place)
        except (KeyError, TypeError, AttributeError) as err:
            raise DataDamaged(f"{place} is not of the expected form: {err!r}") from err
        if found is not None:
            objects.append(found)
    return objects


def _object(
    annotation: Mapping[str, Any],
    images: Mapping[Any, Mapping[str, Any]],
    label_of: Mapping[Any, int],
    place: str,
) -> _Object | None:
    """The object, or None for a crowd and for a box of less than a pixel."""
    for name, known in (("image_id", images), ("category_id", label_of)):
        if annotation[name] not in known:
            raise DataDamaged(
                f"{place}.{name}: expected one that is listed, got {annotation[name]}"
            )
    image = images[annotation["image_id"]]
    box = _box(annotation["bbox"], image, place)
    if annotation.get("iscrowd", 0) or box is None:
        return None
    label = label_of[annotation["category_id"]]
    return _Object(image["file_name"], box, label, str(annotation["id"]))


def _content(source: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = strict_json.loads(read_file(source, _MAX_ANNOTATIONS_BYTES))
    except (ValueError, RecursionError) as err:
        raise DataDamaged(f"coco: {source} is no JSON: {err}") from err
    for name in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(name), list):
            raise DataDamaged(f"coco: {source}: {name}: expected a list")
    return content


def _check_files(source: Path, images: Iterable[Mapping[str, Any]], folder: Path) -> None:
    present = set(os.listdir(folder))
    for image in images:
        if image.get("file_name") not in present:
            raise DataDamaged(
                f"coco: {source}: images: file_name of id {image['id']}: expected a file in "
                f"{folder}, got {image.get('file_name')!r}"
            )


def _box(
    bbox: Any, image: Mapping[str, Any], place: str
) -> tuple[float, float, float, float] | None:
    """Left, top, right, bottom within the image; None where that is less than a pixel."""
    if not (isinstance(bbox, list) and len(bbox) == 4 and all(map(math.isfinite, bbox))):
        raise DataDamaged(f"{place}.bbox: expected [x, y, width, height], got {bbox!r}")
    x, y, width, height = (float(value) for value in bbox)
    is_beside = not (-width <= x <= image["width"] and -height <= y <= image["height"])
    if width < 0 or height < 0 or is_beside:
        raise DataDamaged(
            f"{place}.bbox: expected a box in {image['width']} x {image['height']}, got {bbox}"
        )
    left, top = max(x, 0.0), max(y, 0.0)
    right, bottom = min(x + width, image["width"]), min(y + height, image["height"])
    return (left, top, right, bottom) if right - left >= 1 and bottom - top >= 1 else None
