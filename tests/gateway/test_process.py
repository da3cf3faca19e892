"""The gateway as a process in front of a stand-in for TorchServe, and the generated stubs."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import httpx
import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from grpc_health.v1 import health_pb2, health_pb2_grpc

from candor.client.sync import CandorClient
from candor.contracts import api, explanation_jobs, reports, wire
from candor.contracts.errors import ErrorCode, FieldViolation, ServiceError
from candor.gateway.main import main
from candor.rpc import convert, status
from candor.rpc.pb.candor.v1 import candor_pb2, explanation_jobs_pb2, reports_pb2
from candor.rpc.pb.torchserve import inference_pb2, inference_pb2_grpc
from tests.gateway.certificates import Authority
from tests.gateway.linear_worker import LinearWorker
from tests.gateway.servers import START_SECONDS, until
from tools import generate_pb


class StandIn(inference_pb2_grpc.InferenceAPIsServiceServicer):
    """Answers as TorchServe would; the first calls as for a worker that just died."""

    def __init__(self, deaths: int) -> None:
        self.deaths_left = deaths
        self.names: set[str] = set()
        self.searching = threading.Event()

    def Predictions(self, request: inference_pb2.PredictionsRequest, context: grpc.ServicerContext):
        self.names.add(request.model_name)
        if self.deaths_left > 0:
            self.deaths_left -= 1
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "Worker died.")
        items = wire.unpack_list(request.input["items"])
        if wire.unpack(items[0])[0].get("step_count") == 400:
            self.searching.set()
        answers = LinearWorker().answer(items)
        return inference_pb2.PredictionResponse(prediction=wire.pack_list(answers))


@pytest.fixture
def torchserve() -> Iterator[tuple[StandIn, int]]:
    stand_in = StandIn(deaths=3)
    server = grpc.server(ThreadPoolExecutor(4))
    inference_pb2_grpc.add_InferenceAPIsServiceServicer_to_server(stand_in, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield stand_in, port
    server.stop(0).wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_process_starts_serves_and_drains_on_sigterm(
    torchserve: tuple[StandIn, int], png: bytes
) -> None:
    stand_in, port = torchserve
    grpc_port = free_port()
    environment = {
        **os.environ,
        "CANDOR_GRPC_PORT": str(grpc_port),
        "CANDOR_REST_PORT": "0",
        "CANDOR_TORCHSERVE_ADDRESS": f"127.0.0.1:{port}",
        "CANDOR_MODELS": '["linear"]',
        # Nothing answers there, and nothing on this machine is to go through it.
        **dict.fromkeys(("http_proxy", "https_proxy", "grpc_proxy"), "http://127.0.0.1:9"),
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "candor.gateway"], env=environment, stdout=subprocess.PIPE, text=True
    )
    with grpc.insecure_channel(f"127.0.0.1:{grpc_port}") as channel:
        health = health_pb2_grpc.HealthStub(channel)
        until(lambda: _is_serving(health))
        request = api.ExplainRequest(
            image=api.ImageInput(encoded=png), targets=(api.ClassRef(index=0),), steps=400
        )
        with CandorClient(f"127.0.0.1:{grpc_port}") as client, ThreadPoolExecutor(1) as pool:
            running = pool.submit(client.explain, request, request_id="last")
            assert stand_in.searching.wait(START_SECONDS)
            process.send_signal(signal.SIGTERM)
            assert running.result(START_SECONDS).explanations[0].steps == 400
    output, _ = process.communicate(timeout=START_SECONDS)
    assert process.returncode == 0
    assert stand_in.names == {"linear-predict", "linear-search"}
    lines = [json.loads(line) for line in output.splitlines()]  # every line is an object
    requests = [line for line in lines if line["logger"] == "gateway.requests"]
    assert [(line["request_id"], line["code"]) for line in requests] == [("last", "OK")]


def _is_serving(health: health_pb2_grpc.HealthStub) -> bool:
    try:
        answer = health.Check(health_pb2.HealthCheckRequest(), wait_for_ready=True, timeout=5)
    except grpc.RpcError:
        return False
    return answer.status == health_pb2.HealthCheckResponse.SERVING


def test_killed_gateway_has_lost_no_report_job(tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "CANDOR_REST_PORT": "0",
        "CANDOR_TORCHSERVE_ADDRESS": "127.0.0.1:1",  # report jobs need no TorchServe
        "CANDOR_MODELS": '["linear"]',
        "CANDOR_STORE_URL": str(tmp_path / "store.sqlite"),
    }
    seen = []
    for _ in range(2):
        port = free_port()
        environment["CANDOR_GRPC_PORT"] = str(port)
        process = subprocess.Popen([sys.executable, "-m", "candor.gateway"], env=environment)
        try:
            with CandorClient(f"127.0.0.1:{port}") as client:
                until(lambda client=client: _lists_reports(client), 6 * START_SECONDS)
                request = reports.CreateReportRequest(idempotency_key="once")
                seen.append(client.create_report(request))
        finally:
            process.kill()
            process.wait()
    assert seen[0] == seen[1]


def _lists_reports(client: CandorClient) -> bool:
    try:
        client.list_reports()
    except ServiceError:
        return False
    return True


def test_gateway_without_workers_says_not_ready(png: bytes) -> None:
    code = """
import asyncio, httpx
from candor.gateway.main import Gateway
from candor.gateway.config.settings import Settings
from candor.gateway.workers.torchserve import TorchServeBackend
async def main():
    settings = Settings(grpc_port=0, rest_port=0, models=("linear",))
    gateway = Gateway(settings, TorchServeBackend("127.0.0.1:1", 1.0))
    await gateway.start()
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{gateway.rest_port}") as client:
        for path in ("/healthz/live", "/healthz/ready", "/v1/models/linear"):
            print((await client.get(path)).status_code)
    await gateway.stop()
asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert done.stdout.split() == ["200", "503", "503"], done.stderr


def test_output_that_nobody_reads_holds_no_request() -> None:
    port = free_port()
    environment = {
        **os.environ,
        "CANDOR_GRPC_PORT": "0",
        "CANDOR_REST_PORT": str(port),
        "CANDOR_TORCHSERVE_ADDRESS": "127.0.0.1:1",
        "CANDOR_MODELS": '["linear"]',
    }
    command = [sys.executable, "-m", "candor.gateway"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
            until(lambda: _is_live(client), 60.0)
            # About 90 KB of log, more than the 64 that a pipe holds.
            named = {"x-request-id": "x" * 128}
            for _ in range(250):
                response = client.get("/v1/models", headers=named, timeout=START_SECONDS)
                assert response.status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(60.0) == 0
    finally:
        process.kill()
        process.communicate()


def _is_live(client: httpx.Client) -> bool:
    try:
        return client.get("/healthz/live").status_code == 200
    except httpx.HTTPError:
        return False


def test_process_without_models_says_which_setting_is_missing() -> None:
    environment = {key: value for key, value in os.environ.items() if key != "CANDOR_MODELS"}
    done = subprocess.run(
        [sys.executable, "-m", "candor.gateway"], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr == "candor.gateway: CANDOR_MODELS: expected a value, got none\n"


@pytest.mark.parametrize("port", ["GRPC_PORT", "REST_PORT", "METRICS_PORT", "HEALTH_PORT"])
def test_taken_port_is_named_with_its_setting(port: str) -> None:
    free = {"CANDOR_GRPC_PORT": "0", "CANDOR_REST_PORT": "0", "CANDOR_MODELS": '["linear"]'}
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        number = str(taken.getsockname()[1])
        environment = {**os.environ, **free, f"CANDOR_{port}": number}
        command = [sys.executable, "-m", "candor.gateway"]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=60, check=False
        )
    assert done.returncode == 2
    assert (
        f"candor.gateway: CANDOR_{port}: port {number} on 127.0.0.1 cannot be used" in done.stderr
    )
    assert "Traceback" not in done.stderr


def test_encrypted_key_is_refused_and_no_password_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cert, key, _ = Authority(tmp_path).issue("gateway")
    encrypted = load_pem_private_key(key.read_bytes(), None).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"hunter2")
    )
    key.write_bytes(encrypted)
    monkeypatch.setenv("CANDOR_MODELS", '["linear"]')
    monkeypatch.setenv("CANDOR_TLS_CERT", str(cert))
    monkeypatch.setenv("CANDOR_TLS_KEY", str(key))
    assert main() == 2
    said = capsys.readouterr().err
    assert said == (
        "candor.gateway: tls_key: expected a key without a password, got an encrypted one\n"
    )


def test_gateway_never_imports_torch() -> None:
    code = "import candor.gateway.main, candor.client.sync, sys; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_stubs_match_the_contract(tmp_path: Path) -> None:
    assert generate_pb.stale_files() == []
    assert generate_pb.stale_files(tmp_path) != []


def test_both_status_tables_cover_every_code() -> None:
    assert status.GRPC_CODES.keys() == status.HTTP_STATUS.keys() == set(ErrorCode)


@pytest.mark.parametrize("code", ErrorCode)
def test_error_survives_the_way_over_grpc(code: ErrorCode) -> None:
    sent = ServiceError(code, "no", violations=[FieldViolation("a.b", "got 1")], retry_seconds=2.5)
    details = status.to_rpc_status(sent, "id").SerializeToString()
    got = status.from_rpc_status(status.GRPC_CODES[code], "no", details)
    assert (got.code, got.message, got.violations, got.retry_seconds) == (
        sent.code,
        sent.message,
        sent.violations,
        sent.retry_seconds,
    )


PAIRS = [
    (candor_pb2.PredictRequest, api.PredictRequest),
    (candor_pb2.ExplainRequest, api.ExplainRequest),
    (candor_pb2.ProbeRequest, api.ProbeRequest),
    (candor_pb2.PredictResponse, api.PredictResponse),
    (candor_pb2.ExplainResponse, api.ExplainResponse),
    (candor_pb2.Explanation, api.Explanation),
    (candor_pb2.ProbeResponse, api.ProbeResponse),
    (candor_pb2.ProbeResult, api.ProbeResult),
    (candor_pb2.ListModelsResponse, api.ModelList),
    (candor_pb2.ModelSummary, api.ModelSummary),
    (candor_pb2.GetModelResponse, api.ModelDetails),
    (candor_pb2.ModelRef, api.ModelRef),
    (candor_pb2.ClassConfidence, api.ClassConfidence),
    (candor_pb2.Image, api.ImageInput),
    (candor_pb2.Tensor, api.TensorInput),
    (candor_pb2.InputSpec, api.InputSpec),
    (reports_pb2.CreateReportRequest, reports.CreateReportRequest),
    (reports_pb2.Report, reports.Report),
    (reports_pb2.ReportProgress, reports.ReportProgress),
    (reports_pb2.ReportFailure, reports.ReportFailure),
    (reports_pb2.ReportResult, reports.ReportResult),
    (reports_pb2.ReportFile, reports.ReportFile),
    (reports_pb2.ListReportsRequest, reports.ListReportsRequest),
    (reports_pb2.ListReportsResponse, reports.ListReportsResponse),
    *(
        (getattr(explanation_jobs_pb2, kind.__name__), kind)
        for kind in (
            explanation_jobs.CreateExplanationJobRequest,
            explanation_jobs.ExplanationJob,
            explanation_jobs.ExplanationJobProgress,
            explanation_jobs.ExplanationJobResult,
            explanation_jobs.ListExplanationJobsRequest,
            explanation_jobs.ListExplanationJobsResponse,
        )
    ),
]


@pytest.mark.parametrize(("message", "model"), PAIRS, ids=[pair[1].__name__ for pair in PAIRS])
def test_messages_and_models_have_the_same_fields(message: type, model: type) -> None:
    # The conversion goes by name and leaves out what it does not know: no field may be missing.
    assert set(message.DESCRIPTOR.fields_by_name) == set(model.model_fields)


def test_zeros_are_defaults_except_where_they_were_said() -> None:
    request = candor_pb2.ExplainRequest(
        targets=[candor_pb2.ClassRef(index=0)], rhos=[0.0], steps=0, solver=""
    )
    assert convert.given_fields(request) == {"targets": [{"index": 0}], "rhos": [0.0]}
