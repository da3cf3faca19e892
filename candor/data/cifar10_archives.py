"""CIFAR-10's official python and binary archives, read without unpacking them."""

import gzip
import io
import pickle
import tarfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from candor.data.errors import DataDamaged
from candor.files.reading import GIB, open_file, read_file

BATCH_COUNT = 10_000  # images in a file
_CLASSES = 10
_SHAPE = (3, 32, 32)
_PIXELS = 3 * 32 * 32
_MAX_PICKLE_BYTES = 2**26  # a real one has 31 MB
_MAX_TAIL_BYTES = 2**20  # zeros after the last member
_MAX_ARCHIVE_BYTES = GIB  # a real one has 170 MB
_MAX_MEMBERS = 64  # a real archive has 9


@dataclass(frozen=True, slots=True)
class RawImages:
    """Pixels (N, 3, 32, 32) uint8, labels (N,) int64 and one name for each image."""

    pixels: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...]


def read_python(path: Path, split: str) -> RawImages:
    """One split of ``cifar-10-python.tar.gz``, or of its unpacked ``cifar-10-batches-py``.

    The files are pickles.  Nothing that they name is run: the pickle of an array may only state its
    bytes, type and shape.

    Raises:
        DataDamaged: a file is missing, cut short or not the official one.
    """
    names = [f"data_batch_{n}" for n in range(1, 6)] if split == "train" else ["test_batch"]
    contents = _contents(path, names, _MAX_PICKLE_BYTES)
    return _joined([_python_batch(contents[name], f"{path}: {name}") for name in names])


def read_binary(path: Path, split: str) -> RawImages:
    """One split of ``cifar-10-binary.tar.gz``, or of its unpacked ``cifar-10-batches-bin``.

    A file has rows of one label and 3072 pixels, one byte each.

    Raises:
        DataDamaged: a file is missing, cut short or has labels above 9.
    """
    numbers = [f"data_batch_{n}.bin" for n in range(1, 6)]
    names = numbers if split == "train" else ["test_batch.bin"]
    size = BATCH_COUNT * (1 + _PIXELS)
    contents = _contents(path, names, size)
    batches = []
    for file, name in enumerate(names):
        where = f"{path}: {name}"
        if len(contents[name]) != size:
            raise DataDamaged(f"cifar10: {where}: expected {size} bytes, got {len(contents[name])}")
        rows = np.frombuffer(contents[name], np.uint8).reshape(BATCH_COUNT, 1 + _PIXELS)
        first = file * BATCH_COUNT
        identifiers = tuple(f"{split}/{row}" for row in range(first, first + BATCH_COUNT))
        batches.append(_checked(rows[:, 1:], rows[:, 0].tolist(), identifiers, where))
    return _joined(batches)


def _python_batch(content: bytes, where: str) -> RawImages:
    try:
        batch = _ArrayUnpickler(io.BytesIO(content), encoding="bytes").load()
        labels, names = batch[b"labels"], [name.decode() for name in batch[b"filenames"]]
        pixels = batch[b"data"].bytes()
        if type(labels) is not list:
            raise ValueError("labels is no list")
    except Exception as err:  # whatever broken opcodes and states can raise
        raise DataDamaged(f"cifar10: {where} is not the official pickle: {err!r}") from err
    if len(pixels) != BATCH_COUNT * _PIXELS:
        raise DataDamaged(
            f"cifar10: {where}: data: expected {BATCH_COUNT * _PIXELS} bytes, got {len(pixels)}"
        )
    rows = np.frombuffer(pixels, np.uint8).reshape(BATCH_COUNT, _PIXELS)
    return _checked(rows, labels, tuple(names), where)


def _checked(pixels: np.ndarray, labels: Any, names: tuple[str, ...], where: str) -> RawImages:
    for field, values in (("labels", labels), ("filenames", names)):
        if len(values) != BATCH_COUNT:
            raise DataDamaged(
                f"cifar10: {where}: {field}: expected {BATCH_COUNT} entries, got {len(values)}"
            )
    for row, label in enumerate(labels):
        if type(label) is not int or not 0 <= label < _CLASSES:
            raise DataDamaged(f"cifar10: {where}: labels[{row}]: expected [0, 9], got {label!r}")
    return RawImages(pixels.reshape(-1, *_SHAPE), np.array(labels, np.int64), names)


def _joined(batches: Sequence[RawImages]) -> RawImages:
    return RawImages(
        np.concatenate([batch.pixels for batch in batches]),
        np.concatenate([batch.labels for batch in batches]),
        tuple(name for batch in batches for name in batch.names),
    )


def _contents(path: Path, names: Sequence[str], limit: int) -> dict[str, bytes]:
    """The named files of an archive or a folder, none larger than ``limit`` bytes."""
    try:
        found = _unpacked(path, names, limit) if path.is_dir() else _members(path, names, limit)
    except (OSError, EOFError, tarfile.TarError, zlib.error) as err:
        raise DataDamaged(f"cifar10: {path} cannot be read: {err}") from err
    for name in names:
        if name not in found:
            raise DataDamaged(f"cifar10: {path}: {name} is missing")
    return found


def _unpacked(path: Path, names: Sequence[str], limit: int) -> dict[str, bytes]:
    present = [name for name in names if (path / name).exists()]
    return {name: read_file(path / name, limit) for name in present}


def _members(path: Path, names: Sequence[str], limit: int) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    with open_file(path, _MAX_ARCHIVE_BYTES) as file, gzip.open(file) as stream:
        with tarfile.open(fileobj=stream, mode="r|") as archive:
            for place, member in enumerate(archive):
                if place >= _MAX_MEMBERS:
                    raise DataDamaged(f"cifar10: {path} has more than {_MAX_MEMBERS} members")
                _check_size(path, member.name, member.size, limit)
                name = Path(member.name).name
                content = archive.extractfile(member) if member.isreg() and name in names else None
                if content is not None:
                    found[name] = content.read()
        stream.read(_MAX_TAIL_BYTES)  # reaching the end is what checks gzip's checksum
    return found


def _check_size(path: Path, name: str, size: int, limit: int) -> None:
    if size > limit:
        raise DataDamaged(f"cifar10: {path}: {name}: expected at most {limit} bytes, got {size}")


class _Array:
    """What a pickle states about an array; no code of numpy runs."""

    def __init__(self, *_: Any) -> None:
        self._state: Any = None

    def __setstate__(self, state: Any) -> None:
        self._state = state

    def bytes(self) -> bytes:
        """The content, of an array of bytes in C order."""
        _, _, kind, is_fortran, content = self._state
        if kind.code not in (b"u1", "u1") or is_fortran or type(content) is not bytes:
            raise ValueError("data is no array of bytes in C order")
        return content


class _Kind:
    """What a pickle states about the type of an array."""

    def __init__(self, code: Any, *_: Any) -> None:
        self.code = code

    def __setstate__(self, state: Any) -> None:
        """Byte order and the like, which bytes do not have."""


class _ArrayUnpickler(pickle.Unpickler):
    """Reads containers, numbers, text, and arrays as `_Array`; it rejects every other name."""

    _ALLOWED = {
        ("numpy.core.multiarray", "_reconstruct"): _Array,
        ("numpy", "ndarray"): _Array,
        ("numpy", "dtype"): _Kind,
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._ALLOWED:
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        return self._ALLOWED[module, name]
