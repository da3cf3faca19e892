from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Direction(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DIRECTION_UNSPECIFIED: _ClassVar[Direction]
    DIRECTION_FOR: _ClassVar[Direction]
    DIRECTION_AGAINST: _ClassVar[Direction]

class Norm(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    NORM_UNSPECIFIED: _ClassVar[Norm]
    NORM_L1: _ClassVar[Norm]
    NORM_L1_5: _ClassVar[Norm]
    NORM_L2: _ClassVar[Norm]
    NORM_LINF: _ClassVar[Norm]

class Goal(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    GOAL_UNSPECIFIED: _ClassVar[Goal]
    GOAL_ATTACK: _ClassVar[Goal]
    GOAL_BTR: _ClassVar[Goal]

class SearchStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SEARCH_STATUS_UNSPECIFIED: _ClassVar[SearchStatus]
    SEARCH_STATUS_FOUND: _ClassVar[SearchStatus]
    SEARCH_STATUS_UNRESOLVED: _ClassVar[SearchStatus]
    SEARCH_STATUS_ALREADY_WRONG: _ClassVar[SearchStatus]

class Method(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    METHOD_UNSPECIFIED: _ClassVar[Method]
    METHOD_EXPLANATION: _ClassVar[Method]
    METHOD_GRAD_CAM: _ClassVar[Method]
    METHOD_LIME: _ClassVar[Method]
    METHOD_INTEGRATED_GRADIENTS: _ClassVar[Method]
    METHOD_GRADIENT: _ClassVar[Method]
DIRECTION_UNSPECIFIED: Direction
DIRECTION_FOR: Direction
DIRECTION_AGAINST: Direction
NORM_UNSPECIFIED: Norm
NORM_L1: Norm
NORM_L1_5: Norm
NORM_L2: Norm
NORM_LINF: Norm
GOAL_UNSPECIFIED: Goal
GOAL_ATTACK: Goal
GOAL_BTR: Goal
SEARCH_STATUS_UNSPECIFIED: SearchStatus
SEARCH_STATUS_FOUND: SearchStatus
SEARCH_STATUS_UNRESOLVED: SearchStatus
SEARCH_STATUS_ALREADY_WRONG: SearchStatus
METHOD_UNSPECIFIED: Method
METHOD_EXPLANATION: Method
METHOD_GRAD_CAM: Method
METHOD_LIME: Method
METHOD_INTEGRATED_GRADIENTS: Method
METHOD_GRADIENT: Method

class Image(_message.Message):
    __slots__ = ("encoded", "tensor")
    ENCODED_FIELD_NUMBER: _ClassVar[int]
    TENSOR_FIELD_NUMBER: _ClassVar[int]
    encoded: bytes
    tensor: Tensor
    def __init__(self, encoded: _Optional[bytes] = ..., tensor: _Optional[_Union[Tensor, _Mapping]] = ...) -> None: ...

class Tensor(_message.Message):
    __slots__ = ("shape", "data")
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    shape: _containers.RepeatedScalarFieldContainer[int]
    data: bytes
    def __init__(self, shape: _Optional[_Iterable[int]] = ..., data: _Optional[bytes] = ...) -> None: ...

class Region(_message.Message):
    __slots__ = ("mask", "box", "outside")
    MASK_FIELD_NUMBER: _ClassVar[int]
    BOX_FIELD_NUMBER: _ClassVar[int]
    OUTSIDE_FIELD_NUMBER: _ClassVar[int]
    mask: bytes
    box: Box
    outside: bool
    def __init__(self, mask: _Optional[bytes] = ..., box: _Optional[_Union[Box, _Mapping]] = ..., outside: _Optional[bool] = ...) -> None: ...

class Box(_message.Message):
    __slots__ = ("x", "y", "width", "height")
    X_FIELD_NUMBER: _ClassVar[int]
    Y_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    x: int
    y: int
    width: int
    height: int
    def __init__(self, x: _Optional[int] = ..., y: _Optional[int] = ..., width: _Optional[int] = ..., height: _Optional[int] = ...) -> None: ...

class ClassRef(_message.Message):
    __slots__ = ("index", "name")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    index: int
    name: str
    def __init__(self, index: _Optional[int] = ..., name: _Optional[str] = ...) -> None: ...

class ClassConfidence(_message.Message):
    __slots__ = ("index", "name", "confidence")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    index: int
    name: str
    confidence: float
    def __init__(self, index: _Optional[int] = ..., name: _Optional[str] = ..., confidence: _Optional[float] = ...) -> None: ...

class ModelRef(_message.Message):
    __slots__ = ("name", "version", "weights_digest", "is_accepted_without_data")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_DIGEST_FIELD_NUMBER: _ClassVar[int]
    IS_ACCEPTED_WITHOUT_DATA_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    weights_digest: str
    is_accepted_without_data: bool
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ..., weights_digest: _Optional[str] = ..., is_accepted_without_data: _Optional[bool] = ...) -> None: ...

class PredictRequest(_message.Message):
    __slots__ = ("model", "image", "top_k")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    model: str
    image: Image
    top_k: int
    def __init__(self, model: _Optional[str] = ..., image: _Optional[_Union[Image, _Mapping]] = ..., top_k: _Optional[int] = ...) -> None: ...

class PredictResponse(_message.Message):
    __slots__ = ("predictions", "model", "request_id")
    PREDICTIONS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    predictions: _containers.RepeatedCompositeFieldContainer[ClassConfidence]
    model: ModelRef
    request_id: str
    def __init__(self, predictions: _Optional[_Iterable[_Union[ClassConfidence, _Mapping]]] = ..., model: _Optional[_Union[ModelRef, _Mapping]] = ..., request_id: _Optional[str] = ...) -> None: ...

class ExplainRequest(_message.Message):
    __slots__ = ("model", "image", "targets", "rhos", "direction", "steps", "solver", "seed", "top_k", "include_tensor", "timeout_seconds", "allow_partial", "no_cache", "region", "norm", "away_from")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    TARGETS_FIELD_NUMBER: _ClassVar[int]
    RHOS_FIELD_NUMBER: _ClassVar[int]
    DIRECTION_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    SOLVER_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_TENSOR_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    ALLOW_PARTIAL_FIELD_NUMBER: _ClassVar[int]
    NO_CACHE_FIELD_NUMBER: _ClassVar[int]
    REGION_FIELD_NUMBER: _ClassVar[int]
    NORM_FIELD_NUMBER: _ClassVar[int]
    AWAY_FROM_FIELD_NUMBER: _ClassVar[int]
    model: str
    image: Image
    targets: _containers.RepeatedCompositeFieldContainer[ClassRef]
    rhos: _containers.RepeatedScalarFieldContainer[float]
    direction: Direction
    steps: int
    solver: str
    seed: int
    top_k: int
    include_tensor: bool
    timeout_seconds: float
    allow_partial: bool
    no_cache: bool
    region: Region
    norm: Norm
    away_from: ClassRef
    def __init__(self, model: _Optional[str] = ..., image: _Optional[_Union[Image, _Mapping]] = ..., targets: _Optional[_Iterable[_Union[ClassRef, _Mapping]]] = ..., rhos: _Optional[_Iterable[float]] = ..., direction: _Optional[_Union[Direction, str]] = ..., steps: _Optional[int] = ..., solver: _Optional[str] = ..., seed: _Optional[int] = ..., top_k: _Optional[int] = ..., include_tensor: _Optional[bool] = ..., timeout_seconds: _Optional[float] = ..., allow_partial: _Optional[bool] = ..., no_cache: _Optional[bool] = ..., region: _Optional[_Union[Region, _Mapping]] = ..., norm: _Optional[_Union[Norm, str]] = ..., away_from: _Optional[_Union[ClassRef, _Mapping]] = ...) -> None: ...

class ExplainResponse(_message.Message):
    __slots__ = ("explanations", "predictions_before", "input_png", "model", "request_id", "median_radius")
    EXPLANATIONS_FIELD_NUMBER: _ClassVar[int]
    PREDICTIONS_BEFORE_FIELD_NUMBER: _ClassVar[int]
    INPUT_PNG_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    MEDIAN_RADIUS_FIELD_NUMBER: _ClassVar[int]
    explanations: _containers.RepeatedCompositeFieldContainer[Explanation]
    predictions_before: _containers.RepeatedCompositeFieldContainer[ClassConfidence]
    input_png: bytes
    model: ModelRef
    request_id: str
    median_radius: Metric
    def __init__(self, explanations: _Optional[_Iterable[_Union[Explanation, _Mapping]]] = ..., predictions_before: _Optional[_Iterable[_Union[ClassConfidence, _Mapping]]] = ..., input_png: _Optional[bytes] = ..., model: _Optional[_Union[ModelRef, _Mapping]] = ..., request_id: _Optional[str] = ..., median_radius: _Optional[_Union[Metric, _Mapping]] = ...) -> None: ...

class Explanation(_message.Message):
    __slots__ = ("target", "direction", "rho", "rmse", "confidence_before", "confidence_after", "predicted_before", "predicted_after", "predictions_after", "steps", "status", "solver", "image_png", "image_tensor", "is_partial", "from_cache", "rho_1", "rho_1_5", "rho_inf", "rmse_inside", "sparsity", "flips", "norm", "away_from", "radius_note")
    TARGET_FIELD_NUMBER: _ClassVar[int]
    DIRECTION_FIELD_NUMBER: _ClassVar[int]
    RHO_FIELD_NUMBER: _ClassVar[int]
    RMSE_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_BEFORE_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_AFTER_FIELD_NUMBER: _ClassVar[int]
    PREDICTED_BEFORE_FIELD_NUMBER: _ClassVar[int]
    PREDICTED_AFTER_FIELD_NUMBER: _ClassVar[int]
    PREDICTIONS_AFTER_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    SOLVER_FIELD_NUMBER: _ClassVar[int]
    IMAGE_PNG_FIELD_NUMBER: _ClassVar[int]
    IMAGE_TENSOR_FIELD_NUMBER: _ClassVar[int]
    IS_PARTIAL_FIELD_NUMBER: _ClassVar[int]
    FROM_CACHE_FIELD_NUMBER: _ClassVar[int]
    RHO_1_FIELD_NUMBER: _ClassVar[int]
    RHO_1_5_FIELD_NUMBER: _ClassVar[int]
    RHO_INF_FIELD_NUMBER: _ClassVar[int]
    RMSE_INSIDE_FIELD_NUMBER: _ClassVar[int]
    SPARSITY_FIELD_NUMBER: _ClassVar[int]
    FLIPS_FIELD_NUMBER: _ClassVar[int]
    NORM_FIELD_NUMBER: _ClassVar[int]
    AWAY_FROM_FIELD_NUMBER: _ClassVar[int]
    RADIUS_NOTE_FIELD_NUMBER: _ClassVar[int]
    target: ClassConfidence
    direction: Direction
    rho: float
    rmse: float
    confidence_before: float
    confidence_after: float
    predicted_before: ClassConfidence
    predicted_after: ClassConfidence
    predictions_after: _containers.RepeatedCompositeFieldContainer[ClassConfidence]
    steps: int
    status: SearchStatus
    solver: str
    image_png: bytes
    image_tensor: Tensor
    is_partial: bool
    from_cache: bool
    rho_1: float
    rho_1_5: float
    rho_inf: float
    rmse_inside: float
    sparsity: float
    flips: bool
    norm: Norm
    away_from: ClassConfidence
    radius_note: str
    def __init__(self, target: _Optional[_Union[ClassConfidence, _Mapping]] = ..., direction: _Optional[_Union[Direction, str]] = ..., rho: _Optional[float] = ..., rmse: _Optional[float] = ..., confidence_before: _Optional[float] = ..., confidence_after: _Optional[float] = ..., predicted_before: _Optional[_Union[ClassConfidence, _Mapping]] = ..., predicted_after: _Optional[_Union[ClassConfidence, _Mapping]] = ..., predictions_after: _Optional[_Iterable[_Union[ClassConfidence, _Mapping]]] = ..., steps: _Optional[int] = ..., status: _Optional[_Union[SearchStatus, str]] = ..., solver: _Optional[str] = ..., image_png: _Optional[bytes] = ..., image_tensor: _Optional[_Union[Tensor, _Mapping]] = ..., is_partial: _Optional[bool] = ..., from_cache: _Optional[bool] = ..., rho_1: _Optional[float] = ..., rho_1_5: _Optional[float] = ..., rho_inf: _Optional[float] = ..., rmse_inside: _Optional[float] = ..., sparsity: _Optional[float] = ..., flips: _Optional[bool] = ..., norm: _Optional[_Union[Norm, str]] = ..., away_from: _Optional[_Union[ClassConfidence, _Mapping]] = ..., radius_note: _Optional[str] = ...) -> None: ...

class ExplainStreamResponse(_message.Message):
    __slots__ = ("progress", "result")
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    progress: ExplainProgress
    result: ExplainResponse
    def __init__(self, progress: _Optional[_Union[ExplainProgress, _Mapping]] = ..., result: _Optional[_Union[ExplainResponse, _Mapping]] = ...) -> None: ...

class ExplainProgress(_message.Message):
    __slots__ = ("index", "step", "step_count", "best_confidence", "best_rmse", "queue_position", "preview_png")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    STEP_COUNT_FIELD_NUMBER: _ClassVar[int]
    BEST_CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    BEST_RMSE_FIELD_NUMBER: _ClassVar[int]
    QUEUE_POSITION_FIELD_NUMBER: _ClassVar[int]
    PREVIEW_PNG_FIELD_NUMBER: _ClassVar[int]
    index: int
    step: int
    step_count: int
    best_confidence: float
    best_rmse: float
    queue_position: int
    preview_png: bytes
    def __init__(self, index: _Optional[int] = ..., step: _Optional[int] = ..., step_count: _Optional[int] = ..., best_confidence: _Optional[float] = ..., best_rmse: _Optional[float] = ..., queue_position: _Optional[int] = ..., preview_png: _Optional[bytes] = ...) -> None: ...

class ProbeRequest(_message.Message):
    __slots__ = ("model", "image", "label", "goals", "steps", "solver", "seed", "top_k", "timeout_seconds", "allow_partial", "no_cache", "region")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    GOALS_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    SOLVER_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    ALLOW_PARTIAL_FIELD_NUMBER: _ClassVar[int]
    NO_CACHE_FIELD_NUMBER: _ClassVar[int]
    REGION_FIELD_NUMBER: _ClassVar[int]
    model: str
    image: Image
    label: ClassRef
    goals: _containers.RepeatedScalarFieldContainer[Goal]
    steps: int
    solver: str
    seed: int
    top_k: int
    timeout_seconds: float
    allow_partial: bool
    no_cache: bool
    region: Region
    def __init__(self, model: _Optional[str] = ..., image: _Optional[_Union[Image, _Mapping]] = ..., label: _Optional[_Union[ClassRef, _Mapping]] = ..., goals: _Optional[_Iterable[_Union[Goal, str]]] = ..., steps: _Optional[int] = ..., solver: _Optional[str] = ..., seed: _Optional[int] = ..., top_k: _Optional[int] = ..., timeout_seconds: _Optional[float] = ..., allow_partial: _Optional[bool] = ..., no_cache: _Optional[bool] = ..., region: _Optional[_Union[Region, _Mapping]] = ...) -> None: ...

class ProbeResponse(_message.Message):
    __slots__ = ("results", "label", "predictions_before", "model", "request_id")
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    PREDICTIONS_BEFORE_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[ProbeResult]
    label: ClassConfidence
    predictions_before: _containers.RepeatedCompositeFieldContainer[ClassConfidence]
    model: ModelRef
    request_id: str
    def __init__(self, results: _Optional[_Iterable[_Union[ProbeResult, _Mapping]]] = ..., label: _Optional[_Union[ClassConfidence, _Mapping]] = ..., predictions_before: _Optional[_Iterable[_Union[ClassConfidence, _Mapping]]] = ..., model: _Optional[_Union[ModelRef, _Mapping]] = ..., request_id: _Optional[str] = ...) -> None: ...

class ProbeResult(_message.Message):
    __slots__ = ("goal", "status", "radius", "lower_bound", "falls_to", "label_confidence_after", "steps", "solver", "image_png", "is_partial", "from_cache", "rmse_inside")
    GOAL_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    RADIUS_FIELD_NUMBER: _ClassVar[int]
    LOWER_BOUND_FIELD_NUMBER: _ClassVar[int]
    FALLS_TO_FIELD_NUMBER: _ClassVar[int]
    LABEL_CONFIDENCE_AFTER_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    SOLVER_FIELD_NUMBER: _ClassVar[int]
    IMAGE_PNG_FIELD_NUMBER: _ClassVar[int]
    IS_PARTIAL_FIELD_NUMBER: _ClassVar[int]
    FROM_CACHE_FIELD_NUMBER: _ClassVar[int]
    RMSE_INSIDE_FIELD_NUMBER: _ClassVar[int]
    goal: Goal
    status: SearchStatus
    radius: float
    lower_bound: float
    falls_to: ClassConfidence
    label_confidence_after: float
    steps: int
    solver: str
    image_png: bytes
    is_partial: bool
    from_cache: bool
    rmse_inside: float
    def __init__(self, goal: _Optional[_Union[Goal, str]] = ..., status: _Optional[_Union[SearchStatus, str]] = ..., radius: _Optional[float] = ..., lower_bound: _Optional[float] = ..., falls_to: _Optional[_Union[ClassConfidence, _Mapping]] = ..., label_confidence_after: _Optional[float] = ..., steps: _Optional[int] = ..., solver: _Optional[str] = ..., image_png: _Optional[bytes] = ..., is_partial: _Optional[bool] = ..., from_cache: _Optional[bool] = ..., rmse_inside: _Optional[float] = ...) -> None: ...

class CompareRequest(_message.Message):
    __slots__ = ("model", "image", "target", "rho", "steps", "solver", "seed", "top_k", "timeout_seconds", "no_cache")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    RHO_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    SOLVER_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    NO_CACHE_FIELD_NUMBER: _ClassVar[int]
    model: str
    image: Image
    target: ClassRef
    rho: float
    steps: int
    solver: str
    seed: int
    top_k: int
    timeout_seconds: float
    no_cache: bool
    def __init__(self, model: _Optional[str] = ..., image: _Optional[_Union[Image, _Mapping]] = ..., target: _Optional[_Union[ClassRef, _Mapping]] = ..., rho: _Optional[float] = ..., steps: _Optional[int] = ..., solver: _Optional[str] = ..., seed: _Optional[int] = ..., top_k: _Optional[int] = ..., timeout_seconds: _Optional[float] = ..., no_cache: _Optional[bool] = ...) -> None: ...

class CompareResponse(_message.Message):
    __slots__ = ("explanation", "perturbation", "methods", "top_share", "predictions_before", "input_png", "model", "request_id", "missing")
    EXPLANATION_FIELD_NUMBER: _ClassVar[int]
    PERTURBATION_FIELD_NUMBER: _ClassVar[int]
    METHODS_FIELD_NUMBER: _ClassVar[int]
    TOP_SHARE_FIELD_NUMBER: _ClassVar[int]
    PREDICTIONS_BEFORE_FIELD_NUMBER: _ClassVar[int]
    INPUT_PNG_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    MISSING_FIELD_NUMBER: _ClassVar[int]
    explanation: Explanation
    perturbation: Perturbation
    methods: _containers.RepeatedCompositeFieldContainer[MethodResult]
    top_share: float
    predictions_before: _containers.RepeatedCompositeFieldContainer[ClassConfidence]
    input_png: bytes
    model: ModelRef
    request_id: str
    missing: _containers.RepeatedCompositeFieldContainer[MissingMethod]
    def __init__(self, explanation: _Optional[_Union[Explanation, _Mapping]] = ..., perturbation: _Optional[_Union[Perturbation, _Mapping]] = ..., methods: _Optional[_Iterable[_Union[MethodResult, _Mapping]]] = ..., top_share: _Optional[float] = ..., predictions_before: _Optional[_Iterable[_Union[ClassConfidence, _Mapping]]] = ..., input_png: _Optional[bytes] = ..., model: _Optional[_Union[ModelRef, _Mapping]] = ..., request_id: _Optional[str] = ..., missing: _Optional[_Iterable[_Union[MissingMethod, _Mapping]]] = ...) -> None: ...

class MissingMethod(_message.Message):
    __slots__ = ("method", "reason")
    METHOD_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    method: Method
    reason: str
    def __init__(self, method: _Optional[_Union[Method, str]] = ..., reason: _Optional[str] = ...) -> None: ...

class Perturbation(_message.Message):
    __slots__ = ("rmse", "confidence_before", "confidence_after", "predicted_after", "image_png")
    RMSE_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_BEFORE_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_AFTER_FIELD_NUMBER: _ClassVar[int]
    PREDICTED_AFTER_FIELD_NUMBER: _ClassVar[int]
    IMAGE_PNG_FIELD_NUMBER: _ClassVar[int]
    rmse: float
    confidence_before: float
    confidence_after: float
    predicted_after: ClassConfidence
    image_png: bytes
    def __init__(self, rmse: _Optional[float] = ..., confidence_before: _Optional[float] = ..., confidence_after: _Optional[float] = ..., predicted_after: _Optional[_Union[ClassConfidence, _Mapping]] = ..., image_png: _Optional[bytes] = ...) -> None: ...

class MethodResult(_message.Message):
    __slots__ = ("method", "saliency", "overlay_png", "perturbed_overlay_png", "energy_share", "rank_correlation", "cosine")
    METHOD_FIELD_NUMBER: _ClassVar[int]
    SALIENCY_FIELD_NUMBER: _ClassVar[int]
    OVERLAY_PNG_FIELD_NUMBER: _ClassVar[int]
    PERTURBED_OVERLAY_PNG_FIELD_NUMBER: _ClassVar[int]
    ENERGY_SHARE_FIELD_NUMBER: _ClassVar[int]
    RANK_CORRELATION_FIELD_NUMBER: _ClassVar[int]
    COSINE_FIELD_NUMBER: _ClassVar[int]
    method: Method
    saliency: SaliencyMap
    overlay_png: bytes
    perturbed_overlay_png: bytes
    energy_share: float
    rank_correlation: float
    cosine: float
    def __init__(self, method: _Optional[_Union[Method, str]] = ..., saliency: _Optional[_Union[SaliencyMap, _Mapping]] = ..., overlay_png: _Optional[bytes] = ..., perturbed_overlay_png: _Optional[bytes] = ..., energy_share: _Optional[float] = ..., rank_correlation: _Optional[float] = ..., cosine: _Optional[float] = ...) -> None: ...

class SaliencyMap(_message.Message):
    __slots__ = ("height", "width", "data")
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    height: int
    width: int
    data: bytes
    def __init__(self, height: _Optional[int] = ..., width: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class ListModelsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("models",)
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[ModelSummary]
    def __init__(self, models: _Optional[_Iterable[_Union[ModelSummary, _Mapping]]] = ...) -> None: ...

class ModelSummary(_message.Message):
    __slots__ = ("model", "description", "is_default")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    IS_DEFAULT_FIELD_NUMBER: _ClassVar[int]
    model: ModelRef
    description: str
    is_default: bool
    def __init__(self, model: _Optional[_Union[ModelRef, _Mapping]] = ..., description: _Optional[str] = ..., is_default: _Optional[bool] = ...) -> None: ...

class GetModelRequest(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: str
    def __init__(self, model: _Optional[str] = ...) -> None: ...

class GetModelResponse(_message.Message):
    __slots__ = ("model", "description", "architecture", "classes", "input", "recommended_rho", "metrics", "solvers", "engine", "precision", "median_radius", "radius_note")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    ARCHITECTURE_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    INPUT_FIELD_NUMBER: _ClassVar[int]
    RECOMMENDED_RHO_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    SOLVERS_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    PRECISION_FIELD_NUMBER: _ClassVar[int]
    MEDIAN_RADIUS_FIELD_NUMBER: _ClassVar[int]
    RADIUS_NOTE_FIELD_NUMBER: _ClassVar[int]
    model: ModelRef
    description: str
    architecture: str
    classes: _containers.RepeatedScalarFieldContainer[str]
    input: InputSpec
    recommended_rho: float
    metrics: _containers.RepeatedCompositeFieldContainer[Metric]
    solvers: _containers.RepeatedScalarFieldContainer[str]
    engine: str
    precision: str
    median_radius: Metric
    radius_note: str
    def __init__(self, model: _Optional[_Union[ModelRef, _Mapping]] = ..., description: _Optional[str] = ..., architecture: _Optional[str] = ..., classes: _Optional[_Iterable[str]] = ..., input: _Optional[_Union[InputSpec, _Mapping]] = ..., recommended_rho: _Optional[float] = ..., metrics: _Optional[_Iterable[_Union[Metric, _Mapping]]] = ..., solvers: _Optional[_Iterable[str]] = ..., engine: _Optional[str] = ..., precision: _Optional[str] = ..., median_radius: _Optional[_Union[Metric, _Mapping]] = ..., radius_note: _Optional[str] = ...) -> None: ...

class InputSpec(_message.Message):
    __slots__ = ("channels", "height", "width", "lower", "upper")
    CHANNELS_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    LOWER_FIELD_NUMBER: _ClassVar[int]
    UPPER_FIELD_NUMBER: _ClassVar[int]
    channels: int
    height: int
    width: int
    lower: float
    upper: float
    def __init__(self, channels: _Optional[int] = ..., height: _Optional[int] = ..., width: _Optional[int] = ..., lower: _Optional[float] = ..., upper: _Optional[float] = ...) -> None: ...

class Metric(_message.Message):
    __slots__ = ("name", "value", "low", "high", "image_count", "data", "method")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    LOW_FIELD_NUMBER: _ClassVar[int]
    HIGH_FIELD_NUMBER: _ClassVar[int]
    IMAGE_COUNT_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: float
    low: float
    high: float
    image_count: int
    data: str
    method: str
    def __init__(self, name: _Optional[str] = ..., value: _Optional[float] = ..., low: _Optional[float] = ..., high: _Optional[float] = ..., image_count: _Optional[int] = ..., data: _Optional[str] = ..., method: _Optional[str] = ...) -> None: ...
