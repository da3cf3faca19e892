"""Element types of ONNX in torch, by their numbers in the specification."""

import torch

FLOAT, DOUBLE, FLOAT16, BFLOAT16, UINT8 = 1, 11, 10, 16, 2
FLOATS = frozenset({FLOAT, DOUBLE, FLOAT16, BFLOAT16})
_NAMES = (
    "UNDEFINED", "FLOAT", "UINT8", "INT8", "UINT16", "INT16", "INT32", "INT64", "STRING", "BOOL",
    "FLOAT16", "DOUBLE", "UINT32", "UINT64", "COMPLEX64", "COMPLEX128", "BFLOAT16", "FLOAT8E4M3FN",
    "FLOAT8E4M3FNUZ", "FLOAT8E5M2", "FLOAT8E5M2FNUZ", "UINT4", "INT4", "FLOAT4E2M1", "FLOAT8E8M0",
    "UINT2", "INT2",
)  # fmt: skip
# torch has UINT16 and wider only to store them.
_DTYPES: dict[str, torch.dtype] = {
    "FLOAT": torch.float32,
    "DOUBLE": torch.float64,
    "FLOAT16": torch.float16,
    "BFLOAT16": torch.bfloat16,
    "INT8": torch.int8,
    "INT16": torch.int16,
    "INT32": torch.int32,
    "INT64": torch.int64,
    "UINT8": torch.uint8,
    "BOOL": torch.bool,
}


def type_name(element_type: int) -> str:
    """As the specification spells it; the number where it has none."""
    is_known = 0 <= element_type < len(_NAMES)
    return _NAMES[element_type] if is_known else str(element_type)


def torch_dtype(element_type: int) -> torch.dtype:
    """
    Raises:
        ValueError: torch has none, or not one that networks compute with (strings, float8, int4).
    """
    name = type_name(element_type)
    try:
        return _DTYPES[name]
    except KeyError:
        raise ValueError(f"element type {name} is not supported") from None
