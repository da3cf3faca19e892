"""Puts what a search finds into the store, a block of images at a time."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from candor.store.blocks import SharedBlocks, worker_name
from candor.store.engine import Store, insert_new
from candor.store.tables import Asked, Candidate, CandidateSet, Searched

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

NewT = TypeVar("NewT", bound="DataclassInstance")


@dataclass(frozen=True, slots=True, kw_only=True)
class SetKey:
    """What makes two searches the same search."""

    weights_sha256: str
    data_sha256: str
    solver: str
    steps: int
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NewCandidate:
    """A candidate as it comes from the search; fields as in `candor.store.tables.Candidate`."""

    data_index: int
    identifier: str
    label: int
    adversarial_class: int
    margin: float
    rmse: float
    original_png: bytes
    adversarial_png: bytes
    original_sha256: str
    adversarial_sha256: str


class SetWriter(Generic[NewT]):
    """Writes one search into the store, which remembers how far the search has come.

    Several workers may write the same search.

    Attributes:
        sets, asked: tables of the searches and of what they find.
        work: what blocks of such searches are named after.
    """

    sets: ClassVar[type[Searched]]
    asked: ClassVar[type[Asked]]
    work: ClassVar[str]

    def __init__(
        self, store: Store, key: SetKey, *, model: str, data: str, class_names: Sequence[str]
    ) -> None:
        self._store = store
        with store.writing() as session:
            insert_new(
                session,
                self.sets,
                **asdict(key),
                model=model,
                data=data,
                class_names=list(class_names),
                searched=0,
                created_at=time.time(),
            )
            self.number = session.scalars(select(self.sets.id).filter_by(**asdict(key))).one()

    def class_names(self) -> tuple[str, ...]:
        """Classes of the images, as the search began."""
        with self._store.reading() as session:
            return tuple(self._set(session).class_names)

    def searched(self) -> int:
        """Images of the seeded order searched so far."""
        with self._store.reading() as session:
            return self._set(session).searched

    def count(self, **values: Any) -> int:
        """What this search has found in the store, with these values of their columns."""
        mine = select(func.count(self.asked.id)).filter_by(set_id=self.number, **values)
        with self._store.reading() as session:
            return session.scalar(mine) or 0

    def add(self, session: Session, found: Sequence[NewT], searched: int) -> None:
        """Add rows, and that the first ``searched`` images are done, in a transaction."""
        for row in found:
            insert_new(session, self.asked, set_id=self.number, **asdict(row))
        self._set(session).searched = searched

    def blocks(self, **options: Any) -> SharedBlocks:
        """The images of this search as blocks that workers share; ``options`` as of the class."""
        work = f"{self.work} {self.number}"
        return SharedBlocks(self._store, work, worker_name(), **options)

    def _set(self, session: Session) -> Searched:
        return session.get_one(self.sets, self.number)


class CandidateWriter(SetWriter[NewCandidate]):
    """Writes one search for candidates."""

    sets = CandidateSet
    asked = Candidate
    work = "candidate set"
