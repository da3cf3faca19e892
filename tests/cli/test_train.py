"""`candor train` on what changed since it began, and where its numbers end."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from candor.cli.main import build_app
from tests import official_files

SETTINGS = ("data=folder", "image_size=16", "epochs=1", "batch_size=5", "psi_mode=fixed")


def _train(images: Path, run_dir: Path, *settings: str) -> Result:
    chosen = [f"--set={setting}" for setting in (*SETTINGS, *settings)]
    folders = ("--data-dir", str(images), "--run-dir", str(run_dir))
    return CliRunner().invoke(build_app(), ["train", "cifar10-resnet20", *chosen, *folders])


def _renamed(images: Path) -> None:
    for split in ("train", "test"):
        (images / split / "cats").rename(images / split / "lions")


def _swapped(images: Path) -> None:
    first, second = images / "train" / "cats", images / "train" / "dogs"
    first.rename(images / "other")
    second.rename(first)
    (images / "other").rename(second)


def _removed(images: Path) -> None:
    (images / "train" / "dogs" / "0.png").unlink()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_renamed, "candor train: classes: class 0: expected 'cats', got 'dogs'"),
        (_swapped, "candor train: data digest: expected "),
        (_removed, "candor train: images: expected 10, got 9"),
    ],
)
def test_changed_images_are_named_and_the_model_stays(
    tmp_path: Path, change: Callable[[Path], None], message: str
) -> None:
    images, run_dir = official_files.folder(tmp_path / "images"), tmp_path / "run"
    assert _train(images, run_dir).exit_code == 0
    card = (run_dir / "model" / "card.json").read_bytes()
    change(images)
    refused = _train(images, run_dir)
    assert refused.exit_code == 1
    assert message in refused.stderr
    assert (run_dir / "model" / "card.json").read_bytes() == card


def test_other_weights_to_start_from_are_named(tmp_path: Path) -> None:
    images = official_files.folder(tmp_path / "images")
    models = []
    for seed in (1, 2):
        assert _train(images, tmp_path / str(seed), f"seed={seed}").exit_code == 0
        models.append(tmp_path / str(seed) / "model")
    start = tmp_path / "start"
    models[0].rename(start)
    assert _train(images, tmp_path / "run", f"start_from={start}").exit_code == 0
    start.rename(tmp_path / "gone")
    models[1].rename(start)
    refused = _train(images, tmp_path / "run", f"start_from={start}")
    assert refused.exit_code == 1
    assert "start_from: digest of its weights: expected " in refused.stderr


def test_run_that_diverges_ends_in_one_line_and_writes_no_model(tmp_path: Path) -> None:
    images, run_dir = official_files.folder(tmp_path / "images"), tmp_path / "run"
    wild = ("peak_learning_rate=100", "weight_decay=1", "epochs=60", "psi=1e9")
    ended = _train(images, run_dir, *wild)
    assert ended.exit_code == 1
    (line,) = [line for line in ended.stderr.splitlines() if "candor train:" in line]
    assert "diverged at step " in line
    assert "loss" in line
    assert not (run_dir / "model").exists()
    json.loads((run_dir / "config.json").read_bytes())


def test_run_that_another_starts_from_is_trained_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = official_files.folder(tmp_path / "images")
    common = 'architecture = "cifar-resnet20"\ndata = "folder"\nimage_size = 16\nepochs = 1\n'
    common += 'batch_size = 5\npsi_mode = "fixed"\n'
    (tmp_path / "first.toml").write_text(common)
    (tmp_path / "second.toml").write_text(
        common + 'start_from = "runs/first/model"\nrecommended_rho = 0.3\n'
    )
    monkeypatch.setattr("training.experiment.EXPERIMENTS_DIR", tmp_path)
    monkeypatch.chdir(tmp_path)
    arguments = ["train", "second", "--data-dir", str(images), "--json"]
    done = CliRunner().invoke(build_app(), arguments)
    assert done.exit_code == 0, done.output
    first = json.loads((tmp_path / "runs" / "first" / "model" / "card.json").read_text())
    assert first["recipe"]["experiment"] == "first"
    card = json.loads(done.stdout)
    assert card["recipe"]["start_from"] == "runs/first/model"
    assert (first["recommended_rho"], card["recommended_rho"]) == (0.1, 0.3)
    before = (tmp_path / "runs" / "first" / "log.jsonl").read_bytes()
    assert CliRunner().invoke(build_app(), arguments).exit_code == 0
    assert (tmp_path / "runs" / "first" / "log.jsonl").read_bytes() == before
