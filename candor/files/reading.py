"""Files of users and of other programs: kind and size are known before anything is read."""

import os
import stat
import time
from collections.abc import Callable
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO, TypeVar

KIB, MIB, GIB = 2**10, 2**20, 2**30
# A pipe without a writer would make opening it wait.
_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
_FORBIDDEN = frozenset("\0\\:")  # a backslash and a colon separate on other systems
_REPLACED_TRIES = 50
_PAUSE_SECONDS = 0.02
_KINDS = (
    (stat.S_ISREG, "file"),
    (stat.S_ISDIR, "folder"),
    (stat.S_ISFIFO, "pipe"),
    (stat.S_ISSOCK, "socket"),
)
ReadT = TypeVar("ReadT")


class UnusableFile(OSError):
    """No file at all, or too large; the message says what was expected and what was got."""


def kind_of(mode: int) -> str:
    """One word for ``st_mode``: file, folder, pipe, socket or device."""
    return next((name for is_kind, name in _KINDS if is_kind(mode)), "device")


def read_file(path: Path, most: int) -> bytes:
    """The content of a file of at most ``most`` bytes.

    Raises:
        UnusableFile: larger, or a folder, a pipe or a device, from which nothing is read.
        OSError: missing or not readable.
    """
    with open_file(path, most) as stream:
        return _content(stream, path, most)


def read_text(path: Path, most: int) -> str:
    """The same as text in UTF-8.

    Raises:
        ValueError: it is no UTF-8.
        OSError: as `read_file`.
    """
    try:
        return read_file(path, most).decode()
    except UnicodeDecodeError as err:
        raise ValueError(f"{path}: expected text in UTF-8, but byte {err.start} is none") from err


def open_file(path: Path, most: int) -> BufferedReader:
    """A file of at most ``most`` bytes, open for reading; raises as `read_file`."""
    return _opened(path, most, os.open(path, _FLAGS))


def inside(folder: Path, name: str) -> Path:
    """The path of a file of ``folder`` that another program names, with "/" between its parts.

    Raises:
        UnusableFile: the name leads, or may lead, out of the folder.
    """
    parts = name.split("/")
    if any(part in ("", ".", "..") or not _FORBIDDEN.isdisjoint(part) for part in parts):
        raise UnusableFile(f"{folder}: expected the name of a file inside, got {name[:200]!r}")
    return folder.joinpath(*parts)


def check_file(path: Path, most: int) -> None:
    """For libraries that read files themselves; raises as `read_file`."""
    open_file(path, most).close()


class FolderFiles:
    """The files of one state of a folder: where another takes its place, these stay readable."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._seen = self._stamp(os.fstat(self._descriptor))

    def read(self, name: str, most: int) -> bytes:
        """Raises: UnusableFile, OSError: as `read_file`."""
        path = self._folder / name
        try:
            descriptor = os.open(name, _FLAGS, dir_fd=self._descriptor)
        except OSError as err:
            err.filename = str(path)
            raise
        with _opened(path, most, descriptor) as stream:
            return _content(stream, path, most)

    def is_current(self) -> bool:
        """Whether the folder is still the one that was opened, with the same names in it."""
        try:
            return self._stamp(self._folder.stat()) == self._seen
        except OSError:
            return False

    def __enter__(self) -> "FolderFiles":
        return self

    def __exit__(self, *error: object) -> None:
        os.close(self._descriptor)

    @staticmethod
    def _stamp(status: os.stat_result) -> tuple[int, ...]:
        return status.st_dev, status.st_ino, status.st_mtime_ns


def read_together(folder: Path, read: Callable[[FolderFiles], ReadT]) -> ReadT:
    """What ``read`` makes of the files of a folder, never of some old and some new ones.

    Where it fails and the folder has changed meanwhile, it reads again.

    Raises:
        OSError: no such folder, or what ``read`` raises.
    """
    for _ in range(_REPLACED_TRIES):
        with FolderFiles(folder) as files:
            try:
                return read(files)
            except (OSError, ValueError):
                if files.is_current():
                    raise
        time.sleep(_PAUSE_SECONDS)
    raise UnusableFile(f"{folder}: expected a folder at rest, got one that changes all the time")


def _opened(path: Path, most: int, descriptor: int) -> BufferedReader:
    status = os.fstat(descriptor)
    kind = kind_of(status.st_mode)
    if kind == "file" and status.st_size <= most:
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    if kind != "file":
        raise UnusableFile(f"{path}: expected a file, got a {kind}")
    raise _too_large(path, most, status.st_size)


def _content(stream: BinaryIO, path: Path, most: int) -> bytes:
    size = os.fstat(stream.fileno()).st_size
    content = stream.read(size + 1)
    while size < len(content) <= most:  # it has grown, and files of /proc state no size
        size = len(content)
        content += stream.read(size)
    if len(content) > most:
        raise _too_large(path, most, len(content))
    return content


def _too_large(path: Path, most: int, size: int) -> UnusableFile:
    return UnusableFile(f"{path}: expected at most {most} bytes, got {size}")
