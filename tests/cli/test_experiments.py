"""The commands `candor experiments` and `candor guideline`."""

import json
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from cli.main import build_app
from training.config import experiment_names


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
    assert rows["cifar10-power-4"]["paper"]["btr_ara"] is None
    assert rows["cifar10-resnet20"]["paper"] is None


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
    assert "data: got 'cifar10-annotated-448', allowed ('cifar10', 'coco'" in refused.output
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("data", ["coco", "imagenet"])
def test_experiment_without_its_data_says_what_to_get(data: str, tmp_path: Any) -> None:
    name = next(name for name in experiment_names() if name.startswith(data))
    refused = _run("train", name, "--run-dir", tmp_path / "run", "--data-dir", tmp_path)
    assert refused.exit_code == 1
    assert f"{data}: the train split is missing. Looked for:" in refused.output
    assert str(tmp_path) in refused.output
    assert "Get " in refused.output
