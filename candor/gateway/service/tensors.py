"""Tensors of the Open Inference Protocol, and the images that they hold."""

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from candor.contracts import limits
from candor.contracts.errors import FieldViolation, ServiceError, invalid_input
from candor.contracts.violations import shown

INPUT = "image"
DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype("?"),
    "FP32": np.dtype("<f4"),
    "INT64": np.dtype("<i8"),
}


@dataclass(frozen=True, slots=True)
class Tensor:
    """One named tensor.

    Attributes:
        values: of BYTES a list, of the others an array; row-major, as many as ``shape`` says.
        holds_files: BYTES that are no texts; JSON has them as base64.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    values: NDArray[Any] | Sequence[bytes]
    holds_files: bool = False

    def raw(self) -> bytes:
        """Little endian; BYTES as length (4 bytes) and content of each element."""
        if isinstance(self.values, np.ndarray):
            return bytes(self.values.astype(DTYPES[self.datatype]).tobytes())
        return b"".join(struct.pack("<I", len(value)) + value for value in self.values)


def tensor_of(name: str, datatype: str, shape: Sequence[int], data: Any, field: str) -> Tensor:
    """A tensor from flat or nested values, or from raw bytes.

    Args:
        field: path of the tensor in its request, for messages.

    Raises:
        ServiceError: INVALID_INPUT: another datatype than BYTES or FP32, or not as many values as
            the shape says.
    """
    check_datatype(datatype, field)
    count = _count(shape, field)
    try:
        if datatype == "BYTES":
            values: Any = _split(data) if isinstance(data, bytes) else list(data)
        else:
            values = np.frombuffer(data, "<f4") if isinstance(data, bytes) else _single(data)
    except (ValueError, TypeError, OverflowError, struct.error) as err:
        raise bad(f"{field}.data", f"expected {datatype} values of this shape, got others") from err
    if len(values) != count:
        raise bad(f"{field}.data", f"expected {count} values (shape), got {len(values)}")
    return Tensor(name, datatype, tuple(shape), values)


def check_datatype(datatype: str, field: str) -> None:
    """Raises: ServiceError: INVALID_INPUT: not one that an input may have."""
    if datatype not in ("BYTES", "FP32"):
        raise bad(f"{field}.datatype", f"expected BYTES or FP32, got {shown(datatype)}")


def _single(numbers: Any) -> NDArray[Any]:
    """As float32.  Raises: OverflowError: one is beyond it, which would become an infinity."""
    wide = np.asarray(numbers, np.float64)
    if wide.size and np.abs(wide[np.isfinite(wide)]).max(initial=0.0) > np.finfo(np.float32).max:
        raise OverflowError("beyond float32")
    return wide.astype("<f4")


def flattened(data: Sequence[Any], shape: Sequence[int], field: str) -> list[Any]:
    """The values of a JSON tensor, flat or nested as its shape says.

    Raises:
        ServiceError: INVALID_INPUT: nested in another way than the shape.
    """
    values, nested = list(data), [len(data)]
    while any(isinstance(one, list) for one in values):
        sizes = {len(one) if isinstance(one, list) else -1 for one in values}
        nested.append(sizes.pop())
        if sizes or len(nested) > 8:
            raise bad(f"{field}.data", "expected lists of equal length, got others")
        values = [value for one in values for value in one]
    if len(nested) > 1 and nested != list(shape):
        raise bad(f"{field}.data", f"expected lists of shape {list(shape)}, got {nested}")
    return values


def _count(shape: Sequence[int], field: str) -> int:
    if len(shape) > 8 or any(not 0 <= size <= limits.MAX_BODY_BYTES for size in shape):
        expected = f"at most 8 sizes in [0, {limits.MAX_BODY_BYTES}]"
        raise bad(f"{field}.shape", f"expected {expected}, got {shown(list(shape))}")
    return math.prod(shape)


def _split(data: bytes) -> list[bytes]:
    values: list[bytes] = []
    offset = 0
    while offset < len(data):
        (length,) = struct.unpack_from("<I", data, offset)
        offset += 4 + length
        if offset > len(data) or len(values) > limits.MAX_INSTANCES:
            raise ValueError("an element ends beyond the tensor")
        values.append(data[offset - length : offset])
    return values


def images_of(tensor: Tensor, field: str) -> list[dict[str, Any]]:
    """The images of an input tensor, as fields of requests.

    Args:
        field: path of the tensor in its request, for messages.

    Raises:
        ServiceError: INVALID_INPUT: another shape, or too many images.
    """
    if tensor.datatype == "BYTES":
        images: list[dict[str, Any]] = [{"encoded": value} for value in tensor.values]
    else:
        images = _planes(tensor, field)
    check_count(f"{field}.shape", len(images))
    return images


def _planes(tensor: Tensor, field: str) -> list[dict[str, Any]]:
    if len(tensor.shape) not in (3, 4):
        raise bad(f"{field}.shape", f"expected [N, C, H, W] or [C, H, W], got {list(tensor.shape)}")
    shape = tensor.shape[-3:]
    count = tensor.shape[0] if len(tensor.shape) == 4 else 1
    check_count(f"{field}.shape", count)
    planes = np.asarray(tensor.values, "<f4").reshape(count, -1)
    return [{"tensor": {"shape": shape, "data": plane.tobytes()}} for plane in planes]


def check_count(field: str, count: int) -> None:
    """Raises: ServiceError: INVALID_INPUT: no image, or too many."""
    if not 1 <= count <= limits.MAX_INSTANCES:
        raise bad(field, f"expected [1, {limits.MAX_INSTANCES}] images, got {count}")


def bad(field: str, description: str) -> ServiceError:
    """INVALID_INPUT of one field."""
    return invalid_input([FieldViolation(field, description)])
