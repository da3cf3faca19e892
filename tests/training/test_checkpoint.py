"""Checkpoints that cannot be used are named in one line."""

import os
from pathlib import Path

import pytest
import torch

from candor.files.reading import UnusableFile
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
