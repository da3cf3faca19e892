"""HTTP as its neighbours speak it: HEAD, Allow, compressed bodies, redirects, proxies."""

import base64
import gzip
import json
import logging
import socket
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from candor.contracts import limits
from candor.gateway.access.keys import add_key
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


# --- request lines and headers that another server may read differently --------------------------


def _spoken(servers: Servers, line: str, *headers: str, body: str = "") -> tuple[int, bytes]:
    """Status and body of a request that is written as it stands here."""
    lines = [line, "host: candor", "connection: close", *headers, "", body]
    with socket.create_connection(("127.0.0.1", servers.gateway.rest_port), 10) as connection:
        connection.sendall("\r\n".join(lines).encode("latin-1"))
        received = b"".join(iter(lambda: connection.recv(65536), b""))
    head, _, content = received.partition(b"\r\n\r\n")
    return int(head.split()[1]), content


@pytest.mark.parametrize("host", ["evil.example", "[::1]:80", "ada:pw@h", ""])
@pytest.mark.parametrize("scheme", ["http", "HTTPS"])
def test_target_with_a_host_is_its_path_here(servers: Servers, scheme: str, host: str) -> None:
    status, content = _spoken(servers, f"GET {scheme}://{host}/v1/models HTTP/1.1")
    assert (status, json.loads(content)) == (200, servers.rest.get("/v1/models").json())
    status, content = _spoken(servers, f"GET {scheme}://{host}/v1/models/%6Cinear HTTP/1.1")
    assert (status, json.loads(content)["name"]) == (200, "linear")
    assert _spoken(servers, f"GET {scheme}://{host} HTTP/1.1")[0] == 200


def test_target_with_a_host_opens_nothing_without_a_key(tmp_path: Path) -> None:
    add_key(tmp_path / "keys", "one", "tenant", ["predict"])
    for guarded in opened(keys_file=str(tmp_path / "keys")):
        assert _spoken(guarded, "GET http://x/v1/models HTTP/1.1")[0] == 401
        assert _spoken(guarded, "GET http://x/healthz/live HTTP/1.1")[0] == 200
        assert _spoken(guarded, "GET http://healthz/live/../v1/models HTTP/1.1")[0] != 200


def test_every_server_has_options(servers: Servers) -> None:
    assert _spoken(servers, "OPTIONS * HTTP/1.1")[0] == 204
    assert _spoken(servers, "GET * HTTP/1.1")[0] == 404
    assert _spoken(servers, "CONNECT evil.example:443 HTTP/1.1")[0] == 404


@pytest.mark.parametrize("host", ["[::1", "a b", "\xff\xfe", "a:99999999", "", "u:p@h/x?y#z"])
@pytest.mark.parametrize("path", ["/none", "/login", "/v2/models/x", "/v1/models"])
def test_odd_hosts_decide_nothing(servers: Servers, path: str, host: str) -> None:
    lines = f"GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n"
    lines += "accept: text/html\r\n\r\n"
    with socket.create_connection(("127.0.0.1", servers.gateway.rest_port), 10) as connection:
        connection.sendall(lines.encode("latin-1"))
        received = b"".join(iter(lambda: connection.recv(65536), b""))
    usual = servers.rest.get(path, headers={"accept": "text/html"}, follow_redirects=False)
    assert int(received.split()[1]) == usual.status_code


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        (["x-candor-timeout: 5", "x-candor-timeout: 50"], "x-candor-timeout: expected once"),
        (["x-candor-tenant: a", "X-Candor-Tenant: b"], "x-candor-tenant: expected once"),
        (["authorization: Bearer a", "authorization: Bearer b"], "authorization: expected once"),
        (["content-type: text/plain", "content-type: application/json"], "content-type: expected"),
        (["x-candor-timout: 5"], "x-candor-timout: expected one of x-candor-tenant"),
        (["x-candor-timeout: 1_0"], "expected seconds in (0, 86400], got '1_0'"),
        (["x-candor-timeout: +5"], "expected seconds in (0, 86400], got '+5'"),
        (["content-type: image/png"], "expected content type application/json or multipart"),
        (["transfer-encoding: chunked"], "content-length: expected none beside transfer-encoding"),
        (["content-length: 5"], "expected a request of HTTP/1.1"),
    ],
)
def test_headers_that_contradict_are_rejected(
    servers: Servers, headers: list[str], said: str
) -> None:
    line = "POST /v1/predict HTTP/1.1"
    status, content = _spoken(servers, line, "content-length: 2", *headers, body="{}")
    assert status == 400
    assert said in json.loads(content)["error"]["message"]


@pytest.mark.parametrize(
    "path",
    ["/v1/predict?top_k=1", "/v1/models/linear:predict?model=x", "/v2/models/linear/infer?v"],
)
def test_query_that_would_be_ignored_is_rejected(servers: Servers, path: str) -> None:
    response = servers.rest.post(path, content=b"{}")
    assert (response.status_code, "query: expected none" in response.text) == (400, True)


def test_session_cookie_is_secure_behind_a_proxy_with_tls(tmp_path: Path) -> None:
    key = add_key(tmp_path / "keys", "one", "tenant", ["predict"])
    for trusted, is_secure in ((("127.0.0.1",), True), ((), False)):
        for guarded in opened(keys_file=str(tmp_path / "keys"), trusted_proxies=trusted):
            response = guarded.rest.post(
                "/login",
                data={"key": key, "next": "//evil.example"},
                headers={"x-forwarded-proto": "https", "x-forwarded-host": "evil.example"},
                follow_redirects=False,
            )
            assert ("; Secure" in response.headers["set-cookie"]) is is_secure
            assert ("strict-transport-security" in response.headers) is is_secure
            assert response.headers["location"] == "/"
