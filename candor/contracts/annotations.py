"""Requests and responses of the annotation API, which only REST offers.

Two questions are asked: whether a changed image still shows what the original shows (III-H), and
whether an image shows a class that it was changed towards.  No proto describes these messages, so
their descriptions stand here.
"""

from enum import StrEnum
from typing import Annotated

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    StringConstraints,
    WithJsonSchema,
)

from candor.contracts.api import Base64Bytes
from candor.contracts.limits import MAX_ANNOTATOR_CHARS, MAX_CANDIDATE
from candor.contracts.messages import Message
from candor.contracts.names import checked_name, normalised

AnnotatorName = Annotated[
    str,
    BeforeValidator(normalised),
    StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_ANNOTATOR_CHARS),
    AfterValidator(checked_name),
    Field(
        description="Name of the annotator: one line of printable text, 1 to "
        f"{MAX_ANNOTATOR_CHARS} characters; blanks around it are removed, and spellings of one "
        "text (Unicode's normal form C) are one name."
    ),
]
CandidateId = Annotated[
    int,
    Field(
        strict=True,
        ge=1,
        le=MAX_CANDIDATE,
        description=f"Number of the candidate in the store, [1, {MAX_CANDIDATE}].",
    ),
]
FlipImageId = Annotated[
    int,
    Field(
        strict=True,
        ge=1,
        le=MAX_CANDIDATE,
        description=f"Number of the image in the store, [1, {MAX_CANDIDATE}].",
    ),
]
Count = Annotated[int, Field(strict=True, ge=0)]


class Verdict(StrEnum):
    """Does the changed image still show the original class?  (Fig. 12)"""

    UNCHANGED = "unchanged"
    UNSURE = "unsure"
    CHANGED = "changed"


class Question(StrEnum):
    """What annotators are asked.

    Attributes:
        STILL: does the changed image still show what the original shows?
        FLIPS: does the image show the class it was changed towards?
    """

    STILL = "still"
    FLIPS = "flips"


class FlipVerdict(StrEnum):
    """Does the image show the class it was changed towards?"""

    YES = "yes"
    NO = "no"
    UNSURE = "unsure"


class FlipKind(StrEnum):
    """What an image of the second question is; annotators do not learn it.

    The last two are catch trials, of which the verdict is known beforehand.
    """

    EXPLANATION = "explanation"  # changed towards the class asked about
    ORIGINAL = "original"  # unchanged, and of another class: no
    TARGET = "target"  # unchanged, and of that class: yes


Answered = Annotated[Count, Field(description="Number of this annotator's verdicts, at least 0.")]
Waiting = Annotated[
    Count,
    Field(
        description="Number of images that this annotator may still receive, `task` included, "
        "at least 0."
    ),
]


class AnnotatorRequest(Message):
    """Names the annotator; a new name is stored."""

    annotator: AnnotatorName


class AnswerRequest(Message):
    """A verdict on one candidate; it replaces an earlier verdict of the same annotator."""

    annotator: AnnotatorName
    candidate: CandidateId
    verdict: Annotated[
        Verdict,
        WithJsonSchema({"type": "string", "enum": list(Verdict)}),
        Field(description="Whether the changed image still shows the original class."),
    ]


class AnnotationTask(Message):
    """A candidate that is lent to one annotator."""

    candidate: CandidateId
    label: Annotated[str, Field(description="Name of the original image's class.")]
    original_png: Annotated[Base64Bytes, Field(description="PNG of the original image, 8 bits.")]
    adversarial_png: Annotated[
        Base64Bytes, Field(description="PNG of the changed image, 8 bits, of the same size.")
    ]


class AnnotationState(Message):
    """What an annotator has done and does next; every answer counted here is on disk."""

    annotator: AnnotatorName
    task: Annotated[
        AnnotationTask | None,
        Field(description="The candidate to judge next; null if none waits for this annotator."),
    ]
    answered: Answered
    waiting: Waiting


class FlipAnswerRequest(Message):
    """A verdict on one image; it replaces an earlier verdict of the same annotator."""

    annotator: AnnotatorName
    image: FlipImageId
    verdict: Annotated[
        FlipVerdict,
        WithJsonSchema({"type": "string", "enum": list(FlipVerdict)}),
        Field(description="Whether the image shows the class that the task names."),
    ]


class FlipTask(Message):
    """An image that is lent to one annotator; nothing says whether and how it was changed."""

    image: FlipImageId
    target: Annotated[str, Field(description="Name of the class the annotator is asked about.")]
    shown_png: Annotated[Base64Bytes, Field(description="PNG of the image, 8 bits.")]


class FlipState(Message):
    """What an annotator has done and does next; every answer counted here is on disk."""

    annotator: AnnotatorName
    task: Annotated[
        FlipTask | None,
        Field(description="The image to judge next; null if none waits for this annotator."),
    ]
    answered: Answered
    waiting: Waiting
