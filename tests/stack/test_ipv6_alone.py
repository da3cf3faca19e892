"""The whole service where the loopback has ::1 alone and IPv4 does not exist."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from candor.contracts import api
from candor.stack.archives import REPOSITORY
from candor.stack.config import StackConfig

NETWORK = "ip link set lo up && ip address del 127.0.0.1/8 dev lo && exec "
SERVE = """
import subprocess, sys, urllib.request
from pathlib import Path
from candor.client.sync import CandorClient
from candor.contracts import api
from candor.contracts.addresses import url
from candor.stack.config import StackConfig
from candor.stack.supervisor import Stack

models, archives, image = map(Path, sys.argv[1:])
config = StackConfig(models_dir=models, archives_dir=archives)
with Stack(config) as stack, CandorClient(stack.grpc_address, timeout_seconds=60) as client:
    request = api.ExplainRequest(
        image=api.ImageInput(encoded=image.read_bytes()),
        targets=(api.ClassRef(index=1),),
        steps=5,
    )
    assert client.explain(request).explanations[0].rmse > 0
    pages = [stack.metrics_url, stack.torchserve_metrics_url, f"{stack.rest_url}/v1/models"]
    for page in pages:
        assert page.startswith("http://[::1]:"), page
        urllib.request.urlopen(page, timeout=10).close()
    assert stack.search_worker_pid(stack.models[0]) > 0
    probe = ["-m", "candor.stack.probe", "--archives-dir", str(archives)]
    inference = url("http", "::1", stack.ports.inference)
    subprocess.run([sys.executable, *probe, "--url", inference], check=True)
    print("explained on", stack.grpc_address)
"""


def has_own_network() -> bool:
    """Whether this user may make a network without IPv4."""
    if shutil.which("unshare") is None or shutil.which("ip") is None:
        return False
    trial = ["unshare", "--net", "sh", "-c", f"{NETWORK} true"]
    return subprocess.run(trial, capture_output=True).returncode == 0


@pytest.mark.skipif(not has_own_network(), reason="needs root, unshare, ip and IPv6")
def test_the_service_explains_where_the_loopback_has_ipv6_alone(
    one_version: StackConfig, images: list[api.ImageInput], tmp_path: Path
) -> None:
    image = tmp_path / "image.png"
    image.write_bytes(images[0].encoded)
    arguments = [sys.executable, "-c", SERVE]
    folders = [one_version.models_dir, one_version.archives_dir, image]
    done = subprocess.run(
        ["unshare", "--net", "sh", "-c", f'{NETWORK} "$@"', "sh", *arguments, *map(str, folders)],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        timeout=180,
    )
    assert done.returncode == 0, done.stderr
    assert "explained on [::1]:" in done.stdout
