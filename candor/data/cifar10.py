"""CIFAR-10 from each of its three layouts on disk."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from candor.data.cifar10_archives import RawImages, read_binary, read_python
from candor.data.errors import DataDamaged, check_split, missing
from candor.data.images import ImageSet
from candor.files.reading import GIB
from candor.files.tables import read_table
from candor.images.decode import FILE_FORMATS, FILE_LIMITS, UnusableImage, open_image
from candor.images.pixels import levels_of

CLASS_NAMES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
MEAN = (0.4914, 0.4822, 0.4465)
STD = (0.2470, 0.2430, 0.2610)
SHAPE = (3, 32, 32)
_MAX_TABLE_BYTES = 2 * GIB
_REMEDY = (
    "Get cifar-10-python.tar.gz or cifar-10-binary.tar.gz (The CIFAR-10 dataset, "
    "www.cs.toronto.edu/~kriz/cifar.html) or both Parquet files of the Hugging Face data set "
    "`uoft-cs/cifar10` (folder plain_text)"
)


def load_cifar10(root: Path, split: str) -> ImageSet:
    """Reads one split from the first of these in ``root/cifar10`` or ``root`` itself.

    - ``plain_text/{split}-00000-of-00001.parquet``, columns ``img`` (struct of ``bytes``,
      ``path``) and ``label`` (int64, 0 airplane ... 9 truck);
    - ``cifar-10-batches-py/`` or ``cifar-10-python.tar.gz``;
    - ``cifar-10-batches-bin/`` or ``cifar-10-binary.tar.gz``.

    Args:
        root: the data directory; ``root`` may also be the ``cifar10`` folder itself.
        split: "train" or "test".
    Raises:
        DataMissing: none of them exists.
        DataDamaged: an unexpected Parquet file, column, archive or pickle; an image that is not
            32x32 RGB, a label above 9, or another number of images in a batch of an archive.
    """
    check_split(split)
    path, read = _find(root, split)
    raw = read(path, split)
    return ImageSet(
        name=f"cifar10/{split}",
        pixels=torch.from_numpy(raw.pixels),
        labels=torch.from_numpy(raw.labels),
        class_names=CLASS_NAMES,
        identifiers=raw.names,
        mean=MEAN,
        std=STD,
    )


def _find(root: Path, split: str) -> tuple[Path, Callable[[Path, str], RawImages]]:
    places = {
        folder / name: read
        for folder in (root / "cifar10", root)
        for name, read in _layouts(split).items()
    }
    for path, read in places.items():
        if path.exists():
            return path, read
    raise missing("cifar10", f"the {split} split", list(places), _REMEDY)


def _layouts(split: str) -> Mapping[str, Callable[[Path, str], RawImages]]:
    return {
        f"plain_text/{split}-00000-of-00001.parquet": _read_parquet,
        "cifar-10-batches-py": read_python,
        "cifar-10-python.tar.gz": read_python,
        "cifar-10-batches-bin": read_binary,
        "cifar-10-binary.tar.gz": read_binary,
    }


def _read_parquet(path: Path, split: str) -> RawImages:
    try:
        table = read_table(path, columns=["img", "label"], most=_MAX_TABLE_BYTES)
    except (pa.ArrowException, OSError, KeyError) as err:
        raise DataDamaged(f"cifar10: {path} is not the expected Parquet file: {err}") from err
    _check_columns(table, path)
    column = table.column("img").combine_chunks()
    encoded = column.field("bytes").to_pylist()
    names = column.field("path").to_pylist()
    labels = table.column("label").to_numpy().astype(np.int64)
    if len(labels) and not 0 <= labels.min() <= labels.max() < len(CLASS_NAMES):
        raise DataDamaged(
            f"cifar10: {path}: expected labels in [0, {len(CLASS_NAMES) - 1}], got another"
        )
    pixels = np.empty((len(encoded), *SHAPE), dtype=np.uint8)
    for row, content in enumerate(encoded):
        pixels[row] = _decode(content, path, row)
    identifiers = tuple(name or f"{split}/{row}" for row, name in enumerate(names))
    return RawImages(pixels, labels, identifiers)


def _check_columns(table: pa.Table, path: Path) -> None:
    image, label = table.schema.field("img").type, table.schema.field("label").type
    if not pa.types.is_integer(label):
        raise DataDamaged(f"cifar10: {path}: label: expected an integer, got {label}")
    names = {image.field(i).name: image.field(i).type for i in range(image.num_fields)}
    if not pa.types.is_struct(image) or not pa.types.is_binary(names.get("bytes", pa.null())):
        raise DataDamaged(f"cifar10: {path}: img: expected struct<bytes, path>, got {image}")
    if "path" not in names:
        raise DataDamaged(f"cifar10: {path}: img: expected struct<bytes, path>, got {image}")
    for name in ("img", "label"):
        if table.column(name).null_count:
            raise DataDamaged(f"cifar10: {path} has rows without {name}")


def _decode(content: bytes, path: Path, row: int) -> np.ndarray:
    try:
        levels = levels_of(open_image(content, formats=FILE_FORMATS, limits=FILE_LIMITS))
    except UnusableImage as err:
        raise DataDamaged(f"cifar10: {path} row {row}: {err}") from err
    if levels.shape != SHAPE:
        raise DataDamaged(f"cifar10: {path} row {row}: expected shape {SHAPE}, got {levels.shape}")
    return levels
