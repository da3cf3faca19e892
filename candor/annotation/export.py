"""Exports judged candidates as a data set to train with.  (III-H)"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from candor.contracts.annotations import Verdict
from candor.data.annotated import JudgedImage, judged_beside, save_annotated
from candor.store.annotations import JudgedCandidate


@dataclass(frozen=True, slots=True)
class ExportCounts:
    """How many images were written.

    Attributes:
        unchanged: those judged unchanged, in the file itself.
        judged: all of them, in the file beside it.
    """

    unchanged: int
    judged: int


def export_judged(judged: Sequence[JudgedCandidate], out: Path) -> ExportCounts:
    """Write the candidates judged unchanged to ``out`` and all of them to a file beside it.

    Raises:
        ValueError: none was judged unchanged, or their classes differ.
    """
    class_names = _class_names(judged)
    rows = [_row(candidate) for candidate in judged]
    unchanged = [row for row in rows if row.verdict == Verdict.UNCHANGED]
    if not unchanged:
        raise ValueError(
            f"annotations: expected some judged unchanged, got none unchanged of {len(rows)} judged"
        )
    save_annotated(out, unchanged, class_names)
    save_annotated(judged_beside(out), rows, class_names)
    return ExportCounts(len(unchanged), len(rows))


def _class_names(judged: Iterable[JudgedCandidate]) -> tuple[str, ...]:
    names = {candidate.class_names for candidate in judged}
    if len(names) > 1:
        raise ValueError(
            f"annotations: expected candidates of one list of classes, got {len(names)}"
        )
    return next(iter(names), ())


def _row(candidate: JudgedCandidate) -> JudgedImage:
    return JudgedImage(
        identifier=f"{candidate.data}/{candidate.identifier}#{candidate.candidate}",
        png=candidate.adversarial_png,
        label=candidate.label,
        verdict=_majority(candidate.verdicts),
        rmse=candidate.rmse,
    )


def _majority(verdicts: Iterable[Verdict]) -> Verdict:
    """The verdict of more than half of the annotators; unsure where there is none."""
    counts = Counter(verdicts)
    verdict, count = counts.most_common(1)[0]
    return verdict if 2 * count > counts.total() else Verdict.UNSURE
