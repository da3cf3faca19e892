"""JSON that says one thing: the one reader of JSON that people and other programs write.

RFC 8259 leaves open what a repeated key means and how large numbers may be; every reader that
guesses differently reads another document.  So what is ambiguous is rejected.
"""

import codecs
import json
import math
from typing import Any, NoReturn

MAX_DEPTH = 64  # the deepest useful document, a nested tensor in a request, has about 10
_MAX_DIGITS = 30
_SHOWN = 60
_MARK = "\ufeff"
_BLANKS = " \t\r\n"


class JsonError(ValueError):
    """Not JSON, or JSON that contradicts itself; the text says what was expected and what came."""


def loads(content: bytes | str, *, has_limits: bool = False) -> Any:
    """The document, strictly by RFC 8259 (UTF-8).

    Args:
        has_limits: every number has a range of its own, which is checked afterwards and names the
            field; without them a number beyond float64 or of more than 30 digits is rejected here.

    Raises:
        JsonError: not JSON or not UTF-8; a key twice in an object; NaN, an infinity; half a
            surrogate pair; more than `MAX_DEPTH` levels.
    """
    try:
        text = _text(content)
        document = json.loads(
            text,
            parse_constant=_reject_constant,
            parse_float=None if has_limits else _finite,
            parse_int=None if has_limits else _short_integer,
            object_pairs_hook=_unique,
        )
    except JsonError:
        raise
    except UnicodeDecodeError as err:
        raise JsonError(f"expected UTF-8, got another byte at offset {err.start}") from err
    except json.JSONDecodeError as err:
        message = (
            f"expected JSON, got text that is not JSON at line {err.lineno}, column {err.colno}"
        )
        raise JsonError(message) from err
    except RecursionError as err:
        raise _too_deep() from err
    except ValueError as err:  # more digits than Python reads
        raise JsonError("expected a number of usual size, got thousands of digits") from err
    _check(document)
    return document


def _text(content: bytes | str) -> str:
    """Raises: JsonError: nothing, or bytes in another encoding, which is named."""
    if isinstance(content, bytes):
        # Of the first two characters, which are ASCII in JSON, UTF-16 and UTF-32 make zero bytes.
        is_wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        if is_wide or 0 in content[:4]:
            raise JsonError("expected UTF-8, got UTF-16, UTF-32 or bytes that are no text")
        content = content.decode("utf-8")
    if content.startswith(_MARK):
        raise JsonError("expected UTF-8 without a byte order mark, got one")
    if not content.strip(_BLANKS):
        raise JsonError("expected JSON, got nothing")
    return content


def _reject_constant(name: str) -> NoReturn:
    raise JsonError(f"expected finite numbers, got {name}")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise JsonError(f"expected finite numbers, got {text[:_SHOWN]}")
    return value


def _short_integer(text: str) -> int:
    if len(text) > _MAX_DIGITS:
        raise JsonError(f"expected integers of at most {_MAX_DIGITS} digits, got {len(text)}")
    return int(text)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            raise JsonError(f"{ascii(key[:_SHOWN])}: expected once, got twice")
        seen.add(key)
    return found


def _check(document: Any) -> None:
    """Depth and texts, without recursion."""
    level = [document]
    for _ in range(MAX_DEPTH):
        deeper: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                deeper.extend(value)
                deeper.extend(value.values())
            elif isinstance(value, list):
                deeper.extend(value)
            elif isinstance(value, str):
                _check_text(value)
        if not deeper:
            return
        level = deeper
    raise _too_deep()


def _check_text(text: str) -> None:
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError as err:
        code = f"U+{ord(text[err.start]):04X}"
        raise JsonError(f"expected characters of Unicode, got half a surrogate {code}") from err


def _too_deep() -> JsonError:
    return JsonError(f"expected at most {MAX_DEPTH} levels of JSON, got more: nested too deeply")
