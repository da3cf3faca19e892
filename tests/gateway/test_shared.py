"""Two gateways that share quotas and finished searches, with a real Redis server and without."""

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from candor.client.sync import CandorClient
from candor.contracts import api
from candor.contracts.errors import ErrorCode, ServiceError
from candor.contracts.secrets import Secret
from candor.gateway import shared
from candor.gateway.access.quotas import Quota, Quotas
from candor.gateway.access.shared_quotas import SharedQuotas
from candor.gateway.config.settings import BadSettings, read_settings
from candor.gateway.main import Gateway
from candor.gateway.shared import SharedMemory
from tests.gateway.linear_worker import LinearBackend
from tests.gateway.redis_server import PASSWORD, RedisServer, private_redis
from tests.gateway.servers import running, until

AWAY = Secret("redis://:hunter2secret@127.0.0.1:1")  # where nothing answers


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with private_redis() as server:
        yield server


@contextmanager
def two_gateways(
    **settings: Any,
) -> Iterator[list[tuple[CandorClient, LinearBackend, Gateway]]]:
    with ExitStack() as opened:
        both = []
        for _ in range(2):
            gateway, backend, _ = opened.enter_context(running(**settings))
            until(lambda gateway=gateway: gateway._is_ready)
            client = CandorClient(f"127.0.0.1:{gateway.grpc_port}", tenant="t", max_attempts=1)
            both.append((opened.enter_context(client), backend, gateway))
        yield both


def request(png: bytes, seed: int = 0, **fields: Any) -> api.ExplainRequest:
    image, target = api.ImageInput(encoded=png), api.ClassRef(index=0)
    return api.ExplainRequest(image=image, targets=(target,), steps=20, seed=seed, **fields)


def admitted_of(calls: list[Callable[[], Any]]) -> int:
    """How many were admitted; the others have exceeded a quota."""
    refused = []
    for call in calls:
        try:
            call()
        except ServiceError as err:
            refused.append(err)
    assert {err.code for err in refused} <= {ErrorCode.QUOTA_EXCEEDED}
    assert all(err.violations[0].field == "tenant" and err.retry_seconds for err in refused)
    return len(calls) - len(refused)


def test_requests_of_a_tenant_are_counted_by_both_together(redis: RedisServer) -> None:
    quota = Quota(requests_per_second=0.001, burst=4)
    with two_gateways(shared_url=Secret(redis.url), quota=quota) as both:
        assert admitted_of([client.list_models for client, _, _ in 6 * both]) == 4


@pytest.mark.parametrize("shared_url", [Secret(), AWAY], ids=["unset", "away"])
def test_gateways_without_a_server_count_each_for_itself(shared_url: Secret) -> None:
    quota = Quota(requests_per_second=0.001, burst=4)
    with two_gateways(shared_url=shared_url, quota=quota) as both:
        assert admitted_of([client.list_models for client, _, _ in 6 * both]) == 8


def test_computing_by_one_gateway_is_charged_at_the_other(redis: RedisServer, png: bytes) -> None:
    quota = Quota(compute_seconds_per_day=0.01)
    with two_gateways(shared_url=Secret(redis.url), quota=quota) as both:
        (first, slow, _), (second, _, _) = both
        slow.call_seconds = 0.05
        first.explain(request(png, no_cache=True))
        until(lambda: admitted_of([lambda: second.explain(request(png, no_cache=True))]) == 0)
        assert second.list_models().models  # which computes nothing


def test_explanation_of_one_gateway_is_in_the_cache_of_the_other(
    redis: RedisServer, png: bytes
) -> None:
    with two_gateways(shared_url=Secret(redis.url)) as both:
        (first, _, _), (second, idle, _) = both
        (found,) = first.explain(request(png)).explanations
        until(lambda: redis.client.keys("candor:search:*") != [])
        calls = idle.search_calls[:]
        (again,) = second.explain(request(png)).explanations
        assert (found.from_cache, again.from_cache) == (False, True)
        assert again.model_copy(update={"from_cache": False}) == found
        *_, last = second.explain_stream(request(png))
        assert last.result.explanations[0].from_cache
        assert [one for one in idle.search_calls[len(calls) :] if one[0].step_count == 20] == []
        (fresh,) = second.explain(request(png, no_cache=True)).explanations
        assert not fresh.from_cache
    assert {redis.client.ttl(key) > 0 for key in redis.client.keys("candor:search:*")} == {True}


@pytest.mark.parametrize("value", [b"", b"nonsense", b"\x02\x00\x00\x00{}"])
def test_what_no_gateway_wrote_is_no_result(redis: RedisServer, png: bytes, value: bytes) -> None:
    with two_gateways(shared_url=Secret(redis.url)) as both:
        (first, _, _), (second, _, _) = both
        first.explain(request(png, seed=77))
        until(lambda: redis.client.keys("candor:search:*") != [])
        for key in redis.client.keys("candor:search:*"):
            redis.client.set(key, value)
        (found,) = second.explain(request(png, seed=77)).explanations
        assert not found.from_cache
    redis.client.flushall()


def test_gateways_go_on_alone_while_the_server_is_gone_and_say_so_once(
    png: bytes, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared, "_PAUSE_SECONDS", 0.05)
    caplog.set_level(logging.INFO, logger="gateway.shared")
    quota = Quota(requests_per_second=1000.0, burst=1000)
    with (
        private_redis() as server,
        two_gateways(shared_url=Secret(server.url), quota=quota) as both,
    ):
        for client, _, gateway in both:
            client.list_models()
            assert gateway.metrics.registry.get_sample_value("candor_shared_up") == 1.0
        server.stop()
        for seed in range(10):
            for client, _, _ in both:
                assert client.explain(request(png, seed=seed)).explanations
        for _, _, gateway in both:
            assert gateway.metrics.registry.get_sample_value("candor_shared_up") == 0.0
        said = [one for one in caplog.messages if "goes on alone" in one]
        assert len(said) == 2  # one of each gateway
        server.start()
        for client, _, gateway in both:
            until(lambda client=client, gateway=gateway: _is_shared_again(client, gateway))
    assert PASSWORD not in caplog.text


def _is_shared_again(client: CandorClient, gateway: Gateway) -> bool:
    client.list_models()
    return gateway.metrics.registry.get_sample_value("candor_shared_up") == 1.0


def test_server_that_is_away_is_asked_only_now_and_then() -> None:
    async def scenario() -> int:
        asked = 0

        def question(_: Any) -> Any:
            nonlocal asked
            asked += 1
            raise TimeoutError

        memory = SharedMemory(AWAY, lambda is_there: None)
        for _ in range(20):
            assert await memory.ask(question) is None
        await memory.close()
        return asked

    assert asyncio.run(scenario()) == 1


def test_bucket_fills_again_in_the_servers_time(redis: RedisServer) -> None:
    async def scenario() -> list[float]:
        memory = SharedMemory(Secret(redis.url), lambda is_there: None)
        quotas = SharedQuotas(Quotas(Quota(requests_per_second=20.0, burst=1), {}), memory)
        waits = []
        for _ in range(2):
            try:
                await quotas.admit("again", computes=False)
            except ServiceError as err:
                waits.append(err.retry_seconds)
        await asyncio.sleep(waits[0] + 0.02)
        await quotas.admit("again", computes=False)
        await memory.close()
        return waits

    (wait,) = asyncio.run(scenario())
    assert 0.0 < wait <= 0.05


@pytest.mark.parametrize(
    "url", ["memory://", "http://:hunter2secret@host", "redis://", "redis://u:hunter2secret@h:x"]
)
def test_bad_url_is_named_without_its_password(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANDOR_MODELS", '["linear"]')
    monkeypatch.setenv("CANDOR_SHARED_URL", url)
    with pytest.raises(BadSettings) as caught:
        read_settings()
    assert "shared_url: expected redis://HOST:PORT" in str(caught.value)
    assert PASSWORD not in str(caught.value)
