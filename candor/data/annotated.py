"""Annotated adversarial images as a data set to train with.  (III-H)

A Parquet file in the layout of CIFAR-10's: ``img`` struct<bytes, path> with the image as PNG and
``label`` int64, the class of the original.  The schema's metadata holds ``class_names`` as JSON.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from candor.contracts import strict_json
from candor.contracts.json_text import json_text
from candor.contracts.names import class_difference, normalised
from candor.data.errors import DataDamaged, DataMissing
from candor.data.images import ImageSet
from candor.files.reading import GIB
from candor.files.tables import read_table
from candor.files.writing import replacing
from candor.images.decode import FILE_FORMATS, FILE_LIMITS, UnusableImage, open_image
from candor.images.pixels import MODES, levels_of

_CLASS_NAMES_KEY = b"class_names"
MAX_TABLE_BYTES = 2 * GIB


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedImage:
    """One row of the file.

    Attributes:
        identifier: name of the image, stable.
        png: the image as the annotators saw it.
        label: class index of the original.
        verdict: what the annotators judged.
        rmse: RMSE between the image and its original, [0, 1].
    """

    identifier: str
    png: bytes
    label: int
    verdict: str
    rmse: float


def judged_beside(path: Path) -> Path:
    """The file of all judged images beside ``path``, the file of those judged unchanged."""
    return path.with_name(f"{path.stem}.judged{path.suffix}")


def save_annotated(path: Path, rows: Sequence[JudgedImage], class_names: Sequence[str]) -> None:
    """Writes ``rows`` to ``path``, with any verdict."""
    columns = {
        "img": pa.array(
            [{"bytes": row.png, "path": row.identifier} for row in rows],
            pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
        ),
        "label": pa.array([row.label for row in rows], pa.int64()),
        "verdict": pa.array([row.verdict for row in rows], pa.string()),
        "rmse": pa.array([row.rmse for row in rows], pa.float64()),
    }
    metadata = {_CLASS_NAMES_KEY: json_text(list(class_names))}
    with replacing(path) as stream:
        pq.write_table(pa.table(columns).replace_schema_metadata(metadata), stream)


def load_annotated(path: Path, like: ImageSet) -> ImageSet:
    """Reads the images of a file that are to be joined to ``like``.

    Raises:
        DataMissing: no such file.
        DataDamaged: another kind of file, or classes, labels or image sizes that ``like`` does not
            have.
    """
    try:
        table = read_table(path, columns=["img", "label"], most=MAX_TABLE_BYTES)
    except FileNotFoundError as err:
        raise DataMissing(f"{path}: missing; `candor annotations export` writes it") from err
    except (pa.ArrowException, OSError, KeyError) as err:
        raise DataDamaged(f"{path}: not a file of annotated images: {err}") from err
    names = tuple(strict_json.loads((table.schema.metadata or {}).get(_CLASS_NAMES_KEY, b"[]")))
    own = tuple(map(normalised, like.class_names))
    if difference := class_difference(own, tuple(map(normalised, names))):
        raise DataDamaged(f"{path}: other classes than {like.name}: {difference}")
    rows, labels = table.column("img").to_pylist(), table.column("label").to_pylist()
    if not rows:
        raise DataDamaged(f"{path}: expected at least one image, got none")
    if not all(label is not None and 0 <= label < len(names) for label in labels):
        raise DataDamaged(f"{path}: expected labels in [0, {len(names) - 1}], got another")
    shape = tuple(like.pixels.shape[1:])
    pixels = np.stack([_decode(row["bytes"], shape, f"{path}: {row['path']}") for row in rows])
    return replace(
        like,
        name=path.stem,
        pixels=torch.from_numpy(pixels),
        labels=torch.tensor(labels),
        identifiers=tuple(row["path"] for row in rows),
    )


def drawn(data: ImageSet, count: int, seed: int) -> ImageSet:
    """Draws ``count`` images at random, with any verdict: the control of IV-C.

    Raises:
        ValueError: ``data`` has fewer.
    """
    if count > len(data):
        raise ValueError(f"control: expected [1, {len(data)}] images to draw, got {count}")
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(data), generator=generator)[:count]
    return replace(
        data,
        pixels=data.pixels[chosen],
        labels=data.labels[chosen],
        identifiers=tuple(data.identifiers[index] for index in chosen.tolist()),
    )


def joined(data: ImageSet, extra: ImageSet) -> ImageSet:
    """``data`` followed by ``extra``, with the name and the normalisation of ``data``."""
    return replace(
        data,
        pixels=torch.cat([data.pixels, extra.pixels]),
        labels=torch.cat([data.labels, extra.labels]),
        identifiers=data.identifiers + extra.identifiers,
    )


def _decode(content: bytes, shape: tuple[int, ...], place: str) -> np.ndarray:
    try:
        image = open_image(content, formats=FILE_FORMATS, limits=FILE_LIMITS)
    except UnusableImage as err:
        raise DataDamaged(f"{place}: {err}") from err
    levels = levels_of(image.convert(MODES[shape[0]]))
    if levels.shape != shape:
        raise DataDamaged(f"{place}: expected shape {shape}, got {levels.shape}")
    return levels
