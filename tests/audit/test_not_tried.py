"""What failed is not tried: never counted as resisted, named where a reader looks first."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from torch import Tensor, nn

from candor.attacks import compacted, library
from candor.attacks.autoattack import autoattack
from candor.attacks.candidates import Candidates
from candor.attacks.label_only import label_only
from candor.attacks.square import square
from candor.attacks.verification import Status
from candor.audit.facts import collect, write_facts
from candor.audit.ledger import Ledger
from candor.audit.plan import AuditPlan
from candor.audit.report.assemble import write_report
from candor.audit.report.schema import Report
from candor.audit.run import run_blocks
from candor.audit.sections.attacks import ATTACK_STAGES
from candor.audit.stage import Batch, Subject
from candor.data.images import ImageSet
from tests.fixtures.audit import TINY, card, plan_for

STAGES = ("clean", "paper", "autoattack", "square")
BUDGET = TINY.model_copy(update={"autoattack_images": 4, "query_images": 4, "square_queries": 20})


def _report(folder: Path, data: ImageSet, subject: Subject, plan: AuditPlan) -> Report:
    ledger = Ledger(folder, plan)
    write_facts(folder, collect(subject.network, subject.card, data))
    run_blocks(ledger, plan, subject, data)
    return write_report(folder, Ed25519PrivateKey.generate(), command="candor audit")


@pytest.fixture
def failing_on_every_second(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The library raises on every batch; alone on the second image, the fourth, and so on."""
    calls: list[int] = []
    run_one: Callable[..., Tensor] = library._run_one

    def sometimes(*arguments: Any) -> Tensor:
        calls.append(len(calls))
        if len(calls) % 2 == 0:
            raise RuntimeError("view size is not compatible")
        return run_one(*arguments)

    monkeypatch.setattr(library, "_run_one", sometimes)
    monkeypatch.setattr(compacted, "attack_rows", _never)
    monkeypatch.setattr(compacted._Run, "leave_to_pgd", lambda run, steps: None)
    return calls


def _never(*arguments: Any) -> Tensor:
    raise RuntimeError("view size is not compatible")


def test_failed_attack_is_not_tried_and_named_first(
    network: nn.Module,
    data: ImageSet,
    folder: Path,
    failing_on_every_second: list[int],
) -> None:
    plan = plan_for(data, STAGES, budget=BUDGET)
    report = _report(folder, data, Subject(network=network, card=card()), plan)
    assert failing_on_every_second
    failed = {each.attack: each for each in report.not_tried}
    assert failed.keys() == {"autoattack", "square"}
    for name, each in failed.items():
        assert each.planned_count == 4
        assert 0 < each.image_count <= 4
        assert each.reasons == ("RuntimeError: view size is not compatible",)
        for row in [row for row in report.attacks if (row.attack, row.goal) == (name, "attack")]:
            assert row.image_count + row.not_tried == 4
            ends = row.found + row.unresolved + row.already_wrong + row.unverified
            assert ends == row.image_count
    for row in report.budgets:
        assert row.not_tried + (0 if row.accuracy is None else row.accuracy.image_count) == 4
    assert "autoattack failed on" in report.warnings[0]
    assert "not tried" in report.warnings[0]
    verdicts = {check.number: check.verdict for check in report.checks}
    assert verdicts[9] == "fail"
    assert any("masking panel failed" in warning for warning in report.warnings)
    written = json.loads((folder / "report.json").read_bytes())
    assert [each["attack"] for each in written["not_tried"]] == ["autoattack", "square"]
    head = (folder / "report.html").read_text().partition("<h2>")[0]
    assert "autoattack failed on" in head


def test_attack_that_failed_on_every_image_has_no_accuracy(
    network: nn.Module, data: ImageSet, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*arguments: Any) -> Tensor:
        raise IndexError("no element")

    monkeypatch.setattr(library, "_run_one", never)
    monkeypatch.setattr(compacted, "attack_rows", _never)
    labels = network(data.images(slice(None))).argmax(1)
    data = ImageSet(
        name=data.name, pixels=data.pixels, labels=labels, class_names=data.class_names,
        identifiers=data.identifiers, mean=data.mean, std=data.std,
    )  # fmt: skip
    plan = plan_for(data, ("clean", "paper", "square"), budget=BUDGET)
    report = _report(folder, data, Subject(network=network, card=card()), plan)
    (row,) = report.budgets
    assert (row.accuracy, row.not_tried) == (None, 4)
    checks = {check.number: check for check in report.checks}
    assert (checks[11].verdict, checks[11].evidence) == ("fail", "square failed on every image")
    assert "not tried" in (folder / "report.html").read_text()


def _batch(images: Tensor, labels: Tensor) -> Batch:
    count = len(labels)
    names = [str(index) for index in range(count)]
    return Batch(
        positions=range(count),
        indices=list(range(count)),
        identifiers=names,
        images=images,
        labels=labels,
        seed=0,
    )


@pytest.mark.parametrize("name", ATTACK_STAGES)
def test_layout_of_the_images_changes_nothing(
    network: nn.Module, data: ImageSet, name: str
) -> None:
    chosen = slice(1, 3)
    images, labels = data.images(chosen), data.labels[chosen]
    strided = images.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    assert not strided.is_contiguous()
    subject, run = Subject(network=network, card=card()), ATTACK_STAGES[name].run
    found = [run(subject, _batch(given, labels), BUDGET) for given in (images, strided)]
    assert found[0] == found[1]
    assert all(record.status is not Status.NOT_TRIED for record in found[1])


def test_memory_that_runs_out_is_no_failed_attack(
    subject: Subject, data: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhausted(*arguments: Any) -> Tensor:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(compacted, "attack_rows", exhausted)
    batch = _batch(data.images(slice(1, 3)), data.labels[1:3])
    with pytest.raises(RuntimeError, match="allocate"):
        ATTACK_STAGES["square"].run(subject, batch, BUDGET)


@pytest.mark.parametrize(
    ("class_count", "version"), [(2, "custom"), (3, "custom"), (4, "standard"), (12, "standard")]
)
def test_settings_name_the_set_that_autoattack_ran(class_count: int, version: str) -> None:
    settings = ATTACK_STAGES["autoattack"].settings(BUDGET, class_count)
    assert str(settings["version"]).startswith(version)
    assert ("apgd-ce + fab + square" in settings["version"]) == (version == "custom")
    assert settings.get("targets") == {4: 3, 12: 9}.get(class_count)


class _Counting(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.count = network, 0

    def forward(self, images: Tensor) -> Tensor:
        self.count += len(images)
        logits: Tensor = self.network(images)
        return logits


@pytest.mark.parametrize("attack", ["autoattack", "square", "label-only"])
def test_steps_are_the_evaluations_that_an_attack_asked_for(
    network: nn.Module, data: ImageSet, attack: str
) -> None:
    counting = _Counting(network).eval()
    images, labels = data.images(slice(1, 2)), data.labels[1:2]
    seeds = [0]
    found: Candidates
    if attack == "label-only":
        found = label_only(counting, images, labels, 1.0, seeds, queries=80)
    elif attack == "square":
        found, _ = square(counting, images, labels, 0.001, seeds, queries=30)
    else:
        found, _ = autoattack(counting, images, labels, 0.25, seeds)
    # Beside these, one looks at what was found; AutoAttack counts the classes, and Square looks for
    # signs of a network that is not as it seems, which takes seven.
    others = {"autoattack": 2, "square": 8, "label-only": 1}
    assert int(found.steps[0]) == counting.count - others[attack]
