"""`candor export` and predictions from the file it writes, beside torch's."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from candor.cli.main import build_app
from candor.data.registry import load_dataset
from candor.stack.archives import MODELS_DIR

MODEL = MODELS_DIR / "cifar10-robust"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(build_app(), [str(argument) for argument in arguments])


def answer(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        patch.delenv("CANDOR_DATA", raising=False)
        yield folder


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    pixels = np.random.default_rng(3).integers(0, 256, (48, 64, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A file and what `candor export` said of it, without any data set."""
    path = tmp_path_factory.mktemp("export") / "new" / "model.onnx"
    return path, answer(run("export", MODEL, "--out", path, "--images", 40, "--json"))


def test_export_says_what_it_wrote_checked_and_timed(
    exported: tuple[Path, dict[str, Any]],
) -> None:
    path, said = exported
    assert path.stat().st_size == said["bytes"]
    assert 0 < said["largest_difference"] < 1e-4
    assert said["checked_on"].startswith("random images of seed 0")
    assert said["milliseconds"].keys() == {"1", "32"}
    for spent in said["milliseconds"].values():
        assert spent.keys() == {"torch", "onnxruntime"}
        assert all(value > 0 for value in spent.values())


def test_prediction_from_the_file_is_torchs(
    exported: tuple[Path, dict[str, Any]], photo: Path
) -> None:
    assert_same_predictions(
        answer(run("predict", photo, "--model", exported[0], "--json")),
        answer(run("predict", photo, "--model", MODEL, "--runtime", "torch", "--json")),
    )


def assert_same_predictions(got: dict[str, Any], expected: dict[str, Any]) -> None:
    assert got["model"] == expected["model"]
    for one, other in zip(got["predictions"], expected["predictions"], strict=True):
        assert one["name"] == other["name"]
        assert one["confidence"] == pytest.approx(other["confidence"], abs=1e-5)


def test_folder_is_exported_once_for_the_onnx_runtime(cache: Path, photo: Path) -> None:
    command = ("predict", photo, "--model", MODEL, "--runtime", "onnx", "--json")
    first = answer(run(*command))
    (kept,) = (cache / "candor" / "onnx").iterdir()
    written = kept.stat().st_mtime_ns
    assert_same_predictions(answer(run(*command)), first)
    assert kept.stat().st_mtime_ns == written


def test_accuracy_on_real_images_is_that_of_the_card(
    exported: tuple[Path, dict[str, Any]], data_dir: Path
) -> None:
    session = onnxruntime.InferenceSession(exported[0], providers=["CPUExecutionProvider"])
    dataset = load_dataset("cifar10", "test", data_dir)
    logits = session.run(None, {"images": dataset.images(slice(0, 500)).numpy()})[0]
    accuracy = (logits.argmax(1) == dataset.labels[:500].numpy()).mean()
    assert accuracy == pytest.approx(0.6429, abs=0.07)  # of 10,000; three standard errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("export", MODEL, "--format", "tflite"),
            "format: expected one of ('onnx',)",
        ),
        (("export", "nowhere"), "card.json: missing"),
        (("predict", "PHOTO", "--model", "nowhere.onnx"), "nowhere.onnx: missing"),
        (
            ("predict", "PHOTO", "--model", MODEL, "--runtime", "x"),
            "one of ('torch', 'onnx')",
        ),
        (
            ("predict", "PHOTO", "--runtime", "onnx"),
            "runtime: expected only with --model",
        ),
        (("predict", "PHOTO", "--model", "PHOTO", "--runtime", "onnx"), "expected a model folder"),
        (("explain", "PHOTO", "--target", "cat", "--model", "a.onnx"), "expected a model folder"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    arguments: tuple[object, ...], message: str, photo: Path
) -> None:
    refused = run(*(photo if argument == "PHOTO" else argument for argument in arguments))
    assert refused.exit_code == 1
    assert message in " ".join(refused.stderr.split())
    assert "Traceback" not in refused.output


def test_damaged_file_is_refused(
    exported: tuple[Path, dict[str, Any]], photo: Path, tmp_path: Path
) -> None:
    content = bytearray(exported[0].read_bytes())
    content[5000] ^= 1
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(content)
    refused = run("predict", photo, "--model", damaged)
    assert refused.exit_code == 1
    assert "SHA-256" in refused.stderr
