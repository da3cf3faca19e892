"""The whole service on this machine: TorchServe on loopback and the gateway in front of it.

Talks to both only as processes and over HTTP.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Self
from urllib.error import URLError

from candor.contracts.names import runtime_name, split_name
from candor.stack.archives import (
    ARCHIVES_DIR,
    DEFAULT_MODEL,
    MODELS_DIR,
    REPOSITORY,
    build_archives,
)
from candor.stack.torchserve import (
    LOOPBACK,
    SEARCH_WORKERS_VARIABLE,
    StackError,
    TorchServePorts,
    prepare_launch,
)

_POLL_SECONDS = 0.1
REPORTS_DIR = Path("runs/reports")
_DRAIN_SECONDS = 45.0  # the gateway gives requests 30, and some more for the last answers
_JVM_STOP_SECONDS = 15.0
_REPORT_STOP_SECONDS = 15.0  # it gives its job back before the next evaluation of the network
_RESTART_SECONDS = 10.0  # a process that ends sooner after its start would only end again
_LOG_TAIL_LINES = 25
_FILE_SETTINGS = (
    "CANDOR_KEYS_FILE",
    "CANDOR_TLS_CERT",
    "CANDOR_TLS_KEY",
    "CANDOR_TLS_CLIENT_CA",
)
_EXEC_DYING_WITH_PARENT = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # 1: PR_SET_PDEATHSIG of linux/prctl.h
os.execv(sys.argv[1], sys.argv[1:])
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class StackConfig:
    """Where the models are and where the doors shall be.

    Attributes:
        grpc_port, rest_port: of the gateway; 0 picks a free one.
        default_model: the one that answers when a request names none, all its versions or the one
            to begin with as NAME@VERSION; None = `DEFAULT_MODEL`, or the first by name of a store
            that has not got it.
        models: the only ones to serve, all their versions; all, where the store has none of them.
        store_url: of candidates, annotations and report jobs; None = as CANDOR_STORE_URL says, or
            none.
        reports_dir: folder of finished reports.
        has_report_worker: computes the report jobs of ``store_url`` beside the gateway.
        shows_gateway_log: on this process's output instead of a file.
        search_workers: of each model, sharing the cores; see `shared_search_workers`.
        compiles: search workers compile their network before the service is ready, minutes the
            first time; the environment's CANDOR_COMPILE goes before it.
    """

    models_dir: Path = MODELS_DIR
    archives_dir: Path = ARCHIVES_DIR
    host: str = LOOPBACK
    grpc_port: int = 0
    rest_port: int = 0
    default_model: str | None = None
    models: tuple[str, ...] = ()
    store_url: str | None = None
    reports_dir: Path = REPORTS_DIR
    has_report_worker: bool = False
    shows_gateway_log: bool = False
    search_workers: int = 1
    compiles: bool = False
    ready_timeout_seconds: float = 120.0


@dataclass(frozen=True, slots=True)
class Ports(TorchServePorts):
    """TorchServe's five loopback ports and the gateway's four."""

    grpc: int
    rest: int
    gateway_metrics: int
    health: int


@dataclass(slots=True)
class Process:
    """A process in its own group, with the log it writes; None where it writes to the terminal."""

    name: str
    popen: subprocess.Popen[bytes]
    log: Path | None
    started: float = field(default_factory=time.monotonic)

    @property
    def has_ended(self) -> bool:
        return self.popen.poll() is not None

    @property
    def age_seconds(self) -> float:
        return time.monotonic() - self.started

    def check(self) -> None:
        """Raises: StackError: it is no longer running."""
        if self.has_ended:
            raise StackError(
                f"{self.name} ended with code {self.popen.returncode}.{self.log_tail()}"
            )

    def log_tail(self) -> str:
        if self.log is None or not self.log.exists():
            return ""
        lines = self.log.read_text(errors="replace").splitlines()[-_LOG_TAIL_LINES:]
        return "".join(f"\n  {line}" for line in ("Its last lines:", *lines))

    def stop(self, timeout_seconds: float) -> None:
        """Ask it to end, wait, then end whatever is left of its group."""
        try:
            self.popen.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.popen.wait(timeout_seconds)
        finally:
            self.kill_group()

    def kill_group(self) -> None:
        """Whatever it started and left behind, too."""
        with suppress(ProcessLookupError):  # the usual case: nobody is left
            os.killpg(self.popen.pid, signal.SIGKILL)
        self.popen.wait()


_Start = Callable[[StackConfig, tuple[str, ...], Ports, Path], Process]


@dataclass(slots=True)
class Stack:
    """A running service; a context manager that leaves nothing behind.

    Raises:
        StackError: on entering, with the tail of the log of whichever process failed.
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
        """Where this machine reaches the doors, also when they listen on every address."""
        return LOOPBACK if self.config.host in ("", "0.0.0.0", "::") else self.config.host

    @property
    def grpc_address(self) -> str:
        return f"{self.host}:{self.ports.grpc}"

    @property
    def rest_url(self) -> str:
        scheme = "https" if os.environ.get("CANDOR_TLS_CERT") else "http"
        return f"{scheme}://{self.host}:{self.ports.rest}"

    @property
    def metrics_url(self) -> str:
        return f"http://{self.host}:{self.ports.gateway_metrics}/metrics"

    @property
    def torchserve_metrics_url(self) -> str:
        return f"http://{LOOPBACK}:{self.ports.metrics}/metrics"

    def search_worker_pid(self, model: str) -> int:
        """Process id of the worker that runs this model's searches."""
        return self.worker_pid(model, "search")

    def worker_pid(self, model: str, role: str) -> int:
        """The same for either role, predict or search; of several workers the first."""
        return self.worker_pids(model, role)[0]

    def worker_pids(self, model: str, role: str) -> tuple[int, ...]:
        """Of all the model's workers of this role that run now."""
        url = f"http://{LOOPBACK}:{self.ports.management}/models/{runtime_name(model, role)}"
        with urllib.request.urlopen(url, timeout=5) as response:
            workers = json.load(response)[0]["workers"]
        return tuple(int(worker["pid"]) for worker in workers if worker["pid"] > 0)

    def check(self) -> None:
        """Start again whatever has ended, at the same ports.

        Requests wait at the gateway for TorchServe, retrying clients for the gateway, and a report
        job goes on from its ledger.

        Raises:
            StackError: gateway or TorchServe has ended soon after its start.
        """
        if self._torchserve is not None and self._torchserve.has_ended:
            self._torchserve = self._again(self._torchserve, _start_torchserve)
        if self._gateway is not None and self._gateway.has_ended:
            self._gateway = self._again(self._gateway, _start_gateway)
        worker = self._report_worker
        if worker is not None and worker.has_ended and worker.age_seconds > _RESTART_SECONDS:
            self._start_report_worker()

    def stop(self) -> None:
        """Drain the gateway, then stop TorchServe and remove the run folder; safe to repeat."""
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
        require_free_ports(self.config)
        names = build_archives(self.config.models_dir, self.config.archives_dir)
        self.models = served_models(names, self.config)
        # Under the system's temporary folder: socket paths may not exceed 107 bytes.
        self._run_dir = run_dir = Path(tempfile.mkdtemp(prefix="candor-"))
        self._ports = ports = _pick_ports(self.config)
        self._torchserve = _start_torchserve(self.config, self.models, ports, run_dir)
        self._gateway = _start_gateway(self.config, self.models, ports, run_dir)
        if self.config.has_report_worker:
            self._start_report_worker()
        self._wait_until_ready()

    def _again(self, ended: Process, start: _Start) -> Process:
        if ended.age_seconds < _RESTART_SECONDS:
            ended.check()
        assert self._run_dir is not None  # it began with the others
        ended.kill_group()  # a killed JVM leaves its workers behind
        return start(self.config, self.models, self.ports, self._run_dir)

    def _start_report_worker(self) -> None:
        assert self._run_dir is not None  # it begins with the others
        self._report_worker = start_report_worker(self.config, self._run_dir)

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + self.config.ready_timeout_seconds
        # Not through the REST door, which may want a certificate of its callers.
        while not _answers_ok(f"http://{self.host}:{self.ports.health}/healthz/ready"):
            self.check()
            if time.monotonic() > deadline:
                raise StackError(self._late_message())
            time.sleep(_POLL_SECONDS)

    def _late_message(self) -> str:
        processes = (self._gateway, self._torchserve)
        tails = [f"\n{process.name}:{process.log_tail()}" for process in processes if process]
        seconds = self.config.ready_timeout_seconds
        return f"the service was not ready after {seconds:g} seconds.{''.join(tails)}"

    def _remove_run_dir(self) -> None:
        if self._run_dir is not None:
            shutil.rmtree(self._run_dir, ignore_errors=True)


def shared_search_workers() -> int:
    """Two where there are cores for both: while the states of one travel, the other computes."""
    return min(2, os.cpu_count() or 1)


def require_free_ports(config: StackConfig) -> None:
    """Raises: StackError: another process listens where a door shall be."""
    for door, port in (("gRPC", config.grpc_port), ("REST", config.rest_port)):
        try:
            _bind(config.host, port).close()
        except OSError as err:
            raise StackError(
                f"{door} port {port} on {config.host} cannot be used ({err.strerror}); "
                f"choose another with --{door.lower()}-port"
            ) from err


def _bind(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    return listener


def _pick_ports(config: StackConfig) -> Ports:
    """Distinct ports, all free now; the gateway's as configured where that is not 0."""
    wanted = (0, 0, 0, 0, 0, config.grpc_port, config.rest_port, 0, 0)
    with ExitStack() as held:
        sockets = [held.enter_context(closing(_bind(config.host, port))) for port in wanted]
        return Ports(*(listener.getsockname()[1] for listener in sockets))


def served_models(names: tuple[str, ...], config: StackConfig) -> tuple[str, ...]:
    """What is to be served of the store's ``names``, the default first.

    Raises:
        StackError: the default model is not among them.
    """
    wanted = [name for name in names if _is_one_of(name, config.models)] or list(names)
    default = config.default_model
    if default is None:
        has_default = any(_is_one_of(name, (DEFAULT_MODEL,)) for name in wanted)
        default = DEFAULT_MODEL if has_default else split_name(wanted[0])[0]
    first = [name for name in wanted if _is_one_of(name, (default,))]
    if not first:
        raise StackError(f"default model: got {default!r}, allowed {', '.join(names)}")
    return (*first, *(name for name in wanted if name not in first))


def _is_one_of(served: str, models: Sequence[str]) -> bool:
    """By its whole name, or by that of the model it is a version of."""
    return served in models or split_name(served)[0] in models


def _start_torchserve(
    config: StackConfig, models: tuple[str, ...], ports: Ports, run_dir: Path
) -> Process:
    launch = prepare_launch(
        config.archives_dir,
        models,
        ports,
        run_dir,
        search_workers=config.search_workers,
        compiles=config.compiles,
    )
    return _spawn("torchserve", launch.command, launch.environment, log=run_dir / "torchserve.log")


def _start_gateway(
    config: StackConfig, models: tuple[str, ...], ports: Ports, run_dir: Path
) -> Process:
    settings = {
        "CANDOR_HOST": config.host,
        "CANDOR_GRPC_PORT": str(ports.grpc),
        "CANDOR_REST_PORT": str(ports.rest),
        "CANDOR_METRICS_PORT": str(ports.gateway_metrics),
        "CANDOR_HEALTH_PORT": str(ports.health),
        "CANDOR_TORCHSERVE_ADDRESS": f"{LOOPBACK}:{ports.grpc_inference}",
        "CANDOR_MODELS": json.dumps(models),
        SEARCH_WORKERS_VARIABLE: str(config.search_workers),
        **_store_settings(config),
        **_file_settings(),
    }
    log = None if config.shows_gateway_log else run_dir / "gateway.log"
    command = [sys.executable, "-m", "candor.gateway"]
    return _spawn("gateway", command, {**os.environ, **settings}, log=log)


def start_report_worker(config: StackConfig, run_dir: Path) -> Process:
    """The process that computes the report jobs of ``config.store_url``."""
    log = None if config.shows_gateway_log else run_dir / "report-worker.log"
    models_dir = str(config.models_dir.absolute())
    command = [sys.executable, "-m", "candor.cli", "report-worker", "--models-dir", models_dir]
    environment = {**os.environ, **_store_settings(config)}
    if "CANDOR_DATA" in environment:  # it runs in another folder
        environment["CANDOR_DATA"] = str(Path(environment["CANDOR_DATA"]).absolute())
    return _spawn("report worker", command, environment, log=log)


def _file_settings() -> dict[str, str]:
    """Absolute, since the gateway runs in another folder."""
    given = {name: os.environ.get(name, "") for name in _FILE_SETTINGS}
    return {name: str(Path(file).absolute()) for name, file in given.items() if file}


def _store_settings(config: StackConfig) -> dict[str, str]:
    # As environment: a command line shows its passwords to everybody on the machine.
    settings = {"CANDOR_REPORTS_DIR": str(config.reports_dir.absolute())}
    if config.store_url is not None:
        settings["CANDOR_STORE_URL"] = config.store_url
    return settings


def _spawn(
    name: str, command: Sequence[str], environment: Mapping[str, str], *, log: Path | None
) -> Process:
    """In its own session, so that Ctrl-C reaches only us and its group can be ended as one."""
    with ExitStack() as opened:
        output: IO[bytes] | None = opened.enter_context(log.open("wb")) if log else None
        popen = subprocess.Popen(
            _dying_with_us(command),
            env=environment,
            cwd=REPOSITORY,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT if output else None,
            start_new_session=True,
        )
    return Process(name, popen, log)


def _dying_with_us(command: Sequence[str]) -> list[str]:
    """On Linux: the command gets SIGTERM when this process is killed before it could clean up."""
    if not sys.platform.startswith("linux"):
        return list(command)
    return [sys.executable, "-I", "-S", "-c", _EXEC_DYING_WITH_PARENT, *command]


def _answers_ok(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=10) as response:
            return bool(response.status == 200)
    except (URLError, OSError):
        return False
