"""The span of a batch in a worker: whose child it is."""

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from candor.tracing import TRACE_KEY, Tracing
from handlers.spans import batch_span


def test_a_batch_is_a_child_of_its_first_call_and_linked_to_the_others() -> None:
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    tracing = Tracing(provider.get_tracer("test"), provider.shutdown)
    rows = [{"items": b"", TRACE_KEY: f"00-{n:032x}-{n:016x}-01".encode()} for n in (1, 2)]
    with batch_span(tracing, "search", [*rows, {"items": b""}]):
        pass
    with batch_span(tracing, "predict", [{"items": b"", TRACE_KEY: b"\xff nonsense"}]):
        pass
    search, predict = spans.get_finished_spans()
    assert search.parent is not None
    assert search.parent.trace_id == 1
    assert [link.context.trace_id for link in search.links] == [2]
    assert predict.parent is None
