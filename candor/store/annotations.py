"""Which annotator judges which candidate, and the verdicts.

A candidate is leased to one annotator at a time for each of its slots.  The annotator whose row is
inserted first has the slot: the database guarantees uniqueness, so it holds for any number of
threads and processes.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, delete, func, select, update
from sqlalchemy.orm import Session, undefer

from candor.contracts.annotations import AnnotationState, AnnotationTask, Verdict
from candor.contracts.errors import FieldViolation, ServiceError, invalid_input
from candor.contracts.names import normalised
from candor.store.engine import Store, insert_new
from candor.store.tables import Annotator, Assignment, Candidate

DEFAULT_LEASE_SECONDS = 900.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """One verdict, with what a report of agreement needs."""

    candidate: int
    label: int
    class_name: str
    annotator: str
    verdict: Verdict


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


class Annotations:
    """Leases candidates to annotators and takes verdicts; safe to share among threads.

    Args:
        annotators_per_image: k, how many annotators see each candidate, >= 1.
        lease_seconds: how long a candidate is reserved for an annotator who does not answer.
        clock: seconds since 1970, UTC.
    """

    def __init__(
        self,
        store: Store,
        *,
        annotators_per_image: int = 1,
        lease_seconds: float = DEFAULT_LEASE_SECONDS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._slot_count = annotators_per_image
        self._lease_seconds = lease_seconds
        self._clock = clock

    def next(self, annotator: str) -> AnnotationState:
        """Lease this annotator a candidate: the one already leased, else the most informative.

        The newest model's candidates come first, and of these the least changed: where the least
        change makes the network overly confident, people most often see no change of class.
        """
        with self._store.writing() as session:
            who = self._annotator(session, annotator)
            leased = self._renewed(session, who) or self._lease(session, who)
            return self._state(session, who, leased)

    def answer(self, annotator: str, candidate: int, verdict: Verdict) -> AnnotationState:
        """Store a verdict; on disk when this returns.  Then as `next`.

        Raises:
            ServiceError: INVALID_INPUT: no such candidate, or its lease ended without an
                answer and all its slots have gone to others.
        """
        with self._store.writing() as session:
            who = self._annotator(session, annotator)
            self._store_verdict(session, who, candidate, verdict)
            leased = self._renewed(session, who) or self._lease(session, who)
            return self._state(session, who, leased)

    def undo(self, annotator: str) -> AnnotationState:
        """Remove this annotator's latest verdict and lease that candidate again."""
        with self._store.writing() as session:
            who = self._annotator(session, annotator)
            latest = session.scalars(
                select(Assignment)
                .where(Assignment.annotator_id == who.id, Assignment.verdict.is_not(None))
                .order_by(Assignment.changed_at.desc(), Assignment.id.desc())
                .limit(1)
            ).one_or_none()
            if latest is not None:
                latest.verdict = None
                latest.expires_at = self._clock() + self._lease_seconds
                latest.changed_at = self._clock()
                session.flush()
            leased = self._renewed(session, who) or self._lease(session, who)
            return self._state(session, who, leased)

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
            known = set(session.scalars(select(Annotator.name)))
            annotators = [str(normalised(name)) for name in annotators]
            unknown = sorted(set(annotators) - known)
            if unknown:
                raise ValueError(f"annotator: expected one of {sorted(known)}, got {unknown[0]!r}")
            judged = select(Assignment).join(Assignment.annotator).order_by(Assignment.id)
            judged = judged.where(Assignment.verdict.is_not(None))
            if annotators:
                judged = judged.where(Annotator.name.in_(annotators))
            verdicts: dict[int, list[Verdict]] = defaultdict(list)
            for row in session.scalars(judged):
                verdicts[row.candidate_id].append(_verdict(row))
            return [_judged(session, key, verdicts[key]) for key in sorted(verdicts)]

    def _annotator(self, session: Session, name: str) -> Annotator:
        name = str(normalised(name))
        named = select(Annotator).where(Annotator.name == name)
        known = session.scalars(named).one_or_none()
        if known is not None:
            return known
        insert_new(session, Annotator, name=name, created_at=self._clock())
        return session.scalars(named).one()

    def _renewed(self, session: Session, who: Annotator) -> int | None:
        """The candidate leased to ``who``, with its lease renewed; after an undo that one first."""
        leased = session.scalars(
            select(Assignment)
            .where(Assignment.annotator_id == who.id, Assignment.verdict.is_(None))
            .order_by(Assignment.changed_at.desc(), Assignment.id.desc())
            .limit(1)
            .with_for_update()
        ).one_or_none()
        if leased is None:
            return None
        leased.expires_at = self._clock() + self._lease_seconds
        return leased.candidate_id

    def _lease(self, session: Session, who: Annotator) -> int | None:
        self._delete_expired(session)
        open_to = self._open_to(who)
        wanted = select(Candidate.id).where(open_to)
        wanted = wanted.order_by(Candidate.set_id.desc(), Candidate.rmse, Candidate.id).limit(1)
        # Another transaction may take the slot between the query and the insert: query again.
        while (candidate := session.scalar(wanted)) is not None:
            expires_at = self._clock() + self._lease_seconds
            if self._take_slot(session, who, candidate, verdict=None, expires_at=expires_at):
                return candidate
        return None

    def _store_verdict(
        self, session: Session, who: Annotator, candidate: int, verdict: Verdict
    ) -> None:
        kept = session.scalar(
            update(Assignment)
            .where(Assignment.candidate_id == candidate, Assignment.annotator_id == who.id)
            .values(verdict=verdict.value, expires_at=None, changed_at=self._clock())
            .returning(Assignment.id)
        )
        if kept is not None:
            return
        if session.get(Candidate, candidate) is None:
            raise _invalid_candidate(f"expected a candidate of this store, got {candidate}")
        self._delete_expired(session)
        if not self._take_slot(session, who, candidate, verdict=verdict.value, expires_at=None):
            raise _invalid_candidate(
                f"got {candidate}, which has gone to other annotators meanwhile; ask for the next"
            )

    def _take_slot(
        self,
        session: Session,
        who: Annotator,
        candidate: int,
        *,
        verdict: str | None,
        expires_at: float | None,
    ) -> bool:
        taken = set(
            session.scalars(select(Assignment.slot).where(Assignment.candidate_id == candidate))
        )
        free = [slot for slot in range(self._slot_count) if slot not in taken]
        return bool(free) and insert_new(
            session,
            Assignment,
            candidate_id=candidate,
            slot=free[0],
            annotator_id=who.id,
            verdict=verdict,
            expires_at=expires_at,
            changed_at=self._clock(),
        )

    def _delete_expired(self, session: Session) -> None:
        expired = (
            select(Assignment.id)
            .where(Assignment.verdict.is_(None), Assignment.expires_at <= self._clock())
            .with_for_update(skip_locked=True)  # two at once on PostgreSQL do not wait
        )
        session.execute(delete(Assignment).where(Assignment.id.in_(expired)))

    def _open_to(self, who: Annotator) -> ColumnElement[bool]:
        of_candidate = Assignment.candidate_id == Candidate.id
        given_to_who = select(Assignment.id).where(of_candidate, Assignment.annotator_id == who.id)
        given = select(func.count(Assignment.id)).where(of_candidate).scalar_subquery()
        return ~given_to_who.exists() & (given < self._slot_count)

    def _state(self, session: Session, who: Annotator, leased: int | None) -> AnnotationState:
        session.flush()
        mine = Assignment.annotator_id == who.id
        counts = select(func.count(Assignment.id), func.count(Assignment.verdict)).where(mine)
        given, answered = session.execute(counts).one()
        open_count = session.scalar(select(func.count(Candidate.id)).where(self._open_to(who)))
        return AnnotationState(
            annotator=who.name,
            task=None if leased is None else _task(session, leased),
            answered=answered,
            waiting=given - answered + (open_count or 0),
        )


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
        label=candidate.label,
        class_name=candidate.candidate_set.class_names[candidate.label],
        annotator=row.annotator.name,
        verdict=_verdict(row),
    )


def _invalid_candidate(description: str) -> ServiceError:
    return invalid_input([FieldViolation("candidate", description)])
