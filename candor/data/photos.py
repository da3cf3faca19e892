"""Photographs of any size cut to squares, and trees of them by class."""

import hashlib
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from candor.data.errors import DataDamaged

# Of ImageNet; photographs of COCO and of users are alike enough.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
_HELD_OUT = 5  # one of so many images is for testing where a data set does not say which


@dataclass(frozen=True, slots=True)
class View:
    """How a photograph becomes a square: its shorter edge is resized, then a square is cropped.

    Attributes:
        size: edge of the square, pixels.
        low_edge, high_edge: shorter edge before the crop in training, drawn from both inclusive.
        test_edge: shorter edge before the central crop of tests.
    """

    size: int
    low_edge: int
    high_edge: int
    test_edge: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PhotoDecoder:
    """Decodes photographs; a `candor.data.lazy.Decoder`.

    Attributes:
        name: of the data set, for errors.
        folder: where the files are.
        files: N paths in it.
        view: what is cut from each.
        formats: names of the formats a file may have, see Pillow.
        boxes: (N, 4) left, top, right, bottom in pixels of the file as stored, or None for whole
            photographs, which are turned upright as their EXIF says.
    """

    name: str
    folder: Path
    files: Sequence[str]
    view: View
    formats: tuple[str, ...]
    boxes: np.ndarray | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        return 3, self.view.size, self.view.size

    def central(self, index: int) -> np.ndarray:
        return self._cut(index, self.view.test_edge, 0.5, 0.5)

    def drawn(self, index: int, draws: np.ndarray) -> np.ndarray:
        low, high = self.view.low_edge, self.view.high_edge
        return self._cut(index, low + int(draws[0] * (high - low + 1)), draws[1], draws[2])

    def fingerprint(self, index: int) -> str:
        box = [] if self.boxes is None else self.boxes[index].tolist()
        return f"{self._path(index).stat().st_size} {box}"

    def _cut(self, index: int, edge: int, across: float, down: float) -> np.ndarray:
        """(3, size, size) uint8; ``across`` and ``down`` in [0, 1) place the crop.

        Only the cropped part is resampled: the result is that of resizing the whole, up to the
        outermost pixels, whose filter ends at the crop.
        """
        with self._opened(index) as image:
            left, top, right, bottom = self._box(index, image)
            scale = edge / min(right - left, bottom - top)
            x, width = self._crop(right - left, scale, across)
            y, height = self._crop(bottom - top, scale, down)
            part = (
                left + x,
                top + y,
                min(left + x + width, image.width),
                min(top + y + height, image.height),
            )
            square = image.resize(
                (self.view.size, self.view.size), Image.Resampling.BILINEAR, box=part
            )
        return np.asarray(square).transpose(2, 0, 1)

    def _crop(self, length: float, scale: float, place: float) -> tuple[float, float]:
        """Start and length of a crop along one axis, in pixels of the file."""
        resized = max(self.view.size, round(length * scale))
        start = math.floor(place * (resized - self.view.size + 1))
        return start * length / resized, self.view.size * length / resized

    def _box(self, index: int, image: Image.Image) -> tuple[float, float, float, float]:
        if self.boxes is None:
            return 0.0, 0.0, float(image.width), float(image.height)
        left, top, right, bottom = self.boxes[index].tolist()
        if right > image.width or bottom > image.height:
            raise DataDamaged(
                f"{self.name}: {self._path(index)} is {image.size}, allowed at least "
                f"({right:g}, {bottom:g}), the end of a box in it"
            )
        return left, top, right, bottom

    def _path(self, index: int) -> Path:
        return self.folder / self.files[index]

    @contextmanager
    def _opened(self, index: int) -> Iterator[Image.Image]:
        path = self._path(index)
        try:
            with Image.open(path, formats=self.formats) as image:
                coloured = image if image.mode == "RGB" else image.convert("RGB")
                coloured.load()
                if self.boxes is None:
                    ImageOps.exif_transpose(coloured, in_place=True)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as err:
            wanted = " or ".join(self.formats)
            raise DataDamaged(f"{self.name}: {path} is no {wanted} that opens: {err}") from err
        yield coloured


def class_folders(folder: Path) -> tuple[str, ...]:
    """Names of the folders in ``folder``, sorted; hidden ones are left out."""
    return tuple(sorted(p.name for p in folder.iterdir() if p.is_dir() and p.name[0] != "."))


def photos_by_class(
    name: str, folder: Path, class_names: Sequence[str], suffixes: Sequence[str]
) -> tuple[list[str], list[int]]:
    """Files CLASS/NAME in ``folder``, sorted, and their labels; hidden ones are left out.

    Raises:
        DataDamaged: a class without files, or a file of another suffix.
    """
    files: list[str] = []
    labels: list[int] = []
    for label, class_name in enumerate(class_names):
        found = sorted(file for file in os.listdir(folder / class_name) if file[0] != ".")
        if not found:
            raise DataDamaged(f"{name}: {folder / class_name} has no images")
        for file in found:
            if not file.lower().endswith(tuple(suffixes)):
                path = folder / class_name / file
                raise DataDamaged(f"{name}: {path} has another ending than {tuple(suffixes)}")
        files += [f"{class_name}/{file}" for file in found]
        labels += [label] * len(found)
    return files, labels


def held_out(names: Sequence[str]) -> set[str]:
    """A fifth of ``names`` (at least one) by hash, for testing; the same on every machine."""

    def hash_of(name: str) -> bytes:
        return hashlib.sha256(name.encode()).digest()

    return set(sorted(names, key=hash_of)[: max(1, len(names) // _HELD_OUT)])
