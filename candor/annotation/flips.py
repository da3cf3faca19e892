"""What people say of explanations: the human flip rate, and who is counted in it."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from candor.contracts.annotations import FlipKind, FlipVerdict
from candor.contracts.card import HUMAN_FLIP_RATE, MetricCard
from candor.files.writing import replacing
from candor.robustness.ara import Interval, accuracy_interval
from candor.store.annotations import Judgement
from candor.store.flips import FlipSetFacts, JudgedFlipImage

EXPECTED: Mapping[FlipKind, FlipVerdict] = {
    FlipKind.ORIGINAL: FlipVerdict.NO,
    FlipKind.TARGET: FlipVerdict.YES,
}
LEAST_SHARE = 0.75  # of the catch trials that an annotator has to answer as expected


@dataclass(frozen=True, slots=True, kw_only=True)
class CatchTrials:
    """One annotator's verdicts on unchanged images, of all sets.

    Attributes:
        expected_count: those as expected; "unsure" is not.
        is_counted: whether the annotator's other verdicts count: at least one catch trial was
            answered, and at least three quarters of them as expected.
    """

    annotator: str
    count: int
    expected_count: int
    is_counted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class FlipRate:
    """Share of a model's explanations that people call the target.

    Attributes:
        flip_set: number of the set in the store.
        explanation_count: of the set, judged or not.
        judged_count: explanations with a verdict of an annotator who is counted.
        called_count: those that more than half of these annotators call the target.
        rate: with its exact (Clopper-Pearson) 95 % interval over the judged explanations; None
            without any.
        annotators: counted ones who judged an explanation of this set.
        left_out: annotators whose verdicts on this set do not count.
    """

    flip_set: int
    model: str
    weights_sha256: str
    data: str
    solver: str
    steps: int
    seed: int
    rho: float
    norm: str
    explanation_count: int
    judged_count: int
    called_count: int
    rate: Interval | None
    annotators: tuple[str, ...]
    left_out: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FlipReport:
    """The report of `candor annotations flips`."""

    annotators: tuple[CatchTrials, ...]
    rates: tuple[FlipRate, ...]


def flip_report(images: Sequence[JudgedFlipImage], sets: Iterable[FlipSetFacts]) -> FlipReport:
    """Flip rates of every set by the annotators who pass their catch trials."""
    trials = catch_trials(images)
    counted = {one.annotator for one in trials if one.is_counted}
    explanations: dict[int, list[JudgedFlipImage]] = defaultdict(list)
    for image in images:
        if image.kind is FlipKind.EXPLANATION:
            explanations[image.flip_set].append(image)
    rates = tuple(_rate(facts, explanations[facts.number], counted) for facts in sets)
    return FlipReport(annotators=trials, rates=rates)


def catch_trials(images: Iterable[JudgedFlipImage]) -> tuple[CatchTrials, ...]:
    """Every annotator by name, also those who have answered no catch trial."""
    given: Counter[str] = Counter()
    expected: Counter[str] = Counter()
    for image in images:
        for name, verdict in image.verdicts.items():
            is_catch = image.kind in EXPECTED
            given[name] += is_catch
            expected[name] += is_catch and verdict is EXPECTED[image.kind]
    return tuple(
        CatchTrials(
            annotator=name,
            count=given[name],
            expected_count=expected[name],
            is_counted=given[name] > 0 and expected[name] >= LEAST_SHARE * given[name],
        )
        for name in sorted(given)
    )


def judgements_of(images: Iterable[JudgedFlipImage]) -> list[Judgement]:
    """Every verdict on an explanation, for the report of agreement; catch trials are left out."""
    return [
        Judgement(candidate=image.image, class_name=image.target, annotator=name, verdict=verdict)
        for image in images
        if image.kind is FlipKind.EXPLANATION
        for name, verdict in image.verdicts.items()
    ]


def metric_of(rate: FlipRate) -> MetricCard:
    """The rate as a card has it.

    Raises:
        ValueError: nothing was judged.
    """
    if rate.rate is None:
        raise ValueError(
            f"set: expected explanations judged by annotators who are counted, got none of set "
            f"{rate.flip_set}"
        )
    return MetricCard(
        name=HUMAN_FLIP_RATE,
        value=rate.rate.value,
        low=rate.rate.low,
        high=rate.rate.high,
        image_count=rate.judged_count,
        data=rate.data,
        method=(
            f"share of explanations for the runner-up class (rho {rate.rho:g} in {rate.norm}, "
            f"{rate.solver}, {rate.steps} steps) that more than half of their annotators call the "
            f"target; {len(rate.annotators)} annotators, {len(rate.left_out)} left out after "
            "catch trials"
        ),
    )


def export_flips(
    images: Sequence[JudgedFlipImage], sets: Iterable[FlipSetFacts], out: Path
) -> dict[str, int]:
    """Write every judged image with its verdicts to a Parquet file; how many rows it has.

    Raises:
        ValueError: nothing was judged.
    """
    if not images:
        raise ValueError("annotations: expected some judged images, got none")
    facts = {one.number: one for one in sets}
    rows = [_exported(image, facts[image.flip_set]) for image in images]
    with replacing(out) as stream:
        pq.write_table(pa.Table.from_pylist(rows), stream)
    explanations = sum(image.kind is FlipKind.EXPLANATION for image in images)
    return {"explanations": explanations, "catch_trials": len(images) - explanations}


def _rate(
    facts: FlipSetFacts, explanations: Sequence[JudgedFlipImage], counted: set[str]
) -> FlipRate:
    names = {name for image in explanations for name in image.verdicts}
    said = [
        [verdict for name, verdict in image.verdicts.items() if name in counted]
        for image in explanations
    ]
    judged = [verdicts for verdicts in said if verdicts]
    called = sum(2 * verdicts.count(FlipVerdict.YES) > len(verdicts) for verdicts in judged)
    key = facts.key
    return FlipRate(
        flip_set=facts.number,
        model=facts.model,
        weights_sha256=key.weights_sha256,
        data=facts.data,
        solver=key.solver,
        steps=key.steps,
        seed=key.seed,
        rho=key.rho,
        norm=key.norm,
        explanation_count=facts.explanation_count,
        judged_count=len(judged),
        called_count=called,
        rate=accuracy_interval(called, len(judged)) if judged else None,
        annotators=tuple(sorted(names & counted)),
        left_out=tuple(sorted(names - counted)),
    )


def _exported(image: JudgedFlipImage, facts: FlipSetFacts) -> dict[str, object]:
    return {
        "img": {"bytes": image.shown_png, "path": image.identifier},
        "image": image.image,
        "kind": image.kind.value,
        "model": facts.model,
        "weights_sha256": facts.key.weights_sha256,
        "data": facts.data,
        "data_index": image.data_index,
        "label": image.label,
        "target": image.target,
        "rmse": image.rmse,
        "rho": facts.key.rho,
        "norm": facts.key.norm,
        "solver": facts.key.solver,
        "steps": facts.key.steps,
        "seed": facts.key.seed,
        "annotators": list(image.verdicts),
        "verdicts": [verdict.value for verdict in image.verdicts.values()],
    }
