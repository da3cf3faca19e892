"""Progress, deadlines, the cache and tenants as both transports show them."""

import base64
import io
import json
import logging
import threading
import time
from collections.abc import Iterator
from typing import Any

import grpc
import httpx
import pytest
from PIL import Image

from candor.client.sync import CandorClient
from candor.contracts import api
from candor.contracts.errors import ErrorCode, ServiceError
from candor.gateway.scheduling.scheduler import SearchScheduler
from candor.rpc.pb.candor.v1 import candor_pb2 as pb
from tests.gateway.linear_worker import SHAPE
from tests.gateway.servers import Servers, opened, until

LONG_STEPS = 2000


@pytest.fixture
def slow_servers() -> Iterator[Servers]:
    """A worker slow enough to watch; a heartbeat faster than its first progress."""
    settings = {"progress_seconds": 0.1, "heartbeat_seconds": 0.03, "chunk_seconds": 0.05}
    for servers in opened(objective_seconds=3600.0, **settings):  # which rejects no crowd
        servers.backend.call_seconds = 0.02
        yield servers


def body(png: bytes, **fields: Any) -> dict[str, Any]:
    encoded = {"encoded": base64.b64encode(png).decode()}
    return {"image": encoded, "targets": [{"index": 0}], **fields}


def request(png: bytes, **fields: Any) -> api.ExplainRequest:
    return api.ExplainRequest.model_validate(body(png, **fields))


def events_of(response: httpx.Response) -> list[tuple[str, Any]]:
    """Name and data of every event, comments as ("", text)."""
    parsed = []
    for block in response.text.strip().split("\n\n"):
        if block.startswith(":"):
            parsed.append(("", block))
            continue
        name, data = block.split("\n")
        parsed.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return parsed


def is_searching(servers: Servers) -> bool:
    return any(call[0].step_count == LONG_STEPS for call in servers.backend.search_calls)


def scheduler_of(servers: Servers) -> SearchScheduler:
    return servers.gateway.service.models.known["linear"].search_pool.scheduler


def assert_all_stops(servers: Servers) -> None:
    """No work, no slot and no search is left a moment after the client has gone."""
    service = servers.gateway.service
    scheduler = scheduler_of(servers)
    until(lambda: scheduler.search_count == 0 and service.admission.in_progress == 0)
    assert service.models.known["linear"].search_pool.shared_count == 0


# --- streams -----------------------------------------------------------------------------------


def test_grpc_stream_shows_progress_and_ends_with_the_answer_of_explain(
    slow_servers: Servers, png: bytes
) -> None:
    sent = request(png, steps=300, targets=[{"index": 0}, {"index": 2}], no_cache=True)
    *progress, last = slow_servers.client.explain_stream(sent, request_id="same")
    assert last.result == slow_servers.client.explain(sent, request_id="same")
    assert last.progress is None
    reported = [event.progress for event in progress]
    assert all(one is not None and one.step_count == 300 for one in reported)
    assert {one.index for one in reported} == {0, 1}
    first = [one for one in reported if one.index == 0]
    steps = [one.step for one in first]
    assert steps == sorted(steps)  # one is repeated in silence
    assert steps[0] == 0
    assert first[0].best_confidence is None
    assert first[0].preview_png == b""
    assert first[-1].best_confidence > last.result.explanations[0].confidence_before
    assert 0 < first[-1].best_rmse <= 0.05
    assert Image.open(io.BytesIO(first[-1].preview_png)).size == (SHAPE[2], SHAPE[1])


def test_first_result_waits_for_no_pause(png: bytes) -> None:
    pause = 3.0
    for servers in opened(progress_seconds=pause, chunk_seconds=0.05):
        servers.backend.call_seconds = 0.1  # 2000 steps are 40 calls or more
        started = time.monotonic()
        for event in servers.client.explain_stream(request(png, steps=LONG_STEPS)):
            if event.progress is not None and event.progress.step > 0:
                break
        assert time.monotonic() - started < pause


def test_rest_stream_is_the_same_as_events_with_heartbeats(
    slow_servers: Servers, png: bytes
) -> None:
    sent = body(png, steps=300)
    response = slow_servers.rest.post(
        "/v1/explain/stream", json=sent, headers={"x-request-id": "same"}
    )
    assert response.headers["content-type"] == "text/event-stream"
    assert response.headers["x-request-id"] == "same"
    events = events_of(response)
    names = [name for name, _ in events]
    assert names[-1] == "result"
    assert set(names) == {"progress", "result", ""}
    answer = slow_servers.client.explain(request(png, steps=300), request_id="same")
    (found,) = answer.explanations
    assert found.from_cache
    (streamed,) = api.ExplainResponse.model_validate(events[-1][1]).explanations
    assert streamed == found.model_copy(update={"from_cache": False})


def test_queue_position_is_reported_until_the_search_starts(png: bytes) -> None:
    for servers in opened(progress_seconds=0.1, chunk_seconds=0.05, max_batch=1):
        scheduler = scheduler_of(servers)
        servers.backend.call_seconds = 0.25  # longer than the pause between two progress events
        blocking = servers.stub.Explain.future(
            pb.ExplainRequest(image=pb.Image(encoded=png), targets=[pb.ClassRef(index=1)], steps=20)
        )
        until(lambda s=scheduler: s.search_count == 1)
        events = servers.client.explain_stream(request(png, steps=20, seed=1))
        positions = [event.progress.queue_position for event in events if event.progress]
        assert positions[0] == 1
        assert positions[-1] == 0
        blocking.result(timeout=20)


def test_bad_stream_request_is_rejected_like_any_other(servers: Servers, png: bytes) -> None:
    response = servers.rest.post("/v1/explain/stream", json=body(png, rhos=[-1], steps=0))
    assert response.status_code == 400
    fields = {item["field"] for item in response.json()["error"]["violations"]}
    assert fields == {"rhos.0", "steps"}
    with pytest.raises(ServiceError) as caught:
        list(servers.client.explain_stream(request(png, targets=[{"name": "unicorn"}])))
    assert caught.value.code is ErrorCode.INVALID_INPUT
    assert caught.value.violations[0].field == "targets.0.name"


def test_failure_on_the_way_is_the_last_event(slow_servers: Servers, png: bytes) -> None:
    def break_worker() -> None:
        until(lambda: is_searching(slow_servers))

        async def broken(model: str, role: str, items: list[bytes]) -> list[bytes]:
            raise RuntimeError("secret")

        slow_servers.backend.call = broken

    breaker = threading.Thread(target=break_worker, daemon=True)
    breaker.start()
    response = slow_servers.rest.post("/v1/explain/stream", json=body(png, steps=LONG_STEPS))
    breaker.join()
    assert response.status_code == 200
    name, data = events_of(response)[-1]
    assert name == "error"
    assert data["error"]["code"] == "INTERNAL"
    assert "secret" not in response.text


def test_closing_a_stream_ends_the_work(slow_servers: Servers, png: bytes) -> None:
    events = slow_servers.client.explain_stream(request(png, steps=LONG_STEPS))
    next(events)
    until(lambda: is_searching(slow_servers))
    events.close()
    assert_all_stops(slow_servers)
    slow_servers.backend.search_calls.clear()
    sent = body(png, steps=LONG_STEPS)
    with slow_servers.rest.stream("POST", "/v1/explain/stream", json=sent) as response:
        next(response.iter_lines())
        until(lambda: is_searching(slow_servers))
    assert_all_stops(slow_servers)


def test_openapi_describes_the_stream(servers: Servers) -> None:
    schema = servers.rest.get("/openapi.json").json()
    stream = schema["paths"]["/v1/explain/stream"]["post"]
    assert "text/event-stream" in stream["responses"]["200"]["content"]
    assert "ExplainProgress" in schema["components"]["schemas"]
    names = {parameter["name"] for parameter in stream["parameters"]}
    assert names == {"x-candor-tenant", "x-candor-priority", "x-candor-timeout"}


# --- deadlines ---------------------------------------------------------------------------------


def test_grpc_deadline_brings_a_partial_answer_before_it_passes(
    slow_servers: Servers, png: bytes
) -> None:
    address = f"127.0.0.1:{slow_servers.gateway.grpc_port}"
    with CandorClient(address, timeout_seconds=1.0) as hasty:
        (found,) = hasty.explain(request(png, steps=LONG_STEPS)).explanations
    assert found.is_partial
    assert 0 < found.steps < LONG_STEPS
    assert found.confidence_after > found.confidence_before
    assert_all_stops(slow_servers)


@pytest.mark.parametrize("as_header", [True, False])
def test_rest_timeout_brings_a_partial_answer(
    slow_servers: Servers, png: bytes, as_header: bool
) -> None:
    field = {} if as_header else {"timeout_seconds": 0.8}
    headers = {"x-candor-timeout": "0.8"} if as_header else {}
    started = time.monotonic()
    response = slow_servers.rest.post(
        "/v1/explain", json=body(png, steps=LONG_STEPS, **field), headers=headers
    )
    assert time.monotonic() - started < 5.0  # a busy machine encodes the answer late
    (found,) = response.json()["explanations"]
    assert found["is_partial"]
    assert 0 < found["steps"] < LONG_STEPS


def test_rejected_whole_result_says_how_long_it_takes(slow_servers: Servers, png: bytes) -> None:
    slow_servers.client.explain(request(png, steps=60, seed=3))  # chunks have been measured
    sent = body(png, steps=LONG_STEPS, timeout_seconds=0.5, allow_partial=False)
    response = slow_servers.rest.post("/v1/explain", json=sent)
    assert response.status_code == 504
    assert "the whole result takes about" in response.json()["error"]["message"]
    with pytest.raises(ServiceError) as caught:
        slow_servers.client.explain(
            request(png, steps=LONG_STEPS, timeout_seconds=0.5, allow_partial=False)
        )
    assert caught.value.code is ErrorCode.TIMEOUT


def test_impossible_deadline_is_rejected_on_arrival(slow_servers: Servers, png: bytes) -> None:
    answered = len(slow_servers.backend.search_calls)
    response = slow_servers.rest.post("/v1/explain", json=body(png, timeout_seconds=0.01))
    assert response.status_code == 504
    assert len(slow_servers.backend.search_calls) == answered


@pytest.mark.parametrize("value", ["0", "-1", "soon", "nan", "1e9"])
def test_bad_timeout_header_is_named(servers: Servers, png: bytes, value: str) -> None:
    response = servers.rest.post("/v1/explain", json=body(png), headers={"x-candor-timeout": value})
    assert response.status_code == 400
    (violation,) = response.json()["error"]["violations"]
    assert violation["field"] == "x-candor-timeout"
    assert "(0, 86400]" in violation["description"]
    with pytest.raises(grpc.RpcError) as caught:
        servers.stub.Explain(
            pb.ExplainRequest(image=pb.Image(encoded=png)),
            metadata=(("x-candor-timeout", value),),
        )
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("field", "value"),
    [("timeout_seconds", 0), ("timeout_seconds", 1e9), ("allow_partial", "?"), ("no_cache", 7)],
)
def test_bad_search_option_is_named(servers: Servers, png: bytes, field: str, value: Any) -> None:
    response = servers.rest.post("/v1/explain", json=body(png, **{field: value}))
    (violation,) = response.json()["error"]["violations"]
    assert violation["field"] == field
    assert "expected" in violation["description"]


# --- cache and tenants -------------------------------------------------------------------------


def test_cache_hits_are_marked_and_logged(
    fresh_servers: Servers, png: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="gateway.requests")
    first = fresh_servers.client.explain(request(png, rhos=[0.02], steps=30))
    sweep = fresh_servers.client.explain(request(png, rhos=[0.02, 0.03], steps=30))
    assert [one.from_cache for one in first.explanations] == [False]
    assert [one.from_cache for one in sweep.explanations] == [True, False]
    fresh = sweep.explanations[0].model_copy(update={"from_cache": False})
    assert fresh == first.explanations[0]
    again = fresh_servers.client.explain(request(png, rhos=[0.02], steps=30, no_cache=True))
    assert not again.explanations[0].from_cache
    image = api.ImageInput(encoded=png)
    for expected in (False, True):
        answer = fresh_servers.client.probe(api.ProbeRequest(image=image))
        assert {one.from_cache for one in answer.results} == {expected}
    lines = [record.fields for record in caplog.records]
    assert [line["cached"] for line in lines] == [0, 1, 0, 0, 2]


def test_tenant_and_priority_reach_the_scheduler(slow_servers: Servers, png: bytes) -> None:
    scheduler = scheduler_of(slow_servers)
    message = pb.ExplainRequest(
        image=pb.Image(encoded=png), targets=[pb.ClassRef(index=0)], steps=LONG_STEPS
    )
    headers = {"x-candor-tenant": "acme", "x-candor-priority": "report"}
    running = slow_servers.stub.Explain.future(message, metadata=tuple(headers.items()))
    until(lambda: scheduler.search_count == 1)
    (search,) = scheduler.queue
    assert (search.tenant, search.service_class.priority.name) == ("acme", "REPORT")
    running.cancel()
    assert_all_stops(slow_servers)
    response = slow_servers.rest.post(
        "/v1/explain", json=body(png), headers={"x-candor-priority": "urgent"}
    )
    assert response.json()["error"]["violations"][0]["field"] == "x-candor-priority"


def test_two_hundred_cancelled_requests_leave_nothing(slow_servers: Servers, png: bytes) -> None:
    futures = [
        slow_servers.stub.Explain.future(
            pb.ExplainRequest(
                image=pb.Image(encoded=png),
                targets=[pb.ClassRef(index=number % 5)],
                steps=LONG_STEPS,
                seed=number,
            )
        )
        for number in range(200)
    ]
    until(lambda: slow_servers.gateway.service.admission.in_progress >= 150)
    for future in futures:
        future.cancel()
    assert_all_stops(slow_servers)
    answered = len(slow_servers.backend.search_calls)
    time.sleep(0.2)
    later = slow_servers.backend.search_calls[answered:]
    assert all(call[0].step_count != LONG_STEPS for call in later)
