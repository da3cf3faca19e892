"""The command `candor` as a user types it, on an untrained model in this process."""

import base64
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

from candor.cli.commands import train
from candor.cli.main import build_app
from candor.contracts.radius import NOT_MEASURED
from candor.data.images import Images
from candor.models.folder import load_model
from tests import official_files
from training.config import TrainConfig
from training.start import load_split


def _run(*arguments: object) -> Result:
    return CliRunner().invoke(build_app(), [str(argument) for argument in arguments])


def _json(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_predict_lists_the_classes_strongest_first(model: Path, photo: Path) -> None:
    answer = _json(_run("predict", photo, "--model", model, "--top-k", 3, "--json"))
    confidences = [entry["confidence"] for entry in answer["predictions"]]
    assert len(confidences) == 3
    assert confidences == sorted(confidences, reverse=True)
    assert answer["model"]["name"] == "tiny"


def test_explain_raises_the_target_within_rho_and_saves_images(
    model: Path, photo: Path, tmp_path: Path
) -> None:
    arguments = (
        "--target",
        "dog",
        "--target-index",
        8,
        "--rho",
        0.05,
        "--steps",
        20,
        "--out",
        tmp_path,
    )
    answer = _json(_run("explain", photo, "--model", model, *arguments, "--json"))
    assert [item["target"]["name"] for item in answer["explanations"]] == ["dog", "ship"]
    for item in answer["explanations"]:
        assert item["rmse"] <= 0.05
        assert item["confidence_after"] > item["confidence_before"]
    with Image.open(tmp_path / "explanation_for_dog_0.05.png") as saved:
        assert saved.size == (32, 32)
    assert (tmp_path / "input.png").is_file()


def test_explain_against_lowers_the_target(model: Path, photo: Path) -> None:
    arguments = ("--target", "dog", "--against", "--rho", 0.05, "--steps", 20, "--json")
    (item,) = _json(_run("explain", photo, "--model", model, *arguments))["explanations"]
    assert item["direction"] == "against"
    assert item["confidence_after"] < item["confidence_before"]
    assert item["radius_note"] == NOT_MEASURED
    shown = _run("explain", photo, "--model", model, "--target", "dog", "--steps", 1)
    assert NOT_MEASURED in " ".join(shown.stderr.split())


@pytest.mark.parametrize("solver", ["paper", "fast"])
def test_only_the_box_changes_and_only_within_the_norm(
    model: Path, photo: Path, tmp_path: Path, solver: str
) -> None:
    # The photo of 64x48 loses 8 columns on either side; then three pixels become two.
    asked = ("--target", "dog", "--away-from", "ship", "--norm", "l1.5", "--rho", 0.02)
    region = ("--box", "20,12,18,24", "--out", tmp_path, "--solver", solver, "--steps", 20)
    answer = _json(_run("explain", photo, "--model", model, *asked, *region, "--json"))
    (item,) = answer["explanations"]
    assert item["rho_1_5"] <= 0.02 < item["rmse_inside"]
    names = ("input.png", f"explanation_for_dog_{item['rho']:g}.png")
    before, after = (np.asarray(Image.open(tmp_path / name)).astype(int) for name in names)
    moved = (before != after).any(axis=2)
    assert moved[8:24, 8:20].any()
    moved[8:24, 8:20] = False
    assert not moved.any()


def test_probe_answers_both_goals(model: Path, photo: Path) -> None:
    answer = _json(_run("probe", photo, "--model", model, "--steps", 30, "--json"))
    assert [item["goal"] for item in answer["results"]] == ["attack", "btr"]
    for item in answer["results"]:
        assert (item["radius"] is None) == (item["status"] == "unresolved")


def test_compare_scores_every_method_and_saves_its_map(
    model: Path, photo: Path, tmp_path: Path
) -> None:
    arguments = ("--target", "dog", "--rho", 0.05, "--solver", "fast", "--out", tmp_path, "--json")
    answer = _json(_run("compare", photo, "--model", model, *arguments))
    assert answer["explanation"]["target"]["name"] == "dog"
    assert answer["perturbation"]["rmse"] <= 0.01
    methods = [item["method"] for item in answer["methods"]]
    assert methods == [
        "explanation", "grad_cam", "lime", "integrated_gradients", "gradient",
    ]  # fmt: skip
    for item in answer["methods"]:
        assert len(base64.b64decode(item["saliency"]["data"])) == 4 * 32 * 32
        with Image.open(tmp_path / f"saliency_{item['method']}.png") as saved:
            assert saved.size == (32, 32)


def test_every_bad_option_is_named_at_once(model: Path, photo: Path) -> None:
    result = _run("explain", photo, "--model", model, "--target", "dog", "--rho", 3, "--steps", 0)
    assert result.exit_code == 1
    assert "rhos.0: expected 1.0 or less, got 3.0" in result.stderr
    assert "steps: expected 1 or more, got 0" in result.stderr


def test_unknown_class_is_refused_by_name(model: Path, photo: Path) -> None:
    result = _run("explain", photo, "--model", model, "--target", "unicorn")
    assert result.exit_code == 1
    assert "unicorn" in result.stderr


def test_image_that_is_none_is_refused(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "notes.png"
    path.write_text("not an image")
    result = _run("predict", path, "--model", model)
    assert result.exit_code == 1
    assert "image.encoded" in result.stderr


def test_missing_model_folder_is_named(photo: Path, tmp_path: Path) -> None:
    result = _run("predict", photo, "--model", tmp_path / "nowhere")
    assert result.exit_code == 1
    assert "card.json: missing" in " ".join(result.stderr.split())


def test_ara_reports_intervals_and_a_row_per_image_and_goal(
    model: Path, data_root: Path, tmp_path: Path
) -> None:
    options = ("--data-dir", data_root, "--images", 10, "--steps", 15, "--out", tmp_path)
    summary = _json(_run("ara", "--model", model, *options, "--solver", "paper", "--json"))
    for name in ("attack_ara", "btr_ara", "btr_ara_at_temperature", "ece", "temperature"):
        area = summary[name]
        assert area["low"] <= area["value"] <= area["high"]
    # Of 24 test images too few are left to find the temperature on others.
    assert (summary["temperature"]["images"], summary["temperature"]["is_held_out"]) == (10, False)
    assert json.loads((tmp_path / "ara.json").read_text()) == summary
    assert summary["accuracy_low"] <= summary["accuracy"] <= summary["accuracy_high"]
    rows = pq.read_table(tmp_path / "radii.parquet").to_pylist()
    assert len(rows) == 30
    assert {row["goal"] for row in rows} == {"attack", "btr", "btr_at_temperature"}
    for goal in ("attack", "btr"):
        searched = [row for row in rows if (row["goal"], row["status"]) != (goal, "already_wrong")]
        count = sum(row["goal"] == goal for row in searched)
        assert summary[f"{goal}_ara"]["image_steps"] == 15 * count
    assert all(row["radius"] == 0 for row in rows if row["status"] == "already_wrong")


def test_ara_of_the_same_seed_is_the_same(model: Path, data_root: Path) -> None:
    options = ("--data-dir", data_root, "--images", 6, "--steps", 5, "--seed", 4, "--json")
    first, second = (_json(_run("ara", "--model", model, *options)) for _ in range(2))
    for name in ("accuracy", "data_digest", "weights_digest"):
        assert first[name] == second[name]
    assert first["attack_ara"]["value"] == second["attack_ara"]["value"]


def test_ara_beside_another_model_of_the_same_images(
    model: Path, data_root: Path, tmp_path: Path
) -> None:
    """The other has half of every radius that was measured."""
    options = ("--model", model, "--data-dir", data_root, "--images", 24, "--steps", 5)
    first, other = tmp_path / "first", tmp_path / "other"
    measured = _json(_run("ara", *options, "--out", other, "--json"))
    table = pq.read_table(other / "radii.parquet")
    rows = table.to_pylist()
    for row in rows:
        row["radius"] /= 2
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), other / "radii.parquet")
    beside = ("--out", first, "--compare", other)
    compared = _json(_run("ara", *options, *beside, "--json"))["compared"]
    assert compared.keys() == {"accuracy", "attack_ara", "btr_ara"}
    assert compared["accuracy"] == {"value": 0.0, "low": 0.0, "high": 0.0, "p_value": 1.0}
    assert max(compared[name]["value"] for name in ("attack_ara", "btr_ara")) > 1e-4
    for name in ("attack_ara", "btr_ara"):
        one = compared[name]
        assert one["value"] == pytest.approx(measured[name]["value"] / 2, abs=1e-7)
        assert one["low"] <= one["value"] <= one["high"]
    shown = _run("ara", *options, *beside)
    assert "on the same 24 images" in " ".join(shown.output.split())


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"--seed": 1}, "images: expected the same in both"),
        ({"--images": 5}, "images: expected the same in both"),
        ({"--steps": 3}, "steps: expected 3 in both, got 2"),
        ({"--solver": "paper"}, "solver: expected 'paper' in both, got 'fast'"),
    ],
)
def test_ara_of_another_measurement_is_not_compared(
    model: Path, data_root: Path, tmp_path: Path, changed: dict[str, object], message: str
) -> None:
    def measured(settings: dict[str, object], *rest: object) -> Result:
        given = [word for setting in settings.items() for word in setting]
        return _run("ara", "--model", model, "--data-dir", data_root, *given, *rest)

    settings: dict[str, object] = {"--images": 6, "--steps": 2}
    measured(settings, "--out", tmp_path / "a")
    result = measured(settings | changed, "--out", tmp_path / "b", "--compare", tmp_path / "a")
    assert result.exit_code == 1
    assert message in result.stderr


def test_comparing_needs_a_folder_for_the_measurement(model: Path, tmp_path: Path) -> None:
    result = _run("ara", "--model", model, "--compare", tmp_path)
    assert result.exit_code == 1
    assert "--compare: expected --out FOLDER beside it" in result.stderr


def test_ara_of_more_images_than_there_are_names_the_range(model: Path, data_root: Path) -> None:
    result = _run("ara", "--model", model, "--data-dir", data_root, "--images", 25)
    assert result.exit_code == 1
    assert "images: expected [2, 24], got 25" in result.stderr


def test_missing_data_says_where_it_was_looked_for(model: Path, tmp_path: Path) -> None:
    result = _run("ara", "--model", model, "--data-dir", tmp_path)
    assert result.exit_code == 1
    assert str(tmp_path) in result.stderr
    assert "--data-dir" in result.stderr


def test_train_writes_a_model_that_loads(data_root: Path, photo: Path, tmp_path: Path) -> None:
    small = [f"--set={setting}" for setting in ("epochs=1", "batch_size=12", "seed=3")]
    options = ("--data-dir", data_root, "--run-dir", tmp_path / "run", "--json")
    card = _json(_run("train", "cifar10-resnet20", *small, *options))
    assert card["metrics"][0]["image_count"] == 24
    assert card["recipe"]["seed"] == 3
    folder = tmp_path / "run" / "model"
    assert _json(_run("predict", photo, "--model", folder, "--json"))["model"]["name"]


def test_own_images_are_trained_on_and_measured_with_one_command_each(tmp_path: Path) -> None:
    images = official_files.folder(tmp_path / "images", (), count=6)
    settings = ("data=folder", "image_size=16", "epochs=1", "batch_size=5")
    options = ("--data-dir", images, "--json")
    card = _json(
        _run(
            *("train", "cifar10-resnet20", *(f"--set={setting}" for setting in settings)),
            *("--run-dir", tmp_path / "run", *options),
        )
    )
    assert card["classes"] == ["cats", "dogs"]
    assert card["input"]["height"] == card["input"]["width"] == 16
    assert card["metrics"][0]["data"] == "folder/test"
    model = tmp_path / "run" / "model"
    measure = ("ara", "--model", model, "--images", 2, "--steps", 3, *options)
    assert _json(_run(*measure, "--data", "folder"))["data"] == "folder/test"


def test_data_of_another_size_or_other_classes_than_the_models_is_refused(
    model: Path, tmp_path: Path
) -> None:
    official_files.jsrt(tmp_path)
    official_files.folder(tmp_path / "images")
    for data, root, message in (
        (
            "jsrt",
            tmp_path,
            "of the model's size (3, 32, 32), got jsrt/test with (1, 256, 256)",
        ),
        ("folder", tmp_path / "images", "expected one of airplane, automobile,"),
    ):
        result = _run("ara", "--model", model, "--data", data, "--data-dir", root)
        assert result.exit_code == 1
        assert message in result.stderr


def test_run_starts_from_the_weights_of_a_model_folder(
    model: Path, data_root: Path, tmp_path: Path
) -> None:
    standing_still = (f"start_from={model}", "epochs=1", "peak_learning_rate=0", "psi_mode=fixed")
    settings = [f"--set={setting}" for setting in standing_still]
    options = ("--data-dir", data_root, "--run-dir", tmp_path / "run", "--json")
    _json(_run("train", "cifar10-resnet20", *settings, *options))
    before = dict(load_model(model).network.named_parameters())
    after = dict(load_model(tmp_path / "run" / "model").network.named_parameters())
    assert before.keys() == after.keys()
    for name, value in before.items():
        assert torch.equal(value, after[name]), name


def test_train_reads_each_split_once(data_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entered: list[str] = []

    @contextmanager
    def group() -> Iterator[None]:
        entered.append("group")
        yield

    def load(config: TrainConfig, split: str, data_dir: Path | None) -> Images:
        entered.append(split)
        return load_split(config, split, data_dir)

    monkeypatch.setattr(train, "process_group", group)
    monkeypatch.setattr(train, "load_split", load)
    monkeypatch.setattr(train, "run_experiment", lambda *arguments: None)
    result = _run("train", "cifar10-resnet20", "--data-dir", data_root)
    assert result.exit_code == 0, result.output
    assert entered == ["group", "train", "test"]


def test_weights_of_another_network_are_no_start(
    model: Path, data_root: Path, tmp_path: Path
) -> None:
    options = ("--data-dir", data_root, "--run-dir", tmp_path)
    result = _run(
        "train", "cifar10-resnet20", f"--set=start_from={model}", "--set=width_factor=2", *options
    )
    assert result.exit_code == 1
    assert "start_from" in result.stderr


def test_misspelt_setting_is_answered_with_the_nearest(tmp_path: Path) -> None:
    result = _run("train", "cifar10-resnet20", "--set", "los_target=1", "--run-dir", tmp_path)
    assert result.exit_code == 1
    assert "did you mean 'loss_target'" in " ".join(result.stderr.split())


def test_import_of_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    path.write_bytes(b"hello")
    result = _run("import", path, "--out", tmp_path / "model", "--accept-without-data")
    assert result.exit_code == 1
    assert "weights.pt" in " ".join(result.stderr.split())
    assert not (tmp_path / "model").exists()


@pytest.fixture(scope="module")
def numbered(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same network with classes named by numbers, in the order of their folders."""
    folder = tmp_path_factory.mktemp("numbered") / "numbered"
    shutil.copytree(model, folder)
    card = json.loads((folder / "card.json").read_text())
    card |= {"name": "numbered", "classes": ["0", "1", "10", "11", "2", "3", "4", "5", "6", "٧"]}
    (folder / "card.json").write_text(json.dumps(card))
    return folder


@pytest.mark.parametrize(
    ("arguments", "index"),
    [
        (("--target", "10"), 2),
        (("--target", "#2"), 2),
        (("--target-index", "2"), 2),
        (("--target", "2"), 4),
        (("--target", "٧"), 9),
    ],
)
def test_class_of_digits_is_found_by_its_name(
    numbered: Path, photo: Path, arguments: tuple[str, str], index: int
) -> None:
    options = ("--model", numbered, "--rho", 0.05, "--steps", 2, "--json")
    (item,) = _json(_run("explain", photo, *arguments, *options))["explanations"]
    assert item["target"]["index"] == index


def test_index_without_its_sign_is_an_unknown_name(model: Path, photo: Path) -> None:
    for text, hint in (("7", "an index is written #7"), ("٧", "U+0667"), ("#10", "#0 to #9")):
        result = _run("explain", photo, "--model", model, "--target", text)
        assert result.exit_code == 1
        assert hint in result.stderr
    for command in ("probe", "compare"):
        field = "label" if command == "probe" else "target"
        result = _run(command, photo, "--model", model, f"--{field}", "7")
        assert "an index is written #7" in result.stderr
        both = (f"--{field}", "dog", f"--{field}-index", 5)
        result = _run(command, photo, "--model", model, *both)
        assert f"expected one of --{field} and --{field}-index, got both" in result.stderr
    assert "--target NAME or --target-index" in _run("explain", photo, "--model", model).stderr
