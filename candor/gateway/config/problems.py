"""What is wrong with settings, in our words: a library's text may quote a secret."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_settings import SettingsError

from candor.contracts.secrets import shown_url, without_secrets
from candor.contracts.strict_json import JsonError
from candor.contracts.violations import expected_by, is_consequence

_SHOWN_CHARS = 80
_FIELD = re.compile(r'field "(\w+)"')


def problems_of(error: ValidationError | SettingsError) -> str:
    """Every wrong setting with what was expected, in one line."""
    if isinstance(error, SettingsError):
        match, cause = _FIELD.search(str(error)), error.__cause__
        name = _variable(match[1] if match else "setting")
        reason = cause if isinstance(cause, JsonError) else "expected JSON, got another text"
        return f"{name}: {reason}"
    return "; ".join(_problems(error))


def _problems(error: ValidationError) -> Iterator[str]:
    for one in error.errors(include_url=False):
        if is_consequence(one):
            continue
        if one["type"] == "value_error":
            text = without_secrets(str(one.get("ctx", {}).get("error", "")))
            yield f"{_name(one['loc'])}: {text}" if one["loc"] else text
        elif one["type"] == "extra_forbidden":
            yield f"{_name(one['loc'])}: no such setting"
        else:
            yield f"{_name(one['loc'])}: expected {expected_by(one)}, got {_got(one)}"


def _name(location: tuple[int | str, ...]) -> str:
    first, *others = map(str, location)
    return ".".join([_variable(first), *others])


def _variable(field: str) -> str:
    return f"CANDOR_{field.upper()}"


def _got(error: Mapping[str, Any]) -> str:
    if error["type"] == "missing":
        return "none"
    # Cut last: half a URL would no longer be recognised.
    given = error["input"]
    shown = repr(shown_url(given)) if isinstance(given, str) else without_secrets(repr(given))
    return shown if len(shown) <= _SHOWN_CHARS else f"{shown[:_SHOWN_CHARS]} ..."
