"""Geometry of the accuracy curves, the same for HTML and PDF."""

from collections.abc import Sequence
from dataclasses import dataclass

from candor.audit.report.schema import Report

WIDTH, HEIGHT = 640.0, 320.0
LEFT, RIGHT, TOP, BOTTOM = 52.0, 12.0, 36.0, 44.0
_TICK_STEPS = (1.0, 2.0, 5.0)
_MOST_TICKS = 8
Point = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One drawn curve: its name and its corners in drawing units, y downwards."""

    name: str
    points: tuple[Point, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """A mark on an axis at drawing unit ``at``."""

    at: float
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """Accuracy (0 to 1, upwards) against RMSE (below) and L2 (above), naive floor included."""

    lines: tuple[Line, ...]
    floor: float
    rmse_ticks: tuple[Tick, ...]
    l2_ticks: tuple[Tick, ...]
    accuracy_ticks: tuple[Tick, ...]
    plot: tuple[float, float, float, float]


def draw(report: Report) -> Chart:
    """Curves of both goals, and the certified one where there is one."""
    series: dict[str, list[Point]] = {
        curve.goal: [(p.distance.rmse, p.accuracy) for p in curve.points] for curve in report.curves
    }
    if report.smoothing is not None:
        series["certified (smoothed)"] = [
            (point.distance.rmse, point.certified) for point in report.smoothing.points
        ]
    largest = max((x for points in series.values() for x, _ in points), default=0.0) or 1.0
    limit = largest * 1.04
    root = report.pixel_count**0.5
    return Chart(
        lines=tuple(
            Line(name=name, points=_steps(points, limit)) for name, points in series.items()
        ),
        floor=_y(report.naive),
        rmse_ticks=tuple(Tick(at=_x(v, limit), text=f"{v:g}") for v in _ticks(limit)),
        l2_ticks=tuple(Tick(at=_x(v / root, limit), text=f"{v:g}") for v in _ticks(limit * root)),
        accuracy_ticks=tuple(Tick(at=_y(v / 5), text=f"{v * 20} %") for v in range(6)),
        plot=(LEFT, TOP, WIDTH - RIGHT, HEIGHT - BOTTOM),
    )


def _steps(points: Sequence[Point], limit: float) -> tuple[Point, ...]:
    """Corners of the step function that holds each value up to the next point."""
    corners: list[Point] = []
    previous: float | None = None
    for x, accuracy in points:
        if previous is not None:
            corners.append((_x(x, limit), _y(previous)))
        corners.append((_x(x, limit), _y(accuracy)))
        previous = accuracy
    if previous is not None:
        corners.append((_x(limit, limit), _y(previous)))
    return tuple((round(x, 2), round(y, 2)) for x, y in corners)


def _x(value: float, limit: float) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * value / limit


def _y(value: float) -> float:
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value


def _ticks(limit: float) -> list[float]:
    """Round values from 0 to ``limit``, at most eight."""
    size = 10.0**-12
    while True:
        for factor in _TICK_STEPS:
            step = size * factor
            if limit / step <= _MOST_TICKS:
                return [round(step * i, 12) for i in range(int(limit / step) + 1)]
        size *= 10.0
