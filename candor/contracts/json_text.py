"""JSON as everything here writes it: without NaN and infinity, which JSON does not have.

Python's `json` writes them as words that other readers refuse, and pydantic as null.
"""

import json
import math
from collections.abc import Mapping
from typing import Any

from candor.terms import NotFinite


def json_text(
    value: Any,
    *,
    indent: int | None = None,
    is_compact: bool = False,
    is_sorted: bool = False,
    is_ascii: bool = True,
) -> str:
    """``value`` as JSON, on one line or with an ``indent``.

    Args:
        is_compact: without spaces.
        is_sorted: with sorted keys, as digests need it.
        is_ascii: whether other characters are escaped.
    Raises:
        NotFinite: a number in it is NaN or infinite; the message says where.
    """
    try:
        return json.dumps(
            value,
            indent=indent,
            allow_nan=False,
            ensure_ascii=is_ascii,
            sort_keys=is_sorted,
            separators=(",", ":") if is_compact else None,
        )
    except ValueError:
        check_numbers(value)
        raise


def check_numbers(value: Any, place: str = "") -> None:
    """Raises NotFinite where a number anywhere in a JSON-able ``value`` is NaN or infinite."""
    if isinstance(value, float) and not math.isfinite(value):
        raise NotFinite(f"{place or 'value'}: expected a finite number, got {value}")
    if isinstance(value, Mapping):
        for key, item in value.items():
            check_numbers(item, f"{place}.{key}" if place else str(key))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            check_numbers(item, f"{place}[{index}]")
