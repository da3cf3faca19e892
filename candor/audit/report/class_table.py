"""Which classes the readable reports list; the JSON has all that occur."""

from dataclasses import dataclass

from candor.audit.report.schema import ClassRow, Report

MOST_ROWS = 30  # a page


@dataclass(frozen=True, slots=True)
class ClassTable:
    """Rows to show, in the order of the classes, and what is to be said of the others, "" for none.

    A class without images among those audited has no row anywhere.
    """

    rows: tuple[ClassRow, ...]
    note: str


def class_table(report: Report) -> ClassTable:
    """All classes that occur; of many those with the most images, of these the least robust."""
    rows = report.classes
    if len(rows) <= MOST_ROWS:
        return ClassTable(rows, "")
    ordered = sorted(range(len(rows)), key=lambda place: _order(rows[place]))
    chosen = sorted(ordered[:MOST_ROWS])
    note = (
        f"{MOST_ROWS} of the {len(rows)} classes that occur: those with the most images, and of "
        "these the ones that the least change suffices for. report.json has all."
    )
    return ClassTable(tuple(rows[place] for place in chosen), note)


def _order(row: ClassRow) -> tuple[int, float]:
    return -row.accuracy.image_count, row.attack_mean_radius.rmse
