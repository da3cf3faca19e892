"""The model card: what is known about a model besides its weights."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator

from candor.contracts.json_text import check_numbers
from candor.contracts.messages import Message
from candor.contracts.names import VERSION_PATTERN, checked_model_name, checked_name

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Strict(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False
    )


class NetworkCard(_Strict):
    """Fields of `candor.nets.architectures.NetworkSpec`, in the same units.

    Fields with a default were added after the first cards, which lack them.
    """

    architecture: str
    activation: str
    curvature: float
    width_factor: int
    class_count: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    residual_drop: str = "none"
    last_survival: float = 1.0


class InputCard(_Strict):
    """Shape of one input and the pixel domain, always [0, 1]."""

    channels: Annotated[int, Field(ge=1)]
    height: Annotated[int, Field(ge=1)]
    width: Annotated[int, Field(ge=1)]
    lower: Annotated[float, Field(ge=0.0, le=0.0)] = 0.0
    upper: Annotated[float, Field(ge=1.0, le=1.0)] = 1.0


class MetricCard(Message):
    proto_name = "Metric"

    name: str
    value: float
    low: float
    high: float
    image_count: Annotated[int, Field(ge=1)]
    data: str
    method: str


class ModelCard(_Strict):
    """The JSON beside the weights; `candor.models.folder` alone reads and writes it.

    Attributes:
        card_version: version of this schema.
        name: name under which the model is served, see `checked_model_name`.
        version: its version, one to three numbers separated by dots.
        description: one sentence about the model.
        network: how the network is built.
        input: shape and pixel domain of one input.
        classes: names of the classes in the order of their indices; one spelling (NFC) each.
        recommended_rho: RMSE at which explanations are easy to read, (0, 1].
        recipe: how the weights were made (configuration, history, origin); free form.
        metrics: measured numbers.
        code_version: version of Candor that wrote the weights.
        weights_sha256: SHA-256 of the file of weights, 64 hexadecimal digits.
    """

    card_version: Literal[1] = 1
    name: Annotated[str, AfterValidator(checked_model_name)]
    version: Annotated[str, Field(pattern=VERSION_PATTERN)]
    description: str
    network: NetworkCard
    input: InputCard
    classes: tuple[Annotated[str, AfterValidator(checked_name)], ...]
    recommended_rho: Annotated[float, Field(gt=0.0, le=1.0)] = 0.1
    recipe: dict[str, Any]
    metrics: tuple[MetricCard, ...] = ()
    code_version: str
    weights_sha256: Digest

    @field_validator("recipe")
    @classmethod
    def _finite(cls, recipe: dict[str, Any]) -> dict[str, Any]:
        check_numbers(recipe, "recipe")
        return recipe
