"""The real service into which faults are injected, its supervisor, and its small disk."""

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from candor.contracts.addresses import endpoint, url
from candor.contracts.json_text import json_text
from candor.contracts.secrets import Secret
from candor.gateway.sockets import bound, loopback
from candor.stack.archives import MODELS_DIR
from candor.stack.config import StackConfig, shared_search_workers
from candor.stack.supervisor import Stack
from tools.small_disk import small_disk
from tools.small_models import SMALL_MODEL, SMALL_PLAIN_MODEL

MODELS = (SMALL_MODEL, SMALL_PLAIN_MODEL)
_CHECK_SECONDS = 0.5
_READY_SECONDS = 300.0
_STOP_SECONDS = 60.0
_DISK_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Site:
    """A running service with two models, restarted by its supervisor where a process ends.

    Attributes:
        folder: for whatever a fault needs.
        disk: a file system of 4 MiB with the store on it.
    """

    stack: Stack
    folder: Path
    disk: Path

    def process(self, mark: str) -> psutil.Process:
        """The child of ours, or of its, whose command line has ``mark``."""
        for process in psutil.Process().children(recursive=True):
            try:
                if mark in process.cmdline():
                    return process
            except psutil.Error:  # ended meanwhile
                continue
        raise LookupError(mark)

    def gateway(self) -> psutil.Process:
        return self.process("candor.gateway")

    def jvm(self) -> psutil.Process:
        return self.process("org.pytorch.serve.ModelServer")


@contextmanager
def started(folder: Path) -> Iterator[Site]:
    """Raises: OSError: not allowed to mount a small disk; root is."""
    models, disk = folder / "models", folder / "disk"
    for name in MODELS:
        shutil.copytree(MODELS_DIR / name, models / name)
    with ExitStack() as opened:
        opened.enter_context(small_disk(disk, _DISK_BYTES))
        config = StackConfig(
            models_dir=models,
            archives_dir=folder / "archives",
            store_url=Secret(str(disk / "store.sqlite")),
            search_workers=shared_search_workers(),  # as `candor serve` has them
            ready_timeout_seconds=_READY_SECONDS,
        )
        stack = opened.enter_context(Stack(config))
        opened.enter_context(_supervised(stack))
        yield Site(stack, folder, disk)


@contextmanager
def _supervised(stack: Stack) -> Iterator[None]:
    """As `candor serve` does."""
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(_CHECK_SECONDS):
            stack.check()

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@dataclass(frozen=True, slots=True)
class Gateway:
    """One more in front of the same workers."""

    process: subprocess.Popen[bytes]
    grpc_address: str
    rest_url: str


@contextmanager
def another_gateway(site: Site, **environment: str) -> Iterator[Gateway]:
    """Once ready."""
    host = loopback()
    grpc_port, rest_port = _free_ports(2)
    settings = {
        "CANDOR_GRPC_PORT": str(grpc_port),
        "CANDOR_REST_PORT": str(rest_port),
        "CANDOR_TORCHSERVE_ADDRESS": endpoint(host, site.stack.ports.grpc_inference),
        "CANDOR_MODELS": json_text(site.stack.models),
    }
    with (site.folder / f"gateway-{grpc_port}.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "candor.gateway"],
            env={**os.environ, **settings, **environment},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            rest_url = url("http", host, rest_port)
            wait_until_ready(rest_url)
            yield Gateway(process, endpoint(host, grpc_port), rest_url)
        finally:
            process.terminate()
            process.wait(_STOP_SECONDS)


def _free_ports(count: int) -> list[int]:
    with ExitStack() as held:
        listeners = [held.enter_context(bound(loopback(), 0)) for _ in range(count)]
        return [int(listener.getsockname()[1]) for listener in listeners]


def wait_until_ready(rest_url: str, limit_seconds: float = 120.0) -> None:
    """Raises: TimeoutError."""
    deadline = time.monotonic() + limit_seconds
    while time.monotonic() < deadline:
        try:
            if (
                httpx.get(f"{rest_url}/healthz/ready", timeout=10, trust_env=False).status_code
                == 200
            ):
                return
        except httpx.HTTPError:
            pass
        time.sleep(_CHECK_SECONDS)
    raise TimeoutError(f"{rest_url} was not ready after {limit_seconds:g} seconds")
