"""A classifier of two classes and non-square input out of a public package, from file to report."""

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont
from typer.testing import CliRunner

from candor.cli.main import build_app
from candor.models.folder import read_card

FILE = "models/ch_ppocr_mobile_v2.0_cls_infer.onnx"
SIZE = (48, 192)
WORDS = ("this", "line", "of", "text", "stands", "upright", "and", "another", "on", "its", "head")
HALF = [word for name in ("--mean", "--std") for _ in range(3) for word in (name, "0.5")]


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 lines of text, upright in the folder 0 and turned in the folder 180."""
    root, rng = tmp_path_factory.mktemp("lines"), np.random.default_rng(0)
    for index in range(60):
        image = Image.new("RGB", (384, 96), "white")
        font = ImageFont.load_default(int(rng.integers(24, 34)))
        ImageDraw.Draw(image).text((8, 20), " ".join(rng.choice(WORDS, 4)), "black", font)
        for turn in (0, 180):
            (root / str(turn)).mkdir(exist_ok=True)
            image.rotate(turn).save(root / str(turn) / f"{index:02}.png")
    return root


@pytest.mark.slow
def test_imported_explained_and_audited(lines: Path, tmp_path: Path) -> None:
    package = find_spec("rapidocr_onnxruntime")
    if package is None or package.origin is None:
        pytest.skip("no package rapidocr-onnxruntime")
    model, names = tmp_path / "direction", tmp_path / "names.txt"
    names.write_text("0\n180\n")
    size = "x".join(map(str, (3, *SIZE)))
    _run(
        "import", Path(package.origin).parent / FILE, "--out", model, "--data-dir", lines,
        "--classes", names, "--input-size", size, "--channel-order", "bgr", *HALF,
    )  # fmt: skip
    card = read_card(model)
    assert (card.input.height, card.input.width, card.classes) == (*SIZE, ("0", "180"))
    accuracy, *_ = card.metrics
    assert accuracy.value > 0.75
    out, line = tmp_path / "out", lines / "0" / "00.png"
    explained = _run(
        "explain", line, "--model", model, "--target", "180", "--rho", 0.02, "--steps", 40,
        "--out", out, "--json",
    )  # fmt: skip
    (explanation,) = json.loads(explained)["explanations"]
    assert explanation["confidence_after"] > explanation["confidence_before"]
    report = tmp_path / "report"
    _run(
        "audit", "--model", model, "--data", "folder", "--data-dir", lines, "--images", 4,
        "--quick", "--attacks-only", "--attacks", "fast", "--out", report, "--no-compile",
    )  # fmt: skip
    found = json.loads((report / "report.json").read_text())
    assert found["provenance"]["plan"]["weights_sha256"] == card.identity
    assert found["model"]["input_shape"] == [3, *SIZE]


def _run(*words: object) -> str:
    result = CliRunner().invoke(build_app(), [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return result.stdout
