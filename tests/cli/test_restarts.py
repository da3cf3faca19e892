"""`Stack.check` starts again what has ended, with stand-ins for the processes."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from candor.stack import launch
from candor.stack.config import StackConfig
from candor.stack.errors import StackError
from candor.stack.ports import Ports
from candor.stack.process import Process
from candor.stack.supervisor import Stack

_SLEEPS = "import time; time.sleep(60)"
_ENDS = "import sys; print('bad settings'); sys.exit(3)"


def process(code: str, log: Path, *, age_seconds: float = 0.0) -> Process:
    with log.open("wb") as output:
        popen = subprocess.Popen(
            [sys.executable, "-c", code], stdout=output, start_new_session=True
        )
    return Process("stand-in", popen, log, time.monotonic() - age_seconds)


@pytest.fixture
def running(tmp_path: Path) -> Callable[..., Stack]:
    def make(**processes: Process) -> Stack:
        ports = Ports(*range(1, 10))
        named = {f"_{name}": value for name, value in processes.items()}
        return Stack(StackConfig(), ("any",), ports, tmp_path, **named)

    return make


@pytest.mark.parametrize("name", ["gateway", "torchserve"])
def test_what_ended_starts_again_at_the_same_ports(
    running: Callable[..., Stack], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = process(_ENDS, tmp_path / "log", age_seconds=60.0)
    ended.popen.wait()
    asked: list[Ports] = []

    def start(config: StackConfig, models: tuple[str, ...], ports: Ports, run_dir: Path) -> Process:
        asked.append(ports)
        return process(_SLEEPS, tmp_path / "log")

    monkeypatch.setattr(launch, f"start_{name}", start)
    stack = running(**{name: ended})
    ports = stack.ports
    try:
        stack.check()
        stack.check()
        assert asked == [ports]
    finally:
        stack.stop()


def test_what_ends_soon_after_its_start_is_reported_with_its_last_lines(
    running: Callable[..., Stack], tmp_path: Path
) -> None:
    ended = process(_ENDS, tmp_path / "log")
    ended.popen.wait()
    with pytest.raises(StackError, match=r"(?s)ended with code 3.*bad settings"):
        running(gateway=ended).check()
