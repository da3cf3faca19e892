"""Spans of requests and chunks: whose child each is, what it says; none is made when off."""

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from candor import tracing
from candor.rpc.pb.candor.v1 import candor_pb2 as pb
from candor.terms import Goal
from candor.tracing import NO_TRACING, Tracing, start_tracing
from tests.gateway.servers import Servers, opened, until

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


@pytest.fixture
def spans() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def traced(spans: InMemorySpanExporter) -> Iterator[Servers]:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    yield from opened(Tracing(provider.get_tracer("test"), provider.shutdown))


def named(spans: InMemorySpanExporter, name: str) -> list[ReadableSpan]:
    return [span for span in spans.get_finished_spans() if span.name == name]


def explain(servers: Servers, png: bytes, target: int, steps: int = 30, **metadata: str) -> None:
    message = pb.ExplainRequest(
        image=pb.Image(encoded=png), targets=[pb.ClassRef(index=target)], steps=steps
    )
    servers.stub.Explain(message, metadata=tuple(metadata.items()))


def test_a_request_is_a_child_of_its_caller_and_parent_of_its_chunks(
    traced: Servers, png: bytes, spans: InMemorySpanExporter, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="gateway.requests")
    explain(traced, png, 1, traceparent=PARENT)
    until(lambda: bool(named(spans, "explain")))
    (request,) = named(spans, "explain")
    assert f"{request.context.trace_id:032x}" == TRACE
    assert request.parent is not None
    assert f"{request.parent.span_id:016x}" == "00f067aa0ba902b7"
    assert request.attributes is not None
    assert request.attributes["candor.code"] == "OK"
    chunks = named(spans, "chunk")
    assert {chunk.parent.span_id for chunk in chunks if chunk.parent} == {request.context.span_id}
    calls = [items for items in traced.backend.search_calls if items[0].goal is Goal.EXPLAIN_FOR]
    assert len(chunks) == len(calls)
    assert caplog.records[-1].fields["trace_id"] == TRACE


def test_a_chunk_for_two_requests_is_linked_to_the_second(
    traced: Servers, png: bytes, spans: InMemorySpanExporter
) -> None:
    traced.backend.call_seconds = 0.05
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(lambda target: explain(traced, png, target, steps=100), (0, 1)))
    until(lambda: len(named(spans, "explain")) == 2)
    requests = {span.context.span_id for span in named(spans, "explain")}
    shared = [span for span in named(spans, "chunk") if span.links]
    assert shared
    for chunk in shared:
        assert chunk.parent is not None
        linked = {link.context.span_id for link in chunk.links}
        assert {chunk.parent.span_id} | linked == requests


def test_only_our_own_faults_are_errors(
    traced: Servers, png: bytes, spans: InMemorySpanExporter
) -> None:
    async def broken(model: str, role: str, items: list[bytes]) -> list[bytes]:
        raise RuntimeError("out of order")

    assert traced.rest.post("/v1/predict", content=b"{").status_code == 400
    traced.backend.call = broken
    traced.rest.post("/v1/predict", files={"image": png})
    until(lambda: len(named(spans, "predict")) == 2)
    rejected, failed = named(spans, "predict")
    assert rejected.status.status_code is StatusCode.UNSET
    assert (failed.status.status_code, failed.status.description) == (StatusCode.ERROR, "INTERNAL")


def test_without_an_endpoint_there_are_no_spans_and_no_sdk() -> None:
    code = "import sys, candor.gateway.main as m; t = m.start_tracing('x', '')"
    code += "; s = t.tracer.start_span('a')"
    code += "; print(s.is_recording(), 'opentelemetry.sdk' in sys.modules)"
    environment = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", "False"]


def test_the_standard_variable_turns_it_on(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in tracing._STANDARD_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    assert start_tracing("candor-gateway", "") is NO_TRACING
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    started = start_tracing("candor-gateway", "")
    try:
        assert started.tracer.start_span("a").is_recording()
    finally:
        started.close()
