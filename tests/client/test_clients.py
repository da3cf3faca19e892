"""Both clients against a real gateway: the same answers, retries, deadlines, streams, TLS, keys."""

import asyncio
import socket
import threading
import time
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Any

import pytest

from candor.client.aio import AsyncCandorClient
from candor.client.connection import Connection, Tls
from candor.client.sync import CandorClient
from candor.contracts import api
from candor.contracts.errors import ErrorCode, ServiceError
from candor.gateway.access.keys import add_key
from candor.gateway.access.quotas import Quota
from tests.gateway.certificates import Authority
from tests.gateway.servers import Servers, opened, running, until


def predict_request(png: bytes) -> api.PredictRequest:
    return api.PredictRequest(image=api.ImageInput(encoded=png))


def explain_request(png: bytes, **fields: Any) -> api.ExplainRequest:
    image = api.ImageInput(encoded=png)
    return api.ExplainRequest(image=image, targets=(api.ClassRef(index=0),), **fields)


def address(servers: Servers) -> str:
    return f"127.0.0.1:{servers.gateway.grpc_port}"


def test_both_clients_give_the_same_answers(servers: Servers, png: bytes) -> None:
    async def ask() -> list[Any]:
        async with AsyncCandorClient(address(servers), timeout_seconds=20) as client:
            answers = [
                await client.predict(predict_request(png), request_id="same"),
                await client.explain(explain_request(png, steps=5), request_id="same"),
                await client.probe(
                    api.ProbeRequest(image=api.ImageInput(encoded=png)), request_id="same"
                ),
                await client.list_models(),
                await client.get_model(),
            ]
            async with aclosing(client.explain_stream(explain_request(png, steps=5))) as events:
                answers.append([event async for event in events][-1].result)
            return answers

    with CandorClient(address(servers), timeout_seconds=20) as client:
        request = api.ProbeRequest(image=api.ImageInput(encoded=png))
        expected = [
            client.predict(predict_request(png), request_id="same"),
            client.explain(explain_request(png, steps=5), request_id="same"),
            client.probe(request, request_id="same"),
            client.list_models(),
            client.get_model(),
        ]
    *answers, streamed = asyncio.run(ask())
    assert answers[0] == expected[0]
    for got, wanted in ((answers[1], expected[1]), (streamed, expected[1])):
        assert got.explanations[0].image_png == wanted.explanations[0].image_png
    assert answers[3:] == expected[3:]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_loopback_is_reached_past_every_proxy(
    servers: Servers, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "grpc_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # where nothing answers
    monkeypatch.delenv("no_proxy", raising=False)
    address = f"{host}:{servers.gateway.grpc_port}"
    with CandorClient(address, timeout_seconds=10, max_attempts=1) as client:
        models = client.list_models().models

    async def listed() -> Any:
        async with AsyncCandorClient(address, timeout_seconds=10, max_attempts=1) as client:
            return (await client.list_models()).models

    assert asyncio.run(listed()) == models
    assert models[0].model.name == "linear"


def test_clients_come_back_when_the_gateway_says_so(png: bytes) -> None:
    quota = Quota(requests_per_second=2.0, burst=1)

    async def ask(where: str) -> api.PredictResponse:
        async with AsyncCandorClient(where, timeout_seconds=20, tenant="async") as client:
            await client.predict(predict_request(png))
            return await client.predict(predict_request(png))

    for servers in opened(quota=quota):
        started = time.perf_counter()
        with CandorClient(address(servers), timeout_seconds=20, tenant="sync") as client:
            client.predict(predict_request(png))
            client.predict(predict_request(png))
        assert time.perf_counter() - started > 0.4
        assert asyncio.run(ask(address(servers))).predictions
        with CandorClient(address(servers), tenant="once", max_attempts=1) as client:
            client.predict(predict_request(png))
            with pytest.raises(ServiceError) as caught:
                client.predict(predict_request(png))
        assert caught.value.code is ErrorCode.QUOTA_EXCEEDED
        assert caught.value.violations[0].field == "tenant"


def test_no_retry_goes_beyond_the_deadline_or_helps_a_bad_request() -> None:
    connection = Connection(timeout_seconds=1.0, max_attempts=3)
    late = ServiceError(ErrorCode.OVERLOADED, "later", retry_seconds=5.0)
    hopeless = ServiceError(ErrorCode.INVALID_INPUT, "bad")
    away = ServiceError(ErrorCode.MODEL_NOT_READY, "away")
    deadline = connection.deadline()
    for error in (late, hopeless):
        with pytest.raises(ServiceError) as caught:
            connection.pause_before(2, error, deadline)
        assert caught.value is error
    pauses = [connection.pause_before(attempt, away, deadline) for attempt in (2, 3)]
    assert 0.1 <= pauses[0] <= 0.125 < 0.2 <= pauses[1] <= 0.25
    with pytest.raises(ServiceError):
        connection.pause_before(4, away, deadline)


def test_clients_outlive_a_gateway_that_is_not_there_yet(servers: Servers, png: bytes) -> None:
    started = time.perf_counter()
    with CandorClient("127.0.0.1:1", timeout_seconds=5) as client, pytest.raises(ServiceError):
        client.list_models()
    assert time.perf_counter() - started > 0.3

    async def ask() -> None:
        async with AsyncCandorClient("127.0.0.1:1", timeout_seconds=5) as client:
            await client.list_models()

    with pytest.raises(ServiceError) as caught:
        asyncio.run(ask())
    assert caught.value.code is ErrorCode.MODEL_NOT_READY


def test_deadline_brings_the_best_so_far(fresh_servers: Servers, png: bytes) -> None:
    fresh_servers.backend.call_seconds = 0.2
    with CandorClient(address(fresh_servers), timeout_seconds=2.0) as client:
        answer = client.explain(explain_request(png, steps=2000))
    assert answer.explanations[0].is_partial


def test_cancelled_task_ends_the_search(fresh_servers: Servers, png: bytes) -> None:
    fresh_servers.backend.call_seconds = 0.02

    async def ask_and_cancel() -> None:
        async with AsyncCandorClient(address(fresh_servers), timeout_seconds=20) as client:
            task = asyncio.create_task(client.explain(explain_request(png, steps=2000)))
            while not any(
                call[0].step_count == 2000 for call in fresh_servers.backend.search_calls
            ):
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(ask_and_cancel())
    search_pool = fresh_servers.gateway.service.models.known["linear"].search_pool
    until(lambda: search_pool.scheduler.search_count == 0)


def test_clients_bring_key_and_certificate(
    tmp_path: Path, png: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path)
    cert, key, _ = authority.issue("server")
    mine = authority.issue("mine")
    file = tmp_path / "keys"
    bearer = add_key(file, "web", "acme", ["predict"])
    tls = Tls(ca=authority.ca, cert=mine[0], key=mine[1])

    async def ask(where: str, **options: Any) -> api.PredictResponse:
        async with AsyncCandorClient(where, timeout_seconds=20, **options) as client:
            return await client.predict(predict_request(png))

    with running(
        tls_cert=str(cert),
        tls_key=str(key),
        tls_client_ca=str(authority.ca),
        keys_file=str(file),
    ) as (gateway, *_):
        where = f"127.0.0.1:{gateway.grpc_port}"
        until(lambda: gateway._is_ready)
        with CandorClient(where, key=bearer, tls=tls, timeout_seconds=20) as client:
            assert client.predict(predict_request(png)).predictions
            with pytest.raises(ServiceError) as caught:
                client.explain(explain_request(png))
            assert caught.value.code is ErrorCode.PERMISSION_DENIED
        assert asyncio.run(ask(where, key=bearer, tls=tls)).predictions
        with pytest.raises(ServiceError) as caught:
            asyncio.run(ask(where, tls=tls))
        assert caught.value.code is ErrorCode.UNAUTHENTICATED
        monkeypatch.setenv("CANDOR_KEY", bearer)
        assert asyncio.run(ask(where, tls=tls)).predictions


@pytest.mark.parametrize("field", ["tenant", "key"])
def test_what_metadata_cannot_carry_is_named_and_not_shown(field: str) -> None:
    options: dict[str, Any] = {field: "schl\u00fcssel"}
    with (
        CandorClient("127.0.0.1:1", **options) as client,
        pytest.raises(ServiceError, match="expected printable ASCII characters") as caught,
    ):
        client.list_models()
    assert caught.value.code is ErrorCode.INVALID_INPUT
    assert "schl" not in str(caught.value)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (None, "nothing listens at its address"),
        (b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n", "got HTTP/1"),
        (b"", "expected its response, got the end of the connection"),
    ],
    ids=["nothing", "HTTP/1", "closed"],
)
def test_what_answers_instead_of_the_service_is_said_in_our_words(
    answer: bytes | None, said: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        if answer is None:
            listening.close()
        else:
            threading.Thread(target=_answer, args=(listening, answer), daemon=True).start()
        with (
            CandorClient(f"127.0.0.1:{port}", timeout_seconds=5, max_attempts=1) as client,
            pytest.raises(ServiceError, match=f"^service: .*{said}") as caught,
        ):
            client.list_models()
    assert "addresses" not in str(caught.value)


def _answer(listening: socket.socket, answer: bytes) -> None:
    with suppress(OSError):  # the test closes it
        while True:
            connection, _ = listening.accept()
            with connection:
                connection.sendall(answer)


def test_authorities_that_are_no_pem_are_named(tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    path.write_bytes(b"\xff\xd8\xff")
    with pytest.raises(ValueError, match=r"ca\.pem: expected PEM, got 3 bytes of something else"):
        CandorClient("127.0.0.1:1", tls=Tls(ca=path))
