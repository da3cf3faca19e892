"""Parameters of the Open Inference Protocol: those that change an answer here, and no others.

The standard leaves them to the server.  One that is ignored would answer another question than the
client's, as ``topk`` for ``top_k`` or Triton's ``classification``, so others are errors, as unknown
fields are.
"""

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from candor import terms
from candor.contracts import limits
from candor.contracts.api import (
    Base64Bytes,
    Direction,
    Flag,
    Rho,
    Seed,
    Solver,
    Steps,
    TopK,
    box_fields,
)


def _checked_box(text: str) -> str:
    box_fields(text)
    return text


BoxText = Annotated[str, AfterValidator(_checked_box)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class RequestParameters(_Strict):
    """Of a whole request.  ``binary_data_output`` holds for outputs that say nothing themselves;
    over gRPC, where the outputs are raw or not like the inputs, it changes nothing."""

    top_k: TopK = limits.DEFAULT_TOP_K
    binary_data_output: Flag = False


class ExplainParameters(_Strict):
    """Of a whole request for explanations, the same for all of its images.

    Classes are names, or ``#INDEX``; ``box`` is ``X,Y,WIDTH,HEIGHT`` and ``mask`` a PNG as base64,
    both as in `candor.contracts.api.Region`.
    """

    target: str
    rho: Rho | None = None
    direction: Direction = Direction.FOR
    solver: Solver = terms.DEFAULT_SOLVER
    steps: Steps | None = None
    seed: Seed = 0
    norm: terms.Norm = terms.Norm.L2
    away_from: str | None = None
    mask: Base64Bytes | None = None
    box: BoxText | None = None
    outside: Flag = False
    binary_data_output: Flag = False

    def request(self, mask: bytes | None) -> dict[str, Any]:
        """The fields of an `ExplainRequest` but for model and image.

        Args:
            mask: that of one image, instead of the one for all.
        """
        optional = {"steps": self.steps, "region": self._region(mask)}
        return {
            "targets": [{"name": self.target}],
            "rhos": [] if self.rho is None else [self.rho],
            **{name: getattr(self, name) for name in ("direction", "solver", "seed", "norm")},
            "away_from": None if self.away_from is None else {"name": self.away_from},
            **{name: value for name, value in optional.items() if value is not None},
        }

    def _region(self, mask: bytes | None) -> dict[str, Any] | None:
        box = None if self.box is None else box_fields(self.box)
        given = {"mask": self.mask if mask is None else mask, "box": box}
        is_wanted = self.outside or any(source is not None for source in given.values())
        return {**given, "outside": self.outside} if is_wanted else None


class InputParameters(_Strict):
    """Of an input: the bytes that it takes behind the JSON, or of its raw content over gRPC."""

    binary_data_size: Annotated[int, Field(strict=True, ge=0)] = 0

    @property
    def is_binary(self) -> bool:
        return "binary_data_size" in self.model_fields_set


class OutputParameters(_Strict):
    """Of a requested output."""

    binary_data: Flag = False

    def is_binary(self, usual: bool) -> bool:
        return self.binary_data if "binary_data" in self.model_fields_set else usual


class InputPart(_Strict):
    """What an input may have beside its tensor."""

    parameters: InputParameters = InputParameters()


class OutputPart(_Strict):
    """What a requested output may have beside its name."""

    parameters: OutputParameters = OutputParameters()


class GivenParameters(_Strict):
    """All parameters of a request of gRPC, by their places in it."""

    parameters: RequestParameters = RequestParameters()
    inputs: tuple[InputPart, ...] = ()
    outputs: tuple[OutputPart, ...] = ()
