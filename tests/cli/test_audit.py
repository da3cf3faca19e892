"""`candor audit`, its merge and `candor verify` as a user types them, on an untrained model."""

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from torch import Tensor
from typer.testing import CliRunner, Result

from candor.attacks import compacted, library
from candor.audit.plan import BUDGETS, COUNTS
from candor.audit.session import AuditRequest, PreparedAudit, prepare
from candor.cli.main import build_app
from candor.data.cifar10 import load_cifar10
from candor.models.folder import load_model
from tools.small_disk import fill_up

_SMALL = ("--images", 4, "--steps", 3, "--attacks", "paper,fgsm", "--attacks-only", "--quick")


def _run(*arguments: object) -> Result:
    return CliRunner().invoke(build_app(), [str(argument) for argument in arguments])


def _arguments(model: Path, data_root: Path, out: Path) -> tuple[object, ...]:
    key = out.parent / "key.pem"
    return ("audit", "--model", model, "--data-dir", data_root, "--out", out, "--key", key, *_SMALL)


@pytest.fixture(scope="module")
def audited(
    model: Path,
    data_root: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    out = tmp_path_factory.mktemp("audit") / "report"
    result = _run(*_arguments(model, data_root, out), "--json")
    assert result.exit_code == 0, result.output
    headline = json.loads(result.stdout)
    assert headline["image_count"] == 4
    assert any("4 images are too few" in warning for warning in headline["warnings"])
    return out


def _plan(model: Path, data_root: Path, out: Path, *options: object) -> dict[str, Any]:
    """The plan of an audit of two images with ``options``, and the command that repeats it."""
    few = ("--images", 2, "--steps", 2, "--attacks", "paper", "--attacks-only")
    arguments = ("--model", model, "--data-dir", data_root, "--out", out, "--key", out / "key")
    result = _run("audit", *arguments, *few, *options)
    assert result.exit_code == 0, result.output
    provenance: dict[str, Any] = json.loads((out / "report.json").read_bytes())["provenance"]
    return provenance


def test_budget_and_each_count_are_options_that_the_report_repeats(
    model: Path, data_root: Path, tmp_path: Path
) -> None:
    counts = {name: 1 + place for place, name in enumerate(COUNTS)}
    named = {f"--{name.replace('_', '-')}": value for name, value in counts.items()}
    options = [word for pair in named.items() for word in pair]
    found = _plan(model, data_root, tmp_path / "counts", "--budget", "full", *options)
    assert found["plan"]["budget"] == {"steps": 2, **counts}
    for option, value in named.items():
        assert f"{option} {value}" in found["command"]
    (quick, old), (standard, _) = (
        (provenance["plan"]["budget"], provenance["command"])
        for provenance in (
            _plan(model, data_root, tmp_path / "quick", "--quick"),
            _plan(model, data_root, tmp_path / "standard"),
        )
    )
    assert quick == BUDGETS["quick"].model_copy(update={"steps": 2}).model_dump()
    assert "--budget quick" in old
    assert standard == BUDGETS["standard"].model_copy(update={"steps": 2}).model_dump()
    few, many = quick["autoattack_images"], standard["autoattack_images"]
    assert 1 < few < many < BUDGETS["full"].autoattack_images


def test_real_images_need_an_independent_model_and_training_images(
    model: Path, data_root: Path, tmp_path: Path
) -> None:
    alone = shutil.copytree(data_root, tmp_path / "alone")
    next(alone.glob("cifar10/plain_text/train-*")).unlink()

    def prepared(root: Path, independent: Path | None, explained: int = 1) -> PreparedAudit:
        return prepare(
            AuditRequest(
                model=model, data="cifar10", data_dir=root, image_count=2, attacks=("fast",),
                has_extras=True, seed=3, steps=2, batch_size=2, budget="quick",
                counts={"explanation_images": explained}, compiles=False,
                independent=independent, undefended=None,
            )
        )  # fmt: skip

    found = prepared(data_root, model)
    assert found.subject.real is not None
    assert found.plan.real_sha256 == found.subject.real.digest()
    assert sum(map(len, found.subject.real.training_rows)) == 24
    for other in (prepared(data_root, None), prepared(alone, model), prepared(data_root, model, 0)):
        assert other.subject.real is other.plan.real_sha256 is None


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--budget", "huge"), "budget: expected quick or standard or full, got 'huge'"),
        (("--budget", "full", "--quick"), "budget: expected quick with --quick, got 'full'"),
    ],
)
def test_budget_that_there_is_not_is_one_line(
    model: Path, data_root: Path, tmp_path: Path, options: tuple[str, ...], reason: str
) -> None:
    result = _run(*_arguments(model, data_root, tmp_path / "out")[:-1], *options)
    assert result.exit_code == 1
    assert reason in " ".join(result.stderr.split())


def test_report_is_genuine_until_a_file_is_changed(audited: Path) -> None:
    assert _run("verify", audited).exit_code == 0
    page = audited / "report.html"
    content = page.read_bytes()
    page.write_bytes(content.replace(b"ARA", b"area", 1))
    try:
        result = _run("verify", audited)
    finally:
        page.write_bytes(content)
    assert result.exit_code == 1
    assert "report.html: changed since it was signed" in result.stderr


def test_shards_are_merged_without_model_or_data(
    audited: Path,
    model: Path,
    data_root: Path,
    tmp_path: Path,
) -> None:
    for index in range(2):
        arguments = _arguments(model, data_root, tmp_path / str(index))
        result = _run(*arguments, "--shard", f"{index}/2")
        assert result.exit_code == 0, result.output
        assert "candor audit merge" in " ".join(result.stderr.split())
    out = tmp_path / "whole"
    key = tmp_path / "key.pem"
    result = _run("audit", "merge", tmp_path / "0", tmp_path / "1", "--out", out, "--key", key)
    assert result.exit_code == 0, result.output
    assert (out / "ledger.parquet").read_bytes() == (audited / "ledger.parquet").read_bytes()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--attacks", "magic"), "attacks: expected"),
        (("--attacks", "fgsm"), "attacks: expected paper or fast among them"),
        (("--shard", "2/2"), "shard: expected 0/n to (n-1)/n, got 2/2"),
        (("--images", 25), "images: expected [2, 24], got 25"),
        (("--compare", "nowhere"), "compare: nowhere holds no finished audit"),
        (("--seed", 1), "differs in seed"),
    ],
)
def test_every_refusal_is_one_readable_line(
    audited: Path,
    model: Path,
    data_root: Path,
    options: tuple[object, ...],
    reason: str,
) -> None:
    result = _run(*_arguments(model, data_root, audited), *options)
    assert result.exit_code == 1
    assert reason in " ".join(result.stderr.split())
    assert "Traceback" not in result.output


def test_full_disk_is_one_line_and_the_same_command_goes_on(
    audited: Path, model: Path, data_root: Path, disk: Path
) -> None:
    out = disk / "report"
    fill_up(disk / "ballast")
    result = _run(*_arguments(model, data_root, out), "--key", audited.parent / "key.pem")
    assert result.exit_code == 1
    shown = " ".join(result.stderr.split())
    assert f"out: no space left on the disk of {out}" in shown
    assert "the same command goes on" in shown
    assert "Traceback" not in result.output
    assert _run("verify", out).exit_code == 1
    (disk / "ballast").unlink()
    result = _run(*_arguments(model, data_root, out), "--key", audited.parent / "key.pem")
    assert result.exit_code == 0, result.output
    assert _run("verify", out).exit_code == 0
    assert (out / "ledger.parquet").read_bytes() == (audited / "ledger.parquet").read_bytes()


def _labelled_as_predicted(model: Path, data_root: Path, folder: Path) -> Path:
    """The test images with the labels that the model predicts, so that every attack is tried."""
    images = load_cifar10(data_root, "test").images(slice(None))
    labels = load_model(model).network(images).argmax(1).tolist()
    name = "cifar10/plain_text/test-00000-of-00001.parquet"
    table = pq.read_table(data_root / name)
    (folder / name).parent.mkdir(parents=True)
    pq.write_table(table.set_column(1, "label", pa.array(labels, pa.int64())), folder / name)
    return folder


def test_attack_that_failed_is_on_the_screen_in_json_and_in_the_exit_code(
    model: Path, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*arguments: Any) -> Tensor:
        raise RuntimeError("view size is not compatible")

    monkeypatch.setattr(library, "_run_one", failing)
    monkeypatch.setattr(compacted, "attack_rows", failing)
    data = _labelled_as_predicted(model, data_root, tmp_path / "data")
    arguments = _arguments(model, data, tmp_path / "report")
    quick = (*arguments, "--attacks", "paper,square")
    shown = _run(*quick)
    assert shown.exit_code == 3
    screen = " ".join(shown.stderr.split())
    assert "square failed on 2 of 2 images and was not tried there" in screen
    assert "candor audit: not complete, square failed on some images" in screen
    asked = _run(*quick, "--json")
    assert asked.exit_code == 3
    headline = json.loads(asked.stdout)
    assert [each["attack"] for each in headline["not_tried"]] == ["square"]
    assert _run("verify", tmp_path / "report").exit_code == 0


def test_audit_goes_on_with_the_versions_that_it_began_with(
    model: Path, data_root: Path, tmp_path: Path
) -> None:
    arguments = _arguments(model, data_root, tmp_path / "report")
    assert _run(*arguments).exit_code == 0
    path = tmp_path / "report" / "facts.json"
    facts = json.loads(path.read_bytes())
    facts["versions"]["torch"] = "1.0"
    path.write_text(json.dumps(facts))
    refused = _run(*arguments)
    assert refused.exit_code == 1
    assert "versions.torch: expected 1.0, as the audit began, got" in " ".join(
        refused.stderr.split()
    )


def test_missing_options_are_named() -> None:
    result = _run("audit")
    assert result.exit_code == 1
    assert "model: expected a folder (--model), got nothing" in result.stderr
