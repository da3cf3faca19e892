"""Kept files change wholly or not at all: killed at every step, and on a full disk."""

import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from candor.files.reading import FolderFiles, UnusableFile, read_together
from candor.files.writing import replacing, write_file, write_files, write_folder, write_once

_OLD, _NEW = b"old", b"new" * 100_000
_STEPS = 60
_CHANGE = {"weights": _NEW, "card": _NEW}
_WAYS: Mapping[str, Callable[[Path], None]] = {
    "folder": lambda folder: write_folder(folder, _CHANGE),
    "files": lambda folder: write_files(folder, _CHANGE),
    "file": lambda folder: write_file(folder / "card", _NEW),
}


def _state(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name[0] != "."}


def _write(step: int, folder: Path, way: str) -> int:
    command = [sys.executable, "-m", "tests.files.writer", str(step), str(folder), way]
    return subprocess.run(command, check=False).returncode


@pytest.mark.parametrize("way", sorted(_WAYS))
def test_killed_at_every_step_leaves_old_or_new(tmp_path: Path, way: str) -> None:
    old = {"weights": _OLD, "card": _OLD, "notes": b"the user's"}
    changed = {"card": _NEW} if way == "file" else {"card": _NEW, "weights": _NEW}
    allowed = [old, old | changed]
    if way == "files":  # the last one says that the others are whole
        allowed += [{**state, "card": None} for state in (old, old | {"weights": _NEW})]
    seen = []
    for step in range(_STEPS):
        folder = tmp_path / str(step) / "model"
        folder.mkdir(parents=True)
        for name, content in old.items():
            (folder / name).write_bytes(content)
        code = _write(step, folder, way)
        state = _state(folder)
        assert state in [{k: v for k, v in each.items() if v is not None} for each in allowed]
        seen.append(state)
        assert _write(_STEPS, folder, way) == 0  # the next one is not in the way of what was left
        assert _state(folder) == old | changed
        assert [path.name for path in folder.parent.iterdir()] == ["model"]
        if code == 0:
            break
    assert code == 0
    assert seen[0] == old
    assert len(seen) > 4


def test_killed_while_a_new_folder_is_made_leaves_none(tmp_path: Path) -> None:
    for step in range(_STEPS):
        folder = tmp_path / str(step) / "model"
        if _write(step, folder, "folder") == 0:
            break
        assert not folder.exists() or _state(folder) == {"weights": _NEW, "card": _NEW}
    assert step > 4


@pytest.mark.parametrize("way", sorted(_WAYS))
def test_disk_without_space_leaves_the_old(tmp_path: Path, way: str) -> None:
    old = {"weights": _OLD, "card": _OLD}
    write_folder(tmp_path / "model", old)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError, match="large") as caught:
            _WAYS[way](tmp_path / "model")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert str(tmp_path / "model") in str(caught.value.filename)
    assert _state(tmp_path / "model") == old
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert all(path.name[0] != "." for path in (tmp_path / "model").iterdir())


def test_reader_never_sees_a_mixture(tmp_path: Path) -> None:
    folder, stop = tmp_path / "model", threading.Event()
    write_folder(folder, {"weights": b"0", "card": b"0"})

    def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            content = str(number).encode()
            write_folder(folder, {"weights": content, "card": content})

    def read(files: FolderFiles) -> tuple[bytes, bytes]:
        return files.read("weights", 100), files.read("card", 100)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        pairs = [read_together(folder, read)]
        give_up = time.monotonic() + 60  # a slow disk syncs a folder seldom
        while (len(pairs) < 500 or len(set(pairs)) < 3) and time.monotonic() < give_up:
            pairs.append(read_together(folder, read))
    finally:
        stop.set()
        writer.join()
    assert all(weights == card for weights, card in pairs)
    assert len(set(pairs)) >= 3


def test_links_modes_and_other_files_stay(tmp_path: Path) -> None:
    write_file(tmp_path / "kept" / "card", _OLD)
    (tmp_path / "kept" / "card").chmod(0o640)
    (tmp_path / "link").symlink_to(tmp_path / "kept" / "card")
    write_file(tmp_path / "link", _NEW)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "kept" / "card").read_bytes() == _NEW
    assert (tmp_path / "kept" / "card").stat().st_mode & 0o777 == 0o640
    write_file(tmp_path / "key", _NEW, is_private=True)
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    (tmp_path / "kept" / "runs").mkdir()  # a folder cannot have two names
    write_folder(tmp_path / "kept", {"weights": _NEW, "card": _NEW})
    assert (tmp_path / "kept" / "runs").is_dir()


def test_folder_that_a_process_is_in_keeps_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_folder(Path(), {"weights": _NEW, "card": _NEW})
    assert _state(Path.cwd()) == {"weights": _NEW, "card": _NEW}


@pytest.mark.parametrize("kind", ["folder", "pipe", "device"])
def test_what_is_no_file_is_neither_read_nor_replaced(tmp_path: Path, kind: str) -> None:
    path = tmp_path / kind
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path = Path("/dev/full")
    with pytest.raises(UnusableFile, match=f"expected a file to write, got a {kind}"):
        write_file(path, b"x")
    with FolderFiles(path.parent) as files, pytest.raises(UnusableFile, match=f"got a {kind}"):
        files.read(path.name, 10)


def test_two_writers_of_one_file_take_turns(tmp_path: Path) -> None:
    path = tmp_path / "card"

    def write(letter: bytes) -> None:
        for _ in range(50):
            with replacing(path) as stream:
                stream.write(letter)
                stream.flush()
                stream.write(letter)

    writers = [threading.Thread(target=write, args=(letter,)) for letter in (b"a", b"b")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert path.read_bytes() in (b"aa", b"bb")
    assert list(tmp_path.iterdir()) == [path]


def test_of_several_first_writers_one_decides(tmp_path: Path) -> None:
    path = tmp_path / "new" / "plan"
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: write_once(path, b"%d" % number), range(16)))
    first = path.read_bytes()
    write_once(path, b"later")
    assert path.read_bytes() == first
    assert [one.name for one in path.parent.iterdir()] == ["plan"]
