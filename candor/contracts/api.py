"""Requests and responses of the service, as both transports and the client see them.

The descriptions of the messages and of their fields, with units and ranges, are the comments of
``proto/candor/v1/candor.proto``; JSON carries bytes as base64.
"""

import base64
import binascii
import re
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    WithJsonSchema,
    model_validator,
)

from candor import terms
from candor.contracts import limits
from candor.contracts.card import MetricCard
from candor.contracts.messages import Message, described
from candor.contracts.names import normalised
from candor.terms import Norm, SearchStatus

_WHOLE_NUMBER = re.compile(r"\s*-?[0-9]{1,9}\s*")


def from_base64(value: Any) -> Any:
    """The bytes of a base64 text; anything else as it is.  Raises: ValueError: other text."""
    if not isinstance(value, str):
        return value
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as err:
        raise ValueError("expected base64, got other text") from err


def box_fields(text: str) -> dict[str, int]:
    """Those of a `Box`, from ``X,Y,WIDTH,HEIGHT``.  Raises: ValueError: another text."""
    parts = text.split(",")
    if len(parts) != 4 or not all(_WHOLE_NUMBER.fullmatch(part) for part in parts):
        raise ValueError(f"expected four whole numbers X,Y,WIDTH,HEIGHT, got {text[:60]!r}")
    return dict(zip(("x", "y", "width", "height"), map(int, parts), strict=True))


def _both_or_none(first: Any) -> str:
    return "none" if first is None else "both"


def _each_once(values: tuple[Any, ...]) -> tuple[Any, ...]:
    twice = next((one for place, one in enumerate(values) if one in values[:place]), None)
    if twice is not None:
        raise ValueError(f"expected each once, got {twice} twice")
    return values


Base64Bytes = Annotated[
    bytes,
    BeforeValidator(from_base64),
    PlainSerializer(lambda value: base64.b64encode(value).decode(), when_used="json"),
    WithJsonSchema({"type": "string", "contentEncoding": "base64"}),
]
# Strict: true is no number, and a text with digits is none either.
Flag = Annotated[bool, Field(strict=True)]
WholeNumber = Annotated[int, Field(strict=True)]
Number = Annotated[float, Field(strict=True)]
Probability = Annotated[float, Field(strict=True, ge=0.0, le=1.0)]
Correlation = Annotated[float, Field(strict=True, ge=-1.0, le=1.0)]
Rmse = Annotated[float, Field(strict=True, ge=0.0, le=1.0)]
Rho = Annotated[float, Field(strict=True, gt=0.0, le=1.0, allow_inf_nan=False)]
Steps = Annotated[int, Field(strict=True, ge=1, le=limits.MAX_STEPS)]
Seed = Annotated[int, Field(strict=True, ge=0, le=limits.MAX_SEED)]
TimeoutSeconds = Annotated[
    float, Field(strict=True, gt=0.0, le=limits.MAX_TIMEOUT_SECONDS, allow_inf_nan=False)
]
TopK = Annotated[int, Field(strict=True, ge=1, le=limits.MAX_TOP_K)]
ClassIndex = Annotated[int, Field(strict=True, ge=0)]
ClassName = Annotated[str, BeforeValidator(normalised)]
StepsTaken = Annotated[int, Field(strict=True, ge=0, le=limits.MAX_STEPS)]
Pixels = Annotated[int, Field(strict=True, ge=1)]
PixelPlace = Annotated[int, Field(strict=True, ge=0)]
Solver = Annotated[str, Field(examples=list(terms.SOLVERS))]
EngineName = Literal["eager", "compiled"]
Precision = Literal["float32", "bfloat16"]


@described()
class Direction(StrEnum):
    FOR = "for"
    AGAINST = "against"


@described("Goal")
class ProbeGoal(StrEnum):
    ATTACK = "attack"
    BTR = "btr"


@described()
class Method(StrEnum):
    EXPLANATION = "explanation"
    GRAD_CAM = "grad_cam"
    LIME = "lime"
    INTEGRATED_GRADIENTS = "integrated_gradients"
    GRADIENT = "gradient"


class TensorInput(Message):
    proto_name = "Tensor"

    shape: Annotated[tuple[WholeNumber, ...], Field(min_length=3, max_length=3)]
    data: Base64Bytes


class ImageInput(Message):
    proto_name = "Image"

    encoded: Base64Bytes | None = None
    tensor: TensorInput | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if (self.encoded is None) == (self.tensor is None):
            raise ValueError(f"expected one of encoded, tensor, got {_both_or_none(self.encoded)}")
        return self


class ClassRef(Message):
    index: ClassIndex | None = None
    name: ClassName | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if (self.index is None) == (self.name is None):
            raise ValueError(f"expected one of index, name, got {_both_or_none(self.index)}")
        return self


class Box(Message):
    x: PixelPlace = 0
    y: PixelPlace = 0
    width: Pixels
    height: Pixels


class Region(Message):
    mask: Base64Bytes | None = None
    box: Box | None = None
    outside: Flag = False

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if (self.mask is None) == (self.box is None):
            raise ValueError(f"expected one of mask, box, got {_both_or_none(self.mask)}")
        return self


class PredictRequest(Message):
    model: str = ""
    image: ImageInput
    top_k: TopK = limits.DEFAULT_TOP_K


def explain_steps(validated: dict[str, Any]) -> int:
    """Default steps of the solver, which is validated first; any if that was rejected."""
    return terms.default_steps(validated.get("solver", terms.DEFAULT_SOLVER), explains=True)


def _probe_steps(validated: dict[str, Any]) -> int:
    return terms.default_steps(validated.get("solver", terms.DEFAULT_SOLVER), explains=False)


class ExplainRequest(Message):
    model: str = ""
    image: ImageInput
    targets: Annotated[tuple[ClassRef, ...], Field(min_length=1, max_length=limits.MAX_TARGETS)]
    rhos: Annotated[tuple[Rho, ...], Field(max_length=limits.MAX_RHOS)] = ()
    direction: Direction = Direction.FOR
    solver: Solver = terms.DEFAULT_SOLVER
    steps: Steps = Field(default_factory=explain_steps)
    seed: Seed = 0
    top_k: TopK = limits.DEFAULT_TOP_K
    include_tensor: Flag = False
    timeout_seconds: TimeoutSeconds | None = None
    allow_partial: Flag = True
    no_cache: Flag = False
    region: Region | None = None
    norm: Norm = Norm.L2
    away_from: ClassRef | None = None


class ProbeRequest(Message):
    model: str = ""
    image: ImageInput
    label: ClassRef | None = None
    goals: Annotated[
        tuple[ProbeGoal, ...], Field(min_length=1, max_length=2), AfterValidator(_each_once)
    ] = tuple(ProbeGoal)
    solver: Solver = terms.DEFAULT_SOLVER
    steps: Steps = Field(default_factory=_probe_steps)
    seed: Seed = 0
    top_k: TopK = limits.DEFAULT_TOP_K
    timeout_seconds: TimeoutSeconds | None = None
    allow_partial: Flag = True
    no_cache: Flag = False
    region: Region | None = None


class CompareRequest(Message):
    model: str = ""
    image: ImageInput
    target: ClassRef | None = None
    rho: Rho | None = None
    solver: Solver = terms.DEFAULT_SOLVER
    steps: Steps = Field(default_factory=explain_steps)
    seed: Seed = 0
    top_k: TopK = limits.DEFAULT_TOP_K
    timeout_seconds: TimeoutSeconds | None = None
    no_cache: Flag = False


class ModelRef(Message):
    name: str
    version: str
    weights_digest: str
    is_accepted_without_data: Flag = False


class ClassConfidence(Message):
    index: ClassIndex
    name: str
    confidence: Probability


class PredictResponse(Message):
    predictions: tuple[ClassConfidence, ...]
    model: ModelRef
    request_id: str


class Explanation(Message):
    target: ClassConfidence
    direction: Direction
    rho: Rho
    rmse: Rmse
    confidence_before: Probability
    confidence_after: Probability
    predicted_before: ClassConfidence
    predicted_after: ClassConfidence
    predictions_after: tuple[ClassConfidence, ...]
    steps: StepsTaken
    status: SearchStatus
    solver: Solver
    image_png: Base64Bytes
    image_tensor: TensorInput | None = None
    is_partial: Flag
    from_cache: Flag
    rho_1: Rmse
    rho_1_5: Rmse
    rho_inf: Rmse
    rmse_inside: Rmse | None
    sparsity: Probability
    flips: Flag
    norm: Norm
    away_from: ClassConfidence | None
    radius_note: str = ""


class ExplainResponse(Message):
    explanations: tuple[Explanation, ...]
    predictions_before: tuple[ClassConfidence, ...]
    input_png: Base64Bytes
    model: ModelRef
    request_id: str
    median_radius: MetricCard | None = None


class ExplainProgress(Message):
    index: Annotated[int, Field(strict=True, ge=0)]
    step: StepsTaken
    step_count: Steps
    best_confidence: Probability | None
    best_rmse: Rmse | None
    queue_position: Annotated[int, Field(strict=True, ge=0)]
    preview_png: Base64Bytes


class ExplainStreamResponse(Message):
    progress: ExplainProgress | None = None
    result: ExplainResponse | None = None


class ProbeResult(Message):
    goal: ProbeGoal
    status: SearchStatus
    radius: Rmse | None
    lower_bound: Rmse | None
    falls_to: ClassConfidence
    label_confidence_after: Probability
    steps: StepsTaken
    solver: Solver
    image_png: Base64Bytes
    is_partial: Flag
    from_cache: Flag
    rmse_inside: Rmse | None


class ProbeResponse(Message):
    results: tuple[ProbeResult, ...]
    label: ClassConfidence
    predictions_before: tuple[ClassConfidence, ...]
    model: ModelRef
    request_id: str


class SaliencyMap(Message):
    height: Pixels
    width: Pixels
    data: Base64Bytes


class Perturbation(Message):
    rmse: Rmse
    confidence_before: Probability
    confidence_after: Probability
    predicted_after: ClassConfidence
    image_png: Base64Bytes


class MethodResult(Message):
    method: Method
    saliency: SaliencyMap
    overlay_png: Base64Bytes
    perturbed_overlay_png: Base64Bytes
    energy_share: Probability
    rank_correlation: Correlation
    cosine: Correlation


class MissingMethod(Message):
    method: Method
    reason: str


class CompareResponse(Message):
    explanation: Explanation
    perturbation: Perturbation
    methods: tuple[MethodResult, ...]
    top_share: Probability
    predictions_before: tuple[ClassConfidence, ...]
    input_png: Base64Bytes
    model: ModelRef
    request_id: str
    missing: tuple[MissingMethod, ...] = ()


class ModelSummary(Message):
    model: ModelRef
    description: str
    is_default: Flag


class ModelList(Message):
    proto_name = "ListModelsResponse"

    models: tuple[ModelSummary, ...]


class InputSpec(Message):
    channels: Annotated[int, Field(strict=True, ge=1)]
    height: Pixels
    width: Pixels
    lower: Number
    upper: Number


class ModelDetails(Message):
    proto_name = "GetModelResponse"

    model: ModelRef
    description: str
    architecture: str
    classes: tuple[str, ...]
    input: InputSpec
    recommended_rho: Rho
    metrics: tuple[MetricCard, ...]
    solvers: tuple[Solver, ...]
    engine: EngineName
    precision: Precision
    median_radius: MetricCard | None = None
    radius_note: str = ""
