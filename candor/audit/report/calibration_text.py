"""The rows about calibration, the same in HTML and PDF."""

from candor.audit.report import formats
from candor.audit.report.schema_sections import CalibrationPoint, CalibrationSection

EXPLANATION = (
    "BTR asks when the label is no likelier than chance, which depends on the temperature of the "
    "softmax: a higher one never shrinks a BTR radius and changes neither accuracy nor attack ARA. "
    "So it is measured at the network's own temperature and at the one that makes its "
    "probabilities truest."
)


def calibration_rows(section: CalibrationSection) -> list[tuple[str, str]]:
    """Label and text, the temperature first, then both points."""
    found = section.temperature
    which = "other test images" if found.is_held_out else "the images of this report"
    rows = [
        (
            "temperature of least negative log-likelihood",
            f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}], on {found.image_count} of "
            f"{which}",
        )
    ]
    for name, point in (("its own temperature", section.own), ("that one", section.fitted)):
        rows.append((f"at {name}, {point.temperature:.2f}", _point(point)))
    return rows


def _point(point: CalibrationPoint) -> str:
    text = (
        f"calibration error {formats.percent(point.ece)} [{100 * point.ece_low:.1f}, "
        f"{100 * point.ece_high:.1f}], {point.nll:.3f} nats, n = {point.image_count}"
    )
    if point.btr is None:
        return text
    return f"{text}; BTR ARA by fast {formats.area(point.btr)}, n = {point.btr.image_count}"
