"""Hostile input through real sockets: the real HTTP server and the real gRPC server."""

import base64
import contextlib
import io
import json
import select
import socket
import struct
import time
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from PIL import Image

from candor.contracts import api, limits
from candor.rpc.pb.candor.v1 import candor_pb2 as pb
from candor.store.engine import StoreError, open_store
from candor.store.transfer import export_store, import_store
from tests.gateway.servers import Servers, opened

HEADER_SECONDS = 0.5
BODY_SECONDS = 0.7


@pytest.fixture(scope="module")
def impatient() -> Iterator[Servers]:
    yield from opened(
        header_seconds=HEADER_SECONDS, body_seconds=BODY_SECONDS, body_bytes=20 * 1024 * 1024
    )


def connected(servers: Servers) -> socket.socket:
    return socket.create_connection(("127.0.0.1", servers.gateway.rest_port), timeout=10)


def answer_of(connection: socket.socket) -> bytes:
    """Everything until the server closes."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(65536):
            received += part
    return received


def assert_serves(servers: Servers, png: bytes) -> None:
    body = {"image": {"encoded": base64.b64encode(png).decode()}}
    assert servers.rest.post("/v1/predict", json=body).status_code == 200
    servers.stub.Predict(pb.PredictRequest(image=pb.Image(encoded=png)), timeout=20)


def seconds_to_reject(servers: Servers, encoded: bytes) -> tuple[float, str]:
    """How long gRPC and REST take to reject an image, and the message."""
    started = time.perf_counter()
    response = servers.rest.post("/v1/predict", files={"image": encoded})
    assert response.status_code == 400, response.text
    with pytest.raises(grpc.RpcError) as caught:
        servers.stub.Predict(pb.PredictRequest(image=pb.Image(encoded=encoded)), timeout=20)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    return time.perf_counter() - started, response.json()["error"]["message"]


# --- connections -------------------------------------------------------------------------------


@pytest.mark.parametrize("sent", [b"", b"POST /v1/predict HTTP/1.1\r\nHost: a\r\n"])
def test_connection_without_complete_headers_is_closed(
    impatient: Servers, png: bytes, sent: bytes
) -> None:
    with connected(impatient) as connection:
        connection.sendall(sent)
        started = time.perf_counter()
        assert answer_of(connection) == b""
        assert HEADER_SECONDS * 0.8 < time.perf_counter() - started < HEADER_SECONDS + 5
    assert_serves(impatient, png)


def test_headers_byte_by_byte_do_not_hold_a_connection(impatient: Servers) -> None:
    with connected(impatient) as connection:
        started = time.perf_counter()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            while time.perf_counter() - started < HEADER_SECONDS + 5:
                connection.sendall(b"G")
                time.sleep(0.05)
        assert time.perf_counter() - started < HEADER_SECONDS + 5


def test_connection_is_kept_between_requests_and_timed_again(impatient: Servers) -> None:
    request = b"GET /healthz/live HTTP/1.1\r\nHost: a\r\n\r\n"
    with connected(impatient) as connection:
        for _ in range(3):
            connection.sendall(request)
            answer = b""
            while not answer.endswith(b"}"):
                answer += connection.recv(65536)
            assert answer.startswith(b"HTTP/1.1 200 OK")
            time.sleep(HEADER_SECONDS * 0.6)
        connection.sendall(b"GET / HT")
        started = time.perf_counter()
        answer_of(connection)
        assert time.perf_counter() - started < HEADER_SECONDS + 5


def test_slow_body_is_rejected_in_time(impatient: Servers, png: bytes) -> None:
    head = b"POST /v1/predict HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n"
    with connected(impatient) as connection:
        connection.sendall(head + b"{")
        started = time.perf_counter()
        received = b""
        while not received.endswith(b"}") and (part := connection.recv(65536)):
            received += part  # head and body may come apart
        assert b" 504 " in received
        assert b"body not received" in received
        assert time.perf_counter() - started < BODY_SECONDS + 5
    assert_serves(impatient, png)


@pytest.mark.parametrize(
    "headers",
    [
        b"X-Long: " + b"a" * 1_000_000 + b"\r\n",
        b"".join(b"X-%d: a\r\n" % number for number in range(100_000)),
        b"X-Bad\r\n",
        b"Content-Length: -1\r\n",
        b"Content-Length: 1\r\nContent-Length: 2\r\n",
        b"Transfer-Encoding: chunked, chunked\r\n",
    ],
    ids=["long", "many", "no colon", "negative", "two lengths", "chunked twice"],
)
def test_bad_or_huge_headers_are_rejected(impatient: Servers, png: bytes, headers: bytes) -> None:
    with connected(impatient) as connection:
        # It may hang up before it has read all of it.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(b"POST /v1/predict HTTP/1.1\r\nHost: a\r\n" + headers + b"\r\n")
        status = answer_of(connection)[:12]
    assert status in (b"", b"HTTP/1.1 400", b"HTTP/1.1 431", b"HTTP/1.1 501")
    assert_serves(impatient, png)


def test_huge_metadata_is_rejected_by_grpc(impatient: Servers, png: bytes) -> None:
    request = pb.PredictRequest(image=pb.Image(encoded=png))
    with pytest.raises(grpc.RpcError) as caught:
        impatient.stub.Predict(request, metadata=(("x-long", "a" * 1_000_000),), timeout=20)
    assert caught.value.code() in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE)
    assert_serves(impatient, png)


def test_bytes_that_are_no_http2_do_not_disturb_grpc(impatient: Servers, png: bytes) -> None:
    for junk in (
        b"GET / HTTP/1.1\r\n\r\n",
        b"\0" * 10_000,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" * 9,
    ):
        with socket.create_connection(("127.0.0.1", impatient.gateway.grpc_port)) as connection:
            connection.sendall(junk)
            connection.settimeout(1)
            with contextlib.suppress(TimeoutError, ConnectionResetError):
                connection.recv(65536)
    assert_serves(impatient, png)


def test_bodies_held_at_once_are_bounded(png: bytes) -> None:
    """One of two bodies that are too large together is rejected while both are incomplete."""
    head = b"POST /v1/predict HTTP/1.1\r\nHost: a\r\nContent-Length: 16000000\r\n\r\n"
    for servers in opened(body_bytes=16 * 1024 * 1024):
        with connected(servers) as first, connected(servers) as second:
            first.sendall(head + b"\0" * 15_900_000)
            second.sendall(head + b"\0" * 900_000)
            (rejected, *_), _, _ = select.select([first, second], [], [], 20)
            assert b" 429 " in rejected.recv(65536)
        assert_serves(servers, png)


# --- JSON and protobuf -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 1_000_000,
        b'{"a":' * 500_000,
        b'{"image":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b"1" * 1_000_000,
        b'{"image": {"encoded": "' + b"A" * 11_000_000 + b'"}}',
        b'{"' + b"a" * 1_000_000 + b'": 1}',
        b"[" + b"{}," * 1_000_000 + b"{}]",
        b"\xff\xfe\x00",
        b'{"image": {"tensor": {"shape": [1e308, 2, 3], "data": ""}}}',
    ],
    ids=["arrays", "objects", "closed", "digits", "base64", "key", "entries", "utf-8", "shape"],
)
def test_deep_and_large_json_is_the_callers_mistake(
    servers: Servers, png: bytes, body: bytes
) -> None:
    for path in ("/v1/predict", "/v1/explain", "/v1/probe"):
        response = servers.rest.post(path, content=body, timeout=30)
        assert response.status_code == 400, response.text[:500]
        assert len(response.content) < 100_000
    assert_serves(servers, png)


def test_bytes_that_are_no_message_are_rejected_by_grpc(servers: Servers, png: bytes) -> None:
    call = servers.channel.unary_unary(
        "/candor.v1.CandorService/Predict",
        request_serializer=bytes,
        response_deserializer=pb.PredictResponse.FromString,
    )
    deep = b""
    for _ in range(2000):
        deep = b"\x12" + _varint(len(deep)) + deep
    for junk in (b"\xff" * 100, b"\x0a\xff\xff\xff\x7f", deep):
        with pytest.raises(grpc.RpcError) as caught:
            call(junk, timeout=20)
        expected = (grpc.StatusCode.INTERNAL, grpc.StatusCode.INVALID_ARGUMENT)
        assert caught.value.code() in expected
        assert "Traceback" not in (caught.value.details() or "")
    assert_serves(servers, png)


def _varint(value: int) -> bytes:
    encoded = b""
    while value > 127:
        encoded += bytes([value & 127 | 128])
        value >>= 7
    return encoded + bytes([value])


# --- images ----------------------------------------------------------------------------------


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png_of(width: int, height: int, data: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(data)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*part) for part in parts)


def png_chunk(kind: bytes, data: bytes) -> bytes:
    check = struct.pack(">I", zlib.crc32(kind + data))
    return struct.pack(">I", len(data)) + kind + data + check


def scan_bomb() -> bytes:
    """4096 x 4096 whose last, empty scan is repeated 2,000 times: 36 seconds to decode."""
    whole = saved(Image.new("RGB", (4096, 4096)), "JPEG", progressive=True, quality=50)
    last = whole.rindex(b"\xff\xda")
    return whole[:-2] + whole[last:-2] * 2000 + b"\xff\xd9"


def inserted(whole: bytes, place: int, part: bytes, size: int = 8_000_000) -> bytes:
    return whole[:place] + part * (size // len(part)) + whole[place:]


@pytest.fixture(scope="module")
def bombs() -> dict[str, bytes]:
    png, jpeg = (saved(Image.new("RGB", (8, 8)), kind) for kind in ("PNG", "JPEG"))
    return {
        "pixels": png_of(60_000, 60_000, b"\0" * 100),
        "inflating": png_of(4096, 4097, b"\0" * 50_000_000),
        "jpeg pixels": jpeg[: (at := jpeg.index(b"\xff\xc0") + 5)] + b"\xff" * 4 + jpeg[at + 4 :],
        "scans": scan_bomb(),
        "png parts": inserted(png, 33, png_chunk(b"abCd", b"")),
        "png texts": inserted(png, 33, png_chunk(b"tEXt", b"a\0b")),
        "zipped text": inserted(
            png, 33, png_chunk(b"zTXt", b"a\0\0" + zlib.compress(b"a" * 900_000)), 2_000_000
        ),
        "jpeg comments": inserted(jpeg, 2, b"\xff\xfe\0\2"),
        "jpeg fill": inserted(jpeg, 2, b"\xff"),
    }


@pytest.mark.parametrize(
    "name",
    [
        "pixels",
        "inflating",
        "jpeg pixels",
        "scans",
        "png parts",
        "png texts",
        "jpeg comments",
        "jpeg fill",
    ],
)
def test_image_that_would_cost_much_is_rejected_cheaply(
    servers: Servers, png: bytes, bombs: dict[str, bytes], name: str
) -> None:
    assert len(bombs[name]) <= limits.MAX_ENCODED_BYTES
    seconds, message = seconds_to_reject(servers, bombs[name])
    assert seconds < 5.0
    assert "image.encoded" in message
    assert_serves(servers, png)


def test_texts_that_inflate_cost_nothing(servers: Servers, bombs: dict[str, bytes]) -> None:
    image = api.ImageInput(encoded=bombs["zipped text"])
    begun = time.perf_counter()
    assert servers.client.predict(api.PredictRequest(image=image)).predictions
    assert time.perf_counter() - begun < 5.0


def test_ordinary_progressive_and_large_images_are_not_rejected(servers: Servers) -> None:
    noise = Image.effect_noise((2000, 1500), 80).convert("RGB")
    for encoded in (
        saved(noise, "JPEG", progressive=True, quality=80),
        saved(noise, "PNG", compress_level=1),
    ):
        if len(encoded) <= limits.MAX_ENCODED_BYTES:
            response = servers.rest.post("/v1/predict", files={"image": encoded})
            assert response.status_code == 200, response.text


# --- archives ----------------------------------------------------------------------------------


def test_zip_bomb_is_rejected_before_it_inflates(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store.sqlite"))
    whole = tmp_path / "whole.zip"
    export_store(store, whole)
    bomb = tmp_path / "bomb.zip"
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(bomb, "w") as file:
        for entry in source.infolist():
            file.writestr(entry, source.read(entry))
        file.writestr("pictures/1-original.png", b"\0" * 9_000_000, zipfile.ZIP_DEFLATED)
    assert bomb.stat().st_size < 100_000
    with pytest.raises(StoreError, match="bytes, got 9000000"):
        import_store(store, bomb)
    import_store(store, whole)
    store.close()


def test_answers_show_no_trace_of_the_code(servers: Servers) -> None:
    for body in (b"{", json.dumps({"image": {"encoded": "!"}}).encode()):
        text = servers.rest.post("/v1/explain", content=body).text
        assert "Traceback" not in text
        assert ".py" not in text


def test_unknown_fields_and_metadata_are_rejected_by_grpc(servers: Servers, png: bytes) -> None:
    request = pb.PredictRequest(image=pb.Image(encoded=png))
    unknown = b"\x9a\x06\x01x"  # field number 99
    inside = pb.Image.FromString(request.image.SerializeToString() + unknown)
    for sent, metadata, said in (
        (
            pb.PredictRequest.FromString(request.SerializeToString() + unknown),
            (),
            "request: expected known fields, got field number 99",
        ),
        (pb.PredictRequest(image=inside), (), "got image.field number 99"),
        (request, [("x-candor-timeout", "5")] * 2, "x-candor-timeout: expected once, got twice"),
        (request, [("x-candor-timout", "5")], "x-candor-timout: expected one of"),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            servers.stub.Predict(sent, metadata=metadata)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert said in caught.value.details()
