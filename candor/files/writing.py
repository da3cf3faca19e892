"""Files that people keep: written beside, synced, then renamed over the old ones.

A kill, a power cut or a full disk at any moment leaves what was there before, or the new content.
A draft is called ``.NAME.draft`` and is locked by its writer: a second writer of the same file
waits, and the draft that a killed process left is used again by the next one.
"""

import ctypes
import errno
import fcntl
import io
import os
import shutil
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from candor.files.reading import UnusableFile, kind_of

_MAX_NAME_BYTES = 240  # of 255, the rest is for what a draft's name has more
_EXCHANGE = 2  # RENAME_EXCHANGE of linux/fs.h
_HERE = -100  # AT_FDCWD
# Where a folder cannot give its place to another: a mount point, a parent that may not be written,
# a file system that has no such call.
_CANNOT_EXCHANGE = frozenset(
    {
        errno.EACCES,
        errno.EBUSY,
        errno.EINVAL,
        errno.ENOSYS,
        errno.ENOTSUP,
        errno.EPERM,
        errno.EROFS,
        errno.EXDEV,
    }
)
_MAX_OTHER_FILES = 64


def is_full(err: OSError) -> bool:
    """Whether the disk has no space left, or the user's share of it has none."""
    return err.errno in (errno.ENOSPC, errno.EDQUOT)


def write_file(path: Path, content: bytes, *, is_private: bool = False) -> None:
    """The file is wholly there or as it was; raises as `replacing`."""
    with replacing(path, is_private=is_private) as stream:
        stream.write(content)


def write_once(path: Path, content: bytes) -> None:
    """The file, unless it is there already: of several writers the first one decides.

    Raises:
        OSError: as `replacing`.
    """
    with _named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with _draft(path, is_private=False) as stream:  # locked: no other writer comes between
            if path.exists():
                _draft_of(path).unlink()
                return
            stream.write(content)
            _finish(stream)
            _draft_of(path).replace(path)
        _sync_folder(path.parent)


@contextmanager
def replacing(path: Path, *, is_private: bool = False) -> Iterator[BinaryIO]:
    """A stream whose content takes the place of ``path`` when the block ends without an error.

    Missing folders are made.  A link stays one, and what it points to is replaced.  Owner and mode
    of the old file stay, unless ``is_private`` makes it its owner's alone.

    Raises:
        UnusableFile: ``path`` is a folder, a device or a pipe.
        OSError: it cannot be written; names ``path``.  The old file is as it was.
    """
    target = path.resolve()
    with _named(path):
        _check_kind(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        with _draft(target, is_private) as stream:
            yield stream
            _finish(stream)
            _draft_of(target).replace(target)
        _sync_folder(target.parent)


def write_files(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Files by name that belong together.

    All are on the disk before the first appears.  The last one says that the others are whole: an
    old one of its name is taken away first, so a kill leaves the old files, the new ones, or a
    folder without the last one.

    Raises:
        OSError: as `replacing`.
    """
    *others, last = contents
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as drafts:
        for name, content in contents.items():
            with _named(folder / name):
                _check_kind(folder / name)
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                stream = drafts.enter_context(_draft(folder / name, is_private=False))
                stream.write(content)
                _finish(stream)
        if others:
            (folder / last).unlink(missing_ok=True)
            _sync_folder(folder)
        for name in contents:
            _draft_of(folder / name).replace(folder / name)
    _sync_folder(folder)


def write_folder(folder: Path, contents: Mapping[str, bytes], *, keeps_others: bool = True) -> None:
    """A folder with these files, by name; it changes in one step, and its other files stay.

    Where ``keeps_others`` is False it has these files alone, and names may have folders in them.

    The new folder is made beside the old one and exchanged with it.  Where that cannot be (a mount
    point, a folder with folders in it, the folder that this process is in, a file system that
    cannot exchange), the files change as `write_files` says.

    Raises:
        OSError: it cannot be written.  The old folder is as it was.
    """
    target = folder.resolve()
    others = _others(target, contents) if keeps_others and target.is_dir() else []
    if target.exists() and not _is_exchangeable(target, others):
        write_files(target, contents)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        _exchange_folder(target, contents, others)
    except OSError as err:
        if err.errno not in _CANNOT_EXCHANGE or not target.is_dir():
            raise
        write_files(target, contents)


class _Raw(io.FileIO):
    """Remembers why it could not be written: libraries make another error of it."""

    failure: OSError | None = None

    def write(self, content: Any, /) -> int:
        try:
            return super().write(content)
        except OSError as err:
            self.failure = self.failure or err
            raise


class _Stream(io.BufferedRandom):
    raw: _Raw


@contextmanager
def _draft(target: Path, is_private: bool) -> Iterator[_Stream]:
    """The locked draft of a file, empty; it is deleted where the block ends with an error."""
    draft = _draft_of(target)
    stream = _locked(draft, 0o600 if is_private else 0o666)
    try:
        stream.truncate(0)
        if not is_private:
            _keep_owner(stream.fileno(), target)
        yield stream
    except BaseException as err:
        draft.unlink(missing_ok=True)
        failure = stream.raw.failure
        if isinstance(err, Exception) and failure is not None and err is not failure:
            raise failure from err
        raise
    finally:
        with suppress(OSError, ValueError):  # what is left in the buffer of a full disk
            stream.close()


def _draft_of(target: Path) -> Path:
    name = os.fsencode(target.name)[:_MAX_NAME_BYTES].decode("utf-8", "ignore")
    return target.with_name(f".{name}.draft")


def _locked(draft: Path, mode: int) -> _Stream:
    while True:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        stream = _Stream(_Raw(os.open(draft, flags, mode), "r+b"))
        _lock(stream.fileno())
        if _is_at(draft, stream.fileno()):
            return stream
        stream.close()  # the writer that we waited for has renamed it


def _lock(descriptor: int) -> None:
    with suppress(OSError):  # a file system without locks
        fcntl.flock(descriptor, fcntl.LOCK_EX)


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.lstat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _keep_owner(descriptor: int, target: Path) -> None:
    with suppress(OSError):  # there is none, or this user may not give files away
        old = target.stat()
        os.fchmod(descriptor, stat.S_IMODE(old.st_mode))
        os.fchown(descriptor, old.st_uid, old.st_gid)


def _finish(stream: io.BufferedIOBase | BinaryIO) -> None:
    stream.flush()
    os.fsync(stream.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _check_kind(path: Path) -> None:
    with suppress(FileNotFoundError):
        kind = kind_of(path.stat().st_mode)
        if kind != "file":
            raise UnusableFile(f"{path}: expected a file to write, got a {kind}")


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """An error of a system call that names no file names ``path``."""
    try:
        yield
    except OSError as err:
        if err.errno is not None and err.filename is None:
            err.filename = str(path)
        raise


def _is_exchangeable(target: Path, others: Sequence[Path]) -> bool:
    """Whether all else in the folder are a few files, which a second name can bring along."""
    if not target.is_dir() or Path.cwd().is_relative_to(target):
        return False
    return len(others) <= _MAX_OTHER_FILES and all(path.is_file() for path in others)


def _others(target: Path, contents: Mapping[str, bytes]) -> list[Path]:
    drafts = {_draft_of(target / name).name for name in contents}
    return [path for path in target.iterdir() if path.name not in contents.keys() | drafts]


def _exchange_folder(target: Path, contents: Mapping[str, bytes], others: Sequence[Path]) -> None:
    with _draft_folder(target) as draft:
        for name, content in contents.items():
            (draft / name).parent.mkdir(exist_ok=True)
            # A full disk says so again when the stream is closed, without a name.
            with _named(target / name), (draft / name).open("xb") as stream:
                stream.write(content)
                _finish(stream)
                _keep_owner(stream.fileno(), target / name)
        for other in others:
            os.link(other, draft / other.name, follow_symlinks=False)
        for made in {(draft / name).parent for name in contents} | {draft}:
            _sync_folder(made)
        if target.exists():
            _exchange(draft, target)
        else:
            draft.rename(target)
        _sync_folder(target.parent)


@contextmanager
def _draft_folder(target: Path) -> Iterator[Path]:
    """The locked, empty draft of a folder; what has its name at the end is deleted."""
    draft = _draft_of(target)
    while True:
        draft.mkdir(exist_ok=True)
        try:
            descriptor = os.open(draft, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except FileNotFoundError:
            continue
        _lock(descriptor)
        if _is_at(draft, descriptor):
            break
        os.close(descriptor)
    try:
        for left in draft.iterdir():  # by a process that was killed
            shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()
        _keep_owner(descriptor, target)
        yield draft
    finally:
        shutil.rmtree(draft, ignore_errors=True)
        os.close(descriptor)


def _exchange(one: Path, other: Path) -> None:
    """Both names change what they name, in one step."""
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), str(other))
    if call(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(other))
