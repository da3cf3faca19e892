"""The report as one HTML file that needs no network."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from candor.audit.report.calibration_text import EXPLANATION, calibration_rows
from candor.audit.report.chart import HEIGHT, WIDTH, draw
from candor.audit.report.class_table import class_table
from candor.audit.report.formats import FILTERS, PAPER_SEARCH
from candor.audit.report.measure_table import measure_table
from candor.audit.report.schema import Report

_TEMPLATES = Path(__file__).with_name("templates")


def html_text(report: Report) -> str:
    """The whole page; every number is one of the report's."""
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(FILTERS)
    template = environment.get_template("report.html.j2")
    return template.render(
        report=report,
        chart=draw(report),
        classes=class_table(report),
        measures=measure_table(report),
        paper_search=PAPER_SEARCH,
        calibration_words=EXPLANATION,
        calibration=calibration_rows(report.calibration) if report.calibration else (),
        width=WIDTH,
        height=HEIGHT,
    )
