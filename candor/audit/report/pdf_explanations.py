"""The PDF's section on explanations: their quality, measures and examples, and what people see."""

import base64
import io
from typing import Any

from reportlab.lib.units import mm
from reportlab.platypus import Image, Spacer, Table

from candor.audit.report import formats
from candor.audit.report.measure_table import measure_table
from candor.audit.report.pdf_parts import HEAD, paragraph, table_of
from candor.audit.report.schema import Report
from candor.audit.report.schema_sections import Example


def explanations(report: Report) -> list[Any]:
    """Nothing where the stage did not run."""
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
        paragraph("Explanation quality", HEAD),
        table_of(rows, (0.35, 0.65), has_head=False),
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
        table_of([head, *judged], (0.14, 0.08, 0.2, 0.2, 0.19, 0.19)),
        Spacer(0, 6),
        table_of([size_head, *sizes], (0.14, 0.172, 0.172, 0.172, 0.172, 0.172)),
        paragraph(shown.note),
    ]


def people(report: Report) -> list[Any]:
    """The human flip rate."""
    rows = [["human flip rate", formats.human_flip_rate(report.human_flip_rate)]]
    return [paragraph("What people see", HEAD), table_of(rows, (0.35, 0.65), has_head=False)]


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
        paragraph(
            f"{example.rank}: {example.label} ({example.identifier}), target {example.target} from "
            f"{formats.percent(example.confidence_before)} to "
            f"{formats.percent(example.confidence_after)} at {formats.distance(example.distance)}"
        ),
    ]


def _image(uri: str) -> Image:
    content = base64.b64decode(uri.partition(",")[2])
    return Image(io.BytesIO(content), width=26 * mm, height=26 * mm, kind="proportional")
