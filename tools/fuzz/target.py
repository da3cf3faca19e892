"""``python -m tools.fuzz.target FOLDER`` runs a gateway to be fuzzed, in a process of its own.

Prints its ports as one JSON line; ends when its standard input closes.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from candor.contracts.addresses import endpoint, url
from candor.contracts.json_text import json_text
from candor.gateway.sockets import loopback
from tests.gateway.servers import running, until


@dataclass(frozen=True, slots=True)
class Target:
    """A gateway in another process, with the linear worker behind it."""

    rest_url: str
    grpc_address: str
    process: psutil.Process

    def megabytes(self) -> float:
        """Resident memory."""
        return float(self.process.memory_info().rss) / 1e6

    def is_well(self) -> bool:
        """The process lives and still makes a real prediction and a real search step."""
        try:
            response = httpx.get(f"{self.rest_url}/healthz/ready", timeout=10, trust_env=False)
        except httpx.HTTPError:
            return False
        return self.process.is_running() and response.status_code == 200


@contextmanager
def started(folder: Path) -> Iterator[Target]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tools.fuzz.target", folder],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=dict(os.environ),
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        ports = json.loads(process.stdout.readline())
        yield Target(
            url("http", loopback(), ports["rest"]),
            endpoint(loopback(), ports["grpc"]),
            psutil.Process(process.pid),
        )
    finally:
        process.stdin.close()
        process.wait(30)
        process.stdout.close()


def main(folder: str) -> None:
    # Without a cache: it is meant to fill the memory it is given.
    store = str(Path(folder) / "store.sqlite")
    with running(cache_bytes=0, store_url=store, ready_seconds=1.0) as (gateway, *_):
        until(lambda: gateway._is_ready)
        print(json_text({"rest": gateway.rest_port, "grpc": gateway.grpc_port}), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main(sys.argv[1])
