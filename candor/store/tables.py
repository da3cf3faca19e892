"""Tables of the store.

Times are seconds since 1970, UTC.  A change here needs a migration in `candor.store.migrations`.
"""

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    ForeignKey,
    Index,
    LargeBinary,
    String,
    Text,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship


class Base(DeclarativeBase):
    """Base of every table in the store."""


class CandidateSet(Base):
    """One search for overly confident adversarial images: a model, its data and its settings.

    Attributes:
        weights_sha256, data_sha256: digests of the model's weights and of the data set.
        data: registered name and split, for example "cifar10/train".
        class_names: in the order of the labels.
        searched: images of the seeded order that have been searched; the search goes on from here.
    """

    __tablename__ = "candidate_sets"
    __table_args__ = (UniqueConstraint("weights_sha256", "data_sha256", "solver", "steps", "seed"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    model: Mapped[str] = mapped_column(String(63))
    weights_sha256: Mapped[str] = mapped_column(String(64))
    data: Mapped[str] = mapped_column(String(100))
    data_sha256: Mapped[str] = mapped_column(String(64))
    class_names: Mapped[list[str]] = mapped_column(JSON)
    solver: Mapped[str] = mapped_column(String(40))
    steps: Mapped[int]
    seed: Mapped[int] = mapped_column(BigInteger)
    searched: Mapped[int]
    created_at: Mapped[float]


class Candidate(Base):
    """A training image changed so that the network is overly confident of another class.

    Attributes:
        data_index, identifier: the original's place and name in the data set.
        label: its class; adversarial_class: what the network predicts for the changed image.
        margin: by how much the network prefers that class to the next likely one, (0, 1].
        rmse: between the two images on the [0, 1] scale; as stored, after rounding to 8 bits.
        original_sha256, adversarial_sha256: of the pixels, (C, H, W) uint8.
    """

    __tablename__ = "candidates"
    __table_args__ = (
        UniqueConstraint("set_id", "data_index"),
        Index("candidates_by_rmse", "set_id", "rmse"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    set_id: Mapped[int] = mapped_column(ForeignKey("candidate_sets.id"))
    data_index: Mapped[int]
    identifier: Mapped[str]
    label: Mapped[int]
    adversarial_class: Mapped[int]
    margin: Mapped[float]
    rmse: Mapped[float]
    original_png: Mapped[bytes] = mapped_column(LargeBinary, deferred=True)
    adversarial_png: Mapped[bytes] = mapped_column(LargeBinary, deferred=True)
    original_sha256: Mapped[str] = mapped_column(String(64))
    adversarial_sha256: Mapped[str] = mapped_column(String(64))
    candidate_set: Mapped[CandidateSet] = relationship()


class Annotator(Base):
    """A person who judges candidates; identified by name, without a password."""

    __tablename__ = "annotators"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(60), unique=True)
    created_at: Mapped[float]


class Assignment(Base):
    """A candidate given to an annotator: leased until ``expires_at``, kept once it has a verdict.

    A candidate has as many slots as annotators shall see it.  The two constraints make an
    assignment atomic: the first insert has the slot, on SQLite and on PostgreSQL.

    Attributes:
        slot: 0 to k - 1.
        verdict: a `candor.contracts.annotations.Verdict`; None while leased.
        expires_at: when a leased candidate may be given to another; None once it is judged.
        changed_at: when it was leased or judged.
    """

    __tablename__ = "assignments"
    __table_args__ = (
        UniqueConstraint("candidate_id", "slot"),
        UniqueConstraint("candidate_id", "annotator_id"),
        Index("assignments_by_annotator", "annotator_id", "changed_at"),
        Index("assignments_by_expiry", "expires_at"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    candidate_id: Mapped[int] = mapped_column(ForeignKey("candidates.id"))
    slot: Mapped[int]
    annotator_id: Mapped[int] = mapped_column(ForeignKey("annotators.id"))
    verdict: Mapped[str | None] = mapped_column(String(20))
    expires_at: Mapped[float | None]
    changed_at: Mapped[float]
    candidate: Mapped[Candidate] = relationship()
    annotator: Mapped[Annotator] = relationship()


class StoredJob(Base):
    """Long work that a client asked for: its request, its state and its result.

    A running job is leased to one worker until ``expires_at``; then any other
    worker may take it.

    Attributes:
        kind: name of a `candor.store.job_kinds.JobKind`, which says what the messages are.
        public_id: 32 hex digits, the end of the name clients know.
        idempotency_key: the client's own, None where none was sent; unique within a tenant and
            a kind.
        request: defaults filled in.
        request_sha256: of its canonical JSON without the key.
        state: a `candor.contracts.reports.ReportState`.
        reason: why it failed, one sentence.
        worker: the one that has it; None unless it runs.
        attempts: leases in a row that ended without notice and without another part done.
    """

    __tablename__ = "jobs"
    __table_args__ = (
        UniqueConstraint("tenant", "kind", "idempotency_key"),
        Index("jobs_by_state", "state", "id"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(String(20))
    public_id: Mapped[str] = mapped_column(String(32), unique=True)
    tenant: Mapped[str] = mapped_column(String(64))
    idempotency_key: Mapped[str | None] = mapped_column(String(100))
    request: Mapped[dict[str, Any]] = mapped_column(JSON)
    request_sha256: Mapped[str] = mapped_column(String(64))
    state: Mapped[str] = mapped_column(String(20))
    cancel_requested: Mapped[bool]
    progress: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    result: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    reason: Mapped[str | None] = mapped_column(Text)
    worker: Mapped[str | None] = mapped_column(String(100))
    expires_at: Mapped[float | None]
    attempts: Mapped[int]
    created_at: Mapped[float]
    started_at: Mapped[float | None]
    ended_at: Mapped[float | None]


class WorkBlock(Base):
    """A part of work that many workers share, leased to one of them until ``expires_at``.

    Attributes:
        work: names the work: a job over a folder of images, or the search of a candidate set.
        start, stop: positions of the work that are in it, without ``stop``.
        worker: the one that has it; None where it is free or done.
    """

    __tablename__ = "work_blocks"
    __table_args__ = (UniqueConstraint("work", "start"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    work: Mapped[str] = mapped_column(String(64))
    start: Mapped[int]
    stop: Mapped[int]
    is_done: Mapped[bool]
    worker: Mapped[str | None] = mapped_column(String(100))
    expires_at: Mapped[float | None]
