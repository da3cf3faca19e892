"""Settings as text of the environment: what could be read in two ways is not read at all."""

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_settings import EnvSettingsSource

from candor.contracts import strict_json

PREFIX = "CANDOR_"
_NUMBERS = {int: "[0-9]{1,9}", float: r"[0-9]{1,9}(?:\.[0-9]{1,9})?(?:[eE][+-]?[0-9]{1,3})?"}
_WORDS = {int: "a whole number", float: "a number"}
_ALIKE = 0.85


class StrictEnvironment(EnvSettingsSource):
    """The environment whose JSON is strict, and which has no misspelt names.

    Other names with our prefix stay unread, because commands, workers and Kubernetes have some.
    """

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        return strict_json.loads(value)


def checked_number(kind: Any, value: Any) -> Any:
    """``value`` unless it is a text that only Python reads as a number: "1_0", "1.0" for 1.

    Args:
        kind: annotation of the setting.
    Raises:
        ValueError: see above.
    """
    number = next((one for one in (int, float) if kind in (one, one | None)), None)
    if number is None or not isinstance(value, str) or re.fullmatch(_NUMBERS[number], value):
        return value
    raise ValueError(f"expected {_WORDS[number]}, got {value[:60]!r}")


def misspelt(environment: Mapping[str, str], settings: Iterable[str]) -> list[str]:
    """A sentence for each variable that is no setting and looks like one."""
    names = [name.upper() for name in settings]
    given = [name.removeprefix(PREFIX) for name in environment if name.startswith(PREFIX)]
    near = {
        name: difflib.get_close_matches(name, names, 1, _ALIKE)
        for name in given
        if name not in names
    }
    return [
        f"{PREFIX}{name}: no such setting, near: {PREFIX}{found[0]}"
        for name, found in near.items()
        if found
    ]
