"""What the table of operators holds for each of them.

A function takes the inputs of an ONNX node as positional arguments (None where one is left out) and
its attributes as keywords with the defaults of the ONNX specification, so that an attribute which
became an input in a later version is one parameter.  Two keywords are filled in where a function
names them: ``outputs``, how many the node has, and ``training``, the mode of the module.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Operator:
    """One meaning of an operator, from a version of the operator set on.

    Attributes:
        function: computes it, see above; returns a tensor, or several in a tuple or list.
        static: indices of inputs that must be known when the file is read; they arrive as numbers
            or lists, not as tensors.
        numbers: whether a known scalar may arrive as a number, which is faster than a tensor.
    """

    function: Callable[..., Any]
    static: tuple[int, ...] = ()
    numbers: bool = False


Versions = tuple[tuple[int, Operator], ...]


def always(function: Callable[..., Any], *static: int, numbers: bool = False) -> Versions:
    """An operator whose meaning has not changed but for where its parameters come from."""
    return ((1, Operator(function, static, numbers)),)


def single(value: Any) -> Any:
    """A parameter of one number, which some exporters write as a list of one."""
    if isinstance(value, list):
        if len(value) != 1:
            raise ValueError(f"expected one number, got {len(value)}")
        return value[0]
    return value
