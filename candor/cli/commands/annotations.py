"""`candor annotations`: agreement, and export to train with."""

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from candor.cli.output import AsJson, clear_errors, console, print_json
from candor.cli.store_options import DEFAULT_STORE, StoreAddress, opened_store
from candor.contracts.annotations import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable

    from candor.annotation.agreement import Agreement, AgreementReport
    from candor.data.annotated import JudgedImage
    from candor.store.annotations import JudgedCandidate

app = typer.Typer(help="What annotators said.", no_args_is_help=True)


@app.command()
def report(store: StoreAddress = DEFAULT_STORE, as_json: AsJson = False) -> None:
    """Agreement of annotators: percentage and kappa, overall, by pair and by class."""
    with clear_errors("annotations report"), opened_store(store) as opened:
        from candor.annotation import agreement
        from candor.store.annotations import Annotations

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
        list[str] | None, typer.Option(help="Only what these said; default: all.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write the images judged unchanged as a data set for `candor train --extra`.

    Of an image with several verdicts more than half must say so.  All judged images go to a second
    file beside it, NAME.judged.parquet, from which `candor train --control random` draws.
    """
    with clear_errors("annotations export"), opened_store(store) as opened:
        from candor.data.annotated import judged_beside, save_annotated
        from candor.store.annotations import Annotations

        judged = Annotations(opened).judged_candidates(annotator or ())
        class_names = _class_names(judged)
        rows = [_row(candidate) for candidate in judged]
        unchanged = [row for row in rows if row.verdict == Verdict.UNCHANGED]
        if not unchanged:
            raise ValueError(f"annotations: got none unchanged of {len(rows)} judged, allowed some")
        save_annotated(out, unchanged, class_names)
        save_annotated(judged_beside(out), rows, class_names)
        summary = {"unchanged": len(unchanged), "judged": len(rows)}
        if as_json:
            print_json(summary)
        else:
            console().print(f"{out}: {len(unchanged)} unchanged of {len(rows)} judged images")


def _class_names(judged: "Iterable[JudgedCandidate]") -> tuple[str, ...]:
    names = {candidate.class_names for candidate in judged}
    if len(names) > 1:
        raise ValueError(f"annotations: got candidates of {len(names)} lists of classes, allowed 1")
    return next(iter(names), ())


def _row(candidate: "JudgedCandidate") -> "JudgedImage":
    from candor.data.annotated import JudgedImage

    return JudgedImage(
        identifier=f"{candidate.data}/{candidate.identifier}#{candidate.candidate}",
        png=candidate.adversarial_png,
        label=candidate.label,
        verdict=_majority(candidate.verdicts),
        rmse=candidate.rmse,
    )


def _majority(verdicts: "Iterable[Verdict]") -> Verdict:
    """What more than half said; unsure where there is no such thing."""
    counts = Counter(verdicts)
    verdict, count = counts.most_common(1)[0]
    return verdict if 2 * count > counts.total() else Verdict.UNSURE


def _show(result: "AgreementReport") -> None:
    from rich.table import Table

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
    for one in result.disagreements:
        said = ", ".join(f"{name}: {verdict}" for name, verdict in one.verdicts.items())
        console().print(f"candidate {one.candidate} ({one.class_name}): {said}", markup=False)


def _cells(agreement: "Agreement") -> tuple[str, str, str]:
    percent = _number(agreement.percent, ".1f") + (" %" if agreement.percent is not None else "")
    return str(agreement.image_count), percent, _number(agreement.kappa, ".2f")


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
