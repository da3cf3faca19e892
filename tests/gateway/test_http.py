"""HTTP as its neighbours speak it: HEAD, Allow, compressed bodies, redirects, proxies."""

import base64
import gzip
import json
import logging
import zlib
from collections.abc import Callable, Iterator

import pytest

from candor.contracts import limits
from tests.gateway.servers import Servers, opened


@pytest.fixture(scope="module")
def behind_proxy() -> Iterator[Servers]:
    yield from opened(trusted_proxies=("127.0.0.1", "10.0.0.0/8"))


def _body(png: bytes) -> bytes:
    return json.dumps({"image": {"encoded": base64.b64encode(png).decode()}}).encode()


@pytest.mark.parametrize(
    "path",
    ["/", "/healthz/live", "/v1/models", "/v2", "/v2/health/live", "/docs", "/openapi.json"],
)
def test_head_is_get_without_the_body(servers: Servers, path: str) -> None:
    whole, head = servers.rest.get(path), servers.rest.head(path)
    assert (head.status_code, head.content) == (whole.status_code, b"")
    assert head.headers["content-type"] == whole.headers["content-type"]
    assert head.headers["content-length"] == str(len(whole.content))


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "/v1/predict", "OPTIONS, POST"),
        ("GET", "/v1/explain", "OPTIONS, POST"),
        ("HEAD", "/v1/explain", "OPTIONS, POST"),
        ("POST", "/v1/models", "GET, HEAD, OPTIONS"),
        ("PUT", "/login", "GET, HEAD, OPTIONS, POST"),
    ],
)
def test_405_names_the_methods(servers: Servers, method: str, path: str, allowed: str) -> None:
    response = servers.rest.request(method, path)
    assert response.status_code == 405
    assert response.headers["allow"] == allowed
    asked = servers.rest.options(path)
    assert (asked.status_code, asked.headers["allow"]) == (204, allowed)


def _raw_deflate(content: bytes) -> bytes:
    squeeze = zlib.compressobj(wbits=-15)
    return squeeze.compress(content) + squeeze.flush()


@pytest.mark.parametrize(
    ("encoding", "encode"),
    [
        ("gzip", gzip.compress),
        ("x-gzip", gzip.compress),
        ("GZIP", lambda body: gzip.compress(body[:50]) + gzip.compress(body[50:])),
        ("deflate", zlib.compress),
        ("deflate", _raw_deflate),
        ("identity", bytes),
    ],
)
def test_compressed_bodies_are_read(
    servers: Servers, png: bytes, encoding: str, encode: Callable[[bytes], bytes]
) -> None:
    headers = {"content-encoding": encoding, "content-type": "application/json"}
    response = servers.rest.post("/v1/predict", content=encode(_body(png)), headers=headers)
    assert response.status_code == 200, response.text


@pytest.mark.parametrize("encoding", ["br", "zstd", "compress", "gzip, gzip"])
def test_other_encodings_are_415(servers: Servers, encoding: str) -> None:
    response = servers.rest.post(
        "/v1/predict", content=b"x", headers={"content-encoding": encoding}
    )
    assert response.status_code == 415
    assert response.headers["accept-encoding"] == "gzip, deflate"
    assert "content-encoding: expected one of gzip, deflate, got" in response.text


def test_the_limit_is_that_of_the_decoded_body(servers: Servers) -> None:
    bomb = gzip.compress(bytes(limits.MAX_BODY_BYTES + 1))
    response = servers.rest.post(
        "/v1/predict", content=bomb, headers={"content-encoding": "gzip"}, timeout=30
    )
    assert response.status_code == 413


@pytest.mark.parametrize(
    "spoil", [lambda body: body[:-9], lambda body: body + b"more", lambda _: b"no"]
)
def test_damaged_compression_is_rejected(servers: Servers, png: bytes, spoil) -> None:  # type: ignore[no-untyped-def]
    content = spoil(gzip.compress(_body(png)))
    response = servers.rest.post(
        "/v1/predict", content=content, headers={"content-encoding": "gzip"}
    )
    assert response.status_code == 400
    assert "expected a whole body in gzip" in response.text


@pytest.mark.parametrize(
    ("headers", "is_secure"),
    [
        ({"x-forwarded-proto": "https"}, True),
        ({"x-forwarded-for": "192.0.2.1, 10.1.1.1", "x-forwarded-proto": "https, http"}, True),
        ({"x-forwarded-for": "192.0.2.1", "x-forwarded-proto": "http"}, False),
        ({"forwarded": 'for="[2001:db8::1]:4711";proto=https'}, True),
        ({"forwarded": "for=192.0.2.1;proto=https, for=192.0.2.9;proto=http"}, False),
        ({"x-forwarded-proto": "gopher"}, False),
        ({}, False),
    ],
)
def test_hsts_behind_trusted_proxies(
    behind_proxy: Servers, servers: Servers, headers: dict[str, str], is_secure: bool
) -> None:
    trusted = behind_proxy.rest.get("/healthz/live", headers=headers)
    assert ("strict-transport-security" in trusted.headers) is is_secure
    untrusted = servers.rest.get("/healthz/live", headers=headers)
    assert "strict-transport-security" not in untrusted.headers


@pytest.mark.parametrize(
    "path", ["/v1/models/", "//evil.example/", "//evil.example/v1/models/", "/docs/"]
)
def test_no_redirect_to_another_host(servers: Servers, path: str) -> None:
    address = f"{str(servers.rest.base_url).rstrip('/')}{path}"
    for headers in ({}, {"host": "evil.example"}, {"x-forwarded-host": "evil.example"}):
        response = servers.rest.get(address, headers=headers, follow_redirects=False)
        location = response.headers.get("location", "")
        assert "evil" not in location
        assert location == "" or (location.startswith("/") and not location.startswith("//"))


@pytest.mark.parametrize(
    ("headers", "client"),
    [
        ({"x-forwarded-for": "203.0.113.9, 192.0.2.1, 10.1.1.1"}, "192.0.2.1"),
        ({"forwarded": 'for="[2001:db8::1]:4711"'}, "2001:db8::1"),
        ({"x-forwarded-for": "unknown, 10.1.1.1"}, "10.1.1.1"),
        ({}, "127.0.0.1"),
    ],
)
def test_the_request_log_names_the_client_behind_trusted_proxies(
    behind_proxy: Servers,
    caplog: pytest.LogCaptureFixture,
    headers: dict[str, str],
    client: str,
) -> None:
    caplog.set_level(logging.INFO)
    behind_proxy.rest.get("/v1/models", headers=headers)
    lines = [record.fields for record in caplog.records if record.message == "request"]
    assert lines[-1]["client"] == client
