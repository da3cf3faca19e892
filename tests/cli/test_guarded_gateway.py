"""The gateway as `candor serve` starts it where the environment names keys and certificates."""

import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import httpx
import pytest

from candor.client.connection import Tls
from candor.client.sync import CandorClient
from candor.contracts import api
from candor.contracts.errors import ErrorCode, ServiceError
from candor.gateway.access.keys import add_key
from candor.rpc.pb.torchserve import inference_pb2_grpc
from candor.stack import launch, supervisor
from candor.stack.config import StackConfig
from candor.stack.ports import Ports, pick_ports
from tests.fixtures.service import png  # noqa: F401
from tests.gateway.certificates import Authority
from tests.gateway.servers import until
from tests.gateway.test_process import StandIn


@pytest.fixture
def ports() -> Iterator[Ports]:
    """Those of a stack whose TorchServe is a stand-in."""
    picked = pick_ports(StackConfig())
    server = grpc.server(ThreadPoolExecutor(4))
    inference_pb2_grpc.add_InferenceAPIsServiceServicer_to_server(StandIn(deaths=0), server)
    server.add_insecure_port(f"127.0.0.1:{picked.grpc_inference}")
    server.start()
    yield picked
    server.stop(0).wait()


def test_gateway_with_keys_and_tls_is_ready_and_asks_for_both(
    ports: Ports,
    png: bytes,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    authority = Authority(tmp_path)
    cert, key, _ = authority.issue("server")
    monkeypatch.chdir(tmp_path)
    bearer = add_key(Path("keys"), "web", "acme", ["predict"])
    for name, file in (("KEYS_FILE", "keys"), ("TLS_CERT", cert.name), ("TLS_KEY", key.name)):
        monkeypatch.setenv(f"CANDOR_{name}", file)
    config = StackConfig(reports_dir=tmp_path / "reports")
    running = supervisor.Stack(config, _ports=ports)
    gateway = launch.start_gateway(config, ("linear",), ports, tmp_path)
    try:
        ready = f"http://127.0.0.1:{ports.health}/healthz/ready"
        until(lambda: supervisor._answers_ok(ready), seconds=30)
        tls = Tls(ca=authority.ca)
        request = api.PredictRequest(image=api.ImageInput(encoded=png))
        with CandorClient(running.grpc_address, key=bearer, tls=tls, timeout_seconds=20) as client:
            assert client.predict(request).predictions
        with (
            CandorClient(running.grpc_address, tls=tls, timeout_seconds=20) as client,
            pytest.raises(ServiceError) as caught,
        ):
            client.predict(request)
        assert caught.value.code is ErrorCode.UNAUTHENTICATED
        trusted = ssl.create_default_context(cafile=authority.ca)
        assert httpx.get(f"{running.rest_url}/v1/models", verify=trusted).status_code == 401
    finally:
        gateway.stop(20)
