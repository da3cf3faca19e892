"""A thousand images: killed twice, the job loses nothing and equals an undisturbed one."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from candor.explained.rows import read_rows
from tests.explained.folders import content, make_images

REPOSITORY = Path(__file__).resolve().parents[2]
COUNT = 998  # and two that are no images
WAIT_SECONDS = 1200.0


def begun(images: Path, out: Path, model: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "candor.cli", "explain", images, "--out", out]
    options = ["--model", model, "--solver", "fast", "--steps", "2", "--lease-seconds", "2"]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([*command, *options], env=environment, cwd=REPOSITORY)


def finished_blocks(out: Path) -> dict[str, int]:
    """When each finished block was written."""
    return {path.parent.name: path.stat().st_mtime_ns for path in out.glob("blocks/*/rows.parquet")}


@pytest.mark.slow
def test_job_over_a_thousand_images_killed_twice_equals_an_undisturbed_one(
    model: Path, tmp_path: Path
) -> None:
    images, out, whole = (tmp_path / name for name in ("images", "killed", "whole"))
    make_images(images, COUNT)
    kept: dict[str, int] = {}
    for enough in (5, 15):
        process = begun(images, out, model)
        deadline = time.monotonic() + WAIT_SECONDS
        while len(finished_blocks(out)) < enough:
            assert process.poll() is None, "ended too early"
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        kept = finished_blocks(out)
    assert len(kept) < 32, "killed too late to lose anything"
    assert begun(images, out, model).wait(WAIT_SECONDS) == 0
    after = finished_blocks(out)
    assert {name: after[name] for name in kept} == kept, "what was finished is not computed again"
    assert begun(images, whole, model).wait(WAIT_SECONDS) == 0
    assert content(out) == content(whole)
    rows = read_rows(out / "explanations.parquet")
    assert [row.index for row in rows] == list(range(COUNT + 2))
    assert sum(row.error is not None for row in rows) == 2
