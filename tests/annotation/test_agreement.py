"""Agreement of annotators, against published examples and hand-counted tables."""

from collections.abc import Sequence

import pytest

from candor.annotation.agreement import cohen_kappa, fleiss_kappa, report
from candor.contracts.annotations import Verdict
from candor.store.annotations import Judgement

A, B, C = Verdict


def judgements(rows: Sequence[tuple[int, str, Verdict]]) -> list[Judgement]:
    names = ("cat", "dog")
    return [
        Judgement(candidate=key, class_name=names[key % 2], annotator=who, verdict=v)
        for key, who, v in rows
    ]


def test_cohen_of_a_worked_example() -> None:
    # 50 grant proposals, two readers: 20 yes-yes, 5 yes-no, 10 no-yes, 15 no-no.
    pairs = [(A, A)] * 20 + [(A, B)] * 5 + [(B, A)] * 10 + [(B, B)] * 15
    assert cohen_kappa(pairs) == pytest.approx(0.4)


def test_fleiss_of_a_hand_counted_example() -> None:
    # Three annotators: P = (1, 1/3, 1/3, 1), p = (5, 4, 3)/12.
    tables = [{A: 3}, {A: 2, B: 1}, {B: 1, C: 2}, {B: 2, C: 1}]
    observed = (1 + 1 / 3 + 1 / 3 + 1 / 3) / 4
    expected = (25 + 16 + 9) / 144
    assert fleiss_kappa(tables) == pytest.approx((observed - expected) / (1 - expected))


@pytest.mark.parametrize("same", [[(A, A)] * 5, []])
def test_kappa_that_chance_explains_is_none(same: list[tuple[Verdict, Verdict]]) -> None:
    assert cohen_kappa(same) is None
    assert fleiss_kappa([{first: 2} for first, _ in same]) is None


def test_report_of_two_gives_the_papers_percentage() -> None:
    rows = [(key, "ada", A) for key in range(6)]
    rows += [(0, "bob", A), (1, "bob", A), (2, "bob", B), (9, "bob", C)]
    result = report(judgements(rows))
    assert (result.image_count, result.kappa_name) == (7, "cohen")
    assert result.overall.image_count == 3
    assert result.overall.percent == pytest.approx(100 * 2 / 3)
    assert result.overall.kappa == pytest.approx(0.0)
    assert result.by_class["dog"].percent == 100.0
    assert result.by_class["cat"].image_count == 2
    (one,) = result.disagreements
    assert (one.candidate, one.class_name) == (2, "cat")
    assert one.verdicts == {"ada": A, "bob": B}
    assert result.verdicts["bob"] == {A: 2, B: 1, C: 1}


def test_report_of_three_uses_fleiss_and_each_pair() -> None:
    rows = [(0, "ada", A), (0, "bob", A), (0, "eve", C), (1, "ada", B), (1, "eve", B)]
    result = report(judgements(rows))
    assert result.kappa_name == "fleiss"
    assert result.overall.percent == pytest.approx(50.0)  # of four pairs, two agree
    assert result.overall.kappa == fleiss_kappa([{A: 2, C: 1}, {B: 2}])
    assert [pair.annotators for pair in result.pairs] == [
        ("ada", "bob"),
        ("ada", "eve"),
        ("bob", "eve"),
    ]
    assert [pair.image_count for pair in result.pairs] == [1, 2, 1]


def test_nothing_judged_is_no_agreement() -> None:
    result = report([])
    assert (result.overall.percent, result.overall.kappa) == (None, None)
