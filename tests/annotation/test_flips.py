"""The human flip rate, who is counted, and the images that are asked about."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy.stats import binomtest
from sqlalchemy import select
from sqlalchemy.orm import undefer
from torch import nn

from candor.annotation import agreement
from candor.annotation.ask import Asking, AskingWork
from candor.annotation.flips import (
    CatchTrials,
    export_flips,
    flip_report,
    judgements_of,
    metric_of,
)
from candor.contracts.annotations import FlipKind, FlipVerdict
from candor.data.images import ImageSet
from candor.jobs.shared_work import work_until_done
from candor.models.folder import LoadedModel
from candor.store.engine import Store, open_store
from candor.store.flips import Flips, JudgedFlipImage
from candor.store.tables import FlipImage
from tests.fixtures.audit import card
from tests.store.stores import fill_flips

LETTERS = {"y": FlipVerdict.YES, "n": FlipVerdict.NO, "u": FlipVerdict.UNSURE}


@pytest.fixture
def asked(tmp_path: Path) -> Iterator[Store]:
    store = open_store(str(tmp_path / "store.sqlite"))
    yield store
    store.close()


def judge(store: Store, said: dict[str, str]) -> list[JudgedFlipImage]:
    """Each annotator's letters are the verdicts on the images in their order."""
    flips = Flips(store, annotators_per_image=9)
    for name, letters in said.items():
        state = flips.next(name)
        for letter in letters:
            assert state.task is not None
            state = flips.answer(name, state.task.image, LETTERS[letter])
    return flips.judged_images()


def test_the_rate_counts_explanations_that_more_than_half_call_the_target(asked: Store) -> None:
    fill_flips(asked, "eeeeot")
    said = {"ada": "yyynny", "bob": "ynunny", "eve": "ynyy", "max": "yyyyyy"}
    images = judge(asked, said)
    report = flip_report(images, Flips(asked).sets())
    # Max takes the unchanged image for the target, Eve has seen no unchanged image.
    assert report.annotators == tuple(
        CatchTrials(annotator=name, count=count, expected_count=expected, is_counted=counted)
        for name, count, expected, counted in (
            ("ada", 2, 2, True), ("bob", 2, 2, True), ("eve", 0, 0, False), ("max", 2, 1, False),
        )
    )  # fmt: skip
    (rate,) = report.rates
    assert (rate.annotators, rate.left_out) == (("ada", "bob"), ("eve", "max"))
    # Both say yes to the first; one of two is not more than half.
    assert (rate.judged_count, rate.called_count, rate.explanation_count) == (4, 1, 4)
    assert rate.rate is not None
    exact = binomtest(1, 4).proportion_ci(0.95, method="exact")
    assert (rate.rate.low, rate.rate.high) == pytest.approx((exact.low, exact.high))
    metric = metric_of(rate)
    assert (metric.name, metric.value, metric.image_count) == ("human_flip_rate", 0.25, 4)
    assert "2 annotators, 2 left out" in metric.method
    # Agreement is of all annotators, without the catch trials.
    agreed = agreement.report(judgements_of(images))
    assert agreed.overall.image_count == 4
    assert agreed.verdicts["bob"] == {"yes": 1, "no": 2, "unsure": 1}


def test_without_counted_verdicts_there_is_no_rate(asked: Store) -> None:
    fill_flips(asked, "eo")
    report = flip_report(judge(asked, {"max": "yy"}), Flips(asked).sets())
    assert report.rates[0].rate is None
    with pytest.raises(ValueError, match="set: expected explanations judged .*got none of set 1"):
        metric_of(report.rates[0])


def test_export_has_every_verdict_beside_its_image(asked: Store, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected some judged images, got none"):
        export_flips([], [], tmp_path / "none.parquet")
    fill_flips(asked, "et")
    images = judge(asked, {"ada": "yu", "bob": "n"})
    out = tmp_path / "flips.parquet"
    counts = export_flips(images, Flips(asked).sets(), out)
    assert counts == {"explanations": 1, "catch_trials": 1}
    first, second = pq.read_table(out).to_pylist()
    assert (first["annotators"], first["verdicts"]) == (["ada", "bob"], ["yes", "no"])
    assert (second["kind"], second["verdicts"]) == ("target", ["unsure"])
    assert first["img"]["bytes"] == images[0].shown_png


def rows_of(store: Store) -> list[FlipImage]:
    query = select(FlipImage).options(undefer(FlipImage.shown_png)).order_by(FlipImage.data_index)
    with store.reading() as session:
        return list(session.scalars(query))


def test_asked_are_explanations_and_unchanged_images_among_them(
    network: nn.Module, data: ImageSet, asked: Store, tmp_path: Path
) -> None:
    loaded = LoadedModel(network=network, card=card())

    def ask(store: Store, count: int, rho: float = 0.1) -> dict[str, int | str]:
        settings = {"solver": "fast", "steps": 8, "seed": 3, "batch_size": 4}
        work = AskingWork(loaded, data, Asking(image_count=count, rho=rho, **settings), store)
        work_until_done(work, lambda count: None)
        return work.summary()

    summary = ask(asked, 20)
    rows = rows_of(asked)
    assert summary["explanations"] == sum(row.kind == "explanation" for row in rows) > 8
    assert summary["catch_trials"] == sum(row.kind != "explanation" for row in rows)
    pixels = data.images(slice(None))
    likeliest = network(pixels).argsort(dim=1, descending=True)
    for row in rows:
        own = int(data.labels[row.data_index])
        prediction, next_likely = likeliest[row.data_index, :2].tolist()
        if row.kind == FlipKind.TARGET:
            assert (row.target, row.rmse) == (own, 0.0)
            continue
        assert (prediction, next_likely) == (own, row.target)
        assert (row.rmse == 0.0) == (row.kind == FlipKind.ORIGINAL)
        assert row.rmse <= 0.1
    # Wrongly classified images are asked about in their own class alone.
    wrong = (likeliest[:, 0] != data.labels).nonzero()[:, 0].tolist()
    assert not [row for row in rows if row.data_index in wrong and row.kind != FlipKind.TARGET]
    assert len({row.place for row in rows}) == len(rows)
    # A command that is stopped and goes on leaves the same rows.
    again = open_store(str(tmp_path / "again.sqlite"))
    for count in (7, 20):
        ask(again, count)
    same = [(row.data_index, row.kind, row.place, row.target) for row in rows_of(again)]
    assert same == [(row.data_index, row.kind, row.place, row.target) for row in rows]
    again.close()
    with pytest.raises(ValueError, match="rho: expected a number in .0, 1., got nan"):
        ask(asked, 2, rho=np.nan)
