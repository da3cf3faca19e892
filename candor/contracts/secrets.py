"""Secrets in texts that people read: errors, logs, metrics, traces, output of commands.

One function shows a URL, one removes secrets from any other text, and one type holds a setting that
is a secret.
"""

import logging
import re
from typing import Any

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

HIDDEN = "***"
# Repetitions are bounded, so that no text takes long.
# A password may hold any character, "@" and "/" too, so all up to the last "@" is hidden.
_SCHEME = r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]{0,30}://)"
_WHOLE_URL = re.compile(_SCHEME + r"(?P<rest>.*)", re.DOTALL)
# In other text it ends at a blank or a quote, unless a password goes on behind it up to an "@".
_PORT = r"\d{1,5}(?:[\s/,;'\")\]}>]|$)"
_URL = re.compile(
    rf"{_SCHEME}(?P<rest>(?:[^\s/@:'\"<>]{{0,200}}:(?!{_PORT})(?:(?!://)[^@\n]){{0,200}}@)?[^\s'\"<>]*)"
)
_HOST_WITH_QUERY = re.compile(r"(?:\[[^\]]*\]|[^:/@?]*)(?::\d*)?(?:/[^@?]*)?\?[^@=]+=")
_NO_HOST = re.compile(r"[^/?\[\]:,]+:(?!(?:\d{0,5}|PORT)(?:[/?,]|$))[^/?,]+")
_QUERY_VALUE = re.compile(r"(?P<name>[?&;][^=&;#\s]*=)[^&;#\s]*")
_QUOTED = r"\"(?:[^\"\\]|\\.){0,500}\"|'(?:[^'\\]|\\.){0,500}'"
# NAME=VALUE, NAME:VALUE or "NAME": "VALUE"; after "NAME: " prose follows, except in headers.
_NAMED = re.compile(
    r"(?P<name>(?:(?:pass(?:w(?:or)?d|phrase)?|pwd?|secret|token|signature|authorization"
    r"|(?:api|access|account|private|secret|shared|signing)[-_]?key|credential)s?"
    r"(?:\s{0,9}=\s{0,9}|[\"']\s{0,9}:\s{0,9}(?=[\"'])|:(?=\S))"
    r"|\b(?:set-)?cookie:\s{0,9}|\bx(?:-\w{1,20}){0,3}-(?:key|token|secret|signature):\s{0,9}"
    r"|--(?:\w{1,20}-){0,3}(?:password|secret|token|key)\s{1,9}))"
    rf"(?P<value>{_QUOTED}|[^\s&]+)",
    re.IGNORECASE,
)
_BEARER = re.compile(r"\b(?P<name>(?:Bearer|Basic)\s+)[A-Za-z0-9._~+/=-]{6,}", re.IGNORECASE)
_KEY = re.compile(r"\bcandor_[A-Za-z0-9_-]{20,}|\beyJ[\w-]{8,}\.[\w-]{2,}(?:\.[\w-]*)?")
_PEM = re.compile(r"(-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----).*?(?:-----END|\Z)", re.DOTALL)
# What a library makes of a URL without its scheme: USER:PASSWORD@HOST.
_USER_INFO = re.compile(
    r"(?<![\w@.])[^\s/@:'\"]{1,200}:(?!//)[^\s'\"]{1,200}@(?=[\w\[])"
    r"|[^\s/@:%'\"]{1,200}%3A[^\s'\"]{1,200}%40",
    re.IGNORECASE,
)


def shown_url(url: str) -> str:
    """A URL without user, password, values of its query and fragment; for people only.

    ``postgresql://ada:secret@db/x?password=y`` becomes ``postgresql://***@db/x?password=***``.  A
    path or another text is shown as `without_secrets` leaves it.
    """
    match = _WHOLE_URL.fullmatch(url.strip())
    return without_secrets(url) if match is None else _shown(match)


def without_secrets(text: str) -> str:
    """Any text, such as a library's error, with every secret that can be recognised hidden."""
    text = _PEM.sub(rf"\g<1>{HIDDEN}", text)
    text = _URL.sub(_shown, text)
    text = _BEARER.sub(rf"\g<name>{HIDDEN}", text)
    text = _NAMED.sub(_without_value, text)
    return _USER_INFO.sub(f"{HIDDEN}@", _KEY.sub(HIDDEN, text))


def _shown(match: re.Match[str]) -> str:
    rest = match["rest"]
    front, has_user, host = rest.rpartition("@")
    if has_user and not rest.startswith("/") and not _HOST_WITH_QUERY.match(front):
        rest = f"{HIDDEN}@{host}"
    elif not has_user:  # what looks like a port and is none may be a password
        rest = _NO_HOST.sub(HIDDEN, rest, count=1) if _NO_HOST.match(rest) else rest
    return match["scheme"] + _QUERY_VALUE.sub(rf"\g<name>{HIDDEN}", rest.partition("#")[0])


def _without_value(match: re.Match[str]) -> str:
    value = match["value"]
    if value.startswith(HIDDEN):
        return match[0]
    quote = value[0] if value[0] in "\"'" else ""
    return match["name"] + quote + HIDDEN + quote


class WithoutSecrets(logging.Formatter):
    """Hides secrets in what a line says, also in a library's text and in tracebacks."""

    def format(self, record: logging.LogRecord) -> str:
        return without_secrets(super().format(record))


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
