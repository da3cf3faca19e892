"""The commands `candor annotations ...`: what annotators said, as reports and as files."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from candor.annotation import agreement
from candor.annotation.agreement import Agreement, AgreementReport
from candor.annotation.export import export_judged
from candor.annotation.flips import export_flips, judgements_of
from candor.cli.commands.ask import ask
from candor.cli.commands.flips import flips
from candor.cli.output import AsJson, console, print_json
from candor.cli.store_options import DEFAULT_STORE, StoreAddress, opened_store
from candor.contracts.annotations import FlipVerdict, Question, Verdict
from candor.store.annotations import Annotations
from candor.store.flips import Flips

app = typer.Typer(help="Verdicts of annotators.", no_args_is_help=True)
app.command()(ask)
app.command()(flips)
AskedQuestion = Annotated[
    Question,
    typer.Option(
        help="still: does the changed image still show it? flips: does it show the target?"
    ),
]


@app.command()
def report(
    store: StoreAddress = DEFAULT_STORE,
    question: AskedQuestion = Question.STILL,
    as_json: AsJson = False,
) -> None:
    """Agreement of annotators: percentage and kappa, overall, by pair and by class.

    Of the question "flips" only verdicts on explanations count, those of every annotator.
    """
    with opened_store(store) as opened:
        if question is Question.FLIPS:
            said = judgements_of(Flips(opened).judged_images())
        else:
            said = Annotations(opened).judgements()
        result = agreement.report(said)
        if as_json:
            print_json(asdict(result))
        else:
            _show(result, FlipVerdict if question is Question.FLIPS else Verdict)


@app.command()
def export(
    out: Annotated[Path, typer.Option(help="Parquet file to write.")],
    store: StoreAddress = DEFAULT_STORE,
    annotator: Annotated[
        list[str] | None, typer.Option(help="Only verdicts of these; default: all.")
    ] = None,
    question: AskedQuestion = Question.STILL,
    as_json: AsJson = False,
) -> None:
    """Write the images judged unchanged as a data set for `candor train --extra`.

    Of an image with several verdicts more than half must be "unchanged".  All judged images go to
    a second file beside it, NAME.judged.parquet, from which `candor train --control random` draws.
    Of the question "flips", every judged image with all its verdicts goes to one file.
    """
    names = annotator or ()
    with opened_store(store) as opened:
        if question is Question.FLIPS:
            asked = Flips(opened)
            counts = export_flips(asked.judged_images(names), asked.sets(), out)
        else:
            counts = asdict(export_judged(Annotations(opened).judged_candidates(names), out))
        if as_json:
            print_json(counts)
        else:
            shown = ", ".join(f"{count} {kind.replace('_', ' ')}" for kind, count in counts.items())
            console().print(f"{out}: {shown}", markup=False)


def _show(result: AgreementReport, verdicts: type[Verdict] | type[FlipVerdict]) -> None:
    table = Table(title=f"{result.image_count} images judged")
    for heading in ("of", "images", "agreement", f"kappa ({result.kappa_name})"):
        table.add_column(heading)
    table.add_row("all", *_cells(result.overall))
    for name, within in result.by_class.items():
        table.add_row(name, *_cells(within))
    console().print(table)
    by_annotator = Table("annotator", *verdicts)
    for annotator, counts in result.verdicts.items():
        by_annotator.add_row(annotator, *(str(counts.get(verdict, 0)) for verdict in verdicts))
    console().print(by_annotator)
    for pair in result.pairs:
        kappa = _number(pair.kappa, ".2f")
        console().print(
            f"{' and '.join(pair.annotators)}: {pair.percent:.1f} % of {pair.image_count}, "
            f"kappa {kappa}",
            markup=False,
        )
    for case in result.disagreements:
        said = ", ".join(f"{name}: {verdict}" for name, verdict in case.verdicts.items())
        what = "candidate" if verdicts is Verdict else "image"
        console().print(f"{what} {case.candidate} ({case.class_name}): {said}", markup=False)


def _cells(agreement: Agreement) -> tuple[str, str, str]:
    percent = _number(agreement.percent, ".1f") + (" %" if agreement.percent is not None else "")
    return str(agreement.image_count), percent, _number(agreement.kappa, ".2f")


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
