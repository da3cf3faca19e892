"""Conversion between protobuf messages and plain mappings of the same field names.

proto3 cannot tell a zero from an unset field, so a zero means "default" and is left out of a
request; entries of lists, members of a oneof and `optional` fields do show whether they were set.
An enum value becomes the lower-case end of its name: ``GOAL_BTR`` is ``btr``, and ``NORM_L1_5`` is
``l1.5``, because a name of the proto has no point.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar, cast

from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet

MessageT = TypeVar("MessageT", bound=Message)

_BETWEEN_DIGITS = re.compile(r"(?<=\d)_(?=\d)")


def given_fields(message: Message) -> dict[str, Any]:
    """The fields that the sender set: a request as a mapping."""
    return {field.name: _given(field, value) for field, value in message.ListFields()}


def all_fields(message: Message) -> dict[str, Any]:
    """Every field, zeros included, None where unset: a response as a mapping."""
    return {field.name: _complete(message, field) for field in _fields(message)}


def to_message(values: Mapping[str, Any], message: MessageT) -> MessageT:
    """Fills ``message`` from a mapping and returns it; None and unknown names are left out."""
    for field in _fields(message):
        value = values.get(field.name)
        if value is not None:
            _set(message, field, value)
    return message


def unknown_field(message: Message, place: str = "") -> str:
    """The place of the first field that this version does not know, empty where there is none.

    A newer client may send one; what it asks for would be missing from the answer.
    """
    unknown = UnknownFieldSet(message)
    if len(unknown) > 0:
        return f"{place}field number {unknown[0].field_number}"
    for field, value in message.ListFields():
        found = (unknown_field(one, f"{place}{name}.") for name, one in _parts(field, value))
        if first := next(filter(None, found), ""):
            return first
    return ""


def _parts(field: FieldDescriptor, value: Any) -> Iterator[tuple[str, Message]]:
    """The messages that a field holds, with their places."""
    if field.message_type is None:
        return
    if not field.is_repeated:
        yield field.name, value
        return
    entries = value.items() if field.message_type.GetOptions().map_entry else enumerate(value)
    for key, entry in entries:
        if isinstance(entry, Message):
            yield f"{field.name}.{key}", entry


def _fields(message: Message) -> Sequence[FieldDescriptor]:
    return cast("Sequence[FieldDescriptor]", message.DESCRIPTOR.fields)


def _given(field: FieldDescriptor, value: Any) -> Any:
    if field.is_repeated:
        return [_plain(field, entry, given_fields) for entry in value]
    return _plain(field, value, given_fields)


def _complete(message: Message, field: FieldDescriptor) -> Any:
    if field.has_presence and not message.HasField(field.name):
        return None
    value = getattr(message, field.name)
    if field.is_repeated:
        return [_plain(field, entry, all_fields) for entry in value]
    return _plain(field, value, all_fields)


def _plain(field: FieldDescriptor, value: Any, of_message: Any) -> Any:
    if field.message_type is not None:
        return of_message(value)
    if field.enum_type is not None:
        return _enum_name(field.enum_type, value)
    return value


def _enum_prefix(kind: EnumDescriptor) -> str:
    return str(kind.values_by_number[0].name.removesuffix("UNSPECIFIED"))


def _enum_name(kind: EnumDescriptor, number: int) -> str:
    """A number from a newer client has no name; it stays a number and is rejected later."""
    known = kind.values_by_number.get(number)
    return enum_word(known.name, _enum_prefix(kind)) if known else str(number)


def enum_word(name: str, prefix: str) -> str:
    """The word for a name of an enum of the proto: ``l1.5`` for ``NORM_L1_5``."""
    return _BETWEEN_DIGITS.sub(".", name.removeprefix(prefix).lower())


def _set(message: Message, field: FieldDescriptor, value: Any) -> None:
    if field.message_type is not None and field.is_repeated:
        for entry in value:
            to_message(entry, getattr(message, field.name).add())
    elif field.message_type is not None:
        target = getattr(message, field.name)
        target.SetInParent()
        to_message(value, target)
    elif field.is_repeated:
        getattr(message, field.name).extend([_stored(field, entry) for entry in value])
    else:
        setattr(message, field.name, _stored(field, value))


def _stored(field: FieldDescriptor, value: Any) -> Any:
    if field.enum_type is None:
        return value
    name = _enum_prefix(field.enum_type) + value.upper().replace(".", "_")
    return field.enum_type.values_by_name[name].number
