"""The command `candor annotations flips`: do people see the target in explanations?"""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from candor.annotation.flips import FlipRate, FlipReport, flip_report, metric_of
from candor.cli.output import AsJson, console, print_json
from candor.cli.store_options import DEFAULT_STORE, StoreAddress, opened_store
from candor.models.folder import read_card, record_metrics
from candor.store.flips import Flips


def flips(
    store: StoreAddress = DEFAULT_STORE,
    model: Annotated[
        Path | None, typer.Option(help="Model folder whose card gets the rate of its set.")
    ] = None,
    number: Annotated[
        int | None, typer.Option("--set", help="Which one, where the model has several.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Human flip rate: the share of explanations that people call the target, by set.

    Annotators count who answer at least three quarters of their catch trials as expected.
    """
    with opened_store(store) as opened:
        asked = Flips(opened)
        report = flip_report(asked.judged_images(), asked.sets())
        if as_json:
            print_json(asdict(report))
        else:
            _show(report)
        if model is not None:
            _write(_chosen(report, read_card(model).identity, number), model)


def _chosen(report: FlipReport, identity: str, number: int | None) -> FlipRate:
    own = [rate for rate in report.rates if rate.weights_sha256 == identity]
    named = [rate for rate in own if number in (None, rate.flip_set)]
    if len(named) == 1:
        return named[0]
    numbers = ", ".join(str(rate.flip_set) for rate in own) or "none"
    got = "none" if number is None else str(number)
    raise ValueError(f"set: expected one set of this model ({numbers}), got {got}")


def _write(rate: FlipRate, model: Path) -> None:
    metric = metric_of(rate)
    card = record_metrics(model, [metric])
    if metric not in card.metrics:
        kept = next(m for m in card.metrics if (m.name, m.data) == (metric.name, metric.data))
        console().print(
            f"{model}: the card keeps its rate of {kept.image_count} images; this one is of "
            f"{metric.image_count}",
            markup=False,
        )


def _show(report: FlipReport) -> None:
    table = Table(title="Human flip rate")
    for heading in ("set", "model", "data", "rho", "judged", "rate", "annotators", "left out"):
        table.add_column(heading)
    for rate in report.rates:
        share = rate.rate
        text = "-" if share is None else f"{share.value:.1%} [{share.low:.1%}, {share.high:.1%}]"
        judged = f"{rate.judged_count} of {rate.explanation_count}"
        named = (str(rate.flip_set), rate.model, rate.data, f"{rate.rho:g} {rate.norm}")
        counts = (str(len(rate.annotators)), str(len(rate.left_out)))
        table.add_row(*named, judged, text, *counts)
    console().print(table)
    for one in report.annotators:
        verdict = "counts" if one.is_counted else "does not count"
        console().print(
            f"{one.annotator}: {one.expected_count} of {one.count} catch trials as expected, "
            f"{verdict}",
            markup=False,
        )
