"""Checkpoints of a run: tensors and plain values in one file, replaced atomically."""

import io
from pathlib import Path
from typing import Any

import torch

from candor.files.reading import GIB, read_file
from candor.files.writing import replacing

CHECKPOINT_FILE = "checkpoint.pt"
_MAX_BYTES = 16 * GIB


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write ``state`` (tensors and plain values) so that a kill leaves the old one or the new."""
    with replacing(path) as stream:
        torch.save(state, stream)


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """The state at ``path``, or None where there is none.  Runs no code from the file.

    Raises:
        ValueError: it is damaged, or no checkpoint of a run.
        OSError: it cannot be read.
    """
    try:
        content = read_file(path, _MAX_BYTES)
    except FileNotFoundError:
        return None
    try:
        state: dict[str, Any] = torch.load(
            io.BytesIO(content), map_location="cpu", weights_only=True
        )
    except Exception as err:  # on garbage the unpickler raises nearly anything
        raise _unusable(path, f"{len(content)} bytes that are cut short or damaged") from err
    if not isinstance(state, dict):
        raise _unusable(path, "another kind of file")
    return state


def _unusable(path: Path, got: str) -> ValueError:
    return ValueError(
        f"{path}: expected a checkpoint of candor train, got {got}; delete it to begin again, or "
        "choose another --run-dir"
    )
