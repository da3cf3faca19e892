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


class Searched(Base):
    """One search over images of a data set that goes on where it was stopped.

    Attributes:
        weights_sha256, data_sha256: digests of the model's weights and of the data set.
        data: registered name and split, for example "cifar10/train".
        class_names: in the order of the labels.
        searched: images of the seeded order that have been searched; the search goes on from here.
    """

    __abstract__ = True

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


class Asked(Base):
    """What annotators are asked about: a row of a search; its other columns say what it is.

    Attributes:
        data_index, identifier: the original's place and name in the data set.
        label: the original's class.
        rmse: to the original on the [0, 1] scale; as stored, after rounding to 8 bits.
    """

    __abstract__ = True

    id: Mapped[int] = mapped_column(primary_key=True)
    data_index: Mapped[int]
    identifier: Mapped[str]
    label: Mapped[int]
    rmse: Mapped[float]


class CandidateSet(Searched):
    """One search for overly confident adversarial images: a model, its data and its settings."""

    __tablename__ = "candidate_sets"
    __table_args__ = (UniqueConstraint("weights_sha256", "data_sha256", "solver", "steps", "seed"),)


class Candidate(Asked):
    """A training image changed so that the network is overly confident of another class.

    Attributes:
        adversarial_class: what the network predicts for the changed image.
        margin: by how much the network prefers that class to the next likely one, (0, 1].
        original_sha256, adversarial_sha256: of the pixels, (C, H, W) uint8.
    """

    __tablename__ = "candidates"
    __table_args__ = (
        UniqueConstraint("set_id", "data_index"),
        Index("candidates_by_rmse", "set_id", "rmse"),
    )

    set_id: Mapped[int] = mapped_column(ForeignKey("candidate_sets.id"))
    adversarial_class: Mapped[int]
    margin: Mapped[float]
    original_png: Mapped[bytes] = mapped_column(LargeBinary, deferred=True)
    adversarial_png: Mapped[bytes] = mapped_column(LargeBinary, deferred=True)
    original_sha256: Mapped[str] = mapped_column(String(64))
    adversarial_sha256: Mapped[str] = mapped_column(String(64))
    candidate_set: Mapped[CandidateSet] = relationship()


class FlipSet(Searched):
    """One model's explanations, and unchanged images among them, for people to say what they show.

    Attributes:
        rho: largest distance of an explanation to its original, in ``norm``.
        norm: a `candor.terms.Norm`.
    """

    __tablename__ = "flip_sets"
    __table_args__ = (
        UniqueConstraint("weights_sha256", "data_sha256", "solver", "steps", "seed", "rho", "norm"),
    )

    rho: Mapped[float]
    norm: Mapped[str] = mapped_column(String(10))


class FlipImage(Asked):
    """An image of which people say whether it shows ``target``.

    Attributes:
        kind: a `candor.contracts.annotations.FlipKind`; annotators do not learn it.
        target: the class they are asked about.
        place: orders the images of all sets at random, so that nothing follows from the order.
        shown_sha256: of the pixels, (C, H, W) uint8.
    """

    __tablename__ = "flip_images"
    __table_args__ = (
        UniqueConstraint("set_id", "data_index"),
        Index("flip_images_by_place", "place"),
    )

    set_id: Mapped[int] = mapped_column(ForeignKey("flip_sets.id"))
    kind: Mapped[str] = mapped_column(String(20))
    target: Mapped[int]
    place: Mapped[int]
    shown_png: Mapped[bytes] = mapped_column(LargeBinary, deferred=True)
    shown_sha256: Mapped[str] = mapped_column(String(64))
    flip_set: Mapped[FlipSet] = relationship()


class Annotator(Base):
    """A person who judges images; identified by name, without a password."""

    __tablename__ = "annotators"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(60), unique=True)
    created_at: Mapped[float]


class Lent(Base):
    """Something given to an annotator: leased until ``expires_at``, kept once it has a verdict.

    An image, or pair of images, has as many slots as annotators shall see it.  Two uniquenesses of
    each such table make an assignment atomic, that of image and slot and that of image and
    annotator: the first insert has the slot, on SQLite and on PostgreSQL.

    Attributes:
        slot: 0 to k - 1.
        verdict: what the annotator said; None while leased.
        expires_at: when it may be given to another; None once it is judged.
        changed_at: when it was leased or judged.
    """

    __abstract__ = True

    id: Mapped[int] = mapped_column(primary_key=True)
    slot: Mapped[int]
    annotator_id: Mapped[int] = mapped_column(ForeignKey("annotators.id"))
    verdict: Mapped[str | None] = mapped_column(String(20))
    expires_at: Mapped[float | None]
    changed_at: Mapped[float]


class Assignment(Lent):
    """A candidate given to an annotator; verdicts are `candor.contracts.annotations.Verdict`."""

    __tablename__ = "assignments"
    __table_args__ = (
        UniqueConstraint("candidate_id", "slot"),
        UniqueConstraint("candidate_id", "annotator_id"),
        Index("assignments_by_annotator", "annotator_id", "changed_at"),
        Index("assignments_by_expiry", "expires_at"),
    )

    candidate_id: Mapped[int] = mapped_column(ForeignKey("candidates.id"))
    candidate: Mapped[Candidate] = relationship()
    annotator: Mapped[Annotator] = relationship()


class FlipAssignment(Lent):
    """A flip image given to an annotator; verdicts are `FlipVerdict` of the same module."""

    __tablename__ = "flip_assignments"
    __table_args__ = (
        UniqueConstraint("image_id", "slot"),
        UniqueConstraint("image_id", "annotator_id"),
        Index("flip_assignments_by_annotator", "annotator_id", "changed_at"),
        Index("flip_assignments_by_expiry", "expires_at"),
    )

    image_id: Mapped[int] = mapped_column(ForeignKey("flip_images.id"))
    image: Mapped[FlipImage] = relationship()
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
        work: names the work: a job over a folder of images (a service's by its ``public_id``), or
            the search of a set.
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
