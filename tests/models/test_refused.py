"""Files that hold code: refused, whatever they are called, with the command that helps."""

import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from candor.models.sources import SourceError, read_source


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 5)).eval()


def script(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.trace(network(), torch.zeros(1, 3, 8, 8)).save(str(path))


def exported(path: Path) -> None:
    program = torch.export.export(network(), (torch.zeros(1, 3, 8, 8),))
    with path.open("wb") as stream:
        torch.export.save(program, stream)


def pickled(path: Path) -> None:
    torch.save(network(), path)


def keras(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", "{}")
        archive.writestr("config.json", '{"class_name": "Functional"}')
        archive.writestr("model.weights.h5", b"\x89HDF\r\n\x1a\n")


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".ckpt", ""])
@pytest.mark.parametrize(
    ("write", "remedy"),
    [
        (script, "torch.jit.load(FILE).state_dict()"),
        (exported, "torch.export.load(FILE)"),
        (pickled, "model.state_dict()"),
        (keras, "tf2onnx.convert.from_keras"),
    ],
)
def test_files_that_hold_code_are_refused_under_any_name(
    tmp_path: Path, write: Callable[[Path], None], remedy: str, suffix: str
) -> None:
    path = tmp_path / f"model{suffix}"
    write(path)
    with pytest.raises(SourceError) as caught:
        read_source(path, "robust/resnet18")
    assert str(path) in str(caught.value)
    assert remedy in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("write", "suffix"), [(exported, ".pt2"), (keras, ".keras")])
def test_formats_that_hold_code_are_refused_by_their_names(
    tmp_path: Path, write: Callable[[Path], None], suffix: str
) -> None:
    path = tmp_path / f"model{suffix}"
    write(path)
    with pytest.raises(SourceError, match="can run code when they are read and are refused"):
        read_source(path, None)
