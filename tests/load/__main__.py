"""`make load`: starts a service, runs locust's users against it, and says which limits held."""

import argparse
import json
import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console

from candor.stack.config import StackConfig, shared_search_workers
from candor.stack.supervisor import Stack
from tests.load.plan import PLAN, read_plan
from tests.load.verdict import Sample, errors_of, rows_of
from tools.reliability import COLUMNS, Row, print_table, write_section
from tools.small_models import SMALL_MODEL

REPOSITORY = Path(__file__).resolve().parents[2]
OUT_DIR = REPOSITORY / "out" / "load"
_IDLE_SECONDS = 10.0
_COMPILED_SECONDS = 1800.0  # the first time; the load is for the compiled network
_LOAD_GAUGES = ("candor_active_searches", "candor_waiting_searches")


def main() -> int:
    """Exit code 0 where every limit held, else 1."""
    parser = argparse.ArgumentParser(prog="make load", description=__doc__)
    parser.add_argument("--plan", type=Path, default=PLAN)
    parser.add_argument("--model", default=SMALL_MODEL)
    parser.add_argument("--keep", action="store_true", help="do not write RELIABILITY.md")
    arguments = parser.parse_args()
    plan = read_plan(arguments.plan)
    OUT_DIR.mkdir(parents=True, exist_ok=True)
    config = StackConfig(
        models=(arguments.model,),
        search_workers=shared_search_workers(),
        compiles=True,
    )
    with Stack(config) as stack:
        stack.wait_until_compiled(_COMPILED_SECONDS)
        samples = run(stack, arguments.plan, OUT_DIR)
        left = left_behind(stack)
    seconds = sum(stage.seconds for stage in plan.stages)
    rows = rows_of(samples, plan.allowed, seconds, max(stage.users for stage in plan.stages))
    rows.append(left)
    report(rows, samples)
    if not arguments.keep:
        write_section("load", rows, "make load")
    return int(not all(row.is_held for row in rows))


def run(stack: Stack, plan: Path, out_dir: Path) -> list[Sample]:
    """What the users saw; locust's own report is left in ``out_dir``."""
    samples = out_dir / "samples.json"
    environment = {
        **os.environ,
        "CANDOR_LOAD_GRPC": stack.grpc_address,
        "CANDOR_LOAD_REST": stack.rest_url,
        "CANDOR_LOAD_SAMPLES": str(samples),
        "CANDOR_LOAD_PLAN": str(plan.resolve()),
    }
    command = [sys.executable, "-m", "locust", "--headless", "--only-summary"]
    command += ["-f", str(Path(__file__).with_name("locustfile.py"))]
    command += ["--html", str(out_dir / "report.html"), "--exit-code-on-error", "0"]
    command += ["--stop-timeout", "60", "--host", stack.rest_url]
    subprocess.run(command, env=environment, cwd=REPOSITORY, check=True)
    return [Sample(**fields) for fields in json.loads(samples.read_text())]


def left_behind(stack: Stack) -> Row:
    """Searches that still run although no caller waits, some time after the last user left."""
    give_up = time.monotonic() + _IDLE_SECONDS
    while (count := _searches(stack)) and time.monotonic() < give_up:
        time.sleep(0.5)
    measured = f"{count} after {_IDLE_SECONDS:g} s (at most 0)"
    return Row(what="searches left behind", tried=1, lost=0, measured=measured, is_held=count == 0)


def _searches(stack: Stack) -> int:
    with urllib.request.urlopen(stack.metrics_url, timeout=10) as response:
        families = text_string_to_metric_families(response.read().decode())
        values = [s.value for f in families if f.name in _LOAD_GAUGES for s in f.samples]
    return int(sum(values))


def report(rows: list[Row], samples: list[Sample]) -> None:
    console = Console(width=160)
    print_table(rows, console)
    for text, count in errors_of(samples).items():
        console.print(f"{count} x {text}", markup=False)
    console.print(f"report: {OUT_DIR / 'report.html'}", markup=False)
    table = [COLUMNS, *(row.cells() for row in rows)]
    (OUT_DIR / "table.tsv").write_text("".join("\t".join(line) + "\n" for line in table))


if __name__ == "__main__":
    sys.exit(main())
