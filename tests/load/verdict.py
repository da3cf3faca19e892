"""From the samples of a run to the rows of its table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tests.load.plan import Allowed
from tools.reliability import Row

NOT_REQUESTS = ("first progress",)  # measured during another one


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One request as its user saw it.

    Attributes:
        name: the kind of request.
        transport: gRPC or REST.
        outcome: ok, rejected for lack of capacity, or failed; a wrong response has failed, too.
        error: the message where it is not ok.
    """

    name: str
    transport: str
    seconds: float
    outcome: str
    error: str


def rows_of(samples: Sequence[Sample], allowed: Allowed, seconds: float, peak: int) -> list[Row]:
    """One for each kind of request, then one for all of them.

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
    texts = [f"{one.name}, {one.transport}: {one.error}" for one in samples if one.outcome != "ok"]
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
    requests = [sample for sample in samples if sample.name not in NOT_REQUESTS]
    failed, rejected = _count(requests, "failed"), _count(requests, "rejected")
    count = max(1, len(requests))
    measured = (
        f"{seconds:.0f} s, at most {peak} users, {len(requests) / seconds:.1f} requests a second; "
        f"failed {failed / count:.2%} (at most {allowed.failed_share:.2%}), "
        f"rejected {rejected / count:.2%} (at most {allowed.rejected_share:.2%})"
    )
    is_held = (
        bool(requests)
        and failed <= allowed.failed_share * len(requests)
        and rejected <= allowed.rejected_share * len(requests)
    )
    return Row(
        what="all requests", tried=len(requests), lost=failed, measured=measured, is_held=is_held
    )


def _count(samples: Sequence[Sample], outcome: str) -> int:
    return sum(one.outcome == outcome for one in samples)
