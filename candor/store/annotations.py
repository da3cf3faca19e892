"""The first question: does a changed image still show what the original shows?  (III-H)"""

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session, undefer

from candor.contracts.annotations import AnnotationState, AnnotationTask, FlipVerdict, Verdict
from candor.store.lending import Lending
from candor.store.tables import Annotator, Assignment, Candidate


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """One verdict, with what a report of agreement needs.

    Attributes:
        candidate: number of it, or of the image of the other question.
        class_name: of the original, or the class that was asked about.
    """

    candidate: int
    class_name: str
    annotator: str
    verdict: Verdict | FlipVerdict


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedCandidate:
    """A candidate with one verdict or more, as training needs it; fields as in `Candidate`."""

    candidate: int
    data: str
    identifier: str
    label: int
    class_names: tuple[str, ...]
    rmse: float
    adversarial_png: bytes
    verdicts: tuple[Verdict, ...]


class Annotations(Lending[AnnotationState]):
    """Leases candidates to annotators and takes verdicts.

    The newest model's candidates come first, and of these the least changed: where the least
    change makes the network overly confident, people most often see no change of class.
    """

    asked = Candidate
    assignments = Assignment
    asked_name = "candidate"
    order = (Candidate.set_id.desc(), Candidate.rmse, Candidate.id)

    def state(
        self, session: Session, annotator: str, leased: int | None, answered: int, waiting: int
    ) -> AnnotationState:
        task = None if leased is None else _task(session, leased)
        return AnnotationState(annotator=annotator, task=task, answered=answered, waiting=waiting)

    def judgements(self) -> list[Judgement]:
        """Every verdict, by candidate and annotator."""
        with self._store.reading() as session:
            rows = session.scalars(
                select(Assignment)
                .where(Assignment.verdict.is_not(None))
                .order_by(Assignment.candidate_id, Assignment.annotator_id)
            )
            return [_judgement(row) for row in rows]

    def judged_candidates(self, annotators: Collection[str] = ()) -> list[JudgedCandidate]:
        """Every candidate with its verdicts, only those of ``annotators`` where there are any.

        Raises:
            ValueError: an annotator the store does not know.
        """
        with self._store.reading() as session:
            names = self.known_annotators(session, annotators)
            judged = select(Assignment).join(Assignment.annotator).order_by(Assignment.id)
            judged = judged.where(Assignment.verdict.is_not(None))
            if names:
                judged = judged.where(Annotator.name.in_(names))
            verdicts: dict[int, list[Verdict]] = defaultdict(list)
            for row in session.scalars(judged):
                verdicts[row.candidate_id].append(_verdict(row))
            return [_judged(session, key, verdicts[key]) for key in sorted(verdicts)]


def _task(session: Session, candidate: int) -> AnnotationTask:
    images = (undefer(Candidate.original_png), undefer(Candidate.adversarial_png))
    row = session.get_one(Candidate, candidate, options=images)
    return AnnotationTask(
        candidate=row.id,
        label=row.candidate_set.class_names[row.label],
        original_png=row.original_png,
        adversarial_png=row.adversarial_png,
    )


def _judged(session: Session, candidate: int, verdicts: Sequence[Verdict]) -> JudgedCandidate:
    row = session.get_one(Candidate, candidate, options=(undefer(Candidate.adversarial_png),))
    return JudgedCandidate(
        candidate=row.id,
        data=row.candidate_set.data,
        identifier=row.identifier,
        label=row.label,
        class_names=tuple(row.candidate_set.class_names),
        rmse=row.rmse,
        adversarial_png=row.adversarial_png,
        verdicts=tuple(verdicts),
    )


def _verdict(row: Assignment) -> Verdict:
    assert row.verdict is not None  # the queries leave out candidates that are only leased
    return Verdict(row.verdict)


def _judgement(row: Assignment) -> Judgement:
    candidate = row.candidate
    return Judgement(
        candidate=candidate.id,
        class_name=candidate.candidate_set.class_names[candidate.label],
        annotator=row.annotator.name,
        verdict=_verdict(row),
    )
