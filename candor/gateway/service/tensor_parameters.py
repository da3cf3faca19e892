"""Parameters of the Open Inference Protocol: those that change an answer here, and no others.

The standard leaves them to the server.  One that is ignored would answer another question than the
client's, as ``topk`` for ``top_k`` or Triton's ``classification``, so others are errors, as unknown
fields are.
"""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from candor.contracts import limits
from candor.contracts.api import Flag, TopK


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class RequestParameters(_Strict):
    """Of a whole request.  ``binary_data_output`` holds for outputs that say nothing themselves;
    over gRPC, where the outputs are raw or not like the inputs, it changes nothing."""

    top_k: TopK = limits.DEFAULT_TOP_K
    binary_data_output: Flag = False


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
