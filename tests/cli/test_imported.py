"""Every offline command on a network of timm with 1,000 classes and a preprocessing of its own.

Its images are labelled by what timm's own code makes of them, so that an accuracy of 1 says that a
command sees the same pixels and the same labels.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from candor.audit.report.schema import Report
from candor.audit.sections.explanations import explanation_rows, section
from candor.audit.sections.summary import Evidence
from candor.audit.stage import Batch, Subject
from candor.cli.main import build_app
from candor.data.registry import load_for_model
from candor.models.folder import load_model, read_card
from candor.viz.explanation_rows import MOST_COLUMNS
from tests.fixtures.audit import TINY
from tests.fixtures.brought import CLASS_COUNT, CLASSES

Brought = tuple[Path, Path]
QUICK = ("--steps", 3, "--batch-size", 4)


def answer(*arguments: object) -> Any:
    result = CliRunner().invoke(build_app(), [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout) if "--json" in arguments else result.output


def of(brought: Brought) -> tuple[object, ...]:
    return ("--model", brought[0], "--data", "folder", "--data-dir", brought[1])


@pytest.fixture(scope="module")
def trained(brought: Brought, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same network after an epoch of steps of length 0."""
    folder = tmp_path_factory.mktemp("trained")
    settings = {
        "architecture": "start_from",
        "start_from": brought[0],
        "data": "folder",
        "epochs": 1,
        "batch_size": 40,
        "crop_padding": 2,
        "peak_learning_rate": 0.0,
        "psi_mode": "fixed",
        "psi": 1.0,
    }
    chosen = [f"--set={name}={value}" for name, value in settings.items()]
    folders = ("--data-dir", brought[1], "--run-dir", folder, "--out", folder / "model")
    answer("train", "cifar10-plain", *chosen, *folders, "--name", "tuned")
    return folder / "model"


def test_ara_sees_what_the_library_sees(brought: Brought) -> None:
    summary = answer("ara", *of(brought), "--images", 20, *QUICK, "--json")
    assert summary["accuracy"] == 1.0
    assert summary["weights_digest"] == read_card(brought[0]).identity


def test_audit_sees_what_the_library_sees(brought: Brought, tmp_path: Path) -> None:
    out, key = tmp_path / "report", tmp_path / "key.pem"
    attacks = ("--attacks", "fast,fgsm", "--attacks-only", "--images", 3, "--quick", *QUICK)
    answer("audit", *of(brought), *attacks, "--out", out, "--key", key)
    report = Report.model_validate_json((out / "report.json").read_bytes())
    assert report.accuracy.value == 1.0
    assert not report.not_tried
    assert len(report.classes) <= 3
    assert {row.name for row in report.classes} <= set(CLASSES)
    assert report.model.classes == CLASSES


def test_a_transformer_is_explained_without_grad_cam(brought: Brought) -> None:
    loaded = load_model(brought[0])
    data = load_for_model("folder", "test", brought[1], loaded.card)
    batch = Batch(
        positions=[0],
        indices=[0],
        identifiers=data.identifiers[:1],
        images=data.images(slice(1)),
        labels=data.labels[:1],
        seed=0,
    )
    budget = TINY.model_copy(update={"descent_steps": 2})
    rows = explanation_rows(Subject(network=loaded.network, card=loaded.card), batch, budget)
    evidence = Evidence(
        rows={"explanations": rows}, records={}, naive=0.1, pixel_count=3 * 32 * 32, seed=0
    )
    quality = section(evidence, CLASSES, 0.1, None)
    assert quality is not None
    assert quality.missing == ("Grad-CAM",)
    assert [overlap.method for overlap in quality.overlaps] == ["LIME"]
    assert [example.grad_cam for example in quality.examples] == [None]


def test_candidates_have_the_models_labels(brought: Brought, tmp_path: Path) -> None:
    store = ("--store", tmp_path / "store.sqlite")
    summary = answer("candidates", *of(brought), *store, "--images", 6, *QUICK, "--json")
    assert summary["images"] == 6
    assert summary["weights_digest"] == read_card(brought[0]).identity


def test_training_goes_on_with_the_whole_network(brought: Brought, trained: Path) -> None:
    before, after = load_model(brought[0]), load_model(trained)
    accuracy, *_ = after.card.metrics
    assert (accuracy.value, accuracy.image_count) == (1.0, 110)
    assert after.card.name == "tuned"
    kept = ("network", "input", "preprocessing", "output", "classes", "provenance")
    for name in kept:
        assert getattr(after.card, name) == getattr(before.card, name), name
    assert after.card.recipe["start_from"] == str(brought[0])
    assert after.card.acceptance is not None
    assert after.card.acceptance.image_count == 100
    assert not after.card.is_accepted_without_data


def test_annotations_effect_compares_imported_and_trained(
    brought: Brought, trained: Path, tmp_path: Path
) -> None:
    data = ("--data", "folder", "--data-dir", brought[1], "--out", tmp_path)
    models = ("--base", brought[0], "--annotated", trained, "--control", trained)
    report = answer("active-report", *models, *data, "--images", 4, "--steps", 2, "--json")
    assert {name: one["accuracy"]["value"] for name, one in report["models"].items()} == {
        "base": 1.0, "annotated": 1.0, "control": 1.0,
    }  # fmt: skip


def test_export_is_checked_on_the_users_images(brought: Brought, tmp_path: Path) -> None:
    model, data = brought
    arguments = ("--data", "folder", "--data-dir", data, "--images", 8, "--threads", 1)
    said = answer("export", model, "--out", tmp_path / "a.onnx", *arguments, "--json")
    assert (said["checked_on"], said["images"]) == ("folder/test", 8)
    photo = next(data.glob("test/*/*.png"))
    found = [
        answer("predict", photo, "--model", place, "--json")["predictions"][0]
        for place in (model, tmp_path / "a.onnx")
    ]
    assert found[0]["name"] == found[1]["name"]
    assert found[0]["index"] == int(photo.parent.name)
    assert found[0]["confidence"] == pytest.approx(found[1]["confidence"], abs=1e-5)


def test_figure_of_many_classes_shows_the_likeliest(brought: Brought, tmp_path: Path) -> None:
    photo = next(brought[1].glob("test/*/*.png"))
    answer("figures", "grid", photo, "--model", brought[0], "--rho", 0.02, "--out", tmp_path)
    svg = (tmp_path / "grid.svg").read_text()
    assert f"the {MOST_COLUMNS} likeliest" in svg
    assert f"thing {photo.parent.name}," in svg
    assert CLASS_COUNT > MOST_COLUMNS == svg.count("<image") - 1  # and the input
    assert "nobody" not in svg  # cut to two lines
