"""multipart/form-data (RFC 7578): bytes of a part arrive as they were sent, in whatever form.

A part is bytes whether it has a file name or not; only its `Content-Transfer-Encoding`, which old
clients still send, changes them, and the part `request` is a text in the charset it names.
"""

import base64
import binascii
import codecs
import quopri
from dataclasses import dataclass, field
from email.message import Message
from email.utils import collapse_rfc2231_value
from typing import TYPE_CHECKING

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser

from candor.contracts.errors import FieldViolation, ServiceError, invalid_input
from candor.contracts.violations import shown

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

_MAX_PARTS = 8
_MAX_BOUNDARY = 256  # RFC 2046 permits 70
_PLAIN = ("", "7bit", "8bit", "binary")


@dataclass(slots=True)
class Part:
    """One part: its headers by lower-case name, and its content as it was sent."""

    headers: dict[str, str] = field(default_factory=dict)
    sent: bytearray = field(default_factory=bytearray)

    @property
    def name(self) -> str:
        """Raises: ServiceError: INVALID_INPUT: no field of a form, or one without a name."""
        kind, options = _options(self.headers.get("content-disposition", ""))
        if kind != "form-data" or "name" not in options:
            got = shown(self.headers.get("content-disposition", ""))
            raise bad_form(f'expected Content-Disposition: form-data; name="...", got {got}')
        return options["name"]

    def content(self) -> bytes:
        """The bytes that the client meant.

        Raises:
            ServiceError: INVALID_INPUT: another `Content-Transfer-Encoding`, or not in it.
        """
        encoding = self.headers.get("content-transfer-encoding", "").strip().lower()
        if encoding in _PLAIN:
            return bytes(self.sent)
        if encoding == "quoted-printable":
            return quopri.decodestring(bytes(self.sent))
        if encoding != "base64":
            expected = "binary, base64 or quoted-printable"
            raise bad_form(f"expected Content-Transfer-Encoding {expected}, got {shown(encoding)}")
        try:
            return base64.b64decode(b"".join(self.sent.split()), validate=True)
        except binascii.Error as err:
            raise bad_form("expected base64 as its Content-Transfer-Encoding says") from err

    def text(self) -> str:
        """The content in the charset of its type, UTF-8 where it names none.

        Raises:
            ServiceError: INVALID_INPUT: an unknown charset, or not in it.
        """
        _, options = _options(self.headers.get("content-type", ""))
        charset = options.get("charset", "utf-8")
        try:
            codec = codecs.lookup(charset)
            if not getattr(codec, "_is_text_encoding", True):
                raise LookupError
            return codec.decode(self.content(), "strict")[0]
        except (LookupError, ValueError) as err:
            raise bad_form(f"expected text in a known charset, got {shown(charset)}") from err


def read_form_data(content_type: str, body: bytes) -> dict[str, Part]:
    """The parts by name.

    Raises:
        ServiceError: INVALID_INPUT: not multipart/form-data, cut off, a name twice, too many parts.
    """
    parts: list[Part] = []
    _parse(_boundary(content_type), body, parts)
    named: dict[str, Part] = {}
    for part in parts:
        if part.name in named:
            raise invalid_input([FieldViolation(part.name[:60], "expected once, got twice")])
        named[part.name] = part
    return named


def bad_form(description: str) -> ServiceError:
    return invalid_input([FieldViolation("request", description)])


def _options(header: str) -> tuple[str, dict[str, str]]:
    """The value of a header and its parameters, those of RFC 2231 (``filename*``) among them."""
    message = Message()
    message["content-type"] = " ".join(header.split())
    try:
        (kind, _), *options = message.get_params([("", "")])
        return kind.strip().lower(), {
            name.lower(): collapse_rfc2231_value(value) for name, value in options
        }
    except (TypeError, ValueError) as err:  # pieces that are numbered twice, a charset with NUL
        raise bad_form(f"expected a header with parameters, got {shown(header)}") from err


def _boundary(content_type: str) -> bytes:
    boundary = _options(content_type)[1].get("boundary", "").encode("latin-1", "replace")
    if not 1 <= len(boundary) <= _MAX_BOUNDARY:
        got = f"{len(boundary)} characters" if boundary else "none"
        expected = f"1 to {_MAX_BOUNDARY} characters"
        raise bad_form(f"not multipart/form-data: boundary: expected {expected}, got {got}")
    return boundary


def _parse(boundary: bytes, body: bytes, parts: list[Part]) -> None:
    collector = _Collector(parts)
    try:
        parser = MultipartParser(boundary, collector.callbacks())
        parser.write(body)
        parser.finalize()
    except FormParserError as err:
        raise bad_form("not multipart/form-data: expected parts between boundaries") from err
    if not collector.is_complete:
        raise bad_form("not multipart/form-data: expected a last boundary, got the end of the body")


class _Collector:
    """Takes what the parser finds; names of headers and values may come in pieces."""

    def __init__(self, parts: list[Part]) -> None:
        self._parts = parts
        self._name, self._value = bytearray(), bytearray()
        self.is_complete = False

    def callbacks(self) -> "MultipartCallbacks":
        return {
            "on_part_begin": self._begin,
            "on_part_data": lambda data, start, end: self._parts[-1].sent.extend(data[start:end]),
            "on_header_field": lambda data, start, end: self._name.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
            "on_header_end": self._header,
            "on_end": self._end,
        }

    def _begin(self) -> None:
        if len(self._parts) >= _MAX_PARTS:
            raise bad_form(f"expected at most {_MAX_PARTS} parts, got more")
        self._parts.append(Part())

    def _header(self) -> None:
        name = self._name.decode("latin-1").lower()
        if name in self._parts[-1].headers:
            raise bad_form(f"{name[:60]}: expected once in a part, got twice")
        self._parts[-1].headers[name] = self._value.decode("utf-8", "replace").strip()
        self._name.clear()
        self._value.clear()

    def _end(self) -> None:
        self.is_complete = True
