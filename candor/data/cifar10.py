"""CIFAR-10 from the Parquet layout of its Hugging Face data set.  Imports data siblings only."""

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

from candor.data.images import ImageSet

CLASS_NAMES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
MEAN = (0.4914, 0.4822, 0.4465)
STD = (0.2470, 0.2430, 0.2610)
SPLITS = ("train", "test")
SHAPE = (3, 32, 32)


class DataMissing(FileNotFoundError):
    """A data set is not where it was looked for; the message says where and how to get it."""


class DataDamaged(ValueError):
    """A data set file is there but cannot be what it claims to be."""


def load_cifar10(root: Path, split: str) -> ImageSet:
    """Read one split from ``root/cifar10/plain_text/{split}-00000-of-00001.parquet``.

    Columns: ``img`` (struct of ``bytes``, ``path``) and ``label`` (int64, 0 airplane ... 9 truck).

    Args:
        root: the data directory; ``root`` may also be the ``cifar10`` folder itself.
        split: "train" or "test".
    Raises:
        DataMissing: no such file.
        DataDamaged: not Parquet, other columns, an image that is not 32x32 RGB, a label past 9.
    """
    if split not in SPLITS:
        raise ValueError(f"split: got {split!r}, allowed {SPLITS}")
    path = _find(root, split)
    try:
        table = pq.read_table(path, columns=["img", "label"])
    except (pa.ArrowException, OSError, KeyError) as err:
        raise DataDamaged(f"cifar10: {path} is not the expected Parquet file: {err}") from err
    _check_columns(table, path)
    column = table.column("img").combine_chunks()
    encoded = column.field("bytes").to_pylist()
    paths = column.field("path").to_pylist()
    labels = table.column("label").to_numpy().astype(np.int64)
    if len(labels) and not 0 <= labels.min() <= labels.max() < len(CLASS_NAMES):
        raise DataDamaged(f"cifar10: {path} has labels outside [0, {len(CLASS_NAMES) - 1}]")
    pixels = np.empty((len(encoded), *SHAPE), dtype=np.uint8)
    for row, content in enumerate(encoded):
        pixels[row] = _decode(content, path, row)
    return ImageSet(
        name=f"cifar10/{split}",
        pixels=torch.from_numpy(pixels),
        labels=torch.from_numpy(labels),
        class_names=CLASS_NAMES,
        identifiers=tuple(name or f"{split}/{row}" for row, name in enumerate(paths)),
        mean=MEAN,
        std=STD,
    )


def _check_columns(table: pa.Table, path: Path) -> None:
    image, label = table.schema.field("img").type, table.schema.field("label").type
    if not pa.types.is_integer(label):
        raise DataDamaged(f"cifar10: {path} has label of type {label}, allowed an integer")
    names = {image.field(i).name: image.field(i).type for i in range(image.num_fields)}
    if not pa.types.is_struct(image) or not pa.types.is_binary(names.get("bytes", pa.null())):
        raise DataDamaged(f"cifar10: {path} has img of type {image}, allowed struct<bytes, path>")
    if "path" not in names:
        raise DataDamaged(f"cifar10: {path} has img of type {image}, allowed struct<bytes, path>")
    for name in ("img", "label"):
        if table.column(name).null_count:
            raise DataDamaged(f"cifar10: {path} has rows without {name}")


def _find(root: Path, split: str) -> Path:
    name = f"{split}-00000-of-00001.parquet"
    candidates = [folder / "plain_text" / name for folder in (root / "cifar10", root)]
    for path in candidates:
        if path.is_file():
            return path
    looked = "\n  ".join(str(path) for path in candidates)
    raise DataMissing(
        f"cifar10: the {split} split is missing. Looked for:\n  {looked}\n"
        "Get it from the Hugging Face data set `uoft-cs/cifar10` (folder plain_text, both Parquet "
        "files), put it there, or name its folder with --data-dir or CANDOR_DATA."
    )


def _decode(content: bytes, path: Path, row: int) -> np.ndarray:
    try:
        with Image.open(io.BytesIO(content)) as image:
            array = np.asarray(image.convert("RGB"))
    except (OSError, ValueError, TypeError) as err:
        raise DataDamaged(f"cifar10: {path} row {row} is not an image: {err}") from err
    if array.shape != (32, 32, 3):
        raise DataDamaged(f"cifar10: {path} row {row} is {array.shape}, allowed (32, 32, 3)")
    return array.transpose(2, 0, 1)
