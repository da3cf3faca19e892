"""Photographs of any size cut to squares, and trees of them by class.

They are decoded, rotated, blended and resampled by `candor.images`, as the service does it.
"""

import hashlib
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from candor.contracts.names import checked_name, described, normalised
from candor.data.errors import DataDamaged
from candor.data.lazy import file_digest
from candor.files.reading import read_file
from candor.images.decode import FILE_LIMITS, UnusableImage, open_image
from candor.images.geometry import Box, Size, crop_box, resize, scale_of_edge, whole
from candor.images.pixels import levels_of
from candor.images.view import InputView

# Of ImageNet; photographs of COCO and of users are alike enough.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
# In lower case; names that begin with a dot (.DS_Store, ._photo.jpg, .ipynb_checkpoints) besides.
_JUNK = frozenset(
    {
        "$recycle.bin",
        "#recycle",
        "#snapshot",
        "@eadir",
        "@recently-snapshot",
        "@recycle",
        "@tmp",
        "__macosx",
        "__pycache__",
        "desktop.ini",
        "ehthumbs.db",
        "ehthumbs_vista.db",
        "icon\r",
        "lost+found",
        "network trash folder",
        "picasa.ini",
        "recycler",
        "system volume information",
        "temporary items",
        "thumbs.db",
        "thumbs.db:encryptable",
        "zbthumbnail.info",
    }
)
_log = logging.getLogger("candor.data")
_HELD_OUT = 5  # one of so many images is for testing where a data set does not say which


@dataclass(frozen=True, slots=True)
class View:
    """How a photograph becomes a square: its shorter edge is resized, then a square is cropped.

    With ``test_edge`` equal to ``size`` the test view is the image that the service computes from
    the same file.

    Attributes:
        size: edge of the square, pixels.
        low_edge, high_edge: shorter edge before the crop in training, pixels, drawn from both
            inclusive; at least ``size``.
        test_edge: shorter edge before the central crop of tests, pixels; at least ``size``.
    """

    size: int
    low_edge: int
    high_edge: int
    test_edge: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PhotoDecoder:
    """Decodes photographs; a `candor.data.lazy.Decoder`.

    Attributes:
        name: name of the data set, for errors.
        folder: folder of the files.
        files: N paths relative to the folder.
        view: what is cut from each.
        formats: formats that a file may have, by Pillow's names.
        boxes: (N, 4) left, top, right, bottom in pixels of the file as stored, or None for whole
            photographs, which are rotated as their EXIF orientation says.
    """

    name: str
    folder: Path
    files: Sequence[str]
    view: View
    formats: tuple[str, ...]
    boxes: np.ndarray | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of every view."""
        return 3, self.view.size, self.view.size

    def central(self, index: int) -> np.ndarray:
        """The view that a network is tested on, (3, size, size) uint8."""
        return self._cut(index, self.view.test_edge, 0.5, 0.5)

    def drawn(self, index: int, draws: np.ndarray) -> np.ndarray:
        """A training view, (3, size, size) uint8; edge and position follow from ``draws``."""
        low, high = self.view.low_edge, self.view.high_edge
        return self._cut(index, low + int(draws[0] * (high - low + 1)), draws[1], draws[2])

    def fingerprint(self, index: int) -> str:
        """Digest of the file, and the box."""
        box = [] if self.boxes is None else self.boxes[index].tolist()
        return f"{file_digest(self._path(index))} {box}"

    def _cut(self, index: int, edge: int, across: float, down: float) -> np.ndarray:
        """(3, size, size) uint8; ``across`` and ``down`` in [0, 1] place the crop."""
        image = self._opened(index)
        box, size = self._box(index, image), Size(self.view.size, self.view.size)
        part = crop_box(box, size, scale_of_edge(box, edge), across, down)
        return levels_of(resize(image, size, part))

    def _box(self, index: int, image: Image.Image) -> Box:
        if self.boxes is None:
            return whole(image)
        box = Box(*self.boxes[index].tolist())
        if box.right > image.width or box.bottom > image.height:
            raise DataDamaged(
                f"{self.name}: {self._path(index)}: expected at least ({box.right:g}, "
                f"{box.bottom:g}) pixels, the end of a box in it, got {image.size}"
            )
        return box

    def _path(self, index: int) -> Path:
        return self.folder / self.files[index]

    def _opened(self, index: int) -> Image.Image:
        is_oriented = self.boxes is None
        return _opened(self.name, self._path(index), self.formats, is_oriented=is_oriented)


@dataclass(frozen=True, slots=True, kw_only=True)
class FileDecoder:
    """Decodes files of images as the service does it for a model; a `candor.data.lazy.Decoder`.

    Training uses the test views, so that they can be held in memory.

    Attributes:
        name, folder, files, formats: see `PhotoDecoder`.
        view: of the model.
    """

    name: str
    folder: Path
    files: Sequence[str]
    view: InputView
    formats: tuple[str, ...]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of every view."""
        return self.view.shape

    def central(self, index: int) -> np.ndarray:
        """What the model sees of the file, (C, H, W) uint8."""
        path = self.folder / self.files[index]
        return self.view.levels(_opened(self.name, path, self.formats))

    def drawn(self, index: int, draws: np.ndarray) -> np.ndarray:
        """The same; nothing is drawn."""
        return self.central(index)

    def fingerprint(self, index: int) -> str:
        """Digest of the file, and how it is cut."""
        rule = self.view.rule.model_dump_json(exclude_defaults=True)
        return f"{file_digest(self.folder / self.files[index])} {rule}"


def _opened(
    name: str, path: Path, formats: tuple[str, ...], *, is_oriented: bool = True
) -> Image.Image:
    """An image of the data set ``name``; raises DataDamaged."""
    try:
        content = read_file(path, FILE_LIMITS.byte_count)
        return open_image(content, formats=formats, limits=FILE_LIMITS, is_oriented=is_oriented)
    except (OSError, UnusableImage) as err:
        raise DataDamaged(f"{name}: {path}: {err}") from err


def is_junk(name: str) -> bool:
    """Whether systems leave files and folders of this name beside the user's own, unasked."""
    return name.startswith((".", "~$")) or name.lower() in _JUNK


def class_folders(folder: Path) -> tuple[str, ...]:
    """Names of the classes that have a folder in ``folder``, sorted, without `is_junk`.

    Some file systems store a name in another spelling than the one it was made with, so these are
    normalised; `photos_by_class` finds their folders.

    Raises:
        DataDamaged: a name that no class may have, two folders that are two spellings of one, or a
            link that leads nowhere, which would leave out a class.
    """
    return tuple(sorted(_folders_by_class(folder)))


def _folders_by_class(folder: Path) -> dict[str, str]:
    """The folder's name on disk by the name of its class."""
    by_class: dict[str, str] = {}
    for path in folder.iterdir():
        if is_junk(path.name):
            continue
        if path.is_symlink() and not path.exists():
            raise DataDamaged(f"{path}: expected a folder of a class, got a broken link")
        if not path.is_dir():
            continue
        try:
            name = checked_name(path.name)
        except ValueError as err:
            raise DataDamaged(f"{folder}: folder {path.name!r}: {err}") from err
        if name in by_class:
            both = " and ".join(described(one) for one in sorted((by_class[name], path.name)))
            raise DataDamaged(f"{folder}: expected one folder of class {name!r}, got {both}")
        by_class[name] = path.name
    return by_class


def photos_by_class(
    name: str, folder: Path, class_names: Sequence[str], suffixes: Sequence[str]
) -> tuple[list[str], list[int]]:
    """Files CLASS/NAME in ``folder``, sorted, and their labels, without `is_junk`.

    What was passed over is counted in the log.

    Args:
        name: name of the data set, for errors.
        suffixes: endings that a file may have, in lower case.
    Raises:
        DataDamaged: a class without files, a file of another ending, or what is no file.
    """
    files: list[str] = []
    labels: list[int] = []
    folders = _folders_by_class(folder)
    passed_over = sum(map(is_junk, os.listdir(folder)))
    for label, class_name in enumerate(folders[one] for one in class_names):
        entries = sorted(os.scandir(folder / class_name), key=lambda entry: normalised(entry.name))
        found = [entry for entry in entries if not is_junk(entry.name)]
        passed_over += len(entries) - len(found)
        if not found:
            raise DataDamaged(f"{name}: {folder / class_name} has no images")
        for entry in found:
            _check_photo(name, entry, suffixes)
        files += [f"{class_name}/{entry.name}" for entry in found]
        labels += [label] * len(found)
    if passed_over:
        _log.warning("%s: %d files that systems leave were passed over", folder, passed_over)
    return files, labels


def _check_photo(name: str, entry: os.DirEntry[str], suffixes: Sequence[str]) -> None:
    if not entry.name.lower().endswith(tuple(suffixes)):
        raise DataDamaged(f"{name}: {entry.path}: expected the ending {tuple(suffixes)}")
    if not entry.is_file():
        got = "a folder" if entry.is_dir() else "a broken link or no file"
        raise DataDamaged(f"{name}: {entry.path}: expected a file, got {got}")


def held_out(names: Sequence[str]) -> set[str]:
    """A fifth of ``names`` (at least one) for testing, by their SHA-256: the same everywhere."""

    def hash_of(name: str) -> bytes:
        return hashlib.sha256(normalised(name).encode(errors="surrogateescape")).digest()

    return set(sorted(names, key=hash_of)[: max(1, len(names) // _HELD_OUT)])
