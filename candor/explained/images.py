"""The images of a folder, found by their names and read one by one."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from candor.contracts.limits import MAX_ENCODED_BYTES
from candor.data.folder import SUFFIXES
from candor.data.photos import is_junk
from candor.files.reading import read_file
from candor.images.decode import FILE_FORMATS, FILE_LIMITS, UnusableImage, open_image
from candor.images.pixels import Levels
from candor.images.view import InputView


@dataclass(frozen=True, slots=True)
class ImageFile:
    """One file of the folder.

    Attributes:
        index: place in the order of the names, from 0.
        name: path relative to the folder with "/"; bytes that are no UTF-8 are written ``\\xNN``.
    """

    index: int
    name: str
    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The images of a folder in the order of their names.

    Attributes:
        passed_over: number of other files by their ending, those left by systems aside.
    """

    files: Sequence[ImageFile]
    passed_over: Mapping[str, int]


class UnreadableImage(Exception):
    """This image cannot be explained, and no other is affected; the text says why.

    Attributes:
        sha256: of the file's content; None where it could not be read.
    """

    def __init__(self, reason: str, sha256: str | None = None) -> None:
        super().__init__(reason)
        self.sha256 = sha256


def find_images(folder: Path, *, without: Path | None = None) -> Found:
    """Every image below ``folder``, by the endings of the names; links to folders are not followed.

    Args:
        without: a folder that is left out, where results are written.
    Raises:
        ValueError: there is none.
        OSError: a folder cannot be read.
    """
    left_out = None if without is None else without.resolve()
    paths, others = [], Counter[str]()
    for path in _files(folder, left_out):
        if path.suffix.lower() in SUFFIXES:
            paths.append((_shown(path.relative_to(folder)), path))
        else:
            others[path.suffix.lower()] += 1
    if not paths:
        endings = ", ".join(SUFFIXES)
        raise ValueError(f"image: expected a folder with files {endings}, got none in {folder}")
    files = tuple(ImageFile(index, *one) for index, one in enumerate(sorted(paths)))
    return Found(files=files, passed_over=dict(others))


def levels_of_file(file: ImageFile, view: InputView) -> tuple[Levels, str]:
    """What a model sees of the file, (C, H, W) uint8, and the SHA-256 of its content.

    Raises:
        UnreadableImage: it cannot be read, or is not an image.
    """
    content, digest = _content(file, FILE_LIMITS.byte_count)
    try:
        image = open_image(content, formats=FILE_FORMATS, limits=FILE_LIMITS)
        return view.levels(image), digest
    except UnusableImage as err:
        raise UnreadableImage(str(err), digest) from err


def encoded_file(file: ImageFile) -> tuple[bytes, str]:
    """The content of the file as a request carries it, and its SHA-256.

    Raises:
        UnreadableImage: it cannot be read or is too large for a request.
    """
    return _content(file, MAX_ENCODED_BYTES)


def _content(file: ImageFile, most: int) -> tuple[bytes, str]:
    try:
        content = read_file(file.path, most)
    except OSError as err:
        reason = err.strerror or str(err).removeprefix(f"{file.path}: ")
        raise UnreadableImage(reason) from err
    return content, hashlib.sha256(content).hexdigest()


def _files(folder: Path, left_out: Path | None) -> Iterator[Path]:
    def fail(err: OSError) -> None:
        raise err

    for parent, folders, names in os.walk(folder, onerror=fail):
        here = Path(parent)
        folders[:] = [
            name
            for name in folders
            if not is_junk(name) and (left_out is None or (here / name).resolve() != left_out)
        ]
        yield from (here / name for name in names if not is_junk(name))


def _shown(path: Path) -> str:
    return os.fsencode(path.as_posix()).decode("utf-8", "backslashreplace")
