"""The report as PDF for paper and archives."""

import base64
import io
from collections.abc import Sequence
from typing import Any
from xml.sax.saxutils import escape

from reportlab.graphics.shapes import Drawing, Line, PolyLine, Rect, String
from reportlab.lib import colors
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle, getSampleStyleSheet
from reportlab.lib.units import mm
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.platypus import Image, Paragraph, SimpleDocTemplate, Spacer, Table

from candor.audit.report import formats
from candor.audit.report.calibration_text import EXPLANATION, calibration_rows
from candor.audit.report.chart import HEIGHT, WIDTH, draw
from candor.audit.report.class_table import class_table
from candor.audit.report.measure_table import measure_table
from candor.audit.report.schema import Report
from candor.audit.report.schema_sections import Example
from candor.fonts import drawable, font_file, undrawable

_BODY = ParagraphStyle("body", parent=getSampleStyleSheet()["BodyText"], fontSize=9, leading=12)
_SMALL = ParagraphStyle("small", parent=_BODY, fontSize=7, leading=8.6)
_WARNING = ParagraphStyle(
    "warning", parent=_BODY, backColor=colors.HexColor("#fff3da"), borderPadding=4, spaceBefore=6
)
_TITLE = ParagraphStyle("title", parent=_BODY, fontSize=17, leading=21, fontName="Helvetica-Bold")
_HEAD = ParagraphStyle(
    "head", parent=_BODY, fontSize=12, leading=15, spaceBefore=12, fontName="Helvetica-Bold",
    keepWithNext=True,
)  # fmt: skip
_LINE_COLOURS = (colors.HexColor("#a02318"), colors.HexColor("#184c8c"), colors.HexColor("#1f5f35"))
_LINE_DASHES = (None, (7, 3), (2, 3))
_VERDICT_COLOURS = {
    "pass": "#1f5f35",
    "warn": "#6a4500",
    "fail": "#a02318",
    "not-applicable": "#555555",
}
_WIDTH = A4[0] - 36 * mm
# Embedded, as far as it is used, where a text has characters that PDF's own fonts lack.
_FONTS = {False: "DejaVuSans", True: "DejaVuSans-Bold"}
for _is_bold, _name in _FONTS.items():
    pdfmetrics.registerFont(TTFont(_name, str(font_file(is_bold=_is_bold))))


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
            *_explanations(report),
            *_people(report),
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
        _text("Robustness report", _TITLE),
        _text(
            f"{facts.name} {facts.version} ({facts.architecture}, {facts.activation}, "
            f"{facts.parameter_count:,} parameters) on {report.image_count} images of "
            f"{report.data}, drawn by seed {seed}."
        ),
        *(_text(warning, _WARNING) for warning in report.warnings),
        *missing_glyphs(report),
        Spacer(0, 8),
        _table(rows, (0.32, 0.68), has_head=False),
        _text(
            "Brackets hold 95 % intervals: Clopper-Pearson for shares, percentile bootstrap over "
            f"the images for areas. L2 = RMSE times {report.pixel_count**0.5:.2f}."
        ),
    ]


def _curves(report: Report) -> list[Any]:
    chart = draw(report)
    left, top, right, bottom = chart.plot
    scale = _WIDTH / WIDTH
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
        _text("Accuracy against distance", _HEAD),
        drawing,
        _text(f"Hatched: the naive floor, {formats.percent(report.naive)}."),
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
    table = _table(rows, (0.18, 0.82), has_head=False)
    return [_text("Threat model", _HEAD), _text(report.words), table]


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
    parts = [_text("Attacks", _HEAD), _table([head, *rows], widths)]
    parts += [
        _text(f"Over the {area.image_count} images every attack saw, the {formats.goal(area.goal)} "
              f"ARA is {formats.area(area)}.")
        for area in report.subset_areas
    ]  # fmt: skip
    named = [[name, text, notes.get(name, "")] for name, text in settings.items()]
    parts.append(_table([["attack", "hyper-parameters", "warnings"], *named], (0.14, 0.5, 0.36)))
    if report.budgets:
        budget_rows = [
            [row.attack, formats.distance(row.eps), formats.share(row.accuracy),
             str(row.not_tried)]
            for row in report.budgets
        ]  # fmt: skip
        parts.append(_text("Accuracy within fixed budgets", _HEAD))
        parts.append(
            _table([["attack", "eps", "accuracy", "not tried"], *budget_rows], (0.2, 0.3, 0.4, 0.1))
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
                _SMALL,
            ),
            check.evidence,
            str(check.image_count or "-"),
        ]
        for check in report.checks
    ]
    head = ["#", "check", "verdict", "evidence", "n"]
    return [
        _text("Masking panel", _HEAD),
        _table([head, *rows], (0.04, 0.28, 0.12, 0.51, 0.05)),
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
            _text(
                f"Randomised smoothing with sigma {smoothing.sigma} per pixel, "
                f"{smoothing.selection_samples} + {smoothing.samples} noisy copies an image, alpha "
                f"{smoothing.alpha}. The certificate is of the smoothed classifier, not of the "
                "network itself."
            ),
            _table(rows, (0.35, 0.65), has_head=False),
        ]
    if clever is not None:
        parts.append(
            _text(
                f"CLEVER, an estimate and not a bound: median {formats.distance(clever.median)} "
                f"over {clever.image_count} images ({clever.samples} gradients each; the Weibull "
                f"distribution fits {clever.fitted}). Above a radius that an attack found on "
                f"{clever.above_empirical} images."
            )
        )
    return [_text("Certificates", _HEAD), *parts] if parts else []


def _calibration(report: Report) -> list[Any]:
    if report.calibration is None:
        return []
    rows = [list(row) for row in calibration_rows(report.calibration)]
    return [
        _text("Calibration", _HEAD),
        _text(EXPLANATION),
        _table(rows, (0.35, 0.65), has_head=False),
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
    table = _table([head, *rows], (0.18, 0.38, 0.22, 0.22))
    note = [_text(shown.note)] if shown.note else []
    return [_text("Classes", _HEAD), table, *note]


def _explanations(report: Report) -> list[Any]:
    quality = report.explanations
    if quality is None:
        return []
    rows = [
        ["what", f"explanations for the runner-up class at {formats.distance(quality.rho)} on "
                 f"{quality.image_count} images"],
        ["median radius", quality.note],
        ["class gain per RMSE", f"{formats.number(quality.gain_per_rmse)} (median)"],
        ["target became likelier", formats.share(quality.moved)],
        *(
            [f"energy in {overlap.method}'s top fifth",
             f"{formats.percent(overlap.median)} (20 % by chance); rank correlation "
             f"{formats.number(overlap.rank_correlation)}"]
            for overlap in quality.overlaps
        ),
        *([name, "not computed: no layer of the network has a feature map"]
          for name in quality.missing),
        *(
            [f"as attribution, {row.method}",
             f"infidelity {formats.number(row.infidelity)}, max-sensitivity "
             f"{formats.number(row.max_sensitivity)} (medians, smaller is better)"]
            for row in quality.faithfulness
        ),
    ]  # fmt: skip
    parts = [
        _text("Explanation quality", _HEAD),
        _table(rows, (0.35, 0.65), has_head=False),
        *_measures(report),
    ]
    for example in quality.examples:
        parts += _example(example)
    return parts


def _measures(report: Report) -> list[Any]:
    shown = measure_table(report)
    judged = [
        [row.target or "all", str(row.image_count), formats.share(row.validity),
         "-" if row.oracle_score is None else formats.share(row.oracle_score),
         formats.estimate(row.cout), formats.estimate(row.nearest_real)]
        for row in shown.rows
    ]  # fmt: skip
    sizes = [
        [row.target or "all",
         *(formats.estimate(size)
           for size in (row.sparsity, row.rho_1, row.rho_1_5, row.rho_2, row.rho_inf))]
        for row in shown.rows
    ]  # fmt: skip
    head = ["target", "images", "validity", "oracle score", "COUT (mean)", "nearest real"]
    size_head = ["target", "sparsity", "rho_1", "rho_1.5", "rho_2", "rho_inf"]
    return [
        Spacer(0, 6),
        _table([head, *judged], (0.14, 0.08, 0.2, 0.2, 0.19, 0.19)),
        Spacer(0, 6),
        _table([size_head, *sizes], (0.14, 0.172, 0.172, 0.172, 0.172, 0.172)),
        _text(shown.note),
    ]


def _people(report: Report) -> list[Any]:
    rows = [["human flip rate", formats.human_flip_rate(report.human_flip_rate)]]
    return [_text("What people see", _HEAD), _table(rows, (0.35, 0.65), has_head=False)]


def _example(example: Example) -> list[Any]:
    pictures = {
        "image": example.original,
        "explanation": example.explanation,
        "difference": example.difference,
        "Grad-CAM": example.grad_cam,
    }
    drawn = {name: _image(uri) for name, uri in pictures.items() if uri is not None}
    return [
        Spacer(0, 6),
        Table([list(drawn.values()), list(drawn)], hAlign="LEFT"),
        _text(
            f"{example.rank}: {example.label} ({example.identifier}), target {example.target} from "
            f"{formats.percent(example.confidence_before)} to "
            f"{formats.percent(example.confidence_after)} at {formats.distance(example.distance)}"
        ),
    ]


def _image(uri: str) -> Image:
    content = base64.b64decode(uri.partition(",")[2])
    return Image(io.BytesIO(content), width=26 * mm, height=26 * mm, kind="proportional")


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
        _text("Beside RobustBench", _HEAD),
        _table([head, own, *rows], (0.28, 0.27, 0.27, 0.18)),
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
            _text("Beside the paper", _HEAD),
            _text(formats.PAPER_SEARCH),
            _table([head, own, *rows], (0.28, 0.1, 0.19, 0.19, 0.24)),
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
            _text(f"Against {report.comparison.model}", _HEAD),
            _text(f"{report.comparison.image_count} images in both reports; p of a "
                  "permutation test that exchanges the models image by image, two-sided."),
            _table([head, *rows], (0.12, 0.26, 0.24, 0.24, 0.14)),
        ]  # fmt: skip
    return parts


def _gallery(report: Report) -> list[Any]:
    if report.gallery is None:
        return []
    words = f"{report.gallery.image_count} images, each explained, in {report.gallery.page}: "
    return [_text("Gallery", _HEAD), _text(f"{words}{formats.gallery_parts(report.gallery)}.")]


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
    return [_text("Provenance", _HEAD), _table(rows, (0.18, 0.82), has_head=False)]


def missing_glyphs(report: Report) -> list[Paragraph]:
    """What the document says of characters that its font lacks; nothing where it has all."""
    missing = undrawable(report.model_dump_json())
    if not missing:
        return []
    codes = ", ".join(f"U+{ord(char):04X}" for char in missing)
    return [
        _text(
            f"This document cannot draw {len(missing)} characters of names in it and shows their "
            f"code points: {codes}. report.html shows the names as they are."
        )
    ]


def _text(words: str, style: ParagraphStyle = _BODY) -> Paragraph:
    if _is_of_own_fonts(words):
        return Paragraph(escape(words), style)
    font = _FONTS[style.fontName.endswith("-Bold")]
    return Paragraph(f'<font name="{font}">{escape(drawable(words))}</font>', style)


def _is_of_own_fonts(words: str) -> bool:
    """Whether the fonts that every reader of PDF has can draw it."""
    try:
        words.encode("cp1252")
    except UnicodeEncodeError:
        return False
    return True


def _table(
    rows: Sequence[Sequence[Any]], shares: Sequence[float], *, has_head: bool = True
) -> Table:
    cells = [[_text(c, _SMALL) if isinstance(c, str) else c for c in row] for row in rows]
    style: list[tuple[Any, ...]] = [
        ("VALIGN", (0, 0), (-1, -1), "TOP"),
        ("LINEBELOW", (0, 0), (-1, -1), 0.4, colors.lightgrey),
        ("LEFTPADDING", (0, 0), (-1, -1), 2),
        ("TOPPADDING", (0, 0), (-1, -1), 2),
        ("BOTTOMPADDING", (0, 0), (-1, -1), 2),
    ]
    if has_head:
        style.append(("BACKGROUND", (0, 0), (-1, 0), colors.HexColor("#eef1f5")))
    return Table(
        cells, colWidths=[_WIDTH * share for share in shares], style=style,
        repeatRows=1 if has_head else 0, hAlign="LEFT", spaceBefore=4, spaceAfter=6,
    )  # fmt: skip
