"""One explanation is one trace, from the caller through the gateway into the worker."""

import time
from collections import defaultdict

import httpx

from candor.contracts import api
from candor.stack.supervisor import Stack
from tests.stack.collector import Collector, Received

_WAIT_SECONDS = 20.0
_TRACE, _CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def explain(stack: Stack, image: api.ImageInput) -> None:
    request = api.ExplainRequest(
        image=image, targets=(api.ClassRef(index=3),), rhos=(0.05,), steps=20, no_cache=True
    )
    answer = httpx.post(
        f"{stack.rest_url}/v1/explain",
        json=request.model_dump(mode="json", exclude_none=True),
        headers={"traceparent": f"00-{_TRACE}-{_CALLER}-01"},
        timeout=60,
    )
    assert answer.status_code == 200, answer.text


def collected(collector: Collector) -> dict[str, list[Received]]:
    """By name, once every chunk's work in the worker has been reported."""
    give_up = time.monotonic() + _WAIT_SECONDS
    while True:
        spans = defaultdict(list)
        for span in collector.trace(_TRACE):
            spans[span.name].append(span)
        is_whole = spans["explain"] and 0 < len(spans["chunk"]) == len(spans["search"])
        if is_whole or time.monotonic() > give_up:
            return spans
        time.sleep(0.2)


def test_one_explanation_is_one_connected_trace(
    stack: Stack, collector: Collector, images: list[api.ImageInput]
) -> None:
    explain(stack, images[4])
    spans = collected(collector)
    assert spans.keys() == {"explain", "chunk", "search"}
    (request,) = spans["explain"]
    assert request.parent == _CALLER
    assert {chunk.parent for chunk in spans["chunk"]} == {request.span}
    assert {work.parent for work in spans["search"]} == {chunk.span for chunk in spans["chunk"]}
    assert {span.service for span in (request, *spans["chunk"])} == {"candor-gateway"}
    assert {span.service for span in spans["search"]} == {"candor-worker"}
