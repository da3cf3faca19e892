"""The report as PDF for paper and archives."""

import io
from typing import Any

from reportlab.graphics.shapes import Drawing, Line, PolyLine, Rect, String
from reportlab.lib import colors
from reportlab.lib.pagesizes import A4
from reportlab.lib.units import mm
from reportlab.platypus import Paragraph, SimpleDocTemplate, Spacer

from candor.audit.report import formats
from candor.audit.report.calibration_text import EXPLANATION, calibration_rows
from candor.audit.report.chart import HEIGHT, WIDTH, draw
from candor.audit.report.class_table import class_table
from candor.audit.report.pdf_explanations import explanations, people
from candor.audit.report.pdf_parts import (
    HEAD,
    SMALL,
    TEXT_WIDTH,
    TITLE,
    WARNING,
    paragraph,
    table_of,
)
from candor.audit.report.schema import Report
from candor.fonts import undrawable

_LINE_COLOURS = (colors.HexColor("#a02318"), colors.HexColor("#184c8c"), colors.HexColor("#1f5f35"))
_LINE_DASHES = (None, (7, 3), (2, 3))
_VERDICT_COLOURS = {
    "pass": "#1f5f35",
    "warn": "#6a4500",
    "fail": "#a02318",
    "not-applicable": "#555555",
}


def pdf_bytes(report: Report) -> bytes:
    """The whole document; every number is one of the report's."""
    buffer = io.BytesIO()
    title = f"Robustness report: {report.model.name} {report.model.version}"
    document = SimpleDocTemplate(
        buffer, pagesize=A4, title=title, author="Candor", leftMargin=18 * mm, rightMargin=18 * mm,
        topMargin=16 * mm, bottomMargin=16 * mm, invariant=True,
    )  # fmt: skip
    document.build(
        [
            *_summary(report),
            *_curves(report),
            *_threat(report),
            *_attacks(report),
            *_checks(report),
            *_certificates(report),
            *_calibration(report),
            *_classes(report),
            *explanations(report),
            *people(report),
            *_others(report),
            *_gallery(report),
            *_provenance(report),
        ]
    )
    return buffer.getvalue()


def _summary(report: Report) -> list[Any]:
    facts = report.model
    rows = [["clean accuracy", formats.share(report.accuracy)]]
    for area in report.areas:
        rows.append([f"{formats.goal(area.goal)} ARA (RMSE)", formats.area(area)])
        rows.append(["median radius, wrong ones at 0", formats.distance(area.median_radius)])
        rows.append(["images, unresolved", f"{area.image_count}, {area.unresolved_count}"])
    if report.median_radius is not None:
        value = f"RMSE {formats.estimate(report.median_radius)}"
        rows.append([f"median radius, {report.median_radius.image_count} right ones", value])
    seed = report.provenance.plan.seed
    return [
        paragraph("Robustness report", TITLE),
        paragraph(
            f"{facts.name} {facts.version} ({facts.architecture}, {facts.activation}, "
            f"{facts.parameter_count:,} parameters) on {report.image_count} images of "
            f"{report.data}, drawn by seed {seed}."
        ),
        *(paragraph(warning, WARNING) for warning in report.warnings),
        *missing_glyphs(report),
        Spacer(0, 8),
        table_of(rows, (0.32, 0.68), has_head=False),
        paragraph(
            "Brackets hold 95 % intervals: Clopper-Pearson for shares, percentile bootstrap over "
            f"the images for areas. L2 = RMSE times {report.pixel_count**0.5:.2f}."
        ),
    ]


def _curves(report: Report) -> list[Any]:
    chart = draw(report)
    left, top, right, bottom = chart.plot
    scale = TEXT_WIDTH / WIDTH
    drawing = Drawing(WIDTH * scale, HEIGHT * scale)

    def at(x: float, y: float) -> tuple[float, float]:
        return x * scale, (HEIGHT - y) * scale

    def label(x: float, y: float, text: str, anchor: str) -> None:
        drawing.add(String(*at(x, y), text, fontSize=7, textAnchor=anchor))

    _hatch(drawing, at, (left, chart.floor, right, bottom))
    for tick in chart.accuracy_ticks:
        ends = (*at(left, tick.at), *at(right, tick.at))
        drawing.add(Line(*ends, strokeColor=colors.lightgrey, strokeWidth=0.5))
        label(left - 5, tick.at + 3, tick.text, "end")
    for tick in chart.rmse_ticks:
        label(tick.at, bottom + 14, tick.text, "middle")
    for tick in chart.l2_ticks:
        label(tick.at, top - 6, tick.text, "middle")
    label(right, HEIGHT - 4, "RMSE", "end")
    label(right, 12, "L2", "end")
    for number, line in enumerate(chart.lines):
        colour, dash = _LINE_COLOURS[number], _LINE_DASHES[number]
        flat = [value for x, y in line.points for value in at(x, y)]
        drawing.add(PolyLine(flat, strokeColor=colour, strokeWidth=1.3, strokeDashArray=dash))
        start = left + 10 + 150 * number
        ends = (*at(start, HEIGHT - 7), *at(start + 24, HEIGHT - 7))
        drawing.add(Line(*ends, strokeColor=colour, strokeWidth=1.3, strokeDashArray=dash))
        label(start + 30, HEIGHT - 4, line.name, "start")
    return [
        paragraph("Accuracy against distance", HEAD),
        drawing,
        paragraph(f"Hatched: the naive floor, {formats.percent(report.naive)}."),
    ]


def _hatch(drawing: Drawing, at: Any, box: tuple[float, float, float, float]) -> None:
    left, top, right, bottom = box
    x, y = at(left, bottom)
    far_x, far_y = at(right, top)
    drawing.add(
        Rect(x, y, far_x - x, far_y - y, fillColor=colors.HexColor("#f4f4f4"), strokeColor=None)
    )
    height, start = far_y - y, x
    while start < far_x:
        reach = min(height, far_x - start)
        drawing.add(
            Line(start, y, start + reach, y + reach, strokeColor=colors.lightgrey, strokeWidth=0.6)
        )
        start += 6


def _threat(report: Report) -> list[Any]:
    threat = report.threat
    rows = [
        ["norm and unit", f"{threat.norm}; {threat.unit}"],
        ["box", f"pixels in [{threat.lower}, {threat.upper}]"],
        ["quantisation", threat.quantisation],
        *([f"goal {name}", sentence] for name, sentence in threat.goals.items()),
        ["knowledge", threat.knowledge],
        ["access", threat.access],
        ["capability", threat.capability],
        ["not looked at", "; ".join(threat.excluded)],
    ]
    table = table_of(rows, (0.18, 0.82), has_head=False)
    return [paragraph("Threat model", HEAD), paragraph(report.words), table]


def _attacks(report: Report) -> list[Any]:
    head = ["attack", "goal", "eps L2", "n", "not tried", "found", "not found", "unver.",
            "smallest", "8 bits", "median radius", "own ARA (RMSE)"]  # fmt: skip
    rows = [
        [
            row.attack, row.goal, "-" if row.eps_l2 is None else f"{row.eps_l2:g}",
            str(row.image_count), str(row.not_tried), str(row.found), str(row.unresolved),
            str(row.unverified), str(row.wins), str(row.holds_rounded),
            formats.distance(row.median_radius),
            "-" if row.area is None else f"{row.area.value.rmse:.4f}",
        ]
        for row in report.attacks
    ]  # fmt: skip
    widths = (0.11, 0.07, 0.06, 0.05, 0.06, 0.07, 0.07, 0.07, 0.09, 0.06, 0.18, 0.11)
    settings = {row.attack: formats.settings(row.settings) for row in report.attacks}
    notes = {row.attack: "; ".join(row.warnings) for row in report.attacks if row.warnings}
    parts = [paragraph("Attacks", HEAD), table_of([head, *rows], widths)]
    parts += [
        paragraph(
            f"Over the {area.image_count} images every attack saw, the {formats.goal(area.goal)} "
            f"ARA is {formats.area(area)}."
        )
        for area in report.subset_areas
    ]
    named = [[name, text, notes.get(name, "")] for name, text in settings.items()]
    parts.append(table_of([["attack", "hyper-parameters", "warnings"], *named], (0.14, 0.5, 0.36)))
    if report.budgets:
        budget_rows = [
            [row.attack, formats.distance(row.eps), formats.share(row.accuracy),
             str(row.not_tried)]
            for row in report.budgets
        ]  # fmt: skip
        parts.append(paragraph("Accuracy within fixed budgets", HEAD))
        parts.append(
            table_of(
                [["attack", "eps", "accuracy", "not tried"], *budget_rows], (0.2, 0.3, 0.4, 0.1)
            )
        )
    return parts


def _checks(report: Report) -> list[Any]:
    if not report.checks:
        return []
    rows: list[list[Any]] = [
        [
            str(check.number),
            check.title,
            Paragraph(
                f'<font color="{_VERDICT_COLOURS[check.verdict]}"><b>{check.verdict}</b></font>',
                SMALL,
            ),
            check.evidence,
            str(check.image_count or "-"),
        ]
        for check in report.checks
    ]
    head = ["#", "check", "verdict", "evidence", "n"]
    return [
        paragraph("Masking panel", HEAD),
        table_of([head, *rows], (0.04, 0.28, 0.12, 0.51, 0.05)),
    ]


def _certificates(report: Report) -> list[Any]:
    parts: list[Any] = []
    smoothing, clever = report.smoothing, report.clever
    if smoothing is not None:
        rows = [
            ["certified ARA", formats.area(smoothing.area)],
            ["empirical attack ARA, same images", formats.area(smoothing.empirical)],
            ["accuracy of the smoothed classifier", formats.share(smoothing.accuracy)],
            ["abstentions", formats.share(smoothing.abstained)],
        ]
        parts += [
            paragraph(
                f"Randomised smoothing with sigma {smoothing.sigma} per pixel, "
                f"{smoothing.selection_samples} + {smoothing.samples} noisy copies an image, alpha "
                f"{smoothing.alpha}. The certificate is of the smoothed classifier, not of the "
                "network itself."
            ),
            table_of(rows, (0.35, 0.65), has_head=False),
        ]
    if clever is not None:
        parts.append(
            paragraph(
                f"CLEVER, an estimate and not a bound: median {formats.distance(clever.median)} "
                f"over {clever.image_count} images ({clever.samples} gradients each; the Weibull "
                f"distribution fits {clever.fitted}). Above a radius that an attack found on "
                f"{clever.above_empirical} images."
            )
        )
    return [paragraph("Certificates", HEAD), *parts] if parts else []


def _calibration(report: Report) -> list[Any]:
    if report.calibration is None:
        return []
    rows = [list(row) for row in calibration_rows(report.calibration)]
    return [
        paragraph("Calibration", HEAD),
        paragraph(EXPLANATION),
        table_of(rows, (0.35, 0.65), has_head=False),
    ]


def _classes(report: Report) -> list[Any]:
    shown = class_table(report)
    rows = [
        [
            row.name,
            formats.share(row.accuracy),
            formats.distance(row.attack_mean_radius),
            formats.distance(row.btr_mean_radius),
        ]
        for row in shown.rows
    ]
    head = ["class", "accuracy", "mean attack radius", "mean BTR radius"]
    table = table_of([head, *rows], (0.18, 0.38, 0.22, 0.22))
    note = [paragraph(shown.note)] if shown.note else []
    return [paragraph("Classes", HEAD), table, *note]


def _published(report: Report) -> list[Any]:
    shares = formats.own_beside_published(report)
    if shares is None:
        return []
    rows = [
        [row.name, formats.share(row.accuracy), formats.share(row.robust_accuracy), row.source]
        for row in report.published
    ]
    head = ["network", "accuracy", f"AutoAttack, L2 {report.published[0].eps_l2:g}", "source"]
    own = [report.model.name, *shares, "this report"]
    return [
        paragraph("Beside RobustBench", HEAD),
        table_of([head, own, *rows], (0.28, 0.27, 0.27, 0.18)),
    ]


def _others(report: Report) -> list[Any]:
    parts: list[Any] = []
    if report.references:
        own = [
            report.model.name,
            formats.percent(report.accuracy.value),
            *(formats.distance(area.value) for area in report.areas),
            "this report",
        ]
        rows = [
            [row.name, formats.percent(row.accuracy), formats.distance(row.attack_ara),
             formats.distance(row.btr_ara), row.source]
            for row in report.references
        ]  # fmt: skip
        head = ["network", "accuracy", "attack ARA", "BTR ARA", "source"]
        parts += [
            paragraph("Beside the paper", HEAD),
            paragraph(formats.PAPER_SEARCH),
            table_of([head, own, *rows], (0.28, 0.1, 0.19, 0.19, 0.24)),
        ]
    parts += _published(report)
    if report.comparison is not None:
        rows = [
            [row.goal, formats.distance(row.difference),
             f"{row.low.rmse:.4f} to {row.high.rmse:.4f}",
             f"{row.ours_larger} / {row.theirs_larger} / {row.ties}", formats.p_value(row.p_value)]
            for row in report.comparison.goals
        ]  # fmt: skip
        head = [
            "goal",
            "ARA, this minus that",
            "95 % interval (RMSE)",
            "larger here/there/equal",
            "p",
        ]
        parts += [
            paragraph(f"Against {report.comparison.model}", HEAD),
            paragraph(f"{report.comparison.image_count} images in both reports; p of a "
                  "permutation test that exchanges the models image by image, two-sided."),
            table_of([head, *rows], (0.12, 0.26, 0.24, 0.24, 0.14)),
        ]  # fmt: skip
    return parts


def _gallery(report: Report) -> list[Any]:
    if report.gallery is None:
        return []
    words = f"{report.gallery.image_count} images, each explained, in {report.gallery.page}: "
    return [
        paragraph("Gallery", HEAD),
        paragraph(f"{words}{formats.gallery_parts(report.gallery)}."),
    ]


def _provenance(report: Report) -> list[Any]:
    provenance = report.provenance
    machine = provenance.machine
    rows = [
        ["weights", provenance.plan.weights_sha256],
        ["data", provenance.plan.data_sha256],
        ["code", provenance.plan.code_sha256],
        ["configuration", provenance.plan_sha256],
        ["ledger", provenance.ledger_sha256],
        ["command", provenance.command],
        ["versions", formats.settings(provenance.versions)],
        ["machine", f"{machine.processor}, {machine.cores} cores, {machine.system}, "
                    f"device {machine.device}"],
        ["computing time", formats.durations(provenance)],
        ["finished", provenance.finished_at],
    ]  # fmt: skip
    return [paragraph("Provenance", HEAD), table_of(rows, (0.18, 0.82), has_head=False)]


def missing_glyphs(report: Report) -> list[Paragraph]:
    """What the document says of characters that its font lacks; nothing where it has all."""
    missing = undrawable(report.model_dump_json())
    if not missing:
        return []
    codes = ", ".join(f"U+{ord(char):04X}" for char in missing)
    return [
        paragraph(
            f"This document cannot draw {len(missing)} characters of names in it and shows their "
            f"code points: {codes}. report.html shows the names as they are."
        )
    ]
