"""A private Redis server, Debian's, for tests."""

import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from redis import Redis
from redis.exceptions import RedisError

from tests.gateway.servers import until

PASSWORD = "hunter2secret"
_STOP_SECONDS = 10.0


class RedisServer:
    """On a port of loopback, with a password; it can go away and come back."""

    def __init__(self, program: str, folder: str) -> None:
        self._program = program
        self._folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.url = f"redis://:{PASSWORD}@127.0.0.1:{self.port}"
        self.client = Redis.from_url(self.url)

    def start(self) -> None:
        """Returns once it answers."""
        command = [
            *(self._program, "--port", str(self.port), "--bind", "127.0.0.1"),
            *("--requirepass", PASSWORD, "--save", "", "--dir", self._folder),
        ]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        until(self._answers)

    def stop(self) -> None:
        self._process.kill()
        self._process.wait(_STOP_SECONDS)

    def _answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except RedisError:
            return False


@contextmanager
def private_redis() -> Iterator[RedisServer]:
    """Skips, with the reason, where Redis is not installed."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("no Redis; Debian's package is redis-server")
    with tempfile.TemporaryDirectory(prefix="candor-redis-") as folder:
        server = RedisServer(program, folder)
        server.start()
        try:
            yield server
        finally:
            server.client.close()
            server.stop()
