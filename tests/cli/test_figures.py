"""`candor figures` as a user types it: three formats of each figure, drawn from real folders."""

import io
import json
import shutil
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from candor.audit.measured import read_measured
from candor.cli.main import build_app
from candor.robustness.measured import Measured, MeasuredExplanations, Span, Steps
from candor.viz import figures

SIGNATURES = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}


def _run(*arguments: object) -> Result:
    return CliRunner().invoke(build_app(), [str(argument) for argument in arguments])


def _drawn(out: Path, name: str) -> dict[str, bytes]:
    """The three files by format, each of its kind."""
    files = {kind: (out / f"{name}.{kind}").read_bytes() for kind in figures.FORMATS}
    for kind, content in files.items():
        assert content.startswith(SIGNATURES[kind])
    with Image.open(io.BytesIO(files["png"])) as image:
        assert np.asarray(image.convert("L")).std() > 5, "an empty sheet"
    return files


@pytest.fixture(scope="module")
def measured(
    model: Path, data_root: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """The same model measured by `candor ara` and by `candor audit`."""
    ara, audit = (tmp_path_factory.mktemp(name) for name in ("ara", "audit"))
    shared = ("--model", model, "--data-dir", data_root)
    done = _run("ara", *shared, "--images", 12, "--steps", 10, "--out", ara)
    assert done.exit_code == 0, done.output
    quick = ("--quick", "--attacks-only", "--attacks", "paper", "--images", 4, "--steps", 3)
    done = _run("audit", *shared, *quick, "--out", audit / "out", "--key", audit / "key.pem")
    assert done.exit_code == 0, done.output
    return ara, audit / "out"


def test_curves_of_both_sources(measured: tuple[Path, Path], tmp_path: Path) -> None:
    result = _run("figures", "curves", *measured, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    svg = _drawn(tmp_path, "curves")["svg"].decode()
    for folder in measured:
        source = read_measured(folder)
        assert source.naive == pytest.approx(3 / 24)
        for goal in ("attack", "btr"):
            assert f"{source.label}, ARA {source.areas[goal].value:.4f}" in svg
            steps = source.curves[goal]
            assert (np.diff(steps.accuracy) <= 0).all()


def test_the_area_under_a_read_curve_is_the_measured_ara(measured: tuple[Path, Path]) -> None:
    source = read_measured(measured[0])
    assert source.naive is not None
    for goal, steps in source.curves.items():
        above = np.maximum(0.0, steps.accuracy - source.naive)
        area = float((np.diff(steps.rmse) * above[:-1]).sum())
        assert area == pytest.approx(source.areas[goal].value, abs=1e-9)


def test_areas_of_models_beside_the_papers_rows(
    measured: tuple[Path, Path], tmp_path: Path
) -> None:
    result = _run("figures", "areas", *measured, "--paper", "cifar10", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    svg = _drawn(tmp_path, "areas")["svg"].decode()
    for label in ("N1", "N2", "N3", "N4", "paper", "tiny (by fast)", "tiny (by ensemble)"):
        assert f">{label}<" in svg
    refused = _run("figures", "areas", measured[0], "--paper", "mnist", "--out", tmp_path)
    assert refused.exit_code == 1
    assert "has rows of, got 'mnist'" in refused.stderr


def test_measures_of_explanations_stand_by_class(
    measured: tuple[Path, Path], tmp_path: Path
) -> None:
    spans = {"all": Span(0.5, 0.2, 0.8), "ant": Span(0.25, 0.1, 0.4)}
    models = [
        MeasuredExplanations(
            name=name,
            image_counts={"all": 4, "ant": count, "bee": 4 - count},
            measures={"validity": spans, "COUT": {"all": spans["all"]}, "oracle score": {}},
        )
        for name, count in (("one", 1), ("other", 3))
    ]
    figures.save(figures.measures(models), tmp_path, "measures")
    svg = _drawn(tmp_path, "measures")["svg"].decode()
    for text in ("one", "other", "validity", "COUT", "all, n=4", "ant, n=3", "bee, n=3"):
        assert f">{text}<" in svg
    assert "oracle score" not in svg
    refused = _run("figures", "measures", measured[1], "--out", tmp_path)
    assert refused.exit_code == 1
    assert "expected an audit with measures of explanations" in " ".join(refused.stderr.split())


def test_grid_and_sweep_hold_every_explanation(model: Path, photo: Path, tmp_path: Path) -> None:
    options = ("--model", model, "--out", tmp_path)
    assert _run("figures", "grid", photo, *options).exit_code == 0
    svg = _drawn(tmp_path, "grid")["svg"].decode()
    assert svg.count("<image ") == 11
    assert ">truck<" in svg
    rhos = ("--rho", 0.05, "--rho", 0.1)
    assert _run("figures", "sweep", photo, *options, "--target", "dog", *rhos).exit_code == 0
    assert _drawn(tmp_path, "sweep")["svg"].decode().count("<image ") == 3


def test_a_folder_without_a_measurement_is_refused(model: Path, tmp_path: Path) -> None:
    for sources, message in (
        ((tmp_path,), "expected a folder with report.json"),
        ((model,), "has no curve"),
    ):
        result = _run("figures", "curves", *sources, "--out", tmp_path)
        assert result.exit_code == 1
        assert message in " ".join(result.stderr.split())


def test_a_summary_of_an_older_candor_is_named(measured: tuple[Path, Path], tmp_path: Path) -> None:
    old = Path(shutil.copytree(measured[0], tmp_path / "old"))
    summary = json.loads((old / "ara.json").read_bytes())
    del summary["accuracy_low"]
    (old / "ara.json").write_text(json.dumps(summary))
    result = _run("figures", "curves", old, "--out", tmp_path)
    assert result.exit_code == 1
    assert "has no 'accuracy_low'" in " ".join(result.stderr.split())


def test_models_on_different_data_share_no_figure() -> None:
    flat = Steps(rmse=np.array([0.0, 0.1]), accuracy=np.array([0.9, 0.0]))
    one, other = (
        Measured(
            name="a",
            accuracy=Span(0.9, 0.8, 1.0),
            areas={goal: Span(0.1, 0.05, 0.15) for goal in ("attack", "btr")},
            curves={"attack": flat, "btr": flat},
            naive=naive,
        )
        for naive in (0.1, 0.5)
    )
    with pytest.raises(ValueError, match=r"got naive accuracies \[0.1, 0.5\]"):
        figures.curves([one, other])


def test_the_same_figure_is_the_same_file_and_settings_stay(tmp_path: Path) -> None:
    before = dict(mpl.rcParams)
    tile = figures.Tile(Image.new("RGB", (4, 4), (200, 30, 30)), "note")
    written = []
    for name in ("first", "second"):
        figure = figures.grid(["input"], {"model": [tile]}, "caption")
        written.append(
            [path.read_bytes() for path in figures.save(figure, tmp_path / name, "grid")]
        )
    assert written[0] == written[1]
    assert dict(mpl.rcParams) == before
