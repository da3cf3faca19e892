"""Clients that cancel their calls, and ten times the load that can be served."""

import asyncio
import time
from collections import Counter

import grpc
import httpx

from candor.client.aio import AsyncCandorClient
from candor.client.connection import OPTIONS
from candor.contracts import api
from candor.contracts.errors import ErrorCode, ServiceError
from candor.rpc import convert
from candor.rpc.pb.candor.v1 import candor_pb2, candor_pb2_grpc
from tools.faults.site import Site
from tools.faults.traffic import explain_complaint, explain_request
from tools.reliability import Row

_ABORTED = 1000
_AT_ONCE = 50
_LEAVING_SECONDS = 0.3
_IDLE_SECONDS = 10.0
_GROWTH_MEGABYTES = 64.0
_ABORTED_STEPS = 400  # no search ends before its call is cancelled

_LOAD_STEPS = 100
_PEAK_CALLERS = 16
_PEAK_SECONDS = 30.0
_OVERLOAD_SECONDS = 60.0
_SETTLING_SECONDS = 20.0  # of them; the first responses come once a full batch has run
_TIMES = 10
_OBJECTIVE_SECONDS = 30.0
_GOODPUT_SHARE = 0.8
_REJECTIONS = (ErrorCode.OVERLOADED, ErrorCode.TIMEOUT)
_BUSY = ("candor_active_searches", "candor_waiting_searches")


def callers_leave(site: Site) -> Row:
    """Their searches end with the chunk under way, and nothing of them stays in memory."""
    _abort(site, _ABORTED // 10)  # what is loaded and kept once is not growth
    _idle_after(site)
    before = _megabytes(site)
    statuses = _abort(site, _ABORTED)
    idle = _idle_after(site)
    grown = _megabytes(site) - before
    cancelled = statuses[grpc.StatusCode.CANCELLED]
    return Row(
        what="callers leave in the middle",
        tried=_ABORTED,
        lost=_ABORTED - cancelled,
        measured=f"{cancelled} cancelled, no search left after {idle:.1f} s "
        f"(allowed {_IDLE_SECONDS:.0f}), memory {grown:+.0f} MB (allowed {_GROWTH_MEGABYTES:.0f})",
        is_held=cancelled == _ABORTED and idle <= _IDLE_SECONDS and grown <= _GROWTH_MEGABYTES,
    )


def overload(site: Site) -> Row:
    """Admitted requests are served as fast as ever; the others learn at once when to retry."""
    return asyncio.run(_overload(site.stack.grpc_address))


def _abort(site: Site, count: int) -> Counter[grpc.StatusCode]:
    statuses: Counter[grpc.StatusCode] = Counter()
    with grpc.insecure_channel(site.stack.grpc_address, options=OPTIONS) as channel:
        stub = candor_pb2_grpc.CandorServiceStub(channel)
        for first in range(0, count, _AT_ONCE):
            calls = [stub.Explain.future(_message(seed)) for seed in range(first, first + _AT_ONCE)]
            time.sleep(_LEAVING_SECONDS)
            for call in calls:
                call.cancel()
            statuses.update(call.code() for call in calls)
    return statuses


def _message(seed: int) -> candor_pb2.ExplainRequest:
    request = explain_request(seed, steps=_ABORTED_STEPS)
    message = candor_pb2.ExplainRequest()
    convert.to_message(request.model_dump(), message)
    return message


def _megabytes(site: Site) -> float:
    return float(site.gateway().memory_info().rss) / 1e6


def _idle_after(site: Site) -> float:
    """Seconds until no search is there; infinite where some stay."""
    begun = time.monotonic()
    while (waited := time.monotonic() - begun) < _IDLE_SECONDS:
        if _busy(site) == 0:
            return waited
        time.sleep(0.1)
    return float("inf")


def _busy(site: Site) -> float:
    lines = httpx.get(site.stack.metrics_url, timeout=10, trust_env=False).text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(_BUSY))


def _whole_request(seed: int) -> api.ExplainRequest:
    """Half an explanation at the deadline would count as good."""
    request = explain_request(seed, steps=_LOAD_STEPS)
    return request.model_copy(update={"allow_partial": False})


class _Crowd:
    """Requests and what became of them.

    Attributes:
        ended: `time.monotonic` of the correct responses; seconds, what each took.
        rejected: by code.
        complaints: neither a correct response nor a rejection with one of those codes.
    """

    def __init__(self, client: AsyncCandorClient) -> None:
        self._client = client
        self.ended: list[float] = []
        self.seconds: list[float] = []
        self.rejected: Counter[ErrorCode] = Counter()
        self.complaints: list[str] = []

    @property
    def tried(self) -> int:
        return len(self.ended) + sum(self.rejected.values()) + len(self.complaints)

    async def call(self, seed: int) -> None:
        begun = time.monotonic()
        try:
            response = await self._client.explain(_whole_request(seed))
        except ServiceError as err:
            if err.code in _REJECTIONS:
                self.rejected[err.code] += 1
            else:
                self.complaints.append(f"{err.code} {err}")
            return
        complaint = explain_complaint(response)
        if complaint:
            self.complaints.append(complaint)
            return
        self.ended.append(time.monotonic())
        self.seconds.append(self.ended[-1] - begun)

    def rate(self, since: float, until: float) -> float:
        """Correct responses a second."""
        return sum(since <= ended < until for ended in self.ended) / (until - since)


async def _overload(address: str) -> Row:
    async with AsyncCandorClient(
        address, timeout_seconds=_OBJECTIVE_SECONDS, max_attempts=1
    ) as client:
        await _closed(_Crowd(client), _PEAK_SECONDS / 3)  # the gateway learns what a step costs
        calm, crowd = _Crowd(client), _Crowd(client)
        peak = await _closed(calm, _PEAK_SECONDS)
        goodput = await _open(crowd, _TIMES * peak)
    slowest = max(crowd.seconds, default=float("inf"))
    share = goodput / peak
    rejected = ", ".join(f"{count} {code}" for code, count in crowd.rejected.most_common())
    is_held = share >= _GOODPUT_SHARE and slowest <= _OBJECTIVE_SECONDS
    return Row(
        what=f"overload: {_TIMES} times the explanations that can be served",
        tried=calm.tried + crowd.tried,
        lost=len(calm.complaints) + len(crowd.complaints),
        measured=f"goodput {goodput:.2f}/s, {share:.0%} of the peak {peak:.2f}/s (allowed "
        f"{_GOODPUT_SHARE:.0%}); admitted: slowest {slowest:.1f} s (allowed "
        f"{_OBJECTIVE_SECONDS:.0f}); rejected: {rejected}",
        is_held=is_held and not calm.complaints and not crowd.complaints,
    )


async def _closed(crowd: _Crowd, seconds: float) -> float:
    """Clients that wait for each response before the next request; correct responses a second."""
    begun = time.monotonic()

    async def client(number: int) -> None:
        while time.monotonic() < begun + seconds:
            await crowd.call(number)

    await asyncio.gather(*(client(number) for number in range(_PEAK_CALLERS)))
    return crowd.rate(begun, time.monotonic())


async def _open(crowd: _Crowd, rate: float) -> float:
    """Clients that come at a fixed rate, whatever happens to others; correct responses a second."""
    begun, count = time.monotonic(), int(rate * _OVERLOAD_SECONDS)
    async with asyncio.TaskGroup() as group:
        for number in range(count):
            await asyncio.sleep(max(0.0, begun + number / rate - time.monotonic()))
            group.create_task(crowd.call(number))
        until = time.monotonic()
    return crowd.rate(begun + _SETTLING_SECONDS, until)
