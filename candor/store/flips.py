"""The second question: does an image show the class that it was changed towards?

Unchanged images stand among the explanations, of which the verdict is known beforehand: they tell
which annotators look.
"""

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session, joinedload, undefer

from candor.contracts.annotations import FlipKind, FlipState, FlipTask, FlipVerdict
from candor.store.candidates import SetKey, SetWriter
from candor.store.lending import Lending
from candor.store.tables import Annotator, FlipAssignment, FlipImage, FlipSet


@dataclass(frozen=True, slots=True, kw_only=True)
class FlipSetKey(SetKey):
    """What makes two sets the same set; rho is measured in ``norm``."""

    rho: float
    norm: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NewFlipImage:
    """An image to be judged; fields as in `candor.store.tables.FlipImage`."""

    kind: str
    data_index: int
    identifier: str
    label: int
    target: int
    rmse: float
    place: int
    shown_png: bytes
    shown_sha256: str


class FlipWriter(SetWriter[NewFlipImage]):
    """Writes one set into the store, which remembers how far it has come."""

    sets = FlipSet
    asked = FlipImage
    work = "flip set"


@dataclass(frozen=True, slots=True, kw_only=True)
class FlipSetFacts:
    """One set; fields as in `candor.store.tables.FlipSet`.

    Attributes:
        explanation_count: its explanations, judged or not.
    """

    number: int
    model: str
    data: str
    key: FlipSetKey
    explanation_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedFlipImage:
    """An image with one verdict or more; fields as in `candor.store.tables.FlipImage`.

    Attributes:
        verdicts: by annotator.
    """

    image: int
    flip_set: int
    kind: FlipKind
    data_index: int
    identifier: str
    label: str
    target: str
    rmse: float
    shown_png: bytes
    verdicts: dict[str, FlipVerdict]


class Flips(Lending[FlipState]):
    """Leases images to annotators and takes verdicts.

    The images of all sets come in one random order, the same for everybody: neither the model nor
    what an image is follows from it.
    """

    asked = FlipImage
    assignments = FlipAssignment
    asked_name = "image"
    order = (FlipImage.place, FlipImage.id)

    def state(
        self, session: Session, annotator: str, leased: int | None, answered: int, waiting: int
    ) -> FlipState:
        task = None if leased is None else _task(session, leased)
        return FlipState(annotator=annotator, task=task, answered=answered, waiting=waiting)

    def sets(self) -> list[FlipSetFacts]:
        """Every set, the oldest first."""
        explanations = select(FlipImage.set_id, func.count(FlipImage.id))
        explanations = explanations.where(FlipImage.kind == FlipKind.EXPLANATION.value)
        with self._store.reading() as session:
            grouped = session.execute(explanations.group_by(FlipImage.set_id))
            counts = {number: count for number, count in grouped}
            rows = session.scalars(select(FlipSet).order_by(FlipSet.id))
            return [_facts(row, counts.get(row.id, 0)) for row in rows]

    def judged_images(self, annotators: Collection[str] = ()) -> list[JudgedFlipImage]:
        """Every image with its verdicts, only those of ``annotators`` where there are any.

        Raises:
            ValueError: an annotator the store does not know.
        """
        with self._store.reading() as session:
            names = self.known_annotators(session, annotators)
            judged = select(FlipAssignment.image_id, Annotator.name, FlipAssignment.verdict)
            judged = judged.join(FlipAssignment.annotator).order_by(FlipAssignment.id)
            judged = judged.where(FlipAssignment.verdict.is_not(None))
            if names:
                judged = judged.where(Annotator.name.in_(names))
            verdicts: dict[int, dict[str, FlipVerdict]] = defaultdict(dict)
            for image, name, verdict in session.execute(judged):
                verdicts[image][name] = FlipVerdict(str(verdict))
            return [_judged(session, image, verdicts[image]) for image in sorted(verdicts)]


def _task(session: Session, image: int) -> FlipTask:
    row = session.get_one(FlipImage, image, options=(undefer(FlipImage.shown_png),))
    target = row.flip_set.class_names[row.target]
    return FlipTask(image=row.id, target=target, shown_png=row.shown_png)


def _facts(row: FlipSet, explanation_count: int) -> FlipSetFacts:
    key = {name: getattr(row, name) for name in FlipSetKey.__dataclass_fields__}
    return FlipSetFacts(
        number=row.id,
        model=row.model,
        data=row.data,
        key=FlipSetKey(**key),
        explanation_count=explanation_count,
    )


def _judged(session: Session, image: int, verdicts: dict[str, FlipVerdict]) -> JudgedFlipImage:
    options = (undefer(FlipImage.shown_png), joinedload(FlipImage.flip_set))
    row = session.get_one(FlipImage, image, options=options)
    names = row.flip_set.class_names
    return JudgedFlipImage(
        image=row.id,
        flip_set=row.set_id,
        kind=FlipKind(row.kind),
        data_index=row.data_index,
        identifier=row.identifier,
        label=names[row.label],
        target=names[row.target],
        rmse=row.rmse,
        shown_png=row.shown_png,
        verdicts=verdicts,
    )
