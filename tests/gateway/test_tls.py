"""TLS and mutual TLS of real gRPC and REST, with certificates made here."""

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from cryptography import x509
from grpc_health.v1 import health_pb2, health_pb2_grpc

from candor.gateway.main import Gateway
from tests.gateway.certificates import Authority
from tests.gateway.servers import START_SECONDS, running, until


@contextmanager
def secured(authority: Authority, **changes: Any) -> Iterator[Gateway]:
    """A gateway that speaks TLS with a certificate of ``authority``."""
    cert, key, _ = authority.issue("server")
    with running(tls_cert=str(cert), tls_key=str(key), health_port=0, **changes) as (gateway, *_):
        url = f"http://127.0.0.1:{gateway.health_port}/healthz/ready"
        until(lambda: httpx.get(url).status_code == 200)
        yield gateway


def trusting(authority: Authority, *client: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=authority.ca)
    if client:
        context.load_cert_chain(*client)
    return context


def rest_status(gateway: Gateway, context: ssl.SSLContext) -> int:
    return httpx.get(f"https://127.0.0.1:{gateway.rest_port}/v1/models", verify=context).status_code


def grpc_health(gateway: Gateway, authority: Authority, *client: Path) -> int:
    pair = (client[1].read_bytes(), client[0].read_bytes()) if client else (None, None)
    credentials = grpc.ssl_channel_credentials(authority.ca.read_bytes(), *pair)
    with grpc.secure_channel(f"127.0.0.1:{gateway.grpc_port}", credentials) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        return stub.Check(health_pb2.HealthCheckRequest(), timeout=START_SECONDS).status


def served_serial(port: int) -> int:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", port)) as plain,
        context.wrap_socket(plain) as secure,
    ):
        certificate = secure.getpeercert(binary_form=True)
    assert certificate is not None
    return x509.load_der_x509_certificate(certificate).serial_number


def test_grpc_and_rest_speak_only_tls(tmp_path: Path) -> None:
    authority, stranger = Authority(tmp_path), Authority(tmp_path, "Stranger")
    with secured(authority) as gateway:
        assert rest_status(gateway, trusting(authority)) == 200
        assert grpc_health(gateway, authority) == health_pb2.HealthCheckResponse.SERVING
        answer = httpx.get(
            f"https://127.0.0.1:{gateway.rest_port}/healthz/live", verify=trusting(authority)
        )
        assert "max-age" in answer.headers["strict-transport-security"]
        with pytest.raises(httpx.ConnectError):
            rest_status(gateway, trusting(stranger))
        with pytest.raises(grpc.RpcError):
            grpc_health(gateway, stranger)
        with pytest.raises(httpx.HTTPError):
            httpx.get(f"http://127.0.0.1:{gateway.rest_port}/v1/models")
        assert gateway._certificates is not None
        assert gateway._certificates.context.minimum_version >= ssl.TLSVersion.TLSv1_2


def test_health_port_is_plain_and_tells_nothing_else(tmp_path: Path) -> None:
    with secured(Authority(tmp_path)) as gateway:
        url = f"http://127.0.0.1:{gateway.health_port}"
        assert httpx.get(f"{url}/healthz/live").status_code == 200
        assert httpx.get(f"{url}/v1/models").status_code == 404


def test_mutual_tls_lets_in_whom_the_authority_signed(tmp_path: Path) -> None:
    authority, stranger = Authority(tmp_path), Authority(tmp_path, "Stranger")
    cert, key, _ = authority.issue("client")
    foreign = stranger.issue("foreign")[:2]
    with secured(authority, tls_client_ca=str(authority.ca)) as gateway:
        assert rest_status(gateway, trusting(authority, cert, key)) == 200
        assert grpc_health(gateway, authority, cert, key) == health_pb2.HealthCheckResponse.SERVING
        for client in ((), foreign):
            with pytest.raises(httpx.HTTPError):
                rest_status(gateway, trusting(authority, *client))
            with pytest.raises(grpc.RpcError):
                grpc_health(gateway, authority, *client)


def test_renewed_certificate_is_served_without_a_restart(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    with secured(authority, ready_seconds=0.05) as gateway:
        before = served_serial(gateway.rest_port)
        assert served_serial(gateway.grpc_port) == before
        cert, key, serial = authority.issue("next")
        key_of_before = (tmp_path / "server.key").read_bytes()
        cert.replace(tmp_path / "server.crt")
        for half in (b"half a file", key_of_before):
            (tmp_path / "server.key").write_bytes(half)
            gateway._certificates.refresh()
            assert served_serial(gateway.rest_port) == before
            assert served_serial(gateway.grpc_port) == before
        key.replace(tmp_path / "server.key")
        for port in (gateway.rest_port, gateway.grpc_port):
            until(lambda port=port: served_serial(port) == serial)
        assert rest_status(gateway, trusting(authority)) == 200
        assert grpc_health(gateway, authority) == health_pb2.HealthCheckResponse.SERVING
