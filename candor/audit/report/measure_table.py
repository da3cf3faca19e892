"""The measures of explanations as the readable reports show them; the JSON has all classes."""

from dataclasses import dataclass

from candor.audit.report.class_table import MOST_ROWS
from candor.audit.report.schema import Report
from candor.audit.report.schema_sections import ExplanationMeasures

_MEANING = (
    "Validity: the network gives the explanation the target. Oracle score: an independent model "
    "does, too. COUT, [-1, 1]: how fast the target rises and the class of the image falls as the "
    "pixels that changed most are put in first. Nearest real: where the distance to the nearest "
    "real training images of the target lies among those of real test images, in the penultimate "
    "layer of the independent model; 0.5 is typical, 1 further than any. Sparsity: share of the "
    "pixels that changed by more than 1/255. rho_p: size of the change, (mean |change|^p)^(1/p). "
    "Medians where not said otherwise."
)
_MISSING = "An oracle score needs --independent, nearest real the training images of the data, too."


@dataclass(frozen=True, slots=True)
class MeasureTable:
    """Rows to show, the first of all explanations, and what the columns mean."""

    rows: tuple[ExplanationMeasures, ...]
    note: str


def measure_table(report: Report) -> MeasureTable:
    """All classes; of many those with the most images, in the order of the classes."""
    if report.explanations is None:
        return MeasureTable((), "")
    rows = report.explanations.measures
    note = _MEANING
    if any(row.nearest_real is None for row in rows):
        note += f" {_MISSING}"
    if len(rows) <= MOST_ROWS + 1:
        return MeasureTable(rows, note)
    order = sorted(range(1, len(rows)), key=lambda place: -rows[place].image_count)
    chosen = [0, *sorted(order[:MOST_ROWS])]
    note += f" {MOST_ROWS} of {len(rows) - 1} classes are shown; report.json has all."
    return MeasureTable(tuple(rows[place] for place in chosen), note)
