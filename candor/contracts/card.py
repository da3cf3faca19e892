"""The model card: what is known about a model besides its weights."""

import hashlib
import re
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    field_validator,
    model_validator,
)

from candor.contracts.json_text import check_numbers, json_text
from candor.contracts.messages import Message
from candor.contracts.names import VERSION_PATTERN, checked_model_name, checked_name

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Finite = Annotated[float, Field(allow_inf_nan=False)]
ClassCount = Annotated[int, Field(ge=2)]
# What an argument of a library's network may be: JSON, without objects that a library might call.
Argument = bool | int | float | str | None | list[Any] | dict[str, Any]


class _Strict(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False
    )


class NetworkCard(_Strict):
    """Fields of `candor.nets.architectures.NetworkSpec`, in the same units.

    Fields with a default were added after the first cards, which lack them.
    """

    family: Literal["candor"] = "candor"
    architecture: str
    activation: str
    curvature: float
    width_factor: int
    class_count: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    residual_drop: str = "none"
    last_survival: float = 1.0


class LibraryNetworkCard(_Strict):
    """A network that a public library builds by name.

    Attributes:
        family: the library.
        architecture: its name of the network.
        arguments: what the network is built with, besides the number of classes.
        library_version: the version that built it when it was imported.
        class_count: V, at least 2.
    """

    family: Literal["timm", "torchvision", "transformers"]
    architecture: str
    arguments: dict[str, Argument] = {}
    library_version: str
    class_count: ClassCount

    activation: Literal["of the library"] = "of the library"


class RobustNetworkCard(_Strict):
    """A network of `candor.nets.robust`: those of public collections of robust checkpoints."""

    family: Literal["robust"]
    architecture: str
    class_count: ClassCount

    activation: Literal["relu"] = "relu"


class OnnxNetworkCard(_Strict):
    """A graph that lies beside the weights.

    Attributes:
        architecture: name of the graph and its producer, as the file has them.
        opset: of the file.
        graph_sha256: SHA-256 of the graph's file.
        class_count: V, at least 2.
    """

    family: Literal["onnx"]
    architecture: str
    opset: int
    graph_sha256: Digest
    class_count: ClassCount

    activation: Literal["of the graph"] = "of the graph"


def _family(value: Any) -> str:
    """The tag of a network; cards written before there were others lack it."""
    if isinstance(value, dict):
        return str(value.get("family", "candor"))
    return str(getattr(value, "family", "candor"))


AnyNetworkCard = Annotated[
    Annotated[NetworkCard, Tag("candor")]
    | Annotated[LibraryNetworkCard, Tag("timm")]
    | Annotated[LibraryNetworkCard, Tag("torchvision")]
    | Annotated[LibraryNetworkCard, Tag("transformers")]
    | Annotated[RobustNetworkCard, Tag("robust")]
    | Annotated[OnnxNetworkCard, Tag("onnx")],
    Discriminator(_family),
]


class InputCard(_Strict):
    """Shape of one input and the pixel domain, always [0, 1]."""

    channels: Annotated[int, Field(ge=1)]
    height: Annotated[int, Field(ge=1)]
    width: Annotated[int, Field(ge=1)]
    lower: Annotated[float, Field(ge=0.0, le=0.0)] = 0.0
    upper: Annotated[float, Field(ge=1.0, le=1.0)] = 1.0

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return self.channels, self.height, self.width


class Preprocessing(_Strict):
    """How an image becomes an input; the defaults are what cards without this part get.

    Explanations and RMSE are of the image after resize and crop and before normalisation.

    Attributes:
        resize: "cover" samples the largest centred part with the input's aspect ratio, in fractions
            of pixels; "crop-first" cuts that part in whole pixels and then resizes; "shorter-edge"
            and "exact" resize the whole image and then cut the centre.
        edge: pixels before the crop: one number for "shorter-edge", height and width for "exact".
        crop: share of the largest part that is kept, for "cover" and "crop-first".
        interpolation: Pillow's filter.
        antialias: whether the filter grows with the reduction.
        offset: how half a pixel of a crop's position is rounded ("round" is to even).
        channel_order: in which the network wants the channels; explanations are RGB.
        normalization: whether Candor subtracts ``mean`` and divides by ``std``, or the network does
            what it needs itself.
        mean, std: one for each channel on the [0, 1] scale, where Candor normalises.
    """

    resize: Literal["cover", "crop-first", "shorter-edge", "exact"] = "cover"
    edge: tuple[Annotated[int, Field(ge=1, le=8192)], ...] = ()
    crop: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    interpolation: Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"] = (
        "lanczos"
    )
    antialias: bool = True
    offset: Literal["round", "floor", "ceil"] = "round"
    channel_order: Literal["rgb", "bgr"] = "rgb"
    normalization: Literal["candor", "network"] = "network"
    mean: tuple[Finite, ...] = ()
    std: tuple[Annotated[float, Field(gt=0.0, allow_inf_nan=False)], ...] = ()

    @model_validator(mode="after")
    def _check(self) -> "Preprocessing":
        count = {"shorter-edge": 1, "exact": 2}.get(self.resize, 0)
        if len(self.edge) != count:
            raise ValueError(f"edge: expected {count} for {self.resize}, got {len(self.edge)}")
        if self.crop != 1.0 and count:
            raise ValueError(f"crop: expected 1 for {self.resize}, got {self.crop!r}")
        if not self.antialias and self.interpolation not in ("nearest", "bilinear", "bicubic"):
            raise ValueError(
                "interpolation: expected nearest, bilinear or bicubic without antialias, "
                f"got {self.interpolation!r}"
            )
        has_numbers = bool(self.mean or self.std)
        if has_numbers != (self.normalization == "candor") or len(self.mean) != len(self.std):
            raise ValueError(
                "mean, std: expected one a channel where Candor normalises and none where the "
                f"network does, got {len(self.mean)} and {len(self.std)}"
            )
        return self


DEFAULT_PREPROCESSING = Preprocessing()
_SOLVER = re.compile(r"--solver (\w+)")
_HEADLINE = "fast"  # the better search of the two solvers: its areas are the smaller ones


HUMAN_FLIP_RATE = "human_flip_rate"
"""Name of the metric that `candor annotations flips` writes: the share of explanations that people
call the target."""


class MetricCard(Message):
    proto_name = "Metric"

    name: str
    value: float
    low: float
    high: float
    image_count: Annotated[int, Field(ge=1)]
    data: str
    method: str

    @property
    def search(self) -> str:
        """The solver that an ARA was found by, as ``method`` names it; "" of anything else."""
        found = _SOLVER.search(self.method) if "_ara" in self.name else None
        return found[1] if found else ""

    def named(self) -> "MetricCard":
        """The same; an ARA by another solver than `fast` is called ``NAME_by_SOLVER``."""
        ending = f"_by_{self.search}"
        if self.search in ("", _HEADLINE) or self.name.endswith(ending):
            return self
        return self.model_copy(update={"name": f"{self.name}{ending}"})


class SourceFile(_Strict):
    """A file that a model was imported from: its name without folders, its size and its digest."""

    name: str
    byte_count: int
    sha256: Digest


class Provenance(_Strict):
    """Where an imported model comes from.

    Attributes:
        format: what kind of source it was.
        files: every file that decided something.
        matching: how the names of the weights were found: "by-name", or "by-order", which is
            accepted only with labelled images.
    """

    format: str
    files: tuple[SourceFile, ...]
    matching: Literal["by-name", "by-order"] = "by-name"


class StepCost(_Strict):
    """What one step of a search costs at a batch size, on the machine of the import.

    Attributes:
        milliseconds: median.
        mebibytes: of the tensors that live at one time, at most.
    """

    batch_size: int
    milliseconds: float
    mebibytes: float


class Acceptance(_Strict):
    """What the acceptance test found; see `candor.robustness.acceptance`.

    Attributes:
        image_count: labelled images; 0 where the model was accepted without data.
        data: the data set; empty where there was none.
        batch_difference: largest difference of a logit between an image alone and in a batch.
        gradient_norm: median L2 norm of the input gradient.
        gradient_error: difference between the derivative along the gradient and finite differences,
            as a share of it, median.
        has_second_derivative: whether training can differentiate the input gradient once more.
        steps: cost of a search step at batch 1 and 8.
        median_radius: RMSE of the median attack by `fast`; None where none was found.
        meaning: what the radius means for explanations, one sentence.
    """

    image_count: Annotated[int, Field(ge=0)]
    data: str
    batch_difference: float
    gradient_norm: float
    gradient_error: float
    has_second_derivative: bool = True
    steps: tuple[StepCost, ...]
    median_radius: float | None
    meaning: str


class ModelCard(_Strict):
    """The JSON beside the weights; `candor.models.folder` alone reads and writes it.

    Attributes:
        card_version: version of this schema.
        name: name under which the model is served, see `checked_model_name`.
        version: its version, one to three numbers separated by dots.
        description: one sentence about the model.
        network: how the network is built, by family.
        input: shape and pixel domain of one input.
        preprocessing: how an image becomes an input, and who normalises it.
        output: "softmax" over the logits of V classes, or "sigmoid" of one logit z, which is the
            softmax over (0, z).
        classes: names of the classes in the order of their indices; one spelling (NFC) each.
        recommended_rho: RMSE at which explanations are easy to read, (0, 1].
        recipe: how the weights were made (configuration, history, origin); free form.
        metrics: measured numbers.
        provenance: where an imported model comes from.
        acceptance: what its acceptance test found; every imported model has it.
        code_version: version of Candor that wrote the weights.
        weights_sha256: SHA-256 of the file of weights, 64 hexadecimal digits.
        digest: of an imported model, see `computed_digest`: what its acceptance test was run on.
    """

    card_version: Literal[1] = 1
    name: Annotated[str, AfterValidator(checked_model_name)]
    version: Annotated[str, Field(pattern=VERSION_PATTERN)]
    description: str
    network: AnyNetworkCard
    input: InputCard
    preprocessing: Preprocessing = DEFAULT_PREPROCESSING
    output: Literal["softmax", "sigmoid"] = "softmax"
    classes: tuple[Annotated[str, AfterValidator(checked_name)], ...]
    recommended_rho: Annotated[float, Field(gt=0.0, le=1.0)] = 0.1
    recipe: dict[str, Any]
    metrics: tuple[MetricCard, ...] = ()
    provenance: Provenance | None = None
    acceptance: Acceptance | None = None
    code_version: str
    weights_sha256: Digest
    digest: Digest | None = None

    @field_validator("recipe")
    @classmethod
    def _finite(cls, recipe: dict[str, Any]) -> dict[str, Any]:
        check_numbers(recipe, "recipe")
        return recipe

    @property
    def identity(self) -> str:
        """What decides explanations, as 64 hexadecimal digits.

        That is the digest of an imported model.  Candor's own networks differ in their weights
        alone, whose digest stands in stores and reports since the first version.
        """
        if self.digest is not None or self.preprocessing != DEFAULT_PREPROCESSING:
            return self.computed_digest()
        return self.weights_sha256

    @property
    def is_imported(self) -> bool:
        """Whether the network is none of Candor's own."""
        return self.network.family != "candor"

    @property
    def is_accepted_without_data(self) -> bool:
        """Whether nobody has shown that the model classifies anything."""
        return self.acceptance is not None and self.acceptance.image_count == 0

    def measured(self, name: str, data: str | None = None) -> tuple[MetricCard, ...]:
        """Every measurement called ``name`` or ``name_by_SOLVER``.

        An ARA by an attack is an upper bound, so the headline, by `fast`, comes first.

        Args:
            data: only on this data set; None for any.
        """
        found = [
            metric
            for metric in self.metrics
            if metric.name in (name, f"{name}_by_{metric.search}") and data in (None, metric.data)
        ]
        return tuple(sorted(found, key=lambda metric: metric.search not in ("", _HEADLINE)))

    def computed_digest(self) -> str:
        """SHA-256 of weights, network, input, preprocessing, output and class names together."""
        parts = {"weights_sha256", "network", "input", "preprocessing", "output", "classes"}
        content = json_text(self.model_dump(mode="json", include=parts), is_sorted=True)
        return hashlib.sha256(content.encode()).hexdigest()

    def sealed(self) -> "ModelCard":
        """The same card with its digest."""
        return self.model_copy(update={"digest": self.computed_digest()})
