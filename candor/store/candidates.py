"""Puts candidates into the store, a block of images at a time."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from candor.store.blocks import SharedBlocks, worker_name
from candor.store.engine import Store, insert_new
from candor.store.tables import Candidate, CandidateSet


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


class CandidateWriter:
    """Writes one search into the store, which remembers how far the search has come.

    Several workers may write the same search.
    """

    def __init__(
        self, store: Store, key: SetKey, *, model: str, data: str, class_names: Sequence[str]
    ) -> None:
        self._store = store
        with store.writing() as session:
            insert_new(
                session,
                CandidateSet,
                **asdict(key),
                model=model,
                data=data,
                class_names=list(class_names),
                searched=0,
                created_at=time.time(),
            )
            self._set_id = session.scalars(select(CandidateSet.id).filter_by(**asdict(key))).one()

    def class_names(self) -> tuple[str, ...]:
        """Classes of the images, as the search began."""
        with self._store.reading() as session:
            return tuple(self._set(session).class_names)

    def searched(self) -> int:
        """Images of the seeded order searched so far."""
        with self._store.reading() as session:
            return self._set(session).searched

    def count(self) -> int:
        """Candidates of this search in the store."""
        with self._store.reading() as session:
            mine = Candidate.set_id == self._set_id
            return session.scalar(select(func.count(Candidate.id)).where(mine)) or 0

    def add(self, session: Session, found: Sequence[NewCandidate], searched: int) -> None:
        """Add candidates, and that the first ``searched`` images are done, in a transaction."""
        for candidate in found:
            insert_new(session, Candidate, set_id=self._set_id, **asdict(candidate))
        self._set(session).searched = searched

    def blocks(self, **options: Any) -> SharedBlocks:
        """The images of this search as blocks that workers share; ``options`` as of the class."""
        work = f"candidate set {self._set_id}"
        return SharedBlocks(self._store, work, worker_name(), **options)

    def _set(self, session: Session) -> CandidateSet:
        return session.get_one(CandidateSet, self._set_id)
