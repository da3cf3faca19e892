"""Requests and responses of the service, as both doors and the client see them.

Fields mean what ``proto/candor/v1/candor.proto`` says of them; JSON carries bytes as base64.
"""

import base64
import binascii
from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    WithJsonSchema,
    model_validator,
)

from candor import terms
from candor.contracts import limits
from candor.contracts.card import MetricCard
from candor.terms import SearchStatus


def _from_base64(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as err:
        raise ValueError("not valid base64") from err


Base64Bytes = Annotated[
    bytes,
    BeforeValidator(_from_base64),
    PlainSerializer(lambda value: base64.b64encode(value).decode(), when_used="json"),
    WithJsonSchema({"type": "string", "contentEncoding": "base64"}),
]
Probability = Annotated[float, Field(ge=0.0, le=1.0)]
Correlation = Annotated[float, Field(ge=-1.0, le=1.0)]
Rmse = Annotated[float, Field(ge=0.0, le=1.0)]
Rho = Annotated[float, Field(gt=0.0, le=1.0, allow_inf_nan=False)]
Steps = Annotated[int, Field(ge=1, le=limits.MAX_STEPS)]
Seed = Annotated[int, Field(ge=0, le=limits.MAX_SEED)]
TimeoutSeconds = Annotated[float, Field(gt=0.0, le=limits.MAX_TIMEOUT_SECONDS, allow_inf_nan=False)]
TopK = Annotated[int, Field(ge=1, le=limits.MAX_TOP_K)]


class Direction(StrEnum):
    FOR = "for"
    AGAINST = "against"


class ProbeGoal(StrEnum):
    ATTACK = "attack"
    BTR = "btr"


class Method(StrEnum):
    EXPLANATION = "explanation"
    GRAD_CAM = "grad_cam"
    LIME = "lime"
    INTEGRATED_GRADIENTS = "integrated_gradients"
    GRADIENT = "gradient"


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class TensorInput(_Message):
    """(C, H, W) float32 in [0, 1], little endian, row-major."""

    shape: Annotated[tuple[int, ...], Field(min_length=3, max_length=3)]
    data: Base64Bytes


class ImageInput(_Message):
    """An image: encoded bytes (PNG, JPEG, WebP) or a raw tensor, exactly one."""

    encoded: Base64Bytes | None = None
    tensor: TensorInput | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if (self.encoded is None) == (self.tensor is None):
            raise ValueError("needs exactly one of encoded, tensor")
        return self


class ClassRef(_Message):
    """A class by index or by name, exactly one."""

    index: Annotated[int, Field(ge=0)] | None = None
    name: str | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if (self.index is None) == (self.name is None):
            raise ValueError("needs exactly one of index, name")
        return self


class PredictRequest(_Message):
    model: str = ""
    image: ImageInput
    top_k: TopK = limits.DEFAULT_TOP_K


def _explain_steps(validated: dict[str, Any]) -> int:
    """Those of the solver, which is validated before; any where that was refused."""
    return terms.default_steps(validated.get("solver", ""), explains=True)


def _probe_steps(validated: dict[str, Any]) -> int:
    return terms.default_steps(validated.get("solver", ""), explains=False)


class ExplainRequest(_Message):
    model: str = ""
    image: ImageInput
    targets: Annotated[tuple[ClassRef, ...], Field(min_length=1, max_length=limits.MAX_TARGETS)]
    rhos: Annotated[tuple[Rho, ...], Field(max_length=limits.MAX_RHOS)] = ()
    direction: Direction = Direction.FOR
    solver: str = terms.DEFAULT_SOLVER
    steps: Steps = Field(default_factory=_explain_steps)
    seed: Seed = 0
    top_k: TopK = limits.DEFAULT_TOP_K
    include_tensor: bool = False
    timeout_seconds: TimeoutSeconds | None = None
    allow_partial: bool = True
    no_cache: bool = False


class ProbeRequest(_Message):
    model: str = ""
    image: ImageInput
    label: ClassRef | None = None
    goals: Annotated[tuple[ProbeGoal, ...], Field(min_length=1, max_length=2)] = tuple(ProbeGoal)
    solver: str = terms.DEFAULT_SOLVER
    steps: Steps = Field(default_factory=_probe_steps)
    seed: Seed = 0
    top_k: TopK = limits.DEFAULT_TOP_K
    timeout_seconds: TimeoutSeconds | None = None
    allow_partial: bool = True
    no_cache: bool = False


class CompareRequest(_Message):
    model: str = ""
    image: ImageInput
    target: ClassRef | None = None
    rho: Rho | None = None
    solver: str = terms.DEFAULT_SOLVER
    steps: Steps = Field(default_factory=_explain_steps)
    seed: Seed = 0
    top_k: TopK = limits.DEFAULT_TOP_K
    timeout_seconds: TimeoutSeconds | None = None
    no_cache: bool = False


class ModelRef(_Message):
    name: str
    version: str
    weights_digest: str


class ClassConfidence(_Message):
    index: int
    name: str
    confidence: Probability


class PredictResponse(_Message):
    predictions: tuple[ClassConfidence, ...]
    model: ModelRef
    request_id: str


class Explanation(_Message):
    target: ClassConfidence
    direction: Direction
    rho: float
    rmse: Rmse
    confidence_before: Probability
    confidence_after: Probability
    predicted_before: ClassConfidence
    predicted_after: ClassConfidence
    predictions_after: tuple[ClassConfidence, ...]
    steps: int
    status: SearchStatus
    solver: str
    image_png: Base64Bytes
    image_tensor: TensorInput | None = None
    is_partial: bool
    from_cache: bool


class ExplainResponse(_Message):
    explanations: tuple[Explanation, ...]
    predictions_before: tuple[ClassConfidence, ...]
    input_png: Base64Bytes
    model: ModelRef
    request_id: str


class ExplainProgress(_Message):
    index: int
    step: int
    step_count: int
    best_confidence: Probability | None
    best_rmse: Rmse | None
    queue_position: int
    preview_png: Base64Bytes


class ExplainStreamResponse(_Message):
    """One message of a stream: progress, or the answer that ends it."""

    progress: ExplainProgress | None = None
    result: ExplainResponse | None = None


class ProbeResult(_Message):
    goal: ProbeGoal
    status: SearchStatus
    radius: Rmse | None
    lower_bound: Rmse | None
    falls_to: ClassConfidence
    label_confidence_after: Probability
    steps: int
    solver: str
    image_png: Base64Bytes
    is_partial: bool
    from_cache: bool


class ProbeResponse(_Message):
    results: tuple[ProbeResult, ...]
    label: ClassConfidence
    predictions_before: tuple[ClassConfidence, ...]
    model: ModelRef
    request_id: str


class SaliencyMap(_Message):
    """(H, W) float32, little endian, row-major."""

    height: int
    width: int
    data: Base64Bytes


class Perturbation(_Message):
    rmse: Rmse
    confidence_before: Probability
    confidence_after: Probability
    predicted_after: ClassConfidence
    image_png: Base64Bytes


class MethodResult(_Message):
    method: Method
    saliency: SaliencyMap
    overlay_png: Base64Bytes
    perturbed_overlay_png: Base64Bytes
    energy_share: Probability
    rank_correlation: Correlation
    cosine: Correlation


class CompareResponse(_Message):
    explanation: Explanation
    perturbation: Perturbation
    methods: tuple[MethodResult, ...]
    top_share: Probability
    predictions_before: tuple[ClassConfidence, ...]
    input_png: Base64Bytes
    model: ModelRef
    request_id: str


class ModelSummary(_Message):
    model: ModelRef
    description: str
    is_default: bool


class ModelList(_Message):
    models: tuple[ModelSummary, ...]


class InputSpec(_Message):
    channels: int
    height: int
    width: int
    lower: float
    upper: float


class ModelDetails(_Message):
    model: ModelRef
    description: str
    architecture: str
    classes: tuple[str, ...]
    input: InputSpec
    recommended_rho: float
    metrics: tuple[MetricCard, ...]
    solvers: tuple[str, ...]
