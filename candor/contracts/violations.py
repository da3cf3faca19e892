"""Pydantic's errors in our sentences: "expected Y, got X", for requests, files and messages alike.

No text of the library reaches people: it speaks of Python's types and changes between versions.
"""

import reprlib
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from candor.contracts.errors import FieldViolation
from candor.contracts.strict_json import JsonError, loads

ModelT = TypeVar("ModelT", bound=BaseModel)

# By the type of pydantic's error; names in braces are in its context.
_EXPECTED = {
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "bytes_type": "base64 text",
    "dict_type": "an object",
    "enum": "{expected}",
    "extra_forbidden": "no such field",
    "finite_number": "a finite number",
    "float_parsing": "a number",
    "float_type": "a number",
    "greater_than": "more than {gt}",
    "greater_than_equal": "{ge} or more",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a whole number of usual size",
    "int_type": "a whole number",
    "less_than": "less than {lt}",
    "less_than_equal": "{le} or less",
    "list_type": "a list",
    "literal_error": "{expected}",
    "missing": "a value",
    "model_attributes_type": "an object",
    "model_type": "an object",
    "path_type": "a path",
    "string_pattern_mismatch": "text of the form {pattern}",
    "string_too_long": "at most {max_length} characters",
    "string_too_short": "at least {min_length} characters",
    "string_type": "text",
    "string_unicode": "text of Unicode characters",
    "too_short": "at least {min_length}",
    "tuple_type": "a list",
    "union_tag_invalid": "one of {expected_tags}",
    "union_tag_not_found": "an object with {discriminator}",
}
_WRONG_CONTAINERS = ("list_type", "tuple_type")
_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = _repr.maxlong = 60


def shown(value: Any) -> str:
    """A value short enough for a message; bytes as their count, JSON's words for its constants.

    A text beyond ASCII is also shown escaped, because two texts can look alike.
    """
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = _repr.repr(value)
    return text if text.isascii() else f"{_printable(text)} ({ascii(text)[1:-1]})"


def _printable(text: str) -> str:
    return "".join(one if one.isprintable() else "?" for one in text)


def expected_by(error: Mapping[str, Any]) -> str:
    """What one of pydantic's errors expected, in our words; never the value that it got."""
    return _EXPECTED.get(error["type"], "another value").format_map(error.get("ctx", {}))


def violations_of(
    error: ValidationError, expected: Mapping[str, str] | None = None, whole: str = "request"
) -> list[FieldViolation]:
    """Every wrong field once.

    Args:
        expected: what a field of that name expects, where a better sentence is known.
        whole: the field of errors that belong to none.
    """
    return list(dict.fromkeys(_violations(error, expected or {}, whole)))


def sentence(error: ValidationError, whole: str = "content") -> str:
    """Every wrong field with what was expected, in one line."""
    return "; ".join(f"{one.field}: {one.description}" for one in violations_of(error, {}, whole))


def read_model(kind: type[ModelT], content: bytes | str) -> ModelT:
    """A model from the JSON of a file: strict JSON, no number for a text, no text for a number.

    Raises:
        ValueError: with every wrong field in one line.
    """
    loads(content)
    try:
        return kind.model_validate_json(content, strict=True)
    except ValidationError as err:
        raise JsonError(sentence(err)) from err


def _violations(
    error: ValidationError, expected: Mapping[str, str], whole: str
) -> Iterator[FieldViolation]:
    for one in error.errors(include_url=False):
        if not is_consequence(one):
            path = ".".join(str(step)[:60] for step in one["loc"])
            yield FieldViolation(path or whole, _description(one, expected))


def is_consequence(error: Any) -> bool:
    """Whether pydantic reports a field only because another one, reported already, is bad.

    It calls a list too short when its bad entries leave it empty, and reports a missing default
    that is made from the other fields.
    """
    if error["type"] == "default_factory_not_called":
        return True
    if error["type"] != "too_short":
        return False
    return len(error["input"]) >= int(error["ctx"]["min_length"])


def _description(error: Any, expected: Mapping[str, str]) -> str:
    kind, context = error["type"], error.get("ctx", {})
    if kind == "missing":
        return "required"
    if kind == "extra_forbidden":
        return "no such field"
    if kind == "value_error":
        return str(context["error"])
    if kind in ("too_long", "too_short"):
        return f"expected {_length_range(context)}, got {len(error['input'])} entries"
    wanted = expected_by(error)
    if kind not in _WRONG_CONTAINERS:  # for which the field says what each entry is
        names = [step for step in error["loc"] if isinstance(step, str)]
        wanted = expected.get(names[-1] if names else "", wanted)
    return f"expected {wanted}, got {_got(error['input'])}"


def _got(value: Any) -> str:
    """An object by its kind: its content would repeat the request."""
    return "an object" if isinstance(value, Mapping | BaseModel) else shown(value)


def _length_range(context: Any) -> str:
    if "max_length" in context:
        return f"at most {context['max_length']}"
    return f"at least {context['min_length']}"
