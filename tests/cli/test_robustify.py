"""`candor robustify` on a small network, resumed, on one of timm, and all that it refuses."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from typer.testing import CliRunner, Result

from candor.cli.main import build_app
from candor.images.view import InputView
from candor.models.folder import load_model, read_card, save_model
from candor.nets.architectures import NetworkSpec, build_network
from tests.fixtures.brought import photographs, write_labelled

SIZE = 16
MEASURES = {
    "accuracy", "attack_ara", "btr_ara",
    "temperature", "ece", "ece_at_temperature", "btr_ara_at_temperature",
}  # fmt: skip
QUICK = ("--epochs", 1, "--batch-size", 10, "--images", 4)


def _called(*words: object) -> Result:
    return CliRunner().invoke(build_app(), ["robustify", *map(str, words)])


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A network of two classes, "0" and "1", and 20 images that it is right about."""
    root = tmp_path_factory.mktemp("small")
    spec = NetworkSpec(
        architecture="cifar-resnet20", class_count=2, mean=(0.5,) * 3, std=(0.25,) * 3
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build_network(spec).eval()
    folder = root / "model"

    def save() -> None:
        save_model(
            folder, name="small", model_version="1", description="for tests", spec=spec, recipe={},
            state_dict=network.state_dict(), input_size=(SIZE, SIZE), classes=("0", "1"),
        )  # fmt: skip

    save()
    view, images = InputView.of(read_card(folder)), photographs(20)
    pixels = torch.from_numpy(np.stack([view.levels(image) for image in images])).float() / 255
    with torch.no_grad():
        head = [layer for layer in network.modules() if isinstance(layer, nn.Linear)][-1]
        head.weight.mul_(20)  # so that predictions differ by more than a last bit
        logits = network(pixels)
        head.bias[1] -= (logits[:, 1] - logits[:, 0]).median() + 1e-3
        labels = network(pixels).argmax(1).tolist()
    save()
    return folder, write_labelled(root / "images", images, labels, ("train", "test"))


@pytest.fixture(scope="module")
def run(small: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("robustify")
    words = (small[0], "--data-dir", small[1], "--run-dir", folder, *QUICK)
    done = _called(*words, "--accuracy-budget", "40 %", "--json")
    assert done.exit_code == 0, done.output
    return folder, (words, json.loads(done.stdout), done.stderr)


def test_the_model_before_and_after_stand_side_by_side(run: tuple[Path, Any]) -> None:
    folder, (_, record, shown) = run
    before, after = record["before"], record["after"]
    assert (before["accuracy"]["value"], before["accuracy"]["image_count"]) == (1.0, 20)
    assert after["accuracy"]["image_count"] == 20
    assert record["accuracy_lost"] == 1.0 - after["accuracy"]["value"]
    assert record["is_within_budget"] is (record["accuracy_lost"] <= 0.4)
    gain = record["attack_ara_gain"]
    assert gain["low"] <= gain["value"] <= gain["high"]
    for one in (before, after):
        assert (one["ara"]["solver"], one["ara"]["images"]) == ("fast", 4)
    assert gain["value"] == pytest.approx(
        after["ara"]["attack_ara"]["value"] - before["ara"]["attack_ara"]["value"]
    )
    for words in (
        "attack ARA by fast",
        "BTR ARA by fast",
        "median attack radius",
        "The budget was",
    ):
        assert words in shown
    card = load_model(folder / "model").card
    assert (card.name, card.classes) == ("small-robust", ("0", "1"))
    assert {metric.name for metric in card.metrics} >= MEASURES


def test_one_image_is_explained_by_both(run: tuple[Path, Any]) -> None:
    pictures = {path.name for path in (run[0] / "explained").glob("*.png")}
    assert {"composite.png", "input_small.png", "input_small-robust.png"} <= pictures
    assert len([name for name in pictures if name.startswith("difference_")]) == 4
    with Image.open(run[0] / "explained" / "composite.png") as image:
        assert image.width > image.height


def test_the_recipe_says_what_the_budget_implied(run: tuple[Path, Any]) -> None:
    recipe = read_card(run[0] / "model").recipe
    assert recipe["loss_target"] == pytest.approx(0.6730, abs=1e-4)  # -0.6 ln 0.6 - 0.4 ln 0.4
    attack = (recipe["adversary"], recipe["adversary_steps"], recipe["adversary_share"])
    assert attack == ("pgd", 1, 0.5)
    assert recipe["adversary_eps"] == pytest.approx(0.03)
    assert (recipe["penalty_mode"], recipe["psi_follows"]) == ("finite-difference", "clean")


def test_the_same_command_goes_on_and_another_is_refused(run: tuple[Path, Any]) -> None:
    folder, (words, record, _) = run
    weights = (folder / "model" / "weights.safetensors").read_bytes()
    again = _called(*words, "--accuracy-budget", "0.4", "--json")
    assert again.exit_code == 0, again.output
    assert json.loads(again.stdout)["after"] == record["after"]
    assert (folder / "model" / "weights.safetensors").read_bytes() == weights
    other = _called(*words, "--accuracy-budget", "5%")
    assert other.exit_code == 1
    assert "candor robustify: accuracy_budget: expected 0.4, with which the run in" in other.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--accuracy-budget", "3"), "accuracy_budget: expected a share of the test images"),
        (("--accuracy-budget", "50%"), "accuracy_budget: expected less than 50.0%"),
        (("--name", "small"), "name: expected another one than that of"),
        (("--images", "999"), "images: expected [2, 20], got 999"),
    ],
)
def test_a_wrong_option_is_named(
    small: tuple[Path, Path], tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    done = _called(small[0], "--data-dir", small[1], "--run-dir", tmp_path / "run", *words)
    assert done.exit_code == 1
    assert said in done.stderr
    assert not (tmp_path / "run" / "model").exists()


def test_wrong_data_and_wrong_models_are_named(small: tuple[Path, Path], tmp_path: Path) -> None:
    wrong = write_labelled(tmp_path / "wrong", photographs(2), [0, 7], ("train", "test"))
    for model, images, said in (
        (small[0], tmp_path / "none", "folder: the train split is missing"),
        (small[0], wrong, "expected a folder named as one of the model's 2 classes"),
        (tmp_path / "none", small[1], "card.json: missing; a model folder has card.json"),
    ):
        done = _called(model, "--data-dir", images, "--run-dir", tmp_path / "run")
        assert done.exit_code == 1
        assert said in done.stderr, done.stderr


@pytest.mark.slow
def test_a_network_of_timm_stays_one(brought: tuple[Path, Path], tmp_path: Path) -> None:
    words = ("--data-dir", brought[1], "--run-dir", tmp_path, "--epochs", 1, "--batch-size", 55)
    done = _called(brought[0], *words, "--images", 4, "--learning-rate", 0.001)
    assert done.exit_code == 0, done.output
    card = load_model(tmp_path / "model").card
    assert (card.network, card.classes) == (read_card(brought[0]).network, card.classes)
    assert card.acceptance is not None
    assert (card.acceptance.image_count, card.name) == (100, "brought-robust")
