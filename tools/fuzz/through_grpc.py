"""Hypothesis through the gRPC API: messages of every method, and bytes that are no message."""

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import grpc
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import given
from hypothesis import strategies as st

from candor.contracts.proxies import channel_options
from candor.rpc.pb.candor.v1 import candor_pb2, explanation_jobs_pb2, reports_pb2
from candor.rpc.pb.openinference import inference_pb2
from tools.fuzz.outcomes import Outcome, images, many, mutated
from tools.fuzz.target import Target

_TIMEOUT_SECONDS = 30
_MAX_DEPTH = 4
# Ours, or said by the library because something of ours escaped.
_FAULTS = (
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.DATA_LOSS,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.UNAVAILABLE,
)
_COUNTS = (0, 1, 2, 3, 5, 20, -1, 2001, 2**31 - 1, -(2**31))
_NAMES = ("", "linear", "cubic", "cat", "dog", "image", "FP32", "BYTES", "paper", "fast", "\0")
_INTEGERS = (
    FieldDescriptor.CPPTYPE_INT32,
    FieldDescriptor.CPPTYPE_INT64,
    FieldDescriptor.CPPTYPE_UINT32,
    FieldDescriptor.CPPTYPE_UINT64,
)


def fuzz(target: Target, case_count: int) -> Outcome:
    """About ``case_count`` calls, shared out over the methods."""
    outcome = Outcome("messages through gRPC (hypothesis)")
    methods = [*_methods()]
    with grpc.insecure_channel(
        target.grpc_address, options=channel_options(target.grpc_address)
    ) as channel:
        for method in methods:
            _run(method, channel, outcome, case_count // len(methods) + 1)
    return outcome


def _methods() -> Iterator[MethodDescriptor]:
    for module in (candor_pb2, reports_pb2, explanation_jobs_pb2, inference_pb2):
        for service in module.DESCRIPTOR.services_by_name.values():
            yield from service.methods


def _run(method: MethodDescriptor, channel: grpc.Channel, outcome: Outcome, count: int) -> None:
    path = f"/{method.containing_service.full_name}/{method.name}"
    open_call = channel.unary_stream if method.server_streaming else channel.unary_unary
    call: Callable[..., Any] = open_call(
        path, request_serializer=bytes, response_deserializer=bytes
    )

    @many(count)
    @given(content=_contents(method.input_type))
    def call_it(content: bytes) -> None:
        try:
            response = call(content, timeout=_TIMEOUT_SECONDS)
            size = sum(map(len, response)) if method.server_streaming else len(response)
            outcome.note("OK", "" if size >= 0 else path)
        except grpc.RpcError as err:
            code = err.code()
            said = f"{path}: {code.name} {err.details()}"[:300]
            outcome.note(code.name, said if code in _FAULTS else "")

    call_it()


@cache
def _contents(kind: Descriptor) -> st.SearchStrategy[bytes]:
    whole = _messages(kind).map(lambda message: message.SerializeToString())
    broken = st.builds(mutated, whole, st.integers(0, 2**32))
    return st.one_of(whole, whole, broken, st.binary(max_size=100))


def _messages(kind: Descriptor, depth: int = 0) -> st.SearchStrategy[Message]:
    make = GetMessageClass(kind)
    fields = {field.name: _values(field, depth) for field in kind.fields if depth < _MAX_DEPTH}
    oneofs = [[field.name for field in oneof.fields] for oneof in kind.oneofs]

    def build(values: dict[str, Any]) -> Message:
        for names in oneofs:
            for surplus in [name for name in names if name in values][1:]:
                del values[surplus]
        return make(**values)

    return st.fixed_dictionaries({}, optional=fields).map(build)


def _values(field: FieldDescriptor, depth: int) -> st.SearchStrategy[Any]:
    kind = field.message_type
    if kind is not None and kind.GetOptions().map_entry:
        value = kind.fields_by_name["value"]
        return st.dictionaries(st.sampled_from(_NAMES + ("top_k",)), _one(value, depth), max_size=3)
    one = _one(field, depth)
    return st.lists(one, max_size=4) if field.is_repeated else one


def _one(field: FieldDescriptor, depth: int) -> st.SearchStrategy[Any]:
    if field.message_type is not None:
        return _messages(field.message_type, depth + 1)
    if field.enum_type is not None:
        return st.integers(-1, 5)
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return st.booleans()
    if field.cpp_type in _INTEGERS:
        is_signed = field.cpp_type in _INTEGERS[:2]
        return st.sampled_from([count for count in _COUNTS if is_signed or count >= 0])
    if field.type == FieldDescriptor.TYPE_BYTES:
        return st.one_of(
            st.sampled_from(images()),
            st.builds(mutated, st.sampled_from(images()), st.integers(0, 2**32)),
            st.binary(max_size=64),
        )
    if field.type == FieldDescriptor.TYPE_STRING:
        return st.one_of(st.sampled_from(_NAMES), st.text(max_size=30))
    return st.one_of(st.sampled_from([0.0, 0.02, 0.5, 1.0]), st.floats(width=32))
