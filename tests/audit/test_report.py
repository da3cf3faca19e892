"""The report: one object in three forms, its schema, its warnings and its comparison."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from torch import nn

from candor.attacks.verification import Status
from candor.audit import registry
from candor.audit.ensemble import combine
from candor.audit.errors import AuditError
from candor.audit.facts import collect, settle_facts, write_facts
from candor.audit.ledger import Ledger
from candor.audit.measured import read_explanations
from candor.audit.real_images import RealImages
from candor.audit.records import AttackRecord
from candor.audit.report import formats
from candor.audit.report.assemble import write_report
from candor.audit.report.class_table import class_table
from candor.audit.report.html import html_text
from candor.audit.report.pdf import missing_glyphs, pdf_bytes
from candor.audit.report.schema import SCHEMA_FILE, Report, schema_text
from candor.audit.report.schema_sections import HumanFlipRate
from candor.audit.run import run_blocks
from candor.audit.sections.comparison import read_other
from candor.audit.sections.summary import Evidence, published
from candor.audit.stage import Subject
from candor.contracts.card import MetricCard
from candor.contracts.radius import radius_note
from candor.data.images import ImageSet
from candor.robustness.ara import naive_accuracy
from candor.terms import Goal
from tests.fixtures.audit import card, plan_for, small_data, small_network

KEY = Ed25519PrivateKey.generate()


def _audit(
    folder: Path, subject: Subject, data: ImageSet, stages: tuple[str, ...], **changes: object
) -> Report:
    plan = plan_for(data, stages, **changes)
    ledger = Ledger(folder, plan)
    write_facts(folder, collect(subject.network, subject.card, data))
    run_blocks(ledger, plan, subject, data)
    return write_report(folder, KEY, command="candor audit")


@pytest.fixture(scope="module")
def audited(
    network: nn.Module, data: ImageSet, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Report]:
    """A whole audit of the small network, all stages, with an independent model."""
    folder = tmp_path_factory.mktemp("audited")
    other = small_network(seed=2)
    real = RealImages.of(other, small_data(network, 60, seed=5), data, seed=0)
    subject = Subject(network=network, card=card(), independent=other, real=real, temperature=3.0)
    fitted = {"value": 3.0, "low": 2.0, "high": 4.0, "image_count": 500, "is_held_out": True}
    stages = tuple(registry.STAGES)
    return folder, _audit(folder, subject, data, stages, temperature=fitted)


def test_what_people_say_comes_from_the_card(
    subject: Subject, data: ImageSet, folder: Path
) -> None:
    values = {"value": 0.4, "low": 0.3, "high": 0.5, "image_count": 50, "method": "by Ada"}
    metrics = [
        MetricCard(name="human_flip_rate", data=name, **values) for name in ("other", data.name)
    ]
    judged = replace(subject, card=card().model_copy(update={"metrics": tuple(metrics)}))
    report = _audit(folder, judged, data, ("clean", "fgsm"))
    assert report.human_flip_rate == HumanFlipRate(data=data.name, **values)
    assert "40.0 % [30.0, 50.0] of 50 explanations: by Ada" in html_text(report)
    # People may go on judging while an audit runs.
    settle_facts(folder, collect(subject.network, subject.card, data))
    assert "not measured" in html_text(report.model_copy(update={"human_flip_rate": None}))


def test_schema_file_is_in_step_with_the_model() -> None:
    assert SCHEMA_FILE.read_text() == schema_text(), (
        "write it anew: python -m candor.audit.report.schema"
    )


def test_json_is_the_report(audited: tuple[Path, Report]) -> None:
    folder, report = audited
    assert Report.model_validate_json((folder / "report.json").read_bytes()) == report
    names = set(json.loads(SCHEMA_FILE.read_text())["properties"])
    assert names == set(json.loads((folder / "report.json").read_text()))


def test_every_section_is_filled(audited: tuple[Path, Report]) -> None:
    _, report = audited
    assert len(report.checks) == 20
    assert report.smoothing is not None
    assert report.clever is not None
    assert report.explanations is not None
    assert [example.rank for example in report.explanations.examples] == ["best", "median", "worst"]
    assert {row.attack for row in report.budgets} == {
        "fgsm", "pgd", "autoattack", "square", "label-only",
    }  # fmt: skip
    assert sum(row.wins for row in report.attacks if row.goal == "attack") == sum(
        1 for point in _found(audited[0], "attack")
    )


def test_explanations_are_measured_over_all_and_by_class(
    audited: tuple[Path, Report], network: nn.Module, data: ImageSet
) -> None:
    folder, report = audited
    quality = report.explanations
    assert quality is not None
    everything, *classes = quality.measures
    assert (everything.target, everything.image_count) == (None, 3)
    assert sum(row.image_count for row in classes) == 3
    counts = [(row.validity.count, row.oracle_score.count) for row in classes if row.oracle_score]
    assert everything.oracle_score is not None
    assert np.sum(counts, axis=0).tolist() == [
        everything.validity.count, everything.oracle_score.count
    ]  # fmt: skip
    assert everything.nearest_real is not None
    assert 0 <= everything.nearest_real.value <= 1
    assert -1 <= everything.cout.low <= everything.cout.value <= everything.cout.high <= 1
    assert everything.rho_1.value <= everything.rho_1_5.value <= everything.rho_2.value
    assert everything.rho_2.value <= min(everything.rho_inf.value, quality.rho.rmse + 1e-6)
    drawn = read_explanations(folder)
    assert drawn.measures["COUT"]["all"].value == everything.cout.value
    assert drawn.image_counts == {row.target or "all": row.image_count for row in quality.measures}
    page = (folder / "report.html").read_text()
    assert formats.estimate(everything.cout) in page
    assert formats.share(everything.oracle_score) in page
    # Images that were wrong as they came have radius 0 and do not count.
    right = _found(folder, "attack")
    assert report.median_radius is not None
    assert report.median_radius.value == pytest.approx(float(np.median(right)))
    assert report.median_radius.image_count == len(right) < 10
    assert quality.note == radius_note(report.median_radius.value, quality.rho.rmse)


def test_a_report_from_before_the_measures_opens(audited: tuple[Path, Report]) -> None:
    content = json.loads((audited[0] / "report.json").read_bytes())
    quality = content["explanations"]
    share = quality["measures"][0]["validity"]
    for name in ("measures", "note"):
        del quality[name]
    quality |= {"reached": share, "agreement": None}
    opened = Report.model_validate_json(json.dumps(content))
    assert opened.explanations is not None
    assert opened.explanations.reached is not None
    assert html_text(opened)
    assert pdf_bytes(opened)


def test_btr_stands_at_both_temperatures(audited: tuple[Path, Report], data: ImageSet) -> None:
    folder, report = audited
    found = report.calibration
    assert found is not None
    assert (found.own.temperature, found.fitted.temperature) == (1.0, 3.0)
    own, fitted = found.own.btr, found.fitted.btr
    assert own is not None
    assert fitted is not None
    assert (own.image_count, found.own.image_count) == (4, report.image_count)
    assert fitted.value.rmse > own.value.rmse
    plan = report.provenance.plan
    block = next(one for one in registry.blocks(plan) if one.stage == "calibration")
    row = Ledger(folder, plan).rows(block)[0]
    index = plan.image_indices(len(data))[0]
    logits = small_network()(data.images(slice(index, index + 1)))
    for name, temperature in (("own", 1.0), ("fitted", 3.0)):
        confidence = float((logits / temperature).softmax(1).max())
        assert row[name]["confidence"] == pytest.approx(confidence, rel=1e-5)
    page = (folder / "report.html").read_text()
    assert "3.00 [2.00, 4.00], on 500 of other test images" in page
    assert formats.area(fitted) in page


def test_html_needs_no_network_and_shows_the_numbers(audited: tuple[Path, Report]) -> None:
    folder, report = audited
    page = (folder / "report.html").read_text()
    assert not re.search(r"""(src|href)=["'](?!data:|gallery/index.html")""", page)
    assert "<script" not in page
    assert "@import" not in page
    assert "url(http" not in page
    assert "prefers-color-scheme: dark" in page
    assert "@media print" in page
    for area in report.areas:
        assert formats.area(area) in page
    for check in report.checks:
        assert f"<td>{check.number}</td>" in page
    assert 'fill="url(#hatch)"' in page
    assert report.provenance.ledger_sha256 in page
    assert f"panel {formats.duration(report.provenance.stage_seconds['panel'])}" in page


def test_pdf_is_one(audited: tuple[Path, Report]) -> None:
    content = (audited[0] / "report.pdf").read_bytes()
    assert content.startswith(b"%PDF-")
    assert content.rstrip().endswith(b"%%EOF")
    assert content.count(b"/Type /Page\n") + content.count(b"/Type /Page ") >= 2


def test_autoattack_stands_beside_the_rows_of_robustbench(
    network: nn.Module, audited: tuple[Path, Report]
) -> None:
    _, report = audited
    assert report.published == ()  # no images of theirs
    records = [_record(0, "autoattack", Goal.ATTACK, eps_l2=0.5)]
    evidence = Evidence(
        rows={"clean": []}, records={"autoattack": records}, naive=0.1, pixel_count=3072, seed=0
    )
    rows = published(evidence, "cifar10/test")
    assert published(evidence, "folder/test") == ()
    engstrom = next(row for row in rows if "Engstrom" in row.name)
    assert (engstrom.accuracy.value, engstrom.robust_accuracy.value) == (0.9083, 0.6924)
    assert engstrom.robust_accuracy.image_count == 10_000
    assert engstrom.robust_accuracy.low < 0.6924 < engstrom.robust_accuracy.high
    shown = report.model_copy(update={"published": rows})
    ball = next(
        row for row in report.budgets if (row.attack, round(row.eps.l2, 9)) == ("autoattack", 0.5)
    )
    page = html_text(shown).partition("Beside RobustBench")[2]
    assert formats.share(ball.accuracy) in page
    assert "69.2 % [68.3, 70.1], 6924 of 10000" in page
    assert pdf_bytes(shown).startswith(b"%PDF-")


def test_both_units_of_every_distance_agree(audited: tuple[Path, Report]) -> None:
    root = audited[1].pixel_count ** 0.5

    def walk(value: object) -> int:
        if isinstance(value, dict):
            if set(value) == {"rmse", "l2"}:
                assert value["l2"] == pytest.approx(value["rmse"] * root)
                return 1
            return sum(map(walk, value.values()))
        return sum(map(walk, value)) if isinstance(value, list) else 0

    assert walk(audited[1].model_dump(mode="json")) > 50


def test_ten_images_are_said_to_be_too_few(audited: tuple[Path, Report]) -> None:
    assert any("10 images are too few" in warning for warning in audited[1].warnings)


def test_ensemble_is_no_larger_than_any_attack(audited: tuple[Path, Report]) -> None:
    report = audited[1]
    for area in report.areas:
        own = [
            row.area.value.rmse
            for row in report.attacks
            if row.goal == area.goal and row.area is not None and row.image_count == 10
        ]
        assert own
        assert all(area.value.rmse <= value + 1e-12 for value in own)


def test_area_is_that_of_the_ledger(audited: tuple[Path, Report], data: ImageSet) -> None:
    folder, report = audited
    naive = naive_accuracy(data.labels.numpy(), 4)
    assert report.naive == naive
    values = np.sort([radius for radius in _found(folder, "attack", zero=True)])
    heights = np.maximum(0.0, np.arange(10, 0, -1) / 10 - naive)
    expected = float(np.diff(values, prepend=0.0) @ heights)
    assert report.areas[0].value.rmse == pytest.approx(expected)


def test_unresolved_counts_with_its_bound_and_never_as_zero() -> None:
    records = [
        _record(0, "ddn", Goal.ATTACK, lower_bound=0.3),
        _record(0, "fmn", Goal.ATTACK, lower_bound=0.1),
        _record(1, "ddn", Goal.ATTACK, radius=0.2),
        _record(1, "fmn", Goal.ATTACK, lower_bound=0.5),
        _record(1, "ddn", Goal.BTR, radius=0.05),
    ]
    radii = combine(records, "attack", [0, 1])
    assert radii.values.tolist() == [0.3, 0.2]
    assert radii.is_unresolved.tolist() == [True, False]
    assert radii.winners == (None, records[2])


def test_report_says_where_numbers_come_from_but_not_on_whose_machine(
    audited: tuple[Path, Report],
) -> None:
    folder, report = audited
    text = (folder / "report.json").read_text()
    assert str(folder) not in text
    assert str(Path.home()) not in text
    assert report.provenance.plan.code_sha256 in text
    assert report.provenance.machine.cores > 0
    seconds = report.provenance.stage_seconds
    assert tuple(seconds) == report.provenance.plan.stages
    assert sum(seconds.values()) == pytest.approx(report.provenance.compute_seconds, abs=1.0)


def test_comparison_with_itself_finds_nothing(
    audited: tuple[Path, Report],
) -> None:
    folder, _ = audited
    report = write_report(folder, KEY, command="test", other=read_other(folder))
    assert report.comparison is not None
    assert report.comparison.image_count == 10
    for row in report.comparison.goals:
        assert (row.difference.rmse, row.p_value, row.ties) == (0.0, 1.0, 10)


def test_comparison_with_halved_radii_is_half_the_area(audited: tuple[Path, Report]) -> None:
    folder, _ = audited
    other = read_other(folder)
    records = tuple(
        replace(record, radius=_half(record.radius), lower_bound=_half(record.lower_bound))
        for record in other.records
    )
    report = write_report(folder, KEY, command="test", other=replace(other, records=records))
    assert report.comparison is not None
    for row, area in zip(report.comparison.goals, report.areas, strict=True):
        assert row.difference.rmse == pytest.approx(area.value.rmse / 2)
        assert row.low.rmse > 0
        assert row.p_value < 0.05
        assert row.theirs_larger == 0


def test_comparison_with_other_data_is_refused(
    audited: tuple[Path, Report], network: nn.Module, folder: Path
) -> None:
    data = small_data(network, 24, seed=9)
    _audit(folder, Subject(network=network, card=card()), data, ("clean", "fgsm"))
    with pytest.raises(AuditError, match="other images"):
        write_report(folder, KEY, command="test", other=read_other(audited[0]))


def _record(
    position: int,
    attack: str,
    goal: Goal,
    *,
    radius: float | None = None,
    lower_bound: float | None = None,
    eps_l2: float | None = None,
) -> AttackRecord:
    status = Status.UNRESOLVED if radius is None else Status.FOUND
    return AttackRecord(
        position=position,
        attack=attack,
        goal=goal,
        status=status,
        radius=radius,
        lower_bound=lower_bound,
        eps_l2=eps_l2,
    )


def _half(value: float | None) -> float | None:
    return None if value is None else value / 2


def test_record_is_its_row_and_back() -> None:
    row = {
        "position": 3, "attack": "square", "goal": "attack", "eps_l2": 1.0, "status": "found",
        "radius": 0.02, "lower_bound": None, "rounded_radius": 0.021, "holds_rounded": True,
        "picture_sha256": "0" * 64, "steps": 30, "warnings": [],
    }  # fmt: skip
    for written in (row, {key: value for key, value in row.items() if key != "warnings"}):
        assert json.dumps(AttackRecord.from_row(written).to_row()) == json.dumps(written)


def _found(folder: Path, goal: str, *, zero: bool = False) -> list[float]:
    """Radii of the images in the ledger that are marked as the smallest."""
    rows = pq.read_table(folder / "ledger.parquet").to_pylist()
    return [
        row["radius_rmse"]
        for row in rows
        if row["goal"] == goal and row["is_smallest"] and (zero or row["radius_rmse"] > 0)
    ]


def test_pdf_has_glyphs_for_names_or_says_which_it_lacks(audited: tuple[Path, Report]) -> None:
    names = ("\u0436\u0443\u043a", "\u03bc\u03ad\u03bb\u03b9\u03c3\u03c3\u03b1", "\u732b", "dog")
    report = audited[1]
    renamed = report.model_copy(
        update={
            "classes": tuple(
                row.model_copy(update={"name": name})
                for row, name in zip(report.classes, names, strict=True)
            )
        }
    )
    content = pdf_bytes(renamed)
    assert content == pdf_bytes(renamed)
    assert b"DejaVuSans" in content  # a part of it, embedded
    assert b"/FontFile2" in content
    assert len(content) < len(pdf_bytes(report)) + 60_000
    (note,) = missing_glyphs(renamed)
    assert "U+732B" in note.text
    assert not missing_glyphs(report)
    assert b"DejaVuSans" not in pdf_bytes(report)


def test_of_many_classes_the_readable_reports_list_thirty(audited: tuple[Path, Report]) -> None:
    report, row = audited[1], audited[1].classes[0]
    rows = tuple(
        row.model_copy(
            update={
                "name": f"class {index}",
                "accuracy": row.accuracy.model_copy(
                    update={"image_count": 5 if index in (7, 90) else 1}
                ),
                "attack_mean_radius": row.attack_mean_radius.model_copy(
                    update={"rmse": abs(index - 50) / 1000}
                ),
            }
        )
        for index in range(100)
    )
    many = report.model_copy(update={"classes": rows})
    shown = class_table(many)
    names = [one.name for one in shown.rows]
    # The two with more images, and the least robust of the others, in the classes' own order.
    assert names == [f"class {index}" for index in (7, *range(36, 64), 90)]
    assert "30 of the 100 classes that occur" in shown.note
    page = html_text(many)
    assert page.count("<td>class ") == 30
    assert "30 of the 100 classes that occur" in page
    assert len(pdf_bytes(many)) < len(pdf_bytes(report)) + 20_000
    assert class_table(report).rows == report.classes
    assert class_table(report).note == ""


def test_a_network_without_feature_maps_has_a_report_that_says_so(
    audited: tuple[Path, Report],
) -> None:
    quality = audited[1].explanations
    assert quality is not None
    assert quality.missing == ()
    examples = tuple(one.model_copy(update={"grad_cam": None}) for one in quality.examples)
    update = {"missing": ("Grad-CAM",), "overlaps": quality.overlaps[1:], "examples": examples}
    report = audited[1].model_copy(update={"explanations": quality.model_copy(update=update)})
    page = html_text(report)
    assert "no layer of the network has a feature map" in page
    assert 'alt="Grad-CAM"' not in page
    assert len(pdf_bytes(report)) < len(pdf_bytes(audited[1]))
