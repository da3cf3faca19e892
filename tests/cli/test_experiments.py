"""The commands `candor experiments` and `candor guideline`."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from candor.cli.main import build_app
from candor.models.folder import CARD_FILE
from candor.stack.archives import MODELS_DIR
from training.experiment import experiment_names


def _run(*arguments: object) -> Result:
    return CliRunner().invoke(build_app(), [str(argument) for argument in arguments])


def _json(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_experiments_lists_each_with_the_papers_numbers() -> None:
    rows = {row["name"]: row for row in _json(_run("experiments", "--json"))}
    assert sorted(rows) == list(experiment_names())
    third = rows["cifar10-n3"]
    assert third["paper"] == {"accuracy": 68.4, "attack_ara": 0.0197, "btr_ara": 0.045}
    assert "(N3)" in third["paper_row"]
    assert third["ours"] is None
    assert rows["cifar10-robust"]["ours"] is not None
    assert rows["cifar10-power-4"]["paper"]["btr_ara"] is None
    assert rows["cifar10-resnet20"]["paper"] is None


@pytest.mark.parametrize("place", ["measured", "measured/2"])
def test_ours_is_what_the_card_of_the_experiment_says(tmp_path: Path, place: str) -> None:
    folder = tmp_path / place
    shutil.copytree(MODELS_DIR / "cifar10-plain", folder)
    path = folder / CARD_FILE
    card = json.loads(path.read_text())
    card["recipe"] |= {"experiment": "cifar10-n4", "epochs": 9, "seconds": 5400.0}
    card["metrics"][0] |= {"value": 0.5, "low": 0.25, "high": 0.75, "image_count": 44}
    card["metrics"] = [*card["metrics"][:2], card["metrics"][2] | {"data": "cifar10/train"}]
    path.write_text(json.dumps(card))
    rows = _json(_run("experiments", "--models-dir", tmp_path, "--json"))
    measured = {row["name"]: row["ours"] for row in rows if row["ours"] is not None}
    assert measured.keys() == {"cifar10-n4"}
    ours = measured["cifar10-n4"]
    assert ours["accuracy"] == {"value": 50.0, "low": 25.0, "high": 75.0, "images": 44}
    assert ours["attack_ara"]["value"] == card["metrics"][1]["value"]
    assert ours["btr_ara"] is None, "not of test images"
    assert (ours["epochs"], ours["hours"], ours["card"]) == (
        9,
        1.5,
        f"{tmp_path.name}/{place}/card.json",
    )
    assert {"architecture", "epochs"} <= set(ours["changed"])
    assert "seed" not in ours["changed"]
    assert "50 [25, 75]" in _run("experiments", "--models-dir", tmp_path).stdout


def test_a_damaged_card_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / CARD_FILE).write_text("{}")
    refused = _run("experiments", "--models-dir", tmp_path)
    assert refused.exit_code == 1
    assert "card.json" in refused.stderr


def test_experiments_for_people_never_cuts_a_name() -> None:
    shown = _run("experiments")
    assert shown.exit_code == 0, shown.output
    words = shown.stdout.split()
    assert [name for name in experiment_names() if name not in words] == []


@pytest.mark.parametrize(("classes", "expected"), [(10, 0.00997), (1000, 6.005e-5), (80, 1.034e-3)])
def test_guideline_answers_equation_14(classes: int, expected: float) -> None:
    arguments = ("guideline", "output-zeroing", "--classes", classes)
    answer = _json(_run(*arguments, "--confidence", 0.8, "--json"))
    assert answer["output_zeroing"] == pytest.approx(expected, rel=1e-3)
    assert answer == _json(_run(*arguments, "--json"))
    assert float(_run(*arguments).stdout) == pytest.approx(expected, rel=5e-3)


def test_guideline_out_of_range_is_one_line() -> None:
    refused = _run("guideline", "output-zeroing", "--classes", 10, "--confidence", 0.05)
    assert refused.exit_code == 1
    assert "confidence: got 0.05, allowed (0.1, 1)" in refused.output
    assert "Traceback" not in refused.output


def test_experiment_on_data_that_cannot_be_read_yet_names_what_can(tmp_path: Any) -> None:
    refused = _run("train", "cifar10-annotated-448", "--run-dir", tmp_path / "run")
    assert refused.exit_code == 1
    assert "data: expected one of ('cifar10', 'coco'" in refused.output
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("data", ["coco", "imagenet"])
def test_experiment_without_its_data_says_what_to_get(data: str, tmp_path: Any) -> None:
    name = next(name for name in experiment_names() if name.startswith(data))
    refused = _run("train", name, "--run-dir", tmp_path / "run", "--data-dir", tmp_path)
    assert refused.exit_code == 1
    assert f"{data}: the train split is missing. Searched:" in refused.output
    assert str(tmp_path) in refused.output
    assert "Get " in refused.output
