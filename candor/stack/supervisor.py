"""The whole service on this machine: TorchServe on loopback and the gateway in front of it.

The two are processes of their own, seen only over HTTP.
"""

import json
import os
import shutil
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.error import URLError
from urllib.parse import quote

from candor.contracts.addresses import endpoint, url
from candor.contracts.names import runtime_name
from candor.contracts.proxies import open_url
from candor.gateway.sockets import loopback, reachable_host
from candor.stack import launch
from candor.stack.archives import build_archives
from candor.stack.config import StackConfig, served_models
from candor.stack.deaths import looping_death
from candor.stack.errors import StackError
from candor.stack.java import java
from candor.stack.ports import Ports, pick_ports, require_free_ports
from candor.stack.preflight import check_folders, check_memory
from candor.stack.process import Process
from candor.stack.run_folder import run_folder

_POLL_SECONDS = 0.1
_ENGINE_SECONDS = 1.0
_DRAIN_SECONDS = 45.0  # the gateway gives requests 30, and some more for the last responses
_JVM_STOP_SECONDS = 15.0
_REPORT_STOP_SECONDS = 15.0  # it gives its job back before the next evaluation of the network
_RESTART_SECONDS = 10.0  # a process that ends sooner after its start would only end again

_Start = Callable[[StackConfig, tuple[str, ...], Ports, Path], Process]


@dataclass(slots=True)
class Stack:
    """A running service; a context manager that leaves nothing behind.

    Raises:
        StackError: on entering, with the last lines of the log of the process that failed.
        ArchiveError: on entering, when a model folder cannot be served.
    """

    config: StackConfig = field(default_factory=StackConfig)
    models: tuple[str, ...] = ()
    _ports: Ports | None = None
    _run_dir: Path | None = None
    _torchserve: Process | None = None
    _gateway: Process | None = None
    _report_worker: Process | None = None

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def ports(self) -> Ports:
        if self._ports is None:
            raise StackError("the service is not running")
        return self._ports

    @property
    def host(self) -> str:
        """Where this machine reaches the gateway, also when it listens on every address."""
        return reachable_host(self.config.host)

    @property
    def grpc_address(self) -> str:
        return endpoint(self.host, self.ports.grpc)

    @property
    def rest_url(self) -> str:
        scheme = "https" if os.environ.get("CANDOR_TLS_CERT") else "http"
        return url(scheme, self.host, self.ports.rest)

    @property
    def metrics_url(self) -> str:
        return f"{url('http', self.host, self.ports.gateway_metrics)}/metrics"

    @property
    def torchserve_metrics_url(self) -> str:
        return f"{url('http', loopback(), self.ports.metrics)}/metrics"

    def search_worker_pid(self, model: str) -> int:
        """Process id of the first worker that runs this model's searches."""
        return self.worker_pid(model, "search")

    def worker_pid(self, model: str, role: str) -> int:
        """Process id of the first worker of a role, "predict" or "search"."""
        return self.worker_pids(model, role)[0]

    def worker_pids(self, model: str, role: str) -> tuple[int, ...]:
        """Process ids of the model's workers of this role that run now."""
        management = url("http", loopback(), self.ports.management)
        name = runtime_name(model, role)
        with open_url(f"{management}/models/{name}", seconds=5) as response:
            workers = json.load(response)[0]["workers"]
        return tuple(int(worker["pid"]) for worker in workers if worker["pid"] > 0)

    def engine(self, model: str) -> str:
        """What a search worker of the model runs on now: "eager" or "compiled"."""
        with open_url(f"{self.rest_url}/v1/models/{quote(model)}", seconds=5) as response:
            return str(json.load(response)["engine"])

    def wait_until_compiled(self, timeout_seconds: float) -> None:
        """For measurements; requests are answered before.

        Raises:
            StackError: a model was not compiled in time.
        """
        deadline = time.monotonic() + timeout_seconds
        while any(self.engine(model) != "compiled" for model in self.models):
            self.check()
            if time.monotonic() > deadline:
                raise StackError(f"not compiled after {timeout_seconds:g} seconds")
            time.sleep(_ENGINE_SECONDS)

    def check(self) -> None:
        """Restart every process that has ended, at the same ports.

        Requests wait at the gateway for TorchServe, retrying clients for the gateway, and a report
        job goes on from its ledger.

        Raises:
            StackError: gateway or TorchServe has ended soon after its start.
        """
        if self._torchserve is not None and self._torchserve.has_ended:
            self._torchserve = self._restarted(self._torchserve, launch.start_torchserve)
        if self._gateway is not None and self._gateway.has_ended:
            self._gateway = self._restarted(self._gateway, launch.start_gateway)
        worker = self._report_worker
        if worker is not None and worker.has_ended and worker.age_seconds > _RESTART_SECONDS:
            self._start_report_worker()

    def stop(self) -> None:
        """Drain the gateway, then stop TorchServe and remove the run folder; may be repeated."""
        with ExitStack() as last_to_first:
            last_to_first.callback(self._remove_run_dir)
            if self._torchserve is not None:
                last_to_first.callback(self._torchserve.stop, _JVM_STOP_SECONDS)
            if self._gateway is not None:
                last_to_first.callback(self._gateway.stop, _DRAIN_SECONDS)
            if self._report_worker is not None:
                last_to_first.callback(self._report_worker.stop, _REPORT_STOP_SECONDS)
        self._ports = self._run_dir = None
        self._torchserve = self._gateway = self._report_worker = None

    def _start(self) -> None:
        try:
            self._start_processes()
        except OSError as err:
            reason = f"{err.filename}: {err.strerror}" if err.filename else str(err)
            raise StackError(f"cannot start: {reason}") from err
        self._wait_until_ready()

    def _start_processes(self) -> None:
        require_free_ports(self.config)
        java()
        check_folders(self.config)
        self._run_dir = run_dir = run_folder()
        names = build_archives(self.config.models_dir, self.config.archives_dir)
        self.models = served_models(names, self.config)
        check_memory(len(self.models), self.config.search_workers)
        self._ports = ports = pick_ports(self.config)
        self._torchserve = launch.start_torchserve(self.config, self.models, ports, run_dir)
        self._gateway = launch.start_gateway(self.config, self.models, ports, run_dir)
        if self.config.has_report_worker:
            self._start_report_worker()

    def _restarted(self, ended: Process, start: _Start) -> Process:
        if ended.age_seconds < _RESTART_SECONDS:
            ended.check()
        assert self._run_dir is not None  # made before the first process
        ended.kill_group()  # a killed JVM leaves its workers behind
        return start(self.config, self.models, self.ports, self._run_dir)

    def _start_report_worker(self) -> None:
        assert self._run_dir is not None  # made before the first process
        self._report_worker = launch.start_report_worker(self.config, self._run_dir)

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + self.config.ready_timeout_seconds
        # Not through the REST port, which may want a certificate of its clients.
        health = url("http", self.host, self.ports.health)
        while not _answers_ok(f"{health}/healthz/ready"):
            self._check_start()
            if time.monotonic() > deadline:
                raise StackError(self._late_message())
            time.sleep(_POLL_SECONDS)

    def _check_start(self) -> None:
        """Raises: StackError: a process has ended, or workers die again and again."""
        for process in (self._gateway, self._torchserve, self._report_worker):
            if process is not None:
                process.check()
        log = None if self._torchserve is None else self._torchserve.log
        said = looping_death(log) if log else ""
        if said:
            raise StackError(f"a worker of the models cannot start; the last it said: {said}")

    def _late_message(self) -> str:
        processes = (self._gateway, self._torchserve)
        tails = [f"\n{process.name}:{process.log_tail()}" for process in processes if process]
        seconds = self.config.ready_timeout_seconds
        return f"the service was not ready after {seconds:g} seconds.{''.join(tails)}"

    def _remove_run_dir(self) -> None:
        if self._run_dir is not None:
            shutil.rmtree(self._run_dir, ignore_errors=True)


def _answers_ok(address: str) -> bool:
    try:
        with open_url(address, seconds=10) as response:
            return bool(response.status == 200)
    except (URLError, OSError):
        return False
