"""Makes the signed report, in its three forms, from the finished parts of an audit."""

import datetime
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from candor.audit import registry
from candor.audit.errors import AuditError
from candor.audit.facts import (
    FACTS_FILE,
    Facts,
    check_same_facts,
    read_facts,
    write_facts,
)
from candor.audit.ledger import (
    Block,
    Ledger,
    read_plan,
    write_atomically,
    write_folder_atomically,
    write_model,
)
from candor.audit.plan import PLAN_FILE, AuditPlan
from candor.audit.records import AttackRecord, Row
from candor.audit.report.html import html_text
from candor.audit.report.ledger_table import LEDGER_FILE, ledger_bytes
from candor.audit.report.pdf import pdf_bytes
from candor.audit.report.schema import Provenance, Report
from candor.audit.report.signing import sign_folder
from candor.audit.sections import gallery, summary
from candor.audit.sections.attacks import ATTACK_STAGES
from candor.audit.sections.calibration import calibration_section
from candor.audit.sections.certificates import clever_section, smoothing_section
from candor.audit.sections.checks import Panel, failed_checks, run_checks
from candor.audit.sections.comparison import Other, compare, compared_warnings
from candor.audit.sections.explanations import section
from candor.audit.sections.measures import right_median_radius
from candor.audit.sections.summary import Evidence
from candor.audit.sections.threat import WORDS, ThreatModel

REPORT_FILE = "report.json"
HTML_FILE = "report.html"
PDF_FILE = "report.pdf"


def write_report(
    folder: Path, key: Ed25519PrivateKey, *, command: str, other: Other | None = None
) -> Report:
    """Render the finished audit in ``folder`` as JSON, HTML, PDF and Parquet, and sign it.

    Args:
        command: as the user typed it, without paths; for the provenance.
        other: a report to compare with.
    Raises:
        AuditError: parts are missing or damaged, or ``other`` is of other images.
        DiskFull: no space; without a new signature the folder is no report to `verify_folder`.
    """
    plan, facts = read_plan(folder), read_facts(folder)
    ledger = Ledger(folder, plan)
    evidence = read_evidence(ledger, plan, facts)
    content = ledger_bytes(
        evidence.clean, evidence.all_records(), evidence.smallest(), evidence.distance(1.0).l2
    )
    shown = _gallery(ledger, plan, evidence, other)
    seconds = _stage_seconds(ledger, plan, shown)
    provenance = Provenance(
        plan=plan,
        plan_sha256=plan.digest,
        ledger_sha256=hashlib.sha256(content).hexdigest(),
        versions=facts.versions,
        machine=facts.machine,
        compute_seconds=round(sum(seconds.values()), 1),
        stage_seconds={name: round(value, 1) for name, value in seconds.items()},
        finished_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        command=command,
    )
    report = build_report(evidence, plan, facts, provenance, other)
    names = [REPORT_FILE, HTML_FILE, PDF_FILE, LEDGER_FILE, PLAN_FILE, FACTS_FILE]
    if shown is not None:
        report = report.model_copy(update={"gallery": gallery.section(shown.choice)})
        images = gallery.files(shown.rows, evidence, facts, shown.choice, other)
        write_folder_atomically(folder / gallery.FOLDER, images)
        names += [f"{gallery.FOLDER}/{name}" for name in images]
    write_atomically(folder / LEDGER_FILE, content)
    write_model(folder / REPORT_FILE, report)
    write_atomically(folder / HTML_FILE, html_text(report).encode())
    write_atomically(folder / PDF_FILE, pdf_bytes(report))
    sign_folder(folder, names, key)
    return report


def build_report(
    evidence: Evidence,
    plan: AuditPlan,
    facts: Facts,
    provenance: Provenance,
    other: Other | None = None,
) -> Report:
    """The one object, from finished rows."""
    areas = summary.ensemble_areas(evidence)
    radius = right_median_radius(evidence)
    subset = summary.subset_positions(evidence)
    class_count = len(facts.model.classes)
    settings = {
        name: registry.STAGES[name].settings(plan.budget, class_count) for name in evidence.records
    }
    accuracy = summary.share(row["is_correct"] for row in evidence.clean)
    smoothing = smoothing_section(evidence, plan.budget.smoothing_samples)
    checks = run_checks(
        Panel(
            evidence=evidence,
            plan=plan,
            rows=[row for row in evidence.rows.get("panel", ()) if row["is_correct"]],
            accuracy=accuracy,
            areas=areas,
            smoothing=smoothing,
        )
    )
    return Report(
        model=facts.model,
        data=plan.data,
        image_count=plan.image_count,
        warnings=(
            *summary.warnings(evidence, areas, class_count),
            *(() if other is None else compared_warnings(other)),
            *failed_checks(checks),
        ),
        not_tried=summary.not_tried(evidence),
        threat=ThreatModel(),
        words=WORDS,
        naive=evidence.naive,
        pixel_count=evidence.pixel_count,
        accuracy=accuracy,
        above_chance=summary.share(row["is_above_chance"] for row in evidence.clean),
        areas=areas,
        median_radius=radius,
        subset_areas=summary.ensemble_areas(evidence, subset) if subset else (),
        curves=tuple(summary.curve(evidence, goal) for goal in summary.GOAL_NAMES),
        classes=summary.class_rows(evidence, facts.model.classes),
        attacks=summary.attack_rows(evidence, settings),
        budgets=summary.budget_rows(evidence),
        checks=checks,
        smoothing=smoothing,
        clever=clever_section(evidence, plan.budget.clever_samples),
        explanations=section(evidence, facts.model.classes, facts.rho, radius),
        calibration=calibration_section(evidence, plan.temperature),
        human_flip_rate=facts.human_flip_rate,
        references=summary.references(plan.data, evidence.pixel_count),
        published=summary.published(evidence, plan.data),
        comparison=None if other is None else compare(evidence, plan, other),
        provenance=provenance,
    )


class _Shown(NamedTuple):
    """A gallery whose blocks are finished."""

    choice: gallery.Choice
    blocks: Sequence[Block]
    rows: Sequence[Row]


def _stage_seconds(ledger: Ledger, plan: AuditPlan, shown: _Shown | None) -> dict[str, float]:
    seconds = dict.fromkeys(plan.stages, 0.0)
    for block in registry.blocks(plan):
        seconds[block.stage] += ledger.seconds(block)
    if shown is not None:
        seconds[gallery.FOLDER] = sum(map(ledger.seconds, shown.blocks))
    return seconds


def _gallery(
    ledger: Ledger, plan: AuditPlan, evidence: Evidence, other: Other | None
) -> _Shown | None:
    """None where the audit has none, or nothing to show, or where merged shards left it open."""
    if not gallery.is_wanted(plan):
        return None
    choice = gallery.choose(evidence, plan, other)
    blocks = list(gallery.blocks(choice))
    if not blocks or not all(map(ledger.has, blocks)):
        return None
    return _Shown(choice, blocks, [row for block in blocks for row in ledger.rows(block)])


def merge(folders: Sequence[Path], out: Path) -> None:
    """Bring the parts of several folders of the same plan together in ``out``.

    Raises:
        AuditError: the plans differ, or two folders disagree about a part.
    """
    plan = read_plan(folders[0])
    ledger, facts = Ledger(out, plan), read_facts(folders[0])
    write_facts(out, facts)
    for folder in folders:
        if read_plan(folder).digest != plan.digest:
            raise AuditError(f"{folder}: holds an audit by another plan than {folders[0]}")
        check_same_facts(read_facts(folder), facts, folder)
        source = Ledger(folder, plan)
        for block in filter(source.has, registry.blocks(plan)):
            rows = source.rows(block)
            if not ledger.has(block):
                ledger.write(block, rows, source.seconds(block))
            elif ledger.rows(block) != rows:
                raise AuditError(f"{folder}: part {block.file_name} differs from another folder's")


def read_evidence(ledger: Ledger, plan: AuditPlan, facts: Facts) -> Evidence:
    """The rows of a finished audit.

    Raises:
        AuditError: parts are missing or damaged.
    """
    blocks = registry.blocks(plan)
    missing = [block for block in blocks if not ledger.has(block)]
    if missing:
        raise AuditError(
            f"{len(missing)} of {len(blocks)} parts are missing, the first is "
            f"{missing[0].file_name}; run the audit or merge the other shards first"
        )
    rows: dict[str, list[Row]] = {}
    records: dict[str, list[AttackRecord]] = {}
    for block in blocks:
        if block.stage in ATTACK_STAGES:
            records.setdefault(block.stage, []).extend(ledger.records(block))
        else:
            rows.setdefault(block.stage, []).extend(ledger.rows(block))
    return Evidence(
        rows=rows,
        records=records,
        naive=facts.naive,
        pixel_count=facts.pixel_count,
        seed=plan.seed,
    )
