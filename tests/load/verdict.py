"""From the samples of a run to the rows of its table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tests.load.plan import Allowed
from tools.reliability import Row

NOT_REQUESTS = ("first progress",)  # measured on the way of another one


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One request as its user saw it.

    Attributes:
        name: what was asked.
        door: gRPC or REST.
        outcome: ok, refused for lack of room, or failed, which an OK with wrong content is too.
        error: in words where it is not ok.
    """

    name: str
    door: str
    seconds: float
    outcome: str
    error: str


def rows_of(samples: Sequence[Sample], allowed: Allowed, seconds: float, peak: int) -> list[Row]:
    """One for each thing asked, then one for all of it.

    Args:
        seconds: the run took.
        peak: users at most.
    """
    by_name: dict[str, list[Sample]] = {}
    for sample in samples:
        by_name.setdefault(sample.name, []).append(sample)
    rows = [_row(name, some, allowed) for name, some in by_name.items()]
    return [*rows, _total(samples, allowed, seconds, peak)]


def errors_of(samples: Sequence[Sample]) -> Mapping[str, int]:
    """How often each error came, the most frequent first."""
    texts = [f"{one.name}, {one.door}: {one.error}" for one in samples if one.outcome != "ok"]
    return {text: texts.count(text) for text in sorted(set(texts), key=texts.count, reverse=True)}


def _row(name: str, samples: Sequence[Sample], allowed: Allowed) -> Row:
    times = [one.seconds for one in samples if one.outcome == "ok"]
    p50, p95 = np.quantile(times, (0.5, 0.95)) if times else (np.nan, np.nan)
    limit = allowed.p95_seconds.get(name)
    measured = f"p50 {p50:.3g} s, p95 {p95:.3g} s"
    if limit is not None:
        measured += f" (at most {limit:g})"
    return Row(
        what=name,
        tried=len(samples),
        lost=_count(samples, "failed"),
        measured=measured,
        is_held=(limit is None or bool(p95 <= limit)) and bool(times),
    )


def _total(samples: Sequence[Sample], allowed: Allowed, seconds: float, peak: int) -> Row:
    asked = [sample for sample in samples if sample.name not in NOT_REQUESTS]
    failed, refused = _count(asked, "failed"), _count(asked, "refused")
    count = max(1, len(asked))
    measured = (
        f"{seconds:.0f} s, at most {peak} users, {len(asked) / seconds:.1f} requests a second; "
        f"failed {failed / count:.2%} (at most {allowed.failed_share:.2%}), "
        f"turned away {refused / count:.2%} (at most {allowed.refused_share:.2%})"
    )
    is_held = (
        bool(asked)
        and failed <= allowed.failed_share * len(asked)
        and refused <= allowed.refused_share * len(asked)
    )
    return Row(
        what="all requests", tried=len(asked), lost=failed, measured=measured, is_held=is_held
    )


def _count(samples: Sequence[Sample], outcome: str) -> int:
    return sum(one.outcome == outcome for one in samples)
