"""The gateway and its clients over a real IPv6 loopback, alone and beside IPv4."""

import asyncio
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from candor.client.aio import AsyncCandorClient
from candor.client.connection import Tls
from candor.client.sync import CandorClient
from candor.contracts import api
from candor.contracts.addresses import endpoint, url
from candor.gateway.config.settings import Settings
from candor.gateway.sockets import bound, listening_host, loopback, reachable_host
from tests.gateway.certificates import Authority
from tests.gateway.servers import Servers, opened, running, until

HOSTS = ("127.0.0.1", "::1")


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as trial:
            trial.bind(("::1", 0))
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="no IPv6 loopback here")


@pytest.fixture(scope="module")
def on_ipv6() -> Iterator[Servers]:
    yield from opened(host="::1", metrics_port=0, health_port=0)


@pytest.fixture(scope="module")
def on_both() -> Iterator[Servers]:
    yield from opened(host="::", allow_anonymous=True, metrics_port=0, health_port=0)


def explain_request(png: bytes) -> api.ExplainRequest:
    image = api.ImageInput(encoded=png)
    return api.ExplainRequest(image=image, targets=(api.ClassRef(index=0),), steps=5)


def pages(servers: Servers, host: str) -> list[str]:
    gateway = servers.gateway
    return [
        f"{url('http', host, gateway.rest_port)}/v1/models",
        f"{url('http', host, gateway.rest_port)}/",
        f"{url('http', host, gateway.health_port)}/healthz/ready",
        f"{url('http', host, gateway.metrics_port)}/metrics",
    ]


@needs_ipv6
def test_every_door_is_open_on_ipv6_alone(on_ipv6: Servers, png: bytes) -> None:
    assert on_ipv6.client_address.startswith("[::1]:")
    (found,) = on_ipv6.client.explain(explain_request(png)).explanations
    assert 0 < found.rmse <= found.rho
    events = list(on_ipv6.client.explain_stream(explain_request(png)))
    assert events[-1].result is not None
    for page in pages(on_ipv6, "::1"):
        assert httpx.get(page).status_code == 200, page
    gateway = on_ipv6.gateway
    for port in (gateway.grpc_port, gateway.rest_port, gateway.health_port, gateway.metrics_port):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=5)


@needs_ipv6
def test_the_client_for_asyncio_reaches_ipv6(on_ipv6: Servers, png: bytes) -> None:
    async def predict() -> api.PredictResponse:
        async with AsyncCandorClient(on_ipv6.client_address, timeout_seconds=20) as client:
            return await client.predict(api.PredictRequest(image=api.ImageInput(encoded=png)))

    assert asyncio.run(predict()).predictions


@needs_ipv6
@pytest.mark.parametrize("host", HOSTS)
def test_two_colons_are_every_address_of_both_families(
    on_both: Servers, png: bytes, host: str
) -> None:
    with CandorClient(endpoint(host, on_both.gateway.grpc_port), timeout_seconds=20) as client:
        assert client.explain(explain_request(png)).explanations[0].rmse > 0
    for page in pages(on_both, host):
        assert httpx.get(page).status_code == 200, page


@needs_ipv6
def test_tls_over_ipv6_has_its_address_checked(tmp_path: Path, png: bytes) -> None:
    authority = Authority(tmp_path)
    cert, key, _ = authority.issue("gateway")
    with running(host="::1", tls_cert=str(cert), tls_key=str(key), health_port=0) as (gateway, *_):
        address = endpoint("::1", gateway.grpc_port)
        with CandorClient(address, timeout_seconds=20, tls=Tls(ca=authority.ca)) as client:
            request = api.PredictRequest(image=api.ImageInput(encoded=png))
            assert client.predict(request).predictions


@pytest.mark.parametrize("host", ["::1:8500", "http://[::1]:8500"])
def test_a_client_names_an_address_that_it_cannot_read(host: str) -> None:
    for make in (CandorClient, AsyncCandorClient):
        with pytest.raises(ValueError, match=r"address: .*\[::1\]:8500"):
            make(host)


def test_settings_take_a_host_with_and_without_brackets() -> None:
    for host in ("::1", "[::1]"):
        assert Settings(models=("a",), host=host).host == "::1"
    with pytest.raises(ValueError, match=r"without a port, got '\[::1\]:8500'"):
        Settings(models=("a",), host="[::1]:8500")
    with pytest.raises(ValueError, match=r"\[::1\]:8500, got '::1:7070'"):
        Settings(models=("a",), torchserve_address="::1:7070")


@needs_ipv6
def test_one_port_is_not_taken_twice_on_ipv6() -> None:
    with bound("::1", 0) as first:
        first.listen()
        with pytest.raises(OSError, match="in use"):
            bound("::1", first.getsockname()[1])


def test_a_name_listens_on_its_ipv4_address() -> None:
    assert listening_host("localhost") == "127.0.0.1"
    assert reachable_host("localhost") == "localhost"


def _refuse(monkeypatch: pytest.MonkeyPatch, absent: int) -> None:
    """Sockets of one family cannot be made, as on a machine without it."""
    real = socket.socket

    def without(family: int = socket.AF_INET, *rest: int) -> socket.socket:
        if family == absent:
            raise OSError(97, "Address family not supported by protocol")
        return real(family, *rest)

    monkeypatch.setattr(socket, "socket", without)


def test_a_machine_without_ipv6_listens_on_ipv4(monkeypatch: pytest.MonkeyPatch) -> None:
    _refuse(monkeypatch, socket.AF_INET6)
    assert listening_host("::") == "0.0.0.0"
    assert reachable_host("::") == "127.0.0.1"


def test_a_machine_without_ipv4_has_its_loopback_on_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    _refuse(monkeypatch, socket.AF_INET)
    assert loopback() == "::1"
    settings = Settings(models=("a",))
    assert (settings.host, settings.torchserve_address) == ("::1", "[::1]:7070")


def probe(**environment: str) -> subprocess.CompletedProcess[str]:
    """The image's check of health, with a proxy that refuses everything."""
    proxies = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY"), "http://127.0.0.1:1")
    return subprocess.run(
        [sys.executable, "-m", "candor.gateway.probe"],
        env={"CANDOR_MODELS": '["linear"]', **proxies, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


@needs_ipv6
def test_the_probe_asks_where_the_settings_listen(on_ipv6: Servers, on_both: Servers) -> None:
    ready = probe(CANDOR_HOST="::1", CANDOR_REST_PORT=str(on_ipv6.gateway.rest_port))
    assert (ready.returncode, ready.stderr) == (0, "")
    health = {"CANDOR_HEALTH_PORT": str(on_both.gateway.health_port), "CANDOR_REST_PORT": "1"}
    assert probe(CANDOR_HOST="::", CANDOR_ALLOW_ANONYMOUS="1", **health).returncode == 0
    absent = probe(CANDOR_HOST="::1", CANDOR_REST_PORT="1")
    assert absent.returncode == 1
    assert "refused" in absent.stderr


@needs_ipv6
def test_the_probe_trusts_the_certificate_of_its_own_gateway(tmp_path: Path) -> None:
    cert, key, _ = Authority(tmp_path).issue("gateway")
    tls = {"CANDOR_TLS_CERT": str(cert), "CANDOR_TLS_KEY": str(key)}
    with running(host="::1", tls_cert=str(cert), tls_key=str(key)) as (gateway, *_):
        until(lambda: gateway._is_ready)
        done = probe(CANDOR_HOST="::1", CANDOR_REST_PORT=str(gateway.rest_port), **tls)
    assert done.returncode == 0, done.stderr
