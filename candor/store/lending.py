"""Which annotator judges what, and the verdicts, of either question.

An image (a row of a table of `candor.store.tables.Asked`) is leased to one annotator at a time for
each of its slots.  The annotator whose row is inserted first has the slot: the database guarantees
uniqueness, so it holds for any number of threads and processes.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from typing import Any, ClassVar, Generic, TypeVar

from sqlalchemy import ColumnElement, delete, func, select, update
from sqlalchemy.orm import InstrumentedAttribute, Session

from candor.contracts.errors import FieldViolation, ServiceError, invalid_input
from candor.contracts.names import normalised
from candor.store.engine import Store, insert_new
from candor.store.tables import Annotator, Asked, Lent

DEFAULT_LEASE_SECONDS = 900.0
StateT = TypeVar("StateT")


class Lending(ABC, Generic[StateT]):
    """Leases images to annotators and takes verdicts; safe to share among threads.

    Subclasses name the tables of their question and make its states.  An image here is a row of
    the table ``asked``, which may hold a pair of images.

    Args:
        annotators_per_image: k, how many annotators see each image, >= 1.
        lease_seconds: how long an image is reserved for an annotator who does not answer.
        clock: seconds since 1970, UTC.

    Attributes:
        asked, assignments: tables of the question.
        asked_name: of an image in requests; with ``_id``, the column that refers to it.
        order: in which images are lent.
    """

    asked: ClassVar[type[Asked]]
    assignments: ClassVar[type[Lent]]
    asked_name: ClassVar[str]
    order: ClassVar[tuple[ColumnElement[Any] | InstrumentedAttribute[Any], ...]]

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
        self._asked_key = f"{self.asked_name}_id"
        self._asked_id: InstrumentedAttribute[int] = getattr(self.assignments, self._asked_key)

    def next(self, annotator: str) -> StateT:
        """Lease this annotator an image: the one already leased, else the first of ``order``."""
        with self._store.writing() as session:
            who = self._annotator(session, annotator)
            return self._next_state(session, who)

    def answer(self, annotator: str, image: int, verdict: str) -> StateT:
        """Store a verdict; on disk when this returns.  Then as `next`.

        Raises:
            ServiceError: INVALID_INPUT: no such image, or its lease ended without an answer and all
                its slots have gone to others.
        """
        with self._store.writing() as session:
            who = self._annotator(session, annotator)
            self._store_verdict(session, who, image, verdict)
            return self._next_state(session, who)

    def undo(self, annotator: str) -> StateT:
        """Remove this annotator's latest verdict and lease that image again."""
        assignments = self.assignments
        with self._store.writing() as session:
            who = self._annotator(session, annotator)
            latest = session.scalars(
                select(assignments)
                .where(assignments.annotator_id == who.id, assignments.verdict.is_not(None))
                .order_by(assignments.changed_at.desc(), assignments.id.desc())
                .limit(1)
            ).one_or_none()
            if latest is not None:
                latest.verdict = None
                latest.expires_at = self._clock() + self._lease_seconds
                latest.changed_at = self._clock()
                session.flush()
            return self._next_state(session, who)

    @abstractmethod
    def state(
        self, session: Session, annotator: str, leased: int | None, answered: int, waiting: int
    ) -> StateT:
        """What the annotator is told; ``leased`` is the number of an image."""

    def known_annotators(self, session: Session, names: Collection[str]) -> list[str]:
        """The names in the store's spelling.

        Raises:
            ValueError: an annotator the store does not know.
        """
        known = set(session.scalars(select(Annotator.name)))
        spelled = [str(normalised(name)) for name in names]
        unknown = sorted(set(spelled) - known)
        if unknown:
            raise ValueError(f"annotator: expected one of {sorted(known)}, got {unknown[0]!r}")
        return spelled

    def _annotator(self, session: Session, name: str) -> Annotator:
        name = str(normalised(name))
        named = select(Annotator).where(Annotator.name == name)
        known = session.scalars(named).one_or_none()
        if known is not None:
            return known
        insert_new(session, Annotator, name=name, created_at=self._clock())
        return session.scalars(named).one()

    def _next_state(self, session: Session, who: Annotator) -> StateT:
        leased = self._renewed(session, who) or self._lease(session, who)
        session.flush()
        assignments = self.assignments
        mine = assignments.annotator_id == who.id
        counts = select(func.count(assignments.id), func.count(assignments.verdict)).where(mine)
        given, answered = session.execute(counts).one()
        open_count = session.scalar(select(func.count(self.asked.id)).where(self._open_to(who)))
        waiting = given - answered + (open_count or 0)
        return self.state(session, who.name, leased, answered, waiting)

    def _renewed(self, session: Session, who: Annotator) -> int | None:
        """The image leased to ``who``, with its lease renewed; after an undo that one first."""
        assignments = self.assignments
        leased = session.scalars(
            select(assignments)
            .where(assignments.annotator_id == who.id, assignments.verdict.is_(None))
            .order_by(assignments.changed_at.desc(), assignments.id.desc())
            .limit(1)
            .with_for_update()
        ).one_or_none()
        if leased is None:
            return None
        leased.expires_at = self._clock() + self._lease_seconds
        image: int = getattr(leased, self._asked_key)
        return image

    def _lease(self, session: Session, who: Annotator) -> int | None:
        self._delete_expired(session)
        wanted = select(self.asked.id).where(self._open_to(who)).order_by(*self.order).limit(1)
        # Another transaction may take the slot between the query and the insert: query again.
        while (image := session.scalar(wanted)) is not None:
            expires_at = self._clock() + self._lease_seconds
            if self._take_slot(session, who, image, verdict=None, expires_at=expires_at):
                return image
        return None

    def _store_verdict(self, session: Session, who: Annotator, image: int, verdict: str) -> None:
        kept = session.scalar(
            update(self.assignments)
            .where(self._asked_id == image, self.assignments.annotator_id == who.id)
            .values(verdict=str(verdict), expires_at=None, changed_at=self._clock())
            .returning(self.assignments.id)
        )
        if kept is not None:
            return
        if session.get(self.asked, image) is None:
            raise self._invalid(f"expected one of this store, got {image}")
        self._delete_expired(session)
        if not self._take_slot(session, who, image, verdict=str(verdict), expires_at=None):
            raise self._invalid(
                f"got {image}, which has gone to other annotators meanwhile; ask for the next"
            )

    def _take_slot(
        self,
        session: Session,
        who: Annotator,
        image: int,
        *,
        verdict: str | None,
        expires_at: float | None,
    ) -> bool:
        taken = set(session.scalars(select(self.assignments.slot).where(self._asked_id == image)))
        free = [slot for slot in range(self._slot_count) if slot not in taken]
        key: dict[str, object] = {self._asked_key: image}
        return bool(free) and insert_new(
            session,
            self.assignments,
            **key,
            slot=free[0],
            annotator_id=who.id,
            verdict=verdict,
            expires_at=expires_at,
            changed_at=self._clock(),
        )

    def _delete_expired(self, session: Session) -> None:
        assignments = self.assignments
        expired = (
            select(assignments.id)
            .where(assignments.verdict.is_(None), assignments.expires_at <= self._clock())
            .with_for_update(skip_locked=True)  # two at once on PostgreSQL do not wait
        )
        session.execute(delete(assignments).where(assignments.id.in_(expired)))

    def _open_to(self, who: Annotator) -> ColumnElement[bool]:
        assignments = self.assignments
        of_asked = self._asked_id == self.asked.id
        given_to_who = select(assignments.id).where(of_asked, assignments.annotator_id == who.id)
        given = select(func.count(assignments.id)).where(of_asked).scalar_subquery()
        return ~given_to_who.exists() & (given < self._slot_count)

    def _invalid(self, description: str) -> ServiceError:
        return invalid_input([FieldViolation(self.asked_name, description)])
