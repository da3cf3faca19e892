"""A model that answers NaN is an error in every command, never a result."""

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from typer.testing import CliRunner, Result

from candor.cli.main import build_app
from candor.models.folder import load_model


def _run(*arguments: object) -> Result:
    return CliRunner().invoke(build_app(), [str(argument) for argument in arguments])


def _spoilt(model: Path, folder: Path, value: float, **recipe: Any) -> Path:
    """A copy of ``model`` whose head multiplies by ``value``, its card in step."""
    weights = safetensors.torch.load_file(model / "weights.safetensors")
    weights["head.weight"] = torch.full_like(weights["head.weight"], value)
    weights["head.weight"][::2] *= -1
    content = safetensors.torch.save(weights)
    folder.mkdir()
    (folder / "weights.safetensors").write_bytes(content)
    card = json.loads((model / "card.json").read_bytes())
    card |= {"weights_sha256": hashlib.sha256(content).hexdigest(), "recipe": recipe}
    (folder / "card.json").write_text(json.dumps(card))
    return folder


def _line(result: Result) -> str:
    assert result.exit_code == 1, result.output
    assert result.stdout == ""
    return " ".join(result.stderr.split())


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_no_numbers_are_refused_at_load(
    model: Path, photo: Path, tmp_path: Path, value: float
) -> None:
    spoilt = _spoilt(model, tmp_path / "spoilt", value)
    with pytest.raises(ValueError, match=r"weights: head.weight: expected finite numbers, got"):
        load_model(spoilt)
    assert "head.weight: expected finite numbers" in _line(
        _run("predict", photo, "--model", spoilt, "--json")
    )


def test_recipe_that_holds_nan_is_refused_at_load(model: Path, tmp_path: Path) -> None:
    history = [{"cross_entropy": 1.0}, {"cross_entropy": math.nan}]
    spoilt = _spoilt(model, tmp_path / "spoilt", 0.5, history=history)
    with pytest.raises(ValueError, match=r"card.json: expected finite numbers, got NaN"):
        load_model(spoilt)


def test_every_command_refuses_an_answer_that_is_no_number(
    model: Path, photo: Path, data_root: Path, tmp_path: Path
) -> None:
    overflowing = _spoilt(model, tmp_path / "spoilt", 3e38)  # finite, and its sums are not
    local = ("--model", overflowing, "--json")
    measured = (*local, "--data-dir", data_root, "--images", 2, "--steps", 3)
    for arguments in (
        ("predict", photo, *local),
        ("explain", photo, "--target", "dog", "--steps", 3, *local),
        ("probe", photo, "--steps", 3, *local),
        ("compare", photo, "--steps", 3, *local),
        ("ara", *measured, "--out", tmp_path / "ara"),
        ("audit", *measured, "--quick", "--out", tmp_path / "audit", "--key", tmp_path / "key"),
        ("export", overflowing, "--out", tmp_path / "model.onnx"),
    ):
        line = _line(_run(*arguments))
        assert "the outputs of the network: expected finite numbers" in line, (arguments, line)
    assert not (tmp_path / "ara").exists()
    assert not (tmp_path / "audit" / "report.json").exists()
    assert not (tmp_path / "model.onnx").exists()
