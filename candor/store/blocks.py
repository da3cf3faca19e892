"""Work that many processes share: blocks of it are leased, not divided beforehand.

Workers of any number and speed take one block after another.  A worker that disappears costs the
block it had: its lease ends, and another worker computes it.  A block may therefore be computed
twice, by a worker that was only slow, too; whoever keeps results keeps those of a block once.
"""

import os
import socket
import time
import uuid
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass

from sqlalchemy import ColumnElement, delete, func, or_, select, text, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from candor.store.engine import Store
from candor.store.leases import LeaseLost, RenewedLease
from candor.store.tables import WorkBlock

DEFAULT_LEASE_SECONDS = 30.0
_INSERTED_TOGETHER = 1000
_IS_OPEN = WorkBlock.is_done.is_(False)
_IS_DONE = WorkBlock.is_done.is_(True)


@dataclass(frozen=True, slots=True, order=True)
class Block:
    """Positions ``start`` to ``stop`` of the work; ``stop`` is not in it."""

    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


class SharedBlocks:
    """One worker's access to the blocks of one piece of work; safe to share among threads.

    Args:
        work: names the work, at most 64 characters; the same for all its workers.
        worker: a name that no other worker has.
        lease_seconds: how long a worker may be silent before another takes its block; clocks of
            different machines must agree to well within it.
        clock: seconds since 1970, UTC.
    """

    def __init__(
        self,
        store: Store,
        work: str,
        worker: str,
        *,
        lease_seconds: float = DEFAULT_LEASE_SECONDS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._work = work
        self._worker = worker
        self._lease_seconds = lease_seconds
        self._clock = clock
        self._stop: int | None = None

    def extend(self, stop: int, size: int, *, first: int = 0) -> None:
        """Blocks of ``size`` positions up to ``stop``, after those that there are.

        From then on blocks that start at ``stop`` or later are not seen here.

        Args:
            first: where the first block starts if there is none.
        """
        self._stop = None
        with self._store.writing() as session:
            _lock(session)
            start = session.scalar(select(func.max(WorkBlock.stop)).where(self._is_ours))
            start = first if start is None else start
            while start < stop:
                ends = range(start, stop, size)[:_INSERTED_TOGETHER]
                session.add_all(
                    WorkBlock(work=self._work, start=at, stop=min(at + size, stop), is_done=False)
                    for at in ends
                )
                session.flush()
                start = min(ends[-1] + size, stop)
        self._stop = stop

    def work_one(self, compute: Callable[[Block], Callable[[Session], object]]) -> bool:
        """Lease a block, compute it and mark it as done; False where there is none now.

        Args:
            compute: takes the block; what it returns keeps the results, in the transaction that
                marks the block, and is called once even where two workers computed it.
        """
        block = self.lease()
        if block is None:
            return False
        try:
            with self.kept(block):
                keep = compute(block)
        except BaseException:
            with suppress(SQLAlchemyError):  # the lease ends by itself
                self.release(block)
            raise
        with self._store.writing() as session:
            if self.finish(block, session):
                keep(session)
        return True

    def lease(self) -> Block | None:
        """The first block that nobody computes; None where there is none now."""
        with self._store.writing() as session:
            free = or_(WorkBlock.expires_at.is_(None), WorkBlock.expires_at <= self._clock())
            row = session.scalars(
                select(WorkBlock)
                .where(self._is_ours, _IS_OPEN, free)
                .order_by(WorkBlock.start)
                .limit(1)
                .with_for_update(skip_locked=True)
            ).one_or_none()
            if row is None:
                return None
            row.worker, row.expires_at = self._worker, self._clock() + self._lease_seconds
            return Block(row.start, row.stop)

    def kept(self, block: Block) -> RenewedLease:
        """Keeps the lease of a block while it is computed."""
        name = f"images {block.start} to {block.stop - 1}"
        return RenewedLease(name, lambda: self._renew(block), self._lease_seconds)

    def release(self, block: Block) -> None:
        """Give a block back for another worker to take at once, unless another has it already."""
        with self._store.writing() as session:
            self._update(session, block, self._is_mine, worker=None, expires_at=None)

    def finish(self, block: Block, session: Session) -> bool:
        """The block is done, in the transaction that keeps its results.

        Returns:
            Whether it was not done before; otherwise its results are there already.
        """
        done = {"is_done": True, "worker": None, "expires_at": None}
        return self._update(session, block, _IS_OPEN, **done) > 0

    def reopen(self, blocks: Iterable[Block]) -> None:
        """Blocks whose results are no longer there are to be computed again."""
        with self._store.writing() as session:
            for block in blocks:
                self._update(session, block, _IS_DONE, is_done=False)

    def forget(self) -> None:
        """Delete the blocks of work whose results nobody will continue."""
        with self._store.writing() as session:
            session.execute(delete(WorkBlock).where(WorkBlock.work == self._work))

    def all(self) -> list[Block]:
        """Every block, in order."""
        return self._listed(self._is_ours)

    def done(self) -> list[Block]:
        """Blocks that are done, in order."""
        return self._listed(self._is_ours & _IS_DONE)

    def left(self) -> int:
        """Positions of blocks that are not done."""
        with self._store.reading() as session:
            size = func.sum(WorkBlock.stop - WorkBlock.start)
            return int(session.scalar(select(size).where(self._is_ours, _IS_OPEN)) or 0)

    def open_count(self) -> int:
        """Blocks that are not done."""
        with self._store.reading() as session:
            count = select(func.count(WorkBlock.id)).where(self._is_ours, _IS_OPEN)
            return session.scalar(count) or 0

    def done_until(self, session: Session) -> int | None:
        """Up to which position every block is done, of all that were ever added; None of none."""
        is_ours = WorkBlock.work == self._work
        first = session.scalar(select(func.min(WorkBlock.start)).where(is_ours, _IS_OPEN))
        if first is not None:
            return first
        return session.scalar(select(func.max(WorkBlock.stop)).where(is_ours))

    @property
    def _is_ours(self) -> ColumnElement[bool]:
        is_ours = WorkBlock.work == self._work
        return is_ours if self._stop is None else is_ours & (WorkBlock.start < self._stop)

    @property
    def _is_mine(self) -> ColumnElement[bool]:
        return (WorkBlock.worker == self._worker) & _IS_OPEN

    def _listed(self, where: ColumnElement[bool]) -> list[Block]:
        wanted = select(WorkBlock.start, WorkBlock.stop).where(where).order_by(WorkBlock.start)
        with self._store.reading() as session:
            return [Block(start, stop) for start, stop in session.execute(wanted)]

    def _renew(self, block: Block) -> bool:
        with self._store.writing() as session:
            expires_at = self._clock() + self._lease_seconds
            if not self._update(session, block, self._is_mine, expires_at=expires_at):
                raise LeaseLost(f"{block} belongs to another worker now")
        return True

    def _update(
        self, session: Session, block: Block, where: ColumnElement[bool], **values: object
    ) -> int:
        """Rows that were changed."""
        same = (WorkBlock.start == block.start) & self._is_ours
        changed = session.execute(
            update(WorkBlock).where(same, where).values(**values).returning(WorkBlock.id)
        )
        return len(changed.all())


def worker_name() -> str:
    """A name for this process that no other worker has, at most 100 characters."""
    return f"{socket.gethostname()[:60]}-{os.getpid()}-{uuid.uuid4().hex[:8]}"


def _lock(session: Session) -> None:
    """Two workers must not add the same blocks; on SQLite every writer is alone anyway."""
    if session.get_bind().dialect.name == "postgresql":
        session.execute(text("LOCK TABLE work_blocks IN SHARE ROW EXCLUSIVE MODE"))
