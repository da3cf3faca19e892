"""Compares the proto contract with the pydantic models that enforce it.

``python -m tools.contract_drift`` names every message, field, enum value, limit and default that
only one of them has, and every part of the contract without a comment; it fails if there is one.
The notation of limits is that of the head of ``candor.proto``.
"""

import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from google.protobuf.descriptor_pb2 import FileDescriptorProto
from pydantic.fields import FieldInfo

from candor import terms
from candor.contracts import api, card, explanation_jobs, limits, reports
from candor.contracts.messages import Message
from candor.rpc.convert import enum_word
from tools.generate_pb import comments, read_protos

ENUMS: dict[str, type[StrEnum]] = {
    "Direction": api.Direction,
    "Goal": api.ProbeGoal,
    "Method": api.Method,
    "Norm": terms.Norm,
    "ReportState": reports.ReportState,
    "SearchStatus": terms.SearchStatus,
}
# REST has these as paths, query parameters and bodies of their own.
WITHOUT_MODEL = frozenset(
    {
        "CancelExplanationJobRequest",
        "CancelReportRequest",
        "DownloadExplanationJobRequest",
        "DownloadExplanationJobResponse",
        "DownloadReportRequest",
        "DownloadReportResponse",
        "GetExplanationJobRequest",
        "GetModelRequest",
        "GetReportRequest",
        "ListModelsRequest",
    }
)
# Limits that no schema holds, because they are checked while an image is read or over two fields.
UNSCHEMED = {
    "Image.encoded": (
        f"{limits.MAX_ENCODED_BYTES // 2**20} MiB",
        f"{limits.MAX_PIXELS:,} pixels",
    ),
    "ExplainRequest.targets": (f"at most {limits.MAX_EXPLANATIONS} pairs",),
}
_NUMBER = r"-?\d+(?:\.\d+)?"
_INTERVAL = re.compile(rf"[\[(]{_NUMBER}, {_NUMBER}[\])]")
_OPEN_INTERVAL = re.compile(rf"\[({_NUMBER}), [a-z_]+[\])]")  # up to a number that a field holds
_BOUND = re.compile(r"at least \d+|(?:at most|exactly|\d+ to) \d+ entries|at most \d+ characters")
_DEFAULT = re.compile(r'default: (?:"([a-z0-9-]+)"|(\d+|true|false)\b)', flags=re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Contract:
    """What `proto/` says.

    Attributes:
        messages: names of the fields by message.
        enums: names of the values by enum, the unspecified one included.
        comments: by message, ``message.field``, enum and ``enum.VALUE``.
    """

    messages: Mapping[str, tuple[str, ...]]
    enums: Mapping[str, tuple[str, ...]]
    comments: Mapping[str, str]


def read_contract(files: list[FileDescriptorProto]) -> Contract:
    """The contract of the files that `tools.generate_pb.read_protos` returns."""
    return Contract(
        messages={
            message.name: tuple(field.name for field in message.field)
            for file in files
            for message in file.message_type
        },
        enums={
            enum.name: tuple(value.name for value in enum.value)
            for file in files
            for enum in file.enum_type
        },
        comments=comments(files),
    )


def public_models() -> dict[str, type[Message]]:
    """The pydantic models by the name of their message."""
    return {
        kind.proto_name or kind.__name__: kind
        for module in (api, card, reports, explanation_jobs)
        for kind in vars(module).values()
        if isinstance(kind, type) and issubclass(kind, Message) and kind is not Message
    }


def differences(
    contract: Contract,
    models: Mapping[str, type[Message]],
    enums: Mapping[str, type[StrEnum]],
) -> list[str]:
    """Every disagreement as one line: where, what the proto says and what pydantic enforces."""
    return [
        *_without_comment(contract),
        *_one_sided("messages", contract.messages.keys() - WITHOUT_MODEL, models.keys()),
        *_one_sided("enums", contract.enums.keys(), enums.keys()),
        *(line for name, kind in enums.items() for line in _enum(contract, name, kind)),
        *(line for name, model in models.items() for line in _message(contract, name, model)),
    ]


def _without_comment(contract: Contract) -> Iterator[str]:
    for owner, parts in (*contract.messages.items(), *contract.enums.items()):
        for name in (owner, *(f"{owner}.{part}" for part in parts)):
            if name not in contract.comments:
                yield f"{name}: has no comment in proto/"


def _one_sided(where: str, proto: Iterable[str], pydantic: Iterable[str]) -> Iterator[str]:
    for name in sorted(set(proto) - set(pydantic)):
        yield f"{where}: {name} is only in proto/"
    for name in sorted(set(pydantic) - set(proto)):
        yield f"{where}: {name} is only in candor.contracts"


def _enum(contract: Contract, name: str, kind: type[StrEnum]) -> Iterator[str]:
    prefix = re.sub("(?<!^)(?=[A-Z])", "_", name).upper() + "_"
    names = {enum_word(value, prefix) for value in contract.enums.get(name, ())}
    yield from _one_sided(name, names - {"unspecified"}, [member.value for member in kind])


def _message(contract: Contract, name: str, model: type[Message]) -> Iterator[str]:
    yield from _one_sided(name, contract.messages.get(name, ()), model.model_fields)
    schema = model.model_json_schema()["properties"]
    for field, info in model.model_fields.items():
        place = f"{name}.{field}"
        comment = contract.comments.get(place, "")
        yield from _limits(place, comment, schema[field])
        yield from _choices(place, comment, schema[field])
        yield from _default(place, comment, info)
        for text in UNSCHEMED.get(place, ()):
            if text not in comment:
                yield f"{place}: {text!r} is enforced and not in its comment"


def _limits(place: str, comment: str, schema: Mapping[str, Any]) -> Iterator[str]:
    parts = list(_parts(schema))
    if any("contentEncoding" in part for part in parts):
        return  # bytes: the comment speaks of the values in them
    enforced = {limit for part in parts for limit in _enforced(part)}
    for limit in sorted(stated_limits(comment) - enforced):
        yield f"{place}: its comment says {limit!r}, which is not enforced"
    for limit in sorted(enforced - stated_limits(comment)):
        yield f"{place}: {limit!r} is enforced and not in its comment"


def stated_limits(comment: str) -> set[str]:
    """The limits that a comment states, in the fixed notation."""
    lower = {f"at least {match}" for match in _OPEN_INTERVAL.findall(comment)}
    return {*_INTERVAL.findall(comment), *_BOUND.findall(comment), *lower}


def _parts(schema: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """A field's schema and those of its alternatives and entries, without other messages."""
    yield schema
    for part in (*schema.get("anyOf", ()), schema.get("items")):
        if part is not None:
            yield from _parts(part)


def _enforced(schema: Mapping[str, Any]) -> Iterator[str]:
    is_open = "exclusiveMinimum" in schema
    low = schema.get("exclusiveMinimum", schema.get("minimum"))
    high = schema.get("maximum")
    if low is not None and high is not None:
        yield f"{'(' if is_open else '['}{low:.15g}, {high:.15g}]"
    elif low is not None:
        yield f"at least {low:.15g}"
    if "maxItems" in schema:
        yield _entries(schema.get("minItems", 0), schema["maxItems"])
    if "maxLength" in schema:
        yield f"at most {schema['maxLength']} characters"


def _entries(low: int, high: int) -> str:
    if low == high:
        return f"exactly {high} entries"
    return f"{low} to {high} entries" if low else f"at most {high} entries"


def _choices(place: str, comment: str, schema: Mapping[str, Any]) -> Iterator[str]:
    """Names that a text may have; the comment quotes each."""
    allowed = {
        str(value)
        for part in _parts(schema)
        for value in (*part.get("enum", ()), *part.get("examples", ()))
    }
    if allowed:
        yield from _one_sided(f"{place}: values", re.findall(r'"([a-z0-9-]+)"', comment), allowed)


def _default(place: str, comment: str, field: FieldInfo) -> Iterator[str]:
    """Defaults that are a number, a text or true; others need no value in the comment."""
    stated = [text.lower() for pair in _DEFAULT.findall(comment) for text in pair if text]
    default = None if field.is_required() else _default_of(field)
    enforced = [str(default).lower()] if isinstance(default, int | float | str) and default else []
    if stated != enforced:
        yield f"{place}: its comment says default {stated}, enforced is {enforced}"


def _default_of(field: FieldInfo) -> Any:
    return field.get_default(call_default_factory=True, validated_data={})


def main() -> int:
    """Prints the differences; returns the exit code."""
    found = differences(read_contract(read_protos()), public_models(), ENUMS)
    print(*found, sep="\n", end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
