"""Secrets in texts that people read: errors, logs, metrics, traces, output of commands.

One function shows a URL, one removes secrets from any other text, and one type holds a setting that
is a secret.
"""

import re
from typing import Any

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

HIDDEN = "***"
# Repetitions are bounded, so that no text takes long.
# A password may hold any character, "@" and "/" too, so all up to the last "@" is hidden.
_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]{0,30}://)(?P<rest>[^\s'\"<>]*)")
_HOST_WITH_QUERY = re.compile(r"(?:\[[^\]]*\]|[^:/@?]*)(?::\d*)?(?:/[^@?]*)?\?[^@=]+=")
_QUERY_VALUE = re.compile(r"(?P<name>[?&;][^=&;#\s]*=)[^&;#\s]*")
# NAME=VALUE, NAME:VALUE or "NAME": "VALUE"; after "NAME: " prose follows.
_NAMED = re.compile(
    r"(?P<name>\b[\w.-]{0,60}(?:passw(?:or)?d|passphrase|pwd|secret|token|api[-_]?key|access[-_]?key"
    r"|credential)s?(?:\s*=\s*|[\"']\s*:\s*(?=[\"'])|:(?=\S)))(?P<quote>[\"']?)"
    r"(?P<value>[^\s\"',;&)}\]]+)",
    re.IGNORECASE,
)
_BEARER = re.compile(r"\b(?P<name>(?:Bearer|Basic)\s+)[A-Za-z0-9._~+/=-]{6,}", re.IGNORECASE)
_KEY = re.compile(r"\bcandor_[A-Za-z0-9_-]{20,}")
# What a library makes of a URL without its scheme: USER:PASSWORD@HOST.
_USER_INFO = re.compile(r"(?<![\w/@.])[^\s/@:'\"]{1,200}:[^\s/@'\"]{1,200}@(?=[\w\[])")


def shown_url(url: str) -> str:
    """A URL without user, password, values of its query and fragment; for people only.

    ``postgresql://ada:secret@db/x?password=y`` becomes ``postgresql://***@db/x?password=***``.  A
    path or another text is shown as `without_secrets` leaves it.
    """
    match = _URL.fullmatch(url.strip())
    return without_secrets(url) if match is None else _shown(match)


def without_secrets(text: str) -> str:
    """Any text, such as a library's error, with every secret that can be recognised hidden."""
    text = _URL.sub(_shown, text)
    text = _BEARER.sub(rf"\g<name>{HIDDEN}", text)
    text = _NAMED.sub(_without_value, text)
    return _USER_INFO.sub(f"{HIDDEN}@", _KEY.sub(HIDDEN, text))


def _shown(match: re.Match[str]) -> str:
    rest = match["rest"]
    front, has_user, host = rest.rpartition("@")
    if has_user and not rest.startswith("/") and not _HOST_WITH_QUERY.match(front):
        rest = f"{HIDDEN}@{host}"
    return match["scheme"] + _QUERY_VALUE.sub(rf"\g<name>{HIDDEN}", rest.partition("#")[0])


def _without_value(match: re.Match[str]) -> str:
    return match[0] if match["value"] == HIDDEN else match["name"] + match["quote"] + HIDDEN


class Secret:
    """A setting that is a secret or may hold one, such as a URL with a password.

    Everything that turns it into text shows it as `shown_url` does; `reveal` returns it.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str = "") -> None:
        self._value = value

    def reveal(self) -> str:
        """The text itself, for the library that needs it."""
        return self._value

    def __str__(self) -> str:
        return shown_url(self._value)

    def __repr__(self) -> str:
        return f"Secret({str(self)!r})"

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._value == other._value

    def __hash__(self) -> int:
        return hash(self._value)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.union_schema(
            [
                core_schema.is_instance_schema(cls),
                core_schema.no_info_after_validator_function(cls, core_schema.str_schema()),
            ],
            serialization=core_schema.plain_serializer_function_ser_schema(str),
        )
