"""Both containers together in several surroundings, and an image explained through them."""

import json
import re
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tools.images import containers
from tools.images.build import Image
from tools.images.containers import USER, Container
from tools.images.shell import ImagesError

_READY_SECONDS = 180.0
_WORKER_METRICS = ("worker", "--metrics-host", "::")  # as compose and the manifests start it
# A port that nobody listens on: what goes through the proxy fails.
_PROXIES = {
    name: "http://127.0.0.1:9"
    for lower in ("http_proxy", "https_proxy", "all_proxy", "grpc_proxy")
    for name in (lower, lower.upper())
}
_EXPLAIN = """
import json, sys, urllib.request
from pathlib import Path
from candor.client.sync import CandorClient
from candor.contracts.api import ClassRef, ExplainRequest, ImageInput

host, image = sys.argv[1:]
direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
pages = (8501, "healthz/ready"), (8501, ""), (8502, "metrics"), (8082, "metrics")
for port, path in pages:
    direct.open(f"http://{host}:{port}/{path}", timeout=20).close()
with CandorClient(f"{host}:8500", timeout_seconds=60) as client:
    image = ImageInput(encoded=Path(image).read_bytes())
    request = ExplainRequest(image=image, targets=(ClassRef(index=1),), no_cache=True)
    (found,) = client.explain(request).explanations
print(json.dumps({"rmse": found.rmse, "rho": found.rho}))
"""


@dataclass(frozen=True, slots=True)
class Scene:
    """Surroundings of a deployment.

    Attributes:
        environment: of both containers and of the client, beside the images' own.
        hosts: where the client looks for the service.
    """

    name: str
    environment: Mapping[str, str] = field(default_factory=dict)
    hosts: tuple[str, ...] = ("127.0.0.1", "[::1]")
    has_ipv4: bool = True


SCENES = (
    Scene("as shipped, IPv4 and IPv6"),
    # In POSIX's form, as the base has no names of time zones: 5 h 45 min before UTC.
    Scene("a proxy and no no_proxy, not UTC", {**_PROXIES, "TZ": "NPT-05:45"}),
    Scene("a loopback with ::1 alone", {"CANDOR_HOST": "::1"}, ("[::1]",), has_ipv4=False),
)


@dataclass(frozen=True, slots=True)
class Row:
    """One thing that was checked."""

    what: str
    found: str
    holds: bool


def play(
    scene: Scene, gateway: Image, worker: Image, client_python: Path, photograph: Path
) -> Iterator[Row]:
    """Starts both containers, explains, looks at them, and stops them in the right order."""
    with ExitStack() as opened:
        network = opened.enter_context(containers.network(has_ipv4=scene.has_ipv4))
        settings = {
            "CANDOR_MODELS": '["imagenette-robust"]',
            "CANDOR_METRICS_PORT": "8502",
            "CANDOR_ALLOW_ANONYMOUS": "true",
        }
        behind = opened.enter_context(
            containers.running(worker, network, scene.environment, _WORKER_METRICS)
        )
        front = opened.enter_context(
            containers.running(gateway, network, {**settings, **scene.environment})
        )
        seconds = _await_healthy(front, behind)
        yield Row(f"{scene.name}: both healthy", f"after {seconds:.0f} s", True)
        for host in scene.hosts:
            yield _explained(scene, host, network, client_python, photograph)
        yield from (_hardened(scene, container) for container in (front, behind))
        yield _logged_in_utc(scene, front)
        yield from (_stopped(scene, container) for container in (front, behind))


def _await_healthy(*both: Container) -> float:
    started = time.monotonic()
    while complaints := [said for container in both if (said := container.complaint())]:
        for container in both:
            if container.process.poll() is not None:
                raise ImagesError(f"{container.name} has ended:\n  {container.log_tail()}")
        if time.monotonic() - started > _READY_SECONDS:
            said = "\n".join([*complaints, *(f"{one.name}:\n  {one.log_tail()}" for one in both)])
            raise ImagesError(f"not healthy after {_READY_SECONDS:g} seconds\n{said}")
        time.sleep(0.5)
    return time.monotonic() - started


def _explained(scene: Scene, host: str, network: int, python: Path, photograph: Path) -> Row:
    """By the wheel alone, in the same network and surroundings."""
    done = subprocess.run(
        [
            *("nsenter", f"--net=/proc/{network}/ns/net"),
            *(python, "-I", "-c", _EXPLAIN, host, photograph),
        ],
        env=dict(scene.environment),
        capture_output=True,
        text=True,
        timeout=120,
    )
    what = f"{scene.name}: explained through {host}"
    if done.returncode != 0:
        return Row(what, done.stderr.strip().splitlines()[-1], False)
    found = json.loads(done.stdout)
    text = f"RMSE {found['rmse']:.4f} of {found['rho']:g}"
    return Row(what, text, 0 < found["rmse"] <= found["rho"])


def _hardened(scene: Scene, container: Container) -> Row:
    # As root, without capabilities: only a read-only root can refuse.
    writing = container.execute(["touch", "/app/written"], user=0)
    facts = {
        f"user {USER}": container.status("Uid").split() == [str(USER)] * 4,
        "root read-only": "Read-only file system" in writing.stderr,
        "no capabilities": int(container.status("CapBnd"), 16) == 0,
        "no new privileges": container.status("NoNewPrivs") == "1",
        # It is given none; the worker then gives TorchServe its own run folder.
        "no HOME": container.home() == "" or container.home().startswith("/tmp/candor-"),
        "first process": container.status("NSpid").split()[-1] == "1",
    }
    missing = [name for name, holds in facts.items() if not holds]
    text = f"not: {', '.join(missing)}" if missing else ", ".join(facts)
    return Row(f"{scene.name}: {container.image.name}", text, not missing)


def _logged_in_utc(scene: Scene, gateway: Container) -> Row:
    times = re.findall(r'^\{"time": "([^"]+)"', gateway.log.read_text(), re.MULTILINE)
    latest = datetime.fromisoformat(times[-1]) if times else None
    is_now = latest is not None and abs(datetime.now(UTC) - latest) < timedelta(minutes=2)
    is_utc = latest is not None and latest.utcoffset() == timedelta(0)
    return Row(f"{scene.name}: log in UTC", str(latest), is_now and is_utc)


def _stopped(scene: Scene, container: Container) -> Row:
    code, seconds = container.stop()
    # A JVM that SIGTERM ends says 128 + 15.
    is_clean = code == 0 or (container.image.name == "worker" and code == 143)
    text = f"code {code} after {seconds:.1f} s"
    return Row(f"{scene.name}: {container.image.name} ends at SIGTERM", text, is_clean)
