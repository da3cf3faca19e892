"""A compilation is stopped by a signal at once, and nothing of it runs on."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

_REPOSITORY = Path(__file__).resolve().parents[2]
_STOP_SECONDS = 20.0  # a few where nothing else runs
_COMPILES = """
import subprocess
from pathlib import Path
from candor.models.folder import load_model
from candor.runtime import preparation

def compile_for_ever(*arguments, **options):
    subprocess.run(["sh", "-c", "sleep 300 & wait"])

preparation.compile_network = compile_for_ever
preparation.compiled_for(load_model(Path("{model}")), 2)
"""


def _started(command: list[str], cache: Path) -> subprocess.Popen[str]:
    environment = os.environ | {
        "PYTHONPATH": str(_REPOSITORY),
        "OMP_NUM_THREADS": "1",
        "TORCHINDUCTOR_CACHE_DIR": str(cache),
    }
    return subprocess.Popen(
        [sys.executable, *command],
        cwd=_REPOSITORY,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )


def _stopped_at(
    process: subprocess.Popen[str], number: signal.Signals, holds: Callable[[list[str]], bool]
) -> str:
    """Send the signal once the names of its descendants are so; its output.  None is left."""
    deadline = time.monotonic() + 300
    descendants: list[psutil.Process] = []
    try:
        while not holds([one.name() for one in descendants]):
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.05)
            descendants = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(number)
        said = process.communicate(timeout=_STOP_SECONDS)[1]
    finally:
        process.kill()
        process.wait()
    _, alive = psutil.wait_procs(descendants, timeout=5.0)
    assert not alive
    return said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_a_compilation_and_what_it_began(
    model: Path, tmp_path: Path, number: signal.Signals
) -> None:
    process = _started(["-c", _COMPILES.format(model=model)], tmp_path)
    said = _stopped_at(process, number, lambda names: "sleep" in names)
    assert "KeyboardInterrupt" in said
    assert process.returncode != 0
