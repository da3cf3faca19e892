"""The gateway process: both doors over one service in one event loop.  Never imports torch."""

import asyncio
import contextlib
import logging
import signal
import socket
import sys
from collections.abc import Iterator

import uvicorn
from pydantic import ValidationError

from gateway.backend import WorkerBackend
from gateway.grpc_door import GrpcDoor
from gateway.rest_door import make_app
from gateway.service import CandorService
from gateway.settings import Settings
from gateway.torchserve import TorchServeBackend

_STARTING_PAUSE_SECONDS = 0.5  # between two checks of readiness before the first good one
_LAST_ANSWERS_SECONDS = 5.0  # for answers already computed to reach their callers
_log = logging.getLogger("gateway.main")


class _QuietServer(uvicorn.Server):
    """Uvicorn that leaves signals to us: both doors have to drain together."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Gateway:
    """Both doors and the watch over readiness.

    Attributes:
        grpc_port, rest_port: where the doors really listen, known once started.
    """

    def __init__(self, settings: Settings, backend: WorkerBackend) -> None:
        self._settings = settings
        self._is_ready = False
        self.service = CandorService(backend, settings)
        self._grpc = GrpcDoor(self.service, f"{settings.host}:{settings.grpc_port}")
        self._socket = _listen(settings.host, settings.rest_port)
        app = make_app(self.service, lambda: self._is_ready, settings)
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,  # ours has the request id and the error code
            timeout_graceful_shutdown=int(_LAST_ANSWERS_SECONDS),
        )
        self._rest = _QuietServer(config)
        self.grpc_port = self._grpc.port
        self.rest_port = int(self._socket.getsockname()[1])
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Opens both doors at once; until the models answer, they say so."""
        await self._grpc.start()
        self._rest_task = asyncio.create_task(self._rest.serve(sockets=[self._socket]))
        self._tasks = [asyncio.create_task(self._watch())]
        _log.info("gRPC on port %d, REST on port %d", self.grpc_port, self.rest_port)

    async def stop(self) -> None:
        """NOT_SERVING first, so that traffic turns away; then drain, then close."""
        self._is_ready = False
        await self._grpc.announce_drain()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.service.drain()
        await self._grpc.stop(_LAST_ANSWERS_SECONDS)
        self._rest.should_exit = True
        await self._rest_task

    async def _watch(self) -> None:
        await self.service.start()
        while True:
            was_ready, self._is_ready = self._is_ready, await self._check()
            if was_ready != self._is_ready:
                _log.info("ready" if self._is_ready else "not ready")
            await self._grpc.set_serving(self._is_ready)
            is_first = not was_ready and not self._is_ready
            await asyncio.sleep(
                _STARTING_PAUSE_SECONDS if is_first else self._settings.ready_seconds
            )

    async def _check(self) -> bool:
        try:
            return await self.service.ready()
        except Exception:  # the watch must outlive whatever a worker answers
            _log.exception("check of readiness failed")
            return False


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    listener.listen()  # callers wait in line for the moment until the server takes over
    return listener


async def serve(settings: Settings) -> None:
    """Runs until SIGTERM or SIGINT, then drains."""
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    backend = TorchServeBackend(settings.torchserve_address, settings.worker_call_seconds)
    gateway = Gateway(settings, backend)
    await gateway.start()
    await stopped.wait()
    _log.info("draining")
    await gateway.stop()
    await backend.close()


def main() -> int:
    """Exit code 0 after a drain, 2 for bad settings."""
    logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
    try:
        settings = Settings()  # type: ignore[call-arg]  # fields come from the environment
    except ValidationError as err:
        print(f"settings, CANDOR_ in the environment: {err}", file=sys.stderr)
        return 2
    asyncio.run(serve(settings))
    return 0
