"""Clients that cancel their calls, and ten times the load that can be served."""

import asyncio
import time
from collections import Counter

import grpc
import httpx

from candor.client.aio import AsyncCandorClient
from candor.client.connection import OPTIONS
from candor.contracts import api, headers
from candor.contracts.errors import ErrorCode, ServiceError
from candor.contracts.proxies import channel_options
from candor.rpc import convert
from candor.rpc.pb.candor.v1 import candor_pb2, candor_pb2_grpc
from tools import scenarios
from tools.faults.site import Site
from tools.faults.traffic import explain_complaint, explain_request
from tools.reliability import Row

_ABORTED = 1000
_AT_ONCE = 50
_LEAVING_SECONDS = 0.3
_IDLE_SECONDS = 10.0
_GROWTH_MEGABYTES = 64.0
_ABORTED_STEPS = 400  # no search ends before its call is cancelled

_SCENARIO = scenarios.overload()
_LATE_SHARE = 0.01  # of the requests that were admitted, as the objectives allow
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
    """Admitted requests are served as fast as ever; the others learn at once when to retry.

    The scenario is that of `tools/scenarios.toml`, which the scheduler's decisions have to pass in
    simulation as well.
    """
    return asyncio.run(_overload(site.stack.grpc_address))


def _abort(site: Site, count: int) -> Counter[grpc.StatusCode]:
    statuses: Counter[grpc.StatusCode] = Counter()
    with grpc.insecure_channel(
        site.stack.grpc_address, options=[*OPTIONS, *channel_options(site.stack.grpc_address)]
    ) as channel:
        stub = candor_pb2_grpc.CandorServiceStub(channel)
        for first in range(0, count, _AT_ONCE):
            calls = [
                # Background work: all of it is admitted, so that there is something to cancel.
                stub.Explain.future(_message(seed), metadata=((headers.PRIORITY, "report"),))
                for seed in range(first, first + _AT_ONCE)
            ]
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
    request = explain_request(seed, steps=_SCENARIO.steps)
    return request.model_copy(update={"allow_partial": False})


class _Crowd:
    """Requests and what became of them.

    Attributes:
        ended: `time.monotonic` of the correct responses; seconds, what each took.
        rejected: at once, with the time after which to retry.
        late: admitted, and not answered in time.
        complaints: none of these.
    """

    def __init__(self, client: AsyncCandorClient) -> None:
        self._client = client
        self.ended: list[float] = []
        self.seconds: list[float] = []
        self.rejected = self.late = 0
        self.complaints: list[str] = []

    @property
    def tried(self) -> int:
        return len(self.ended) + self.rejected + self.late + len(self.complaints)

    async def call(self, seed: int) -> float:
        """One request; the seconds after which to send the next one where it is rejected."""
        begun = time.monotonic()
        try:
            response = await self._client.explain(_whole_request(seed))
        except ServiceError as err:
            self._count(err)
            return err.retry_seconds or 0.0
        complaint = explain_complaint(response)
        if complaint:
            self.complaints.append(complaint)
            return 0.0
        self.ended.append(time.monotonic())
        self.seconds.append(self.ended[-1] - begun)
        return 0.0

    def _count(self, error: ServiceError) -> None:
        if error.code is ErrorCode.OVERLOADED and error.retry_seconds:
            self.rejected += 1
        elif error.code is ErrorCode.TIMEOUT:
            self.late += 1
        else:
            self.complaints.append(f"{error.code} {error}")

    def rate(self, since: float, until: float) -> float:
        """Correct responses a second."""
        return sum(since <= ended < until for ended in self.ended) / (until - since)


async def _overload(address: str) -> Row:
    async with AsyncCandorClient(
        address, timeout_seconds=_SCENARIO.objective_seconds, max_attempts=1
    ) as client:
        await _closed(_Crowd(client), _SCENARIO.warming_seconds)
        calm, crowd = _Crowd(client), _Crowd(client)
        peak = await _closed(calm, _SCENARIO.peak_seconds)
        goodput = await _open(crowd, _SCENARIO.times * peak)
    return _overload_row(calm, crowd, peak, goodput)


def _overload_row(calm: _Crowd, crowd: _Crowd, peak: float, goodput: float) -> Row:
    slowest, share = max(crowd.seconds, default=float("inf")), goodput / peak
    complaints = calm.complaints + crowd.complaints
    is_good = share >= _SCENARIO.goodput_share and slowest <= _SCENARIO.objective_seconds
    is_timely = crowd.late <= _LATE_SHARE * len(crowd.ended)
    measured = (
        f"goodput {goodput:.2f}/s, {share:.0%} of the peak {peak:.2f}/s (allowed "
        f"{_SCENARIO.goodput_share:.0%}); admitted: {len(crowd.ended)} answered, slowest "
        f"{slowest:.1f} s (allowed {_SCENARIO.objective_seconds:.0f}), {crowd.late} late (allowed "
        f"{_LATE_SHARE:.0%}); rejected at once: {crowd.rejected}"
    )
    return Row(
        what=f"overload: {_SCENARIO.times:g} times the explanations that can be served",
        tried=calm.tried + crowd.tried,
        lost=len(complaints),
        measured="; ".join([measured, *complaints[:2]]),
        is_held=is_good and is_timely and not complaints,
    )


async def _closed(crowd: _Crowd, seconds: float) -> float:
    """Clients that wait for each response before the next request; correct responses a second."""
    begun = time.monotonic()

    async def client(number: int) -> None:
        while time.monotonic() < begun + seconds:
            await asyncio.sleep(await crowd.call(number))

    await asyncio.gather(*(client(number) for number in range(_SCENARIO.peak_callers)))
    return crowd.rate(begun, time.monotonic())


async def _open(crowd: _Crowd, rate: float) -> float:
    """Clients that come at a fixed rate, whatever happens to others; correct responses a second."""
    begun, count = time.monotonic(), int(rate * _SCENARIO.overload_seconds)
    async with asyncio.TaskGroup() as group:
        for number in range(count):
            await asyncio.sleep(max(0.0, begun + number / rate - time.monotonic()))
            group.create_task(crowd.call(number))
        until = time.monotonic()
    return crowd.rate(begun + _SCENARIO.settling_seconds, until)
