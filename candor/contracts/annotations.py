"""What annotators are asked and answer over the annotation API (III-H)."""

from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, WithJsonSchema

from candor.contracts.api import Base64Bytes
from candor.contracts.limits import MAX_ANNOTATOR_CHARS, MAX_CANDIDATE

# One line of printable text; blanks around it are cut off.
AnnotatorName = Annotated[
    str,
    StringConstraints(
        strip_whitespace=True,
        min_length=1,
        max_length=MAX_ANNOTATOR_CHARS,
        pattern=r"^[^\p{C}\p{Zl}\p{Zp}]+$",
    ),
]
CandidateId = Annotated[int, Field(ge=1, le=MAX_CANDIDATE)]


class Verdict(StrEnum):
    """Does the changed image still show the original class?  (Fig. 12)"""

    UNCHANGED = "unchanged"
    UNSURE = "unsure"
    CHANGED = "changed"


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class AnnotatorRequest(_Message):
    """Who asks; a name that is new is remembered."""

    annotator: AnnotatorName


class AnswerRequest(_Message):
    """A verdict on one candidate; the same again changes nothing, another one replaces it."""

    annotator: AnnotatorName
    candidate: CandidateId
    verdict: Annotated[Verdict, WithJsonSchema({"type": "string", "enum": list(Verdict)})]


class AnnotationTask(_Message):
    """A candidate lent to one annotator.

    Attributes:
        candidate: its number in the store.
        label: name of the original's class.
        original_png, adversarial_png: same size, 8 bits a channel.
    """

    candidate: int
    label: str
    original_png: Base64Bytes
    adversarial_png: Base64Bytes


class AnnotationState(_Message):
    """Where an annotator stands; every answer counted here is on disk.

    Attributes:
        task: what to judge next; None where nothing waits for this annotator.
        answered: verdicts of this annotator.
        waiting: candidates this annotator may still be given, ``task`` included.
    """

    annotator: str
    task: AnnotationTask | None
    answered: int
    waiting: int
