"""A gateway that listens on loopback, in a thread with an event loop of its own."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import httpx

from candor.client.sync import CandorClient
from candor.contracts.addresses import endpoint, url
from candor.contracts.proxies import channel_options
from candor.gateway.config.settings import Settings
from candor.gateway.main import Gateway
from candor.gateway.sockets import reachable_host
from candor.rpc.pb.candor.v1 import candor_pb2_grpc
from candor.tracing import NO_TRACING, Tracing
from tests.gateway.linear_worker import LinearBackend

START_SECONDS = 10.0


@dataclass
class Servers:
    """One gateway, clients of its gRPC and REST, and the worker behind it."""

    backend: LinearBackend
    gateway: Gateway
    loop: asyncio.AbstractEventLoop
    rest: httpx.Client
    channel: grpc.Channel
    stub: candor_pb2_grpc.CandorServiceStub
    client: CandorClient
    client_address: str

    def wait(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(START_SECONDS)


def settings(**changes: Any) -> Settings:
    values = {"grpc_port": 0, "rest_port": 0, "models": ("linear",), "drain_seconds": 5.0}
    return Settings(**{**values, **changes})


async def _open(backend: LinearBackend, tracing: Tracing, **changes: Any) -> Gateway:
    gateway = Gateway(settings(**changes), backend, tracing)
    await gateway.start()
    return gateway


@contextmanager
def running(
    tracing: Tracing = NO_TRACING,
    **changes: Any,
) -> Iterator[tuple[Gateway, LinearBackend, asyncio.AbstractEventLoop]]:
    """A started gateway, not ready yet perhaps, its worker, and the loop both run in."""
    backend = LinearBackend(call_seconds=0.002)
    with _running_loop() as loop:
        opening = asyncio.run_coroutine_threadsafe(_open(backend, tracing, **changes), loop)
        gateway = opening.result(START_SECONDS)
        try:
            yield gateway, backend, loop
        finally:
            asyncio.run_coroutine_threadsafe(gateway.stop(), loop).result(START_SECONDS)


@contextmanager
def _running_loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def opened(tracing: Tracing = NO_TRACING, **changes: Any) -> Iterator[Servers]:
    with running(tracing, **changes) as (gateway, backend, loop):
        host = reachable_host(gateway._settings.host)
        address = endpoint(host, gateway.grpc_port)
        channel = grpc.insecure_channel(address, options=channel_options(address))
        with (
            httpx.Client(
                base_url=url("http", host, gateway.rest_port), timeout=20, trust_env=False
            ) as rest,
            CandorClient(address, timeout_seconds=20) as client,
            channel,
        ):
            stub = candor_pb2_grpc.CandorServiceStub(channel)
            servers = Servers(backend, gateway, loop, rest, channel, stub, client, address)
            until(lambda: rest.get("/healthz/ready").status_code == 200)
            yield servers


def until(holds: Callable[[], bool], seconds: float = START_SECONDS) -> None:
    pause = threading.Event()
    for _ in range(int(seconds / 0.02)):
        if holds():
            return
        pause.wait(0.02)
    raise TimeoutError("the gateway did not become ready")
