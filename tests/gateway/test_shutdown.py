"""A gateway that stops: every client reads UNAVAILABLE with a delay, so none loses a request."""

import asyncio
import base64
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import grpc
import httpx
import pytest
from google.rpc import error_details_pb2, status_pb2

from candor.contracts import wire
from candor.contracts.errors import ErrorCode, ServiceError
from candor.contracts.json_text import json_text
from candor.gateway import main
from candor.gateway.main import Gateway
from candor.gateway.observability.metrics import Metrics
from candor.gateway.observability.open_calls import OpenCalls
from candor.gateway.workers import retry
from candor.gateway.workers.counted import CountedBackend
from candor.gateway.workers.protocol import WorkerUnavailable
from candor.gateway.workers.torchserve import TorchServeBackend
from candor.rpc import status
from candor.rpc.pb.candor.v1 import candor_pb2 as pb
from candor.rpc.pb.candor.v1 import candor_pb2_grpc
from candor.rpc.pb.torchserve import inference_pb2, inference_pb2_grpc
from tests.gateway.linear_worker import LinearBackend, LinearWorker
from tests.gateway.servers import START_SECONDS, _running_loop, running, settings, until

LONG_STEPS = 2000
CLIENTS = 8
# What any gRPC client may be told to do, by its service config.
USUAL_RETRIES = json_text(
    {
        "methodConfig": [
            {
                "name": [{}],
                "retryPolicy": {
                    "maxAttempts": 5,
                    "initialBackoff": "0.1s",
                    "maxBackoff": "1s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ]
    }
)


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "RESTART_SECONDS", 0.3)
    monkeypatch.setattr(main, "_LAST_RESPONSES_SECONDS", 1.0)


@contextmanager
def ready(**changes: Any) -> Iterator[tuple[Gateway, LinearBackend, Callable[[], None]]]:
    """A gateway that is ready, its worker, and what stops it early."""
    with running(**changes) as (gateway, backend, loop):
        until(lambda: gateway._is_ready)
        stop, stopped = gateway.stop, asyncio.Event()

        async def stop_once() -> None:
            if not stopped.is_set():
                stopped.set()
                await stop()

        gateway.stop = stop_once  # type: ignore[method-assign]  # at the end of the block, too
        yield (
            gateway,
            backend,
            lambda: asyncio.run_coroutine_threadsafe(stop_once(), loop).result(2 * START_SECONDS),
        )


def explain_message(png: bytes, steps: int, seed: int = 0) -> pb.ExplainRequest:
    image = pb.Image(encoded=png)
    return pb.ExplainRequest(
        image=image, targets=[pb.ClassRef(index=0)], steps=steps, seed=seed, no_cache=True
    )


def code_of(call: Callable[[], Any]) -> str:
    try:
        call()
    except grpc.RpcError as err:
        return str(err.code().name)
    return "OK"


def delay_of(err: grpc.RpcError) -> tuple[float, int]:
    """Seconds of RetryInfo, and milliseconds for the library's own retries."""
    trailing = dict(err.trailing_metadata())
    details = status_pb2.Status.FromString(trailing[status.DETAILS_KEY]).details
    info = error_details_pb2.RetryInfo()
    assert any(one.Unpack(info) for one in details)
    return info.retry_delay.ToNanoseconds() / 1e9, int(trailing[status.PUSHBACK_KEY])


@contextmanager
def crowd(address: str, png: bytes, options: list[tuple[str, Any]]) -> Iterator[Counter[str]]:
    """Clients that call without a pause while the block lasts, and what they read by code."""
    codes: Counter[str] = Counter()
    ended, lock = threading.Event(), threading.Lock()

    def client(number: int) -> None:
        message = explain_message(png, steps=3, seed=number)
        own = [*options, ("grpc.use_local_subchannel_pool", 1)]
        with grpc.insecure_channel(address, options=own) as channel:
            stub = candor_pb2_grpc.CandorServiceStub(channel)
            while not ended.is_set():
                code = code_of(lambda: stub.Explain(message, timeout=START_SECONDS))
                with lock:
                    codes[code] += 1

    with ThreadPoolExecutor(CLIENTS) as pool:
        clients = [pool.submit(client, number) for number in range(CLIENTS)]
        try:
            until(lambda: codes["OK"] >= 2 * CLIENTS)
            yield codes
        finally:
            ended.set()
        for one in clients:
            one.result()


def test_calls_that_come_while_the_gateway_stops_are_unavailable(png: bytes) -> None:
    with ready() as (gateway, _, stop), crowd(f"127.0.0.1:{gateway.grpc_port}", png, []) as codes:
        stop()
        until(lambda: codes["UNAVAILABLE"] >= 2 * CLIENTS)
    assert codes.keys() == {"OK", "UNAVAILABLE"}  # the library's own stop makes some CANCELLED


def test_rolling_update_costs_a_client_with_the_usual_retries_nothing(png: bytes) -> None:
    with ready() as (old, _, stop), ready() as (new, _, _):
        address = f"ipv4:127.0.0.1:{old.grpc_port},127.0.0.1:{new.grpc_port}"
        with crowd(address, png, [("grpc.service_config", USUAL_RETRIES)]) as codes:
            stop()
            since = codes["OK"]
            until(lambda: codes["OK"] >= since + 4 * CLIENTS)
    assert codes.keys() == {"OK"}


def test_calls_beside_a_long_one_come_back_once_it_has_ended(png: bytes) -> None:
    """Its connection stays open meanwhile, and the calls on it are refused with a delay."""
    with ready() as (old, backend, stop), ready() as (new, _, _):
        address = f"ipv4:127.0.0.1:{old.grpc_port},127.0.0.1:{new.grpc_port}"
        options = [("grpc.service_config", USUAL_RETRIES)]
        with (
            grpc.insecure_channel(address, options=options) as channel,
            ThreadPoolExecutor() as pool,
        ):
            stub = candor_pb2_grpc.CandorServiceStub(channel)
            backend.call_seconds = 0.05
            long = stub.Explain.future(explain_message(png, steps=400), timeout=START_SECONDS)
            until(lambda: backend.in_flight > 0)
            stopping = pool.submit(stop)
            until(lambda: old.service.admission.is_draining)
            beside = stub.Explain(explain_message(png, steps=3), timeout=START_SECONDS)
            assert beside.explanations[0].steps == 3
            assert long.result().explanations[0].steps == 400
            stopping.result()


def _overdue_by_grpc(stub: candor_pb2_grpc.CandorServiceStub, png: bytes) -> dict[str, Any]:
    image, long = pb.Image(encoded=png), explain_message(png, LONG_STEPS)
    compared = pb.CompareRequest(image=image, steps=LONG_STEPS, no_cache=True)
    return {
        "explain": lambda: stub.Explain(long),
        "stream": lambda: list(stub.ExplainStream(long)),
        "compare": lambda: stub.Compare(compared),
        "predict": lambda: stub.Predict(pb.PredictRequest(image=image)),
    }


def _overdue_by_rest(client: httpx.Client, png: bytes) -> dict[str, Any]:
    encoded = base64.b64encode(png).decode()
    fields = {"targets": [{"index": 0}], "steps": LONG_STEPS, "no_cache": True}
    body = {**fields, "image": {"encoded": encoded}}
    return {
        "explain": lambda: client.post("/v1/explain", json=body),
        "kserve": lambda: client.post("/v1/models/linear:explain", json={"instances": [body]}),
        "predict": lambda: client.post("/v1/predict", json={"image": {"encoded": encoded}}),
        "infer": lambda: client.post(
            "/v2/models/linear/infer",
            json={
                "inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": [encoded]}]
            },
        ),
        "stream": lambda: client.post("/v1/explain/stream", json=body),
    }


def test_whatever_outlives_the_drain_is_unavailable_over_every_protocol(png: bytes) -> None:
    with (
        ready(drain_seconds=0.5) as (gateway, backend, stop),
        grpc.insecure_channel(f"127.0.0.1:{gateway.grpc_port}") as channel,
        httpx.Client(
            base_url=f"http://127.0.0.1:{gateway.rest_port}", timeout=20, trust_env=False
        ) as client,
        ThreadPoolExecutor(20) as pool,
    ):
        backend.delays["linear"] = 60.0
        by_grpc = _overdue_by_grpc(candor_pb2_grpc.CandorServiceStub(channel), png)
        by_rest = _overdue_by_rest(client, png)
        grpc_calls = {kind: pool.submit(call) for kind, call in by_grpc.items()}
        rest_calls = {kind: pool.submit(call) for kind, call in by_rest.items()}
        until(lambda: gateway.service.admission.in_progress == len(by_grpc) + len(by_rest))
        stop()
        for kind, call in grpc_calls.items():
            error = call.exception(START_SECONDS)
            assert isinstance(error, grpc.RpcError), kind
            assert error.code() is grpc.StatusCode.UNAVAILABLE, (kind, error)
            assert delay_of(error) == (0.3, 300), kind
        for kind, call in rest_calls.items():
            response = call.result(START_SECONDS)
            if kind == "stream" and response.status_code == 200:  # the error is its last event
                assert "event: error" in response.text
                assert '"code":"MODEL_NOT_READY"' in response.text.replace(" ", "")
                continue
            assert response.status_code == 503, (kind, response.text)
            assert response.headers["retry-after"] == "1"
            assert response.headers["connection"] == "close"


@pytest.mark.parametrize("is_prediction", [False, True])
def test_call_to_a_worker_that_is_cancelled_cancels_no_request(is_prediction: bool) -> None:
    class Closed:
        async def call(self, model: str, role: str, items: list[bytes]) -> list[bytes]:
            raise asyncio.CancelledError

    async def scenario() -> None:
        counted = CountedBackend(Closed(), Metrics(["linear"]))
        with pytest.raises(WorkerUnavailable, match="cancelled"):
            await counted.call("linear", "predict" if is_prediction else "search", [b""])

    asyncio.run(scenario())


def test_what_a_request_awaited_was_cancelled_but_not_the_request() -> None:
    async def scenario() -> ServiceError:
        calls, awaited = OpenCalls(), asyncio.get_running_loop().create_future()
        awaited.cancel()
        with pytest.raises(ServiceError) as caught, calls.running():
            await awaited
        return caught.value

    error = asyncio.run(scenario())
    assert error.code is ErrorCode.MODEL_NOT_READY
    assert error.retry_seconds


def test_request_that_its_client_cancels_stays_cancelled() -> None:
    async def scenario() -> None:
        calls = OpenCalls()

        async def call() -> None:
            with calls.running():
                await asyncio.sleep(60.0)

        task = asyncio.create_task(call())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await calls.wait(0.0)  # and nothing is open

    asyncio.run(scenario())


class Worker(inference_pb2_grpc.InferenceAPIsServiceServicer):
    """Answers as TorchServe would, or with a status alone."""

    def __init__(self) -> None:
        self.status: grpc.StatusCode | None = None
        self.is_searching = threading.Event()

    def Predictions(self, request: inference_pb2.PredictionsRequest, context: grpc.ServicerContext):
        items = wire.unpack_list(request.input["items"])
        if wire.unpack(items[0])[0].get("step_count") == LONG_STEPS:
            self.is_searching.set()
        if self.status is not None and "search" in request.model_name:
            context.abort(self.status, "stopping")
        answers = LinearWorker().answer(items)
        return inference_pb2.PredictionResponse(prediction=wire.pack_list(answers))


@contextmanager
def worker_at(port: int, worker: Worker) -> Iterator[int]:
    server = grpc.server(ThreadPoolExecutor(4))
    inference_pb2_grpc.add_InferenceAPIsServiceServicer_to_server(worker, server)
    try:
        yield _listening(server, port)
    finally:
        server.stop(0).wait()


def _listening(server: grpc.Server, port: int) -> int:
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    return port


@contextmanager
def in_front_of(port: int, **changes: Any) -> Iterator[tuple[Gateway, Callable[[], None]]]:
    """A gateway before a worker that is a process of its own as far as it can see."""
    with _running_loop() as loop:

        def run(work: Any) -> Any:
            return asyncio.run_coroutine_threadsafe(work, loop).result(2 * START_SECONDS)

        async def opened() -> tuple[Gateway, TorchServeBackend]:
            backend = TorchServeBackend(f"127.0.0.1:{port}", 5.0)
            gateway = Gateway(settings(**changes), backend)
            await gateway.start()
            return gateway, backend

        gateway, backend = run(opened())
        until(lambda: gateway._is_ready)
        stopped: list[None] = []

        def stop() -> None:
            if not stopped:
                stopped.append(run(gateway.stop()))

        try:
            yield gateway, stop
        finally:
            stop()
            run(backend.close())


@pytest.mark.parametrize("code", ["CANCELLED", "UNAVAILABLE", "INTERNAL", "UNKNOWN", "ABORTED"])
def test_worker_that_stops_first_leaves_clients_unavailable(png: bytes, code: str) -> None:
    worker = Worker()
    with (
        worker_at(0, worker) as port,
        in_front_of(port, drain_seconds=0.3) as (gateway, stop),
        grpc.insecure_channel(f"127.0.0.1:{gateway.grpc_port}") as channel,
    ):
        stub = candor_pb2_grpc.CandorServiceStub(channel)
        worker.status = grpc.StatusCode[code]
        call = stub.Explain.future(explain_message(png, LONG_STEPS), timeout=START_SECONDS)
        assert worker.is_searching.wait(START_SECONDS)
        stop()
        assert call.code() is grpc.StatusCode.UNAVAILABLE
        assert delay_of(call)[0] > 0.0


def test_worker_side_that_dies_and_comes_back_costs_no_request(png: bytes) -> None:
    first, second = Worker(), Worker()
    message = explain_message(png, LONG_STEPS)
    with ExitStack() as opened, ThreadPoolExecutor(1) as pool:
        port = opened.enter_context(died := worker_at(0, first))
        gateway, _ = opened.enter_context(in_front_of(port))
        channel = grpc.insecure_channel(f"127.0.0.1:{gateway.grpc_port}")
        stub = candor_pb2_grpc.CandorServiceStub(opened.enter_context(channel))
        call = pool.submit(stub.Explain, message, timeout=2 * START_SECONDS)
        assert first.is_searching.wait(START_SECONDS)
        died.__exit__(None, None, None)
        opened.enter_context(worker_at(port, second))
        assert call.result(2 * START_SECONDS).explanations[0].steps == LONG_STEPS
        assert second.is_searching.is_set()


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (grpc.StatusCode.CANCELLED, ErrorCode.MODEL_NOT_READY),
        (grpc.StatusCode.UNAVAILABLE, ErrorCode.MODEL_NOT_READY),
        (grpc.StatusCode.UNKNOWN, ErrorCode.INTERNAL),
    ],
)
def test_client_reads_a_call_that_was_broken_off_as_not_ready(
    code: grpc.StatusCode, expected: ErrorCode
) -> None:
    assert status.from_rpc_status(code, "CANCELLED", None).code is expected
