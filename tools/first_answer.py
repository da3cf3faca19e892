"""Seconds from the start of `candor serve` on a fresh machine to its first answers.

Starts the service from nothing, in a scratch folder: no archives, nothing compiled.  Prints after
how many seconds it made its first prediction and its first explanation, by the default model over
gRPC, and from when on the searches of every model run compiled; then how long one explanation took
meanwhile, and what a second start gets from what the first one kept.  ``--write`` puts the table
into BENCHMARKS.md.
"""

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from candor.client.sync import CandorClient
from candor.contracts import api
from candor.contracts.addresses import endpoint
from candor.contracts.errors import ServiceError
from candor.gateway.sockets import loopback
from candor.images.encode import encode_png
from candor.stack.archives import MODELS_DIR
from candor.stack.config import StackConfig
from candor.stack.ports import pick_ports
from tools.bench.machine import cores
from tools.sections import write_section

REPOSITORY = Path(__file__).resolve().parents[1]
BENCHMARKS = REPOSITORY / "BENCHMARKS.md"
_PAUSE_SECONDS = 0.2
_REQUIRED_SECONDS = 15.0
_REPEATS = 5
_LOOK_SECONDS = 1.0
_IMAGE = api.ImageInput(
    encoded=encode_png(np.random.default_rng(0).random((3, 32, 32), dtype=np.float32))
)


@dataclass(slots=True)
class Start:
    """One start, in seconds since `candor serve` was called.

    Attributes:
        prediction, explanation: the first of each.
        compiled: when the searches of each model began to run compiled.
        while_compiling, afterwards: one explanation after the other by the default model.
    """

    prediction: float = 0.0
    explanation: float = 0.0
    compiled: dict[str, float] = field(default_factory=dict)
    while_compiling: list[float] = field(default_factory=list)
    afterwards: list[float] = field(default_factory=list)


@contextmanager
def _serving(scratch: Path, models_dir: Path) -> Iterator[tuple[float, str]]:
    """`candor serve` as it was just called, when that was, and its address for gRPC."""
    ports = pick_ports(StackConfig())
    command = [sys.executable, "-m", "candor.cli", "serve", "--models-dir", str(models_dir)]
    command += ["--archives-dir", str(scratch / "archives")]
    command += ["--grpc-port", str(ports.grpc), "--rest-port", str(ports.rest)]
    environment = {
        **os.environ,
        "CANDOR_COMPILE": "auto",
        "CANDOR_COMPILED_DIR": str(scratch / "compiled"),
    }
    started = time.monotonic()
    with (scratch / "serve.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        yield started, endpoint(loopback(), ports.grpc)
    except ServiceError:
        print((scratch / "serve.log").read_text(errors="replace"), file=sys.stderr)
        raise
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(120)


def _first(address: str, work: Callable[[CandorClient], object], give_up: float) -> None:
    """Tries until it is answered, each time by a new connection, as gRPC's would pause longer."""
    while True:
        try:
            with CandorClient(address, max_attempts=1) as client:
                work(client)
            return
        except ServiceError:
            if time.monotonic() > give_up:
                raise
            time.sleep(_PAUSE_SECONDS)


def measured(scratch: Path, models_dir: Path, timeout_seconds: float) -> Start:
    """One start, until every model runs compiled or the time is over."""
    start = Start()
    with _serving(scratch, models_dir) as (started, address):
        give_up = started + timeout_seconds
        _first(address, _predict, give_up)
        start.prediction = time.monotonic() - started
        _first(address, _explain, give_up)
        start.explanation = time.monotonic() - started
        with CandorClient(address) as client:
            _watch(client, start, _names(models_dir), started, give_up)
            start.afterwards = [_seconds(client) for _ in range(_REPEATS)]
    return start


def _watch(
    client: CandorClient, start: Start, names: list[str], started: float, give_up: float
) -> None:
    """Explains now and then until every model runs compiled."""
    while time.monotonic() < give_up:
        for name in names:
            if name not in start.compiled and _engine(client, name) == "compiled":
                start.compiled[name] = time.monotonic() - started
        if len(start.compiled) == len(names):
            return
        start.while_compiling.append(_seconds(client))
        time.sleep(_LOOK_SECONDS)


def _names(models_dir: Path) -> list[str]:
    return sorted(path.parent.name for path in models_dir.glob("*/card.json"))


def _engine(client: CandorClient, name: str) -> str:
    try:
        return client.get_model(name).engine
    except ServiceError:  # its workers are not there yet
        return ""


def _predict(client: CandorClient) -> None:
    client.predict(api.PredictRequest(image=_IMAGE))


def _explain(client: CandorClient) -> None:
    targets = (api.ClassRef(index=3),)
    client.explain(api.ExplainRequest(image=_IMAGE, targets=targets, rhos=(0.1,), no_cache=True))


def _seconds(client: CandorClient) -> float:
    began = time.monotonic()
    _explain(client)
    return time.monotonic() - began


def table_of(first: Start, second: Start) -> list[str]:
    """The lines of a Markdown table."""
    load, _, _ = os.getloadavg()
    rows = [
        ("first prediction", first.prediction, second.prediction, _held(first.prediction)),
        ("first explanation", first.explanation, second.explanation, _held(first.explanation)),
        *(
            (f"`{name}` compiled", seconds, second.compiled.get(name, float("nan")), "shown")
            for name, seconds in first.compiled.items()
        ),
    ]
    medians = [_median(times) for times in (first.while_compiling, first.afterwards)]
    return [
        f"Machine: {cores()}; load {load:.1f} at the end.",
        "",
        "| seconds since `candor serve` | nothing kept | second start | required |",
        "|---|---|---|---|",
        *(f"| {what} | {one:.1f} | {two:.1f} | {goal} |" for what, one, two, goal in rows),
        "",
        f"An explanation by the default model took {medians[0]:.2f} s while models were compiled "
        f"(median of {len(first.while_compiling)}) and {medians[1]:.2f} s afterwards.",
    ]


def _median(times: list[float]) -> float:
    return statistics.median(times) if times else float("nan")


def _held(seconds: float) -> str:
    is_held = seconds <= _REQUIRED_SECONDS
    return f"at most {_REQUIRED_SECONDS:g}, {'met' if is_held else 'not reached'}"


def main() -> int:
    """Exit code 0 where both first answers came in time, else 1."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # nor may it leave a service behind
    command = argparse.ArgumentParser(prog="python -m tools.first_answer", description=__doc__)
    command.add_argument("--models-dir", type=Path, default=MODELS_DIR)
    command.add_argument("--timeout", type=float, default=3600.0, metavar="SECONDS")
    command.add_argument("--write", action="store_true", help="write BENCHMARKS.md")
    options = command.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        first, second = (
            measured(Path(scratch), options.models_dir, options.timeout) for _ in range(2)
        )
    lines = table_of(first, second)
    print("\n".join(lines))
    if options.write:
        write_section(BENCHMARKS, "ready", "\n".join(lines))
    return int(max(first.prediction, first.explanation) > _REQUIRED_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
