"""How far annotators agree: percentage and kappas.

Only candidates with verdicts of two or more annotators count.  What is said here of candidates also
holds for the images of the second question.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from candor.contracts.annotations import FlipVerdict, Verdict
from candor.store.annotations import Judgement

Said = Verdict | FlipVerdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Agreement over the candidates judged more than once.

    Attributes:
        image_count: those candidates.
        percent: pairs of annotators of the same candidate with equal verdicts, in %; of two
            annotators the paper's number (IV-C).  None without any pair.
        kappa: Cohen's for two annotators, Fleiss' for more; None where chance explains all.
    """

    image_count: int
    percent: float | None
    kappa: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PairAgreement:
    """Two annotators, over the candidates both judged; kappa is Cohen's."""

    annotators: tuple[str, str]
    image_count: int
    percent: float
    kappa: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Disagreement:
    """A candidate on which verdicts differ."""

    candidate: int
    class_name: str
    verdicts: Mapping[str, Said]


@dataclass(frozen=True, slots=True, kw_only=True)
class AgreementReport:
    """The report of `candor annotations report`.

    Attributes:
        verdicts: how many of each, by annotator.
        kappa_name: "cohen" or "fleiss", the kappa of ``overall`` and ``by_class``.
        by_class: by name of the original's class, or of the class that was asked about.
    """

    image_count: int
    verdicts: Mapping[str, Mapping[Said, int]]
    kappa_name: str
    overall: Agreement
    by_class: Mapping[str, Agreement]
    pairs: tuple[PairAgreement, ...]
    disagreements: tuple[Disagreement, ...]


def report(judgements: Iterable[Judgement]) -> AgreementReport:
    """Agreement of all annotators, of each pair and within each class."""
    images: dict[int, dict[str, Said]] = defaultdict(dict)
    class_names: dict[int, str] = {}
    for judgement in judgements:
        images[judgement.candidate][judgement.annotator] = judgement.verdict
        class_names[judgement.candidate] = judgement.class_name
    annotators = sorted({name for verdicts in images.values() for name in verdicts})
    shared = {key: verdicts for key, verdicts in images.items() if len(verdicts) > 1}
    by_class: dict[str, list[Mapping[str, Said]]] = defaultdict(list)
    for candidate, verdicts in shared.items():
        by_class[class_names[candidate]].append(verdicts)
    return AgreementReport(
        image_count=len(images),
        verdicts={
            name: dict(Counter(given[name] for given in images.values() if name in given))
            for name in annotators
        },
        kappa_name="cohen" if len(annotators) <= 2 else "fleiss",
        overall=_agreement(list(shared.values()), annotators),
        by_class={name: _agreement(by_class[name], annotators) for name in sorted(by_class)},
        pairs=tuple(_pairs(list(shared.values()), annotators)),
        disagreements=tuple(
            Disagreement(candidate=key, class_name=class_names[key], verdicts=verdicts)
            for key, verdicts in sorted(shared.items())
            if len(set(verdicts.values())) > 1
        ),
    )


def cohen_kappa(pairs: Sequence[tuple[Said, Said]]) -> float | None:
    """Cohen's kappa of two annotators.  (Cohen 1960)

    (p_o - p_e) / (1 - p_e): p_o the share of equal verdicts, p_e that of two annotators who keep
    their own shares of each verdict and guess.

    Args:
        pairs: one (first, second) verdict a candidate.
    Returns:
        None without pairs or where p_e is 1, as when both gave only one and the same verdict.
    """
    if not pairs:
        return None
    count = len(pairs)
    observed = sum(first == second for first, second in pairs) / count
    firsts, seconds = Counter(first for first, _ in pairs), Counter(second for _, second in pairs)
    expected = sum(firsts[verdict] * seconds[verdict] for verdict in firsts) / count**2
    return _beyond_chance(observed, expected)


def fleiss_kappa(tables: Sequence[Mapping[Said, int]]) -> float | None:
    """Fleiss' kappa of any number of annotators.  (Fleiss 1971)

    As Cohen's, with p_o the mean over candidates of the share of equal pairs of verdicts, and p_e
    from the shares of the verdicts over all.  Candidates may have different numbers of verdicts.

    Args:
        tables: per candidate, how often each verdict was given; two verdicts or more.
    """
    if not tables:
        return None
    observed = sum(map(_equal_pairs, tables)) / len(tables)
    total = sum(sum(table.values()) for table in tables)
    given = sum(map(Counter, tables), Counter[Said]())
    shares = [count / total for count in given.values()]
    return _beyond_chance(observed, sum(share**2 for share in shares))


def _equal_pairs(table: Mapping[Said, int]) -> float:
    count = sum(table.values())
    return sum(given * (given - 1) for given in table.values()) / (count * (count - 1))


def _beyond_chance(observed: float, expected: float) -> float | None:
    return None if expected >= 1.0 else (observed - expected) / (1.0 - expected)


def _agreement(shared: Sequence[Mapping[str, Said]], annotators: Sequence[str]) -> Agreement:
    pairs = [pair for verdicts in shared for pair in combinations(verdicts.values(), 2)]
    if len(annotators) == 2:
        first, second = annotators
        kappa = cohen_kappa([(verdicts[first], verdicts[second]) for verdicts in shared])
    else:
        kappa = fleiss_kappa([Counter(verdicts.values()) for verdicts in shared])
    return Agreement(image_count=len(shared), percent=_percent(pairs), kappa=kappa)


def _pairs(
    shared: Sequence[Mapping[str, Said]], annotators: Sequence[str]
) -> Iterable[PairAgreement]:
    for first, second in combinations(annotators, 2):
        both = [(v[first], v[second]) for v in shared if first in v and second in v]
        percent = _percent(both)
        if percent is not None:
            yield PairAgreement(
                annotators=(first, second),
                image_count=len(both),
                percent=percent,
                kappa=cohen_kappa(both),
            )


def _percent(pairs: Sequence[tuple[Said, Said]]) -> float | None:
    if not pairs:
        return None
    return 100.0 * sum(first == second for first, second in pairs) / len(pairs)
