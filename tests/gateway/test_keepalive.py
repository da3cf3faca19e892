"""Long calls, quiet connections and lost ones: pings of either side, and what balancers need."""

import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection

import grpc
import pytest

from candor.client.sync import CandorClient
from candor.contracts import api
from candor.contracts.errors import ErrorCode, ServiceError
from candor.gateway.config.settings import Settings
from candor.rpc.pb.candor.v1 import candor_pb2 as pb
from candor.rpc.pb.candor.v1 import candor_pb2_grpc
from tests.gateway.relay import relayed
from tests.gateway.servers import Servers, opened
from tests.gateway.test_streams import assert_all_stops, is_searching, until

LONG_STEPS = 2000


def request(png: bytes, steps: int, **fields: float) -> api.ExplainRequest:
    image = api.ImageInput(encoded=png)
    target = api.ClassRef(index=0)
    return api.ExplainRequest(image=image, targets=(target,), steps=steps, no_cache=True, **fields)


@contextmanager
def slow(call_seconds: float, **settings: object) -> Iterator[Servers]:
    """A gateway whose worker takes so long for each chunk."""
    for servers in opened(**settings):
        servers.backend.call_seconds = call_seconds
        yield servers


@contextmanager
def pinging(address: str, pause_seconds: float) -> Iterator[grpc.Channel]:
    """A client that pings so often, with and without calls, as those of other languages may."""
    options = [
        ("grpc.keepalive_time_ms", round(1000 * pause_seconds)),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
    ]
    with grpc.insecure_channel(address, options=options) as channel:
        yield channel


def explain_for(channel: grpc.Channel, png: bytes, seconds: float) -> pb.ExplainResponse:
    """A call that lasts about this long; the best so far."""
    return candor_pb2_grpc.CandorServiceStub(channel).Explain(
        pb.ExplainRequest(
            image=pb.Image(encoded=png),
            targets=[pb.ClassRef(index=0)],
            steps=LONG_STEPS,
            timeout_seconds=seconds,
        )
    )


def test_a_client_that_pings_often_keeps_its_long_call(png: bytes) -> None:
    with slow(0.3, answer_seconds=1.0) as servers, relayed(servers.gateway.grpc_port) as relay:
        pause = 1.1 * Settings(models=("linear",)).grpc_min_ping_seconds
        with pinging(relay.address, pause) as channel:
            started = time.monotonic()
            (found,) = explain_for(channel, png, 8.0).explanations
            assert time.monotonic() - started > 6.5
        assert found.is_partial
        assert relay.connection_count == 1


def test_a_client_that_pings_more_often_than_it_may_is_told_so(png: bytes) -> None:
    with (
        slow(0.5, grpc_min_ping_seconds=60.0) as servers,
        pinging(servers.client_address, 1.1) as channel,
        pytest.raises(grpc.RpcError) as caught,
    ):
        explain_for(channel, png, 8.0)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "too_many_pings" in str(caught.value).lower().replace(" ", "_")


def test_an_idle_connection_may_be_kept_by_pings(png: bytes) -> None:
    with (
        slow(0.01, grpc_min_ping_seconds=0.1) as servers,
        relayed(servers.gateway.grpc_port) as relay,
        pinging(relay.address, 0.2) as channel,
    ):
        grpc.channel_ready_future(channel).result(timeout=10)
        threading.Event().wait(1.5)  # seven pings without a call
        assert explain_for(channel, png, 1.0).explanations
        assert relay.connection_count == 1


def test_a_client_that_is_lost_without_a_word_frees_its_search(png: bytes) -> None:
    settings = {"grpc_keepalive_seconds": 1.0, "grpc_keepalive_timeout_seconds": 0.5}
    with (
        slow(0.1, **settings) as servers,
        relayed(servers.gateway.grpc_port) as relay,
        CandorClient(relay.address, timeout_seconds=60, max_attempts=1) as client,
    ):
        events = client.explain_stream(request(png, LONG_STEPS))
        next(events)
        until(lambda: is_searching(servers))
        relay.is_silent.set()
        assert_all_stops(servers)


def test_a_gateway_that_is_lost_without_a_word_ends_the_call(png: bytes) -> None:
    with (
        slow(0.1) as servers,
        relayed(servers.gateway.grpc_port) as relay,
        CandorClient(
            relay.address, timeout_seconds=60, max_attempts=1, keepalive_seconds=1.0
        ) as client,
    ):
        events = client.explain_stream(request(png, LONG_STEPS))
        next(events)
        relay.is_silent.set()
        started = time.monotonic()
        with pytest.raises(ServiceError) as caught:
            list(events)
        assert time.monotonic() - started < 10
        assert caught.value.code is ErrorCode.MODEL_NOT_READY


def test_an_old_connection_is_replaced_and_its_calls_go_on(png: bytes) -> None:
    with (
        slow(0.3, answer_seconds=1.0, grpc_connection_seconds=1.0) as servers,
        relayed(servers.gateway.grpc_port) as relay,
        CandorClient(relay.address, timeout_seconds=20.0, max_attempts=1) as client,
    ):
        (found,) = client.explain(request(png, LONG_STEPS, timeout_seconds=2.5)).explanations
        assert found.is_partial  # at its deadline, long after the connection was to end
        until(lambda: bool(client.list_models().models) and relay.connection_count == 2)


def test_a_stream_over_grpc_is_never_quiet_for_long(png: bytes) -> None:
    with slow(1.5, heartbeat_seconds=0.2) as servers:
        times, steps = [], []
        for event in servers.client.explain_stream(request(png, 100)):
            times.append(time.monotonic())
            steps.append(event.progress.step if event.progress else None)
            if event.progress and event.progress.step > 0:
                break
    pauses = [later - sooner for sooner, later in zip(times, times[1:], strict=False)]
    assert len(steps) > 4
    assert set(steps[:-1]) == {0}
    assert max(pauses) < 1.0


def test_an_idle_connection_of_rest_stays_open_as_long_as_it_is_told() -> None:
    for servers in opened(keep_alive_seconds=2.0):
        port = servers.gateway.rest_port
        with closing(HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
            for _ in range(2):
                connection.request("GET", "/healthz/live")
                assert connection.getresponse().read()
                opened_socket = connection.sock
                threading.Event().wait(1.0)
            started = time.monotonic()
            assert connection.sock is opened_socket
            assert opened_socket.recv(1) == b""
            assert time.monotonic() - started < 5.0


def test_balancers_are_outlived() -> None:
    usual_idle_seconds = 60.0
    settings = Settings(models=("linear",))
    assert settings.keep_alive_seconds > usual_idle_seconds
    assert settings.heartbeat_seconds < usual_idle_seconds
    assert settings.grpc_keepalive_seconds < usual_idle_seconds
