"""The probe of a worker's container, against the real TorchServe."""

import subprocess
import sys

from candor.stack.archives import REPOSITORY, archive_names
from candor.stack.config import StackConfig
from candor.stack.supervisor import Stack


def test_the_probe_predicts_and_searches_on_every_worker(
    stack: Stack, stack_config: StackConfig
) -> None:
    command = [sys.executable, "-m", "candor.stack.probe"]
    command += ["--archives-dir", str(stack_config.archives_dir)]
    command += ["--url", f"http://127.0.0.1:{stack.ports.inference}"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr
    for name in archive_names(stack.models):
        assert name in done.stdout
