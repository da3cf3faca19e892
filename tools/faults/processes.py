"""Processes killed, hung, replaced, and out of time, under traffic."""

import os
import signal
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from pathlib import Path

import httpx
import psutil

from tools.faults.site import Site, another_gateway
from tools.faults.traffic import Traffic
from tools.reliability import Row

_RESTART_SECONDS = 60.0  # a worker or gateway loads in 3 seconds; these cores may be busy
_HANG_SECONDS = 90.0  # TorchServe replaces a worker after 20 seconds of silence
_DRAIN_SECONDS = 45.0
_AFTERWARDS_SECONDS = 2.0  # of traffic, for whatever comes late
_JUMP_SECONDS = 30.0
_FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")
_DAY = 86400


def search_worker_killed(site: Site) -> Row:
    pid = site.stack.search_worker_pid(site.stack.models[0])
    return _struck(site, "search worker: kill -9", _kill(pid), _RESTART_SECONDS)


def predict_worker_killed(site: Site) -> Row:
    pid = site.stack.worker_pid(site.stack.models[0], "predict")
    return _struck(site, "prediction worker: kill -9", _kill(pid), _RESTART_SECONDS)


def worker_hung(site: Site) -> Row:
    """Stopped for good: TorchServe has to replace it."""
    pid = site.stack.search_worker_pid(site.stack.models[0])
    row = _struck(
        site, "search worker: hangs (SIGSTOP)", lambda: os.kill(pid, signal.SIGSTOP), _HANG_SECONDS
    )
    if psutil.pid_exists(pid):
        os.kill(pid, signal.SIGKILL)
    return row


def jvm_killed(site: Site) -> Row:
    return _struck(site, "TorchServe's JVM: kill -9", _kill(site.jvm().pid), _RESTART_SECONDS)


def gateway_killed(site: Site) -> Row:
    return _struck(site, "gateway: kill -9", _kill(site.gateway().pid), _RESTART_SECONDS)


def gateway_replaced(site: Site) -> Row:
    """A rolling update: the second gateway is ready before the first is stopped."""
    with (
        another_gateway(site) as new,
        another_gateway(site) as old,
        Traffic(f"ipv4:{old.grpc_address},{new.grpc_address}") as traffic,
    ):
        stopped = time.monotonic()
        old.process.terminate()
        code = old.process.wait(_DRAIN_SECONDS)
        drained = time.monotonic() - stopped
        recovered = traffic.wait_for_responses(time.monotonic(), _RESTART_SECONDS)
        time.sleep(_AFTERWARDS_SECONDS)
    return _row(
        "gateway: rolling update (SIGTERM under load)",
        traffic,
        f"exit code {code} after {drained:.1f} s (allowed 0, {_DRAIN_SECONDS:.0f} s); "
        f"the next responses in {recovered:.1f} s",
        is_held=code == 0 and recovered <= _RESTART_SECONDS,
    )


def clock_jumped(site: Site) -> Row:
    """The gateway's wall clock leaps a day ahead, then two days back."""
    offset = site.folder / "offset"
    offset.write_text("+0")
    environment = {
        "LD_PRELOAD": str(_FAKETIME),
        "FAKETIME_TIMESTAMP_FILE": str(offset),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    waits, leaps = [], []
    with (
        another_gateway(site, **environment) as gateway,
        Traffic(gateway.grpc_address) as traffic,
    ):
        for days in (1, -1):
            offset.write_text(f"{days * _DAY:+d}")
            waits.append(traffic.wait_for_responses(time.monotonic(), _JUMP_SECONDS))
            time.sleep(_AFTERWARDS_SECONDS)
            leaps.append(round(_seconds_ahead(gateway.rest_url) / _DAY))
    return _row(
        "gateway: clock leaps a day ahead, then two back",
        traffic,
        f"the next responses after {max(waits):.1f} s (allowed {_JUMP_SECONDS:.0f})",
        is_held=leaps == [1, -1] and max(waits) <= _JUMP_SECONDS,
    )


def _seconds_ahead(rest_url: str) -> float:
    """By how much the gateway's clock is before ours, as its responses say."""
    date = httpx.get(f"{rest_url}/healthz/live", timeout=10, trust_env=False).headers["date"]
    return parsedate_to_datetime(date).timestamp() - time.time()


def _kill(pid: int) -> Callable[[], None]:
    return lambda: os.kill(pid, signal.SIGKILL)


def _struck(site: Site, what: str, strike: Callable[[], None], limit_seconds: float) -> Row:
    with Traffic(site.stack.grpc_address) as traffic:
        begun = time.monotonic()
        strike()
        recovered = traffic.wait_for_responses(begun, limit_seconds)
        time.sleep(_AFTERWARDS_SECONDS)
    return _row(
        what,
        traffic,
        f"responds again after {recovered:.1f} s (allowed {limit_seconds:.0f})",
        is_held=recovered <= limit_seconds,
    )


def _row(what: str, traffic: Traffic, measured: str, *, is_held: bool) -> Row:
    return Row(
        what=what,
        tried=traffic.tried,
        lost=len(traffic.complaints),
        measured="; ".join([measured, *traffic.complaints[:2]]),
        is_held=is_held and not traffic.complaints,
    )
