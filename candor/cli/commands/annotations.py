"""The commands `candor annotations ...`: agreement, and export to train with."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from candor.annotation import agreement
from candor.annotation.agreement import Agreement, AgreementReport
from candor.annotation.export import export_judged
from candor.cli.output import AsJson, console, print_json
from candor.cli.store_options import DEFAULT_STORE, StoreAddress, opened_store
from candor.contracts.annotations import Verdict
from candor.store.annotations import Annotations

app = typer.Typer(help="Verdicts of annotators.", no_args_is_help=True)


@app.command()
def report(store: StoreAddress = DEFAULT_STORE, as_json: AsJson = False) -> None:
    """Agreement of annotators: percentage and kappa, overall, by pair and by class."""
    with opened_store(store) as opened:
        result = agreement.report(Annotations(opened).judgements())
        if as_json:
            print_json(asdict(result))
        else:
            _show(result)


@app.command()
def export(
    out: Annotated[Path, typer.Option(help="Parquet file to write.")],
    store: StoreAddress = DEFAULT_STORE,
    annotator: Annotated[
        list[str] | None, typer.Option(help="Only verdicts of these; default: all.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write the images judged unchanged as a data set for `candor train --extra`.

    Of an image with several verdicts more than half must be "unchanged".  All judged images go to
    a second file beside it, NAME.judged.parquet, from which `candor train --control random` draws.
    """
    with opened_store(store) as opened:
        counts = export_judged(Annotations(opened).judged_candidates(annotator or ()), out)
        if as_json:
            print_json(asdict(counts))
        else:
            console().print(f"{out}: {counts.unchanged} unchanged of {counts.judged} judged images")


def _show(result: AgreementReport) -> None:
    table = Table(title=f"{result.image_count} images judged")
    for heading in ("of", "images", "agreement", f"kappa ({result.kappa_name})"):
        table.add_column(heading)
    table.add_row("all", *_cells(result.overall))
    for name, within in result.by_class.items():
        table.add_row(name, *_cells(within))
    console().print(table)
    by_annotator = Table("annotator", *Verdict)
    for annotator, counts in result.verdicts.items():
        by_annotator.add_row(annotator, *(str(counts.get(verdict, 0)) for verdict in Verdict))
    console().print(by_annotator)
    for pair in result.pairs:
        kappa = _number(pair.kappa, ".2f")
        console().print(
            f"{' and '.join(pair.annotators)}: {pair.percent:.1f} % of {pair.image_count}, "
            f"kappa {kappa}",
            markup=False,
        )
    for case in result.disagreements:
        verdicts = ", ".join(f"{name}: {verdict}" for name, verdict in case.verdicts.items())
        console().print(f"candidate {case.candidate} ({case.class_name}): {verdicts}", markup=False)


def _cells(agreement: Agreement) -> tuple[str, str, str]:
    percent = _number(agreement.percent, ".1f") + (" %" if agreement.percent is not None else "")
    return str(agreement.image_count), percent, _number(agreement.kappa, ".2f")


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
