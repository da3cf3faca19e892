"""What is heavy runs beside the event loop, which responds to a health check meanwhile.

Nothing here is a matter of time: the heavy work waits for the health check's response, so that on
the event loop it would wait for ever.
"""

import asyncio
import base64
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from candor.client.sync import CandorClient
from candor.contracts import api, wire
from candor.gateway import pools
from candor.gateway.observability.metrics import Metrics
from candor.gateway.scheduling import dispatcher
from candor.gateway.scheduling.options import SchedulerOptions
from candor.gateway.scheduling.scheduler import SearchScheduler
from candor.gateway.service import explain, open_inference, responses, validation
from candor.gateway.transport.grpc import call as grpc_call
from candor.gateway.transport.grpc import interceptors
from candor.gateway.transport.rest import request_body
from candor.gateway.workers import torchserve
from tests.gateway.searches import explain as search_item
from tests.gateway.servers import START_SECONDS, Servers, opened

LARGE = 64 * 1024 * 1024


class Held:
    """Work that waits until it is released, and says that it has begun."""

    def __init__(self, work: Callable[..., Any]) -> None:
        self._work = work
        self.begun, self.released = threading.Event(), threading.Event()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.begun.set()
        assert self.released.wait(START_SECONDS), "the event loop did not respond"
        return self._work(*args, **kwargs)


@contextmanager
def held(
    monkeypatch: pytest.MonkeyPatch, module: Any, name: str, servers: Servers
) -> Iterator[None]:
    """Nothing of ``name`` ends before the gateway has responded to a health check."""
    one = Held(getattr(module, name))
    with monkeypatch.context() as patched:
        patched.setattr(module, name, one)
        patched.setattr(pools, "SMALL_BYTES", -1)

        def check() -> None:
            assert one.begun.wait(START_SECONDS)
            try:
                assert servers.rest.get("/healthz/live").status_code == 200
            finally:
                one.released.set()

        with ThreadPoolExecutor(1) as pool:
            checked = pool.submit(check)
            yield
            checked.result()


def explain_request(png: bytes) -> api.ExplainRequest:
    target = api.ClassRef(index=0)
    return api.ExplainRequest(
        image=api.ImageInput(encoded=png), targets=(target,), steps=5, no_cache=True
    )


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (dispatcher, "_packed"),  # 64 MB of states to a worker
        (validation, "_checked"),  # base64 and pictures
        (responses, "explain_response"),  # PNGs
        (grpc_call, "_written"),  # tensors in a message
    ],
    ids=["packing", "decoding", "encoding", "writing"],
)
def test_heavy_work_of_a_grpc_request_leaves_the_loop_free(
    servers: Servers, png: bytes, monkeypatch: pytest.MonkeyPatch, module: Any, name: str
) -> None:
    with held(monkeypatch, module, name, servers):
        assert servers.client.explain(explain_request(png)).explanations[0].steps == 5


def test_large_message_is_read_beside_the_loop(
    servers: Servers, png: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading = Held(lambda parse, data: parse(data))

    async def read_if_large(pool: Any, size: int, parse: Any, data: bytes) -> Any:
        return await pool.run(reading, parse, data)

    monkeypatch.setattr(interceptors, "run_if_large", read_if_large)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(servers.client.explain, explain_request(png))
        assert reading.begun.wait(START_SECONDS)
        assert servers.rest.get("/healthz/live").status_code == 200
        reading.released.set()
        assert asked.result(START_SECONDS).explanations


@pytest.mark.parametrize(
    ("path", "module", "name"),
    [
        ("/v1/explain", request_body, "parse_json"),
        ("/v1/models/linear:explain", open_inference, "_dumped"),
    ],
)
def test_heavy_work_of_a_rest_request_leaves_the_loop_free(
    servers: Servers,
    png: bytes,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    module: Any,
    name: str,
) -> None:
    image = {"encoded": base64.b64encode(png).decode()}
    fields = {"image": image, "targets": [{"index": 0}], "steps": 5, "no_cache": True}
    body = {"instances": [fields]} if ":" in path else fields
    # Elsewhere than in the client's own thread, which the check shares.
    with held(monkeypatch, module, name, servers), ThreadPoolExecutor(1) as pool:
        response = pool.submit(servers.rest.post, path, json=body).result(2 * START_SECONDS)
    assert response.status_code == 200


def test_states_of_64_megabytes_are_packed_in_a_thread_and_small_ones_at_once() -> None:
    threads: list[threading.Thread] = []

    class Recorded(dict[str, Any]):
        def items(self) -> Any:
            threads.append(threading.current_thread())
            return super().items()

    class Unused:
        async def call(self, model: str, role: str, items: list[bytes]) -> list[bytes]:
            raise ValueError("seen")

    async def packed(arrays: dict[str, Any]) -> None:
        scheduler = SearchScheduler(
            Unused(), "linear", SchedulerOptions(value_count=3072), metrics=Metrics(["linear"])
        )
        image = arrays["image"]
        search = scheduler.submit(search_item(5), {"image": image})
        search.arrays = Recorded(arrays)
        with pytest.raises(ValueError, match="seen"):
            await search.future
        await scheduler.close()

    for image in (np.zeros((4, LARGE // 16), np.float32), np.zeros((3, 8, 6), np.float32)):
        asyncio.run(packed({"image": image}))
    assert [one is threading.main_thread() for one in threads] == [False, True]


def test_message_of_64_megabytes_to_torchserve_is_made_and_read_in_a_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    threads = []

    def seen(work: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            threads.append(threading.current_thread())
            return work(*args)

        return call

    async def scenario() -> None:
        backend = torchserve.TorchServeBackend("127.0.0.1:1", 1.0)

        async def answer(request: bytes, timeout: float) -> bytes:
            (item,) = wire.unpack_list(_items_of(request))
            prediction = wire.pack_list([item])
            return torchserve.inference_pb2.PredictionResponse(
                prediction=prediction
            ).SerializeToString()

        backend._predictions = answer  # type: ignore[assignment]
        for size in (LARGE, 10):
            (item,) = await backend.call("linear", "search", [bytes(size)])
            assert len(item) == size
        await backend.close()

    for name in ("_request", "_answers"):
        monkeypatch.setattr(torchserve, name, seen(getattr(torchserve, name)))
    asyncio.run(scenario())
    assert [one is threading.main_thread() for one in threads] == [False, False, True, True]


def _items_of(request: bytes) -> bytes:
    return bytes(torchserve.inference_pb2.PredictionsRequest.FromString(request).input["items"])


def test_progress_comes_by_notification_and_not_by_looking(
    servers: Servers, png: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0
    usual = explain._news

    def counted(*args: Any) -> Any:
        nonlocal looks
        looks += 1
        return usual(*args)

    monkeypatch.setattr(explain, "_news", counted)
    calls = len(servers.backend.search_calls)
    with CandorClient(servers.client_address, timeout_seconds=20) as client:
        *progress, last = client.explain_stream(
            explain_request(png).model_copy(update={"steps": 200})
        )
    assert last.result is not None
    assert progress[0].progress is not None
    calls = len(servers.backend.search_calls) - calls
    # Twice at most for each change, which is a call sent or back, and once at the end of a pause.
    assert looks <= 2 * (2 * calls + 2) + len(progress)


def test_first_progress_does_not_wait_for_the_pause_to_end(png: bytes) -> None:
    """The pause is an hour, so that only a notification can bring it."""
    for servers in opened(progress_seconds=3600.0):
        servers.backend.call_seconds = 0.02
        sent = explain_request(png).model_copy(update={"steps": 400})
        *progress, _ = servers.client.explain_stream(sent)
        steps = [one.progress.step for one in progress if one.progress is not None]
        assert len(steps) == 2
        assert steps[0] == 0 < steps[1] < 100
