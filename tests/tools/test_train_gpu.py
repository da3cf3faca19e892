"""The prepared run for one GPU, tried on the CPU with a tiny experiment."""

from pathlib import Path

import pytest
import torch

from candor.data.cifar10 import load_cifar10
from candor.models.folder import read_card
from tools import train_gpu

EXPERIMENT = """
architecture = "cifar-resnet20"
epochs = 3
batch_size = 12
psi_mode = "adaptive"
psi_min = 1.0
psi_follows = "clean"
penalty_interval = 2
penalty_mode = "inner-gradient"
weight_average = 0.5
adversary = "pgd"
adversary_steps = 1
adversary_share = 0.5
"""


def test_one_command_measures_trains_and_measures_and_goes_on(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(train_gpu, "_WARM_STEPS", 1)
    monkeypatch.setattr(train_gpu, "_TIMED_STEPS", 2)
    file, run_dir = tmp_path / "tiny.toml", tmp_path / "run"
    file.write_text(EXPERIMENT)
    words = ["--experiment", str(file), "--run-dir", str(run_dir), "--images", "2"]
    words += ["--data-dir", str(data_root), "--minutes", "1e-6"]
    train_gpu.main(words)
    card = read_card(run_dir / "model")
    assert (card.recipe["epochs"], len(card.recipe["history"])) == (1, 1), "what fits, at least one"
    assert {"accuracy", "attack_ara", "btr_ara", "temperature"} <= {
        one.name for one in card.metrics
    }
    said = capsys.readouterr().out
    assert "images a second" in said
    assert "1 epochs, 2 steps of 12 images on the CPU" in said
    train_gpu.main(words)  # nothing is measured or trained again
    assert "images a second" not in capsys.readouterr().out
    assert read_card(run_dir / "model").weights_sha256 == card.weights_sha256
    with pytest.raises(ValueError, match=r"gpu\.json: another experiment began here"):
        train_gpu.main([*words, "--set", "seed=5"])


def test_packed_data_are_small_and_read_like_any_other(data_root: Path, tmp_path: Path) -> None:
    count = train_gpu.pack(data_root, tmp_path)
    before, after = load_cifar10(data_root, "train"), load_cifar10(tmp_path, "train")
    assert torch.equal(after.labels, before.labels)
    assert after.identifiers == before.identifiers
    assert count == sum(path.stat().st_size for path in tmp_path.rglob("*.parquet"))
    assert count < 48 * 3072  # noise, of which JPEG saves least
    difference = (after.pixels.float() - before.pixels.float()).abs().mean()
    assert difference < 10


def test_images_held_on_a_device_are_the_same(data_root: Path) -> None:
    data = load_cifar10(data_root, "train")
    there = data.on(torch.device("cpu"))
    assert there.digest() == data.digest()
    (batch,) = there.training_batches([(torch.tensor([3, 1]), 0)])
    assert torch.equal(batch.stored, data.pixels[[3, 1]])
