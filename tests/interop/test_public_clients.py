"""Conformance: the public clients of Triton and KServe against a real gateway.

They need other versions of packages than ours, so they run in an environment of their own; the
variable CANDOR_PUBLIC_CLIENTS names the Python of an existing one.
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
def results_of(
    servers: Servers,
    png: bytes,
    images: np.ndarray,
    clients_python: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str], Any]:
    """The results of the clients of Triton or KServe, each in a process of its own."""
    folder = tmp_path_factory.mktemp("images")
    np.save(folder / "images.npy", images)
    (folder / "image.png").write_bytes(png)
    gateway = servers.gateway
    addresses = [f"127.0.0.1:{port}" for port in (gateway.rest_port, gateway.grpc_port)]

    @functools.cache
    def results_of(which: str) -> Any:
        files = [folder / "images.npy", folder / "image.png"]
        done = subprocess.run(
            [clients_python, _FOLDER / f"{which}_client.py", *addresses, *files],
            capture_output=True,
            text=True,
            timeout=120,
            cwd=folder,
            env={"PATH": os.environ["PATH"], "HOME": str(folder)},
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return results_of


@pytest.mark.parametrize("transport", ["http", "grpc"])
def test_triton_client_gets_the_predictions_of_the_model(
    results_of: Callable[[str], Any], images: np.ndarray, transport: str
) -> None:
    results = results_of("triton")[transport]
    assert (results["live"], results["ready"], results["model_ready"]) == (True, True, True)
    assert not results["other_ready"]
    assert (results["server"], results["model"]) == ("candor", "linear")
    for index, image in enumerate(images):
        confidences = confidences_of(image)
        order = np.argsort(-confidences)
        assert results["tensors"]["indices"][index] == order.tolist()
        assert results["tensors"]["labels"][index] == [CLASSES[one] for one in order]
        np.testing.assert_allclose(
            results["tensors"]["confidences"][index], confidences[order], rtol=1e-5
        )
    assert len(results["images"]["indices"]) == 2
    assert "shape" in results["error"]


def test_kserve_clients_get_the_same(results_of: Callable[[str], Any], images: np.ndarray) -> None:
    results = results_of("kserve")
    want = [np.argsort(-confidences_of(image)).tolist() for image in images]
    assert results["v1"]["ready"] is True
    assert len(results["v1"]["predictions"][0]) == len(CLASSES)
    assert 0.0 < results["v1"]["rmse"] <= 0.02
    for transport in ("v2", "grpc"):
        assert results[transport]["ready"]
        assert results[transport]["model_ready"]
        assert results[transport]["indices"] == want
    assert results["v2"]["live"]
