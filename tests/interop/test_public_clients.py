"""Conformance: the public clients of Triton and KServe against a real gateway.

They want other versions of packages than ours, so they run in an environment of their own; the
variable CANDOR_PUBLIC_CLIENTS names the Python of one that is there already.
"""

import functools
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.gateway.linear_worker import CLASSES, SHAPE, confidences_of
from tests.gateway.servers import Servers

pytestmark = pytest.mark.slow
_FOLDER = Path(__file__).parent
_INSTALL_SECONDS = 900


@pytest.fixture(scope="module")
def clients_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    given = os.environ.get("CANDOR_PUBLIC_CLIENTS")
    if given:
        return Path(given)
    folder = tmp_path_factory.mktemp("clients")
    python = folder / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    install = [python, "-m", "pip", "install", "--quiet", "-r", _FOLDER / "requirements.txt"]
    subprocess.run(install, check=True, timeout=_INSTALL_SECONDS)
    return python


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(3).random((2, *SHAPE), dtype=np.float32)


@pytest.fixture(scope="module")
def ask(
    servers: Servers,
    png: bytes,
    images: np.ndarray,
    clients_python: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str], Any]:
    """What the clients of Triton or KServe got, each in a process of its own."""
    folder = tmp_path_factory.mktemp("pictures")
    np.save(folder / "images.npy", images)
    (folder / "picture.png").write_bytes(png)
    gateway = servers.gateway
    addresses = [f"127.0.0.1:{port}" for port in (gateway.rest_port, gateway.grpc_port)]

    @functools.cache
    def ask(which: str) -> Any:
        files = [folder / "images.npy", folder / "picture.png"]
        done = subprocess.run(
            [clients_python, _FOLDER / "public_clients.py", which, *addresses, *files],
            capture_output=True,
            text=True,
            timeout=120,
            cwd=folder,
            env={"PATH": os.environ["PATH"], "HOME": str(folder)},
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return ask


@pytest.mark.parametrize("door", ["http", "grpc"])
def test_triton_client_gets_what_the_model_says(
    ask: Callable[[str], Any], images: np.ndarray, door: str
) -> None:
    got = ask("triton")[door]
    assert (got["live"], got["ready"], got["model_ready"]) == (True, True, True)
    assert not got["other_ready"]
    assert (got["server"], got["model"]) == ("candor", "linear")
    for place, image in enumerate(images):
        confidences = confidences_of(image)
        order = np.argsort(-confidences)
        assert got["tensors"]["indices"][place] == order.tolist()
        assert got["tensors"]["labels"][place] == [CLASSES[index] for index in order]
        np.testing.assert_allclose(
            got["tensors"]["confidences"][place], confidences[order], rtol=1e-5
        )
    assert len(got["pictures"]["indices"]) == 2
    assert "shape" in got["refusal"]


def test_kserve_clients_get_the_same(ask: Callable[[str], Any], images: np.ndarray) -> None:
    got = ask("kserve")
    want = [np.argsort(-confidences_of(image)).tolist() for image in images]
    assert got["v1"]["ready"] is True
    assert len(got["v1"]["predictions"][0]) == len(CLASSES)
    assert 0.0 < got["v1"]["rmse"] <= 0.02
    for door in ("v2", "grpc"):
        assert got[door]["ready"]
        assert got[door]["model_ready"]
        assert got[door]["indices"] == want
    assert got["v2"]["live"]
