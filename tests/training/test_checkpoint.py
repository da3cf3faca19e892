"""Checkpoints that cannot be used are named in one line."""

import os
from pathlib import Path

import pytest
import torch

from candor.files.reading import UnusableFile
from tools.small_disk import fill_up
from training.checkpoint import load_checkpoint, save_checkpoint


@pytest.mark.parametrize("kind", ["empty", "cut", "text", "a list"])
def test_damaged_checkpoint_is_named(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, {"network": {"weight": torch.zeros(1000)}})
    whole = path.read_bytes()
    contents = {"empty": b"", "cut": whole[: len(whole) // 2], "text": b"epoch 3\n"}
    if kind == "a list":
        torch.save([1, 2], path)
    else:
        path.write_bytes(contents[kind])
    with pytest.raises(ValueError, match=r"checkpoint\.pt: expected a checkpoint of candor train"):
        load_checkpoint(path)


def test_pipe_folder_and_huge_file_are_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(2**43)
    for name, got in (("pipe", "a pipe"), (".", "a folder"), ("huge", str(2**43))):
        with pytest.raises(UnusableFile, match=f"got {got}"):
            load_checkpoint(tmp_path / name)


def test_missing_checkpoint_is_none(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path / "checkpoint.pt") is None


def test_full_disk_is_said_to_be_one_and_leaves_the_old_checkpoint(disk: Path) -> None:
    """torch.save makes a RuntimeError about positions of it."""
    path = disk / "checkpoint.pt"
    save_checkpoint(path, {"step": 1})
    fill_up(disk / "ballast")
    for count in (2**8, 2**16, 2**21):
        with pytest.raises(OSError, match="No space left") as caught:
            save_checkpoint(path, {"step": 2, "weights": torch.ones(count)})
        assert caught.value.filename == str(path)
    assert load_checkpoint(path) == {"step": 1}
    assert sorted(one.name for one in disk.iterdir()) == ["ballast", "checkpoint.pt"]
