"""Arrays with a JSON header as one byte string: the format between gateway and workers.

Layout: 4 bytes little-endian length of the header, the header (JSON, UTF-8), then the arrays'
bytes one after another.  The header is ``{"meta": ..., "arrays": [[name, dtype, shape], ...]}``.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from candor.contracts import strict_json
from candor.contracts.json_text import json_text

_DTYPES: dict[str, np.dtype[Any]] = {
    "float32": np.dtype("<f4"),
    "float64": np.dtype("<f8"),
    "int64": np.dtype("<i8"),
}


class WireError(ValueError):
    """The bytes are not a packed message, or an array has a type that cannot be packed."""


def pack(meta: Any, arrays: Mapping[str, NDArray[Any]] | None = None) -> bytes:
    """Packs one message.

    Args:
        meta: any value that JSON can represent.
        arrays: float32, float64 or int64 arrays of any shape by name; not modified.
    Raises:
        WireError: an array of another dtype.
    """
    described = []
    parts = []
    for name, array in (arrays or {}).items():
        dtype = array.dtype.name
        if dtype not in _DTYPES:
            raise WireError(f"{name}: expected a dtype of {sorted(_DTYPES)}, got {dtype}")
        described.append([name, dtype, list(array.shape)])
        parts.append(np.ascontiguousarray(array, dtype=_DTYPES[dtype]).tobytes())
    header = json_text({"meta": meta, "arrays": described}).encode()
    return b"".join([len(header).to_bytes(4, "little"), header, *parts])


def unpack(message: bytes) -> tuple[Any, dict[str, NDArray[Any]]]:
    """``(meta, arrays)`` of `pack`; the arrays are read-only views of ``message``.

    Raises:
        WireError: too short, not JSON, an unknown dtype, or inconsistent lengths.
    """
    header_end = 4 + int.from_bytes(message[:4], "little")
    if len(message) < 4 or header_end > len(message):
        raise WireError(f"message: expected {header_end} bytes or more, got {len(message)}")
    try:
        header = strict_json.loads(message[4:header_end])
        meta, described = header["meta"], header["arrays"]
        arrays = {}
        offset = header_end
        for name, dtype_name, shape in described:
            dtype = _DTYPES[dtype_name]
            count = math.prod(shape)
            if min(shape, default=1) < 0:
                raise WireError(f"{name}: expected sizes of at least 0, got shape {shape}")
            arrays[name] = np.frombuffer(message, dtype, count, offset).reshape(shape)
            offset += count * dtype.itemsize
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as err:
        raise WireError(f"message: {err}") from err
    if offset != len(message):
        raise WireError(f"message: expected {offset} bytes, got {len(message)}")
    return meta, arrays


def pack_list(messages: list[bytes]) -> bytes:
    """Joins byte strings: count and lengths (8 bytes each, little endian), then the contents."""
    lengths = np.array([len(messages), *map(len, messages)], dtype="<i8").tobytes()
    return lengths + b"".join(messages)


def unpack_list(packed: bytes) -> list[bytes]:
    """Inverse of `pack_list`.

    Raises:
        WireError: inconsistent lengths.
    """
    count = int.from_bytes(packed[:8], "little", signed=True)
    if not 0 <= count <= len(packed) // 8 - 1:
        raise WireError(f"list: expected a count that fits {len(packed)} bytes, got {count}")
    lengths = np.frombuffer(packed, "<i8", count, 8).tolist()
    offset = 8 * (count + 1)
    if any(length < 0 for length in lengths) or offset + sum(lengths) != len(packed):
        raise WireError(f"list: expected lengths that add up to its {len(packed)} bytes")
    messages = []
    for length in lengths:
        messages.append(packed[offset : offset + length])
        offset += length
    return messages
