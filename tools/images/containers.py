"""Containers as a cluster runs them: user 65532, a read-only root, no capabilities, no HOME."""

import json
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from candor.contracts.json_text import json_text
from tools.images.build import Image
from tools.images.shell import OUT, ImagesError, run

USER = 65532
# The runtime sees no control groups: it rejects some machines' layout, and none is needed here.
_HIDE_GROUPS = 'mount -t tmpfs none /sys/fs/cgroup && exec "$@"'
_CRUN = (
    *("unshare", "--mount", "sh", "-c", _HIDE_GROUPS, "sh"),
    *("crun", "--root", str(OUT / "crun"), "--cgroup-manager", "disabled"),
)
_HOSTS = "127.0.0.1 localhost\n::1 localhost\n"
_STOP_SECONDS = 60.0
_NO_CAPABILITIES: dict[str, list[str]] = {
    kind: [] for kind in ("bounding", "effective", "inheritable", "permitted", "ambient")
}
# Without it the runtime would set HOME to a folder of its own choice.
_WITHOUT_HOME = ("/usr/bin/env", "-u", "HOME")


@contextmanager
def network(*, has_ipv4: bool) -> Iterator[int]:
    """A network with a loopback alone; the process id of whoever holds it."""
    holder = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
    try:
        inside = ["nsenter", f"--net=/proc/{holder.pid}/ns/net", "ip"]
        _await_network(holder.pid)
        run([*inside, "link", "set", "lo", "up"])
        if not has_ipv4:
            run([*inside, "address", "del", "127.0.0.1/8", "dev", "lo"])
        yield holder.pid
    finally:
        holder.terminate()
        holder.wait()


def _await_network(pid: int) -> None:
    own = Path("/proc/self/ns/net").readlink()
    for _ in range(100):
        if Path(f"/proc/{pid}/ns/net").readlink() != own:
            return
        time.sleep(0.05)
    raise ImagesError("unshare: no network of its own after 5 seconds")


@dataclass(frozen=True, slots=True)
class Container:
    """A running container.

    Attributes:
        log: what it printed.
    """

    name: str
    image: Image
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        return int(json.loads(run([*_CRUN, "state", self.name]))["pid"])

    def status(self, field: str) -> str:
        """A field of the first process's status, as the kernel prints it."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith(f"{field}:"))

    def home(self) -> str:
        """HOME of its first process; empty where it has none."""
        items = Path(f"/proc/{self.pid}/environ").read_text().split("\0")
        return next((item[len("HOME=") :] for item in items if item.startswith("HOME=")), "")

    def execute(self, command: Sequence[str], user: int = USER) -> subprocess.CompletedProcess[str]:
        """A command inside, with the container's own environment."""
        place = ("--user", f"{user}:{user}", "--cwd", self.image.config["WorkingDir"])
        return subprocess.run(
            [*_CRUN, "exec", *place, self.name, *_WITHOUT_HOME, *command],
            capture_output=True,
            text=True,
            timeout=60,
        )

    def complaint(self) -> str:
        """What the image's HEALTHCHECK says is wrong; empty where it is healthy."""
        done = self.execute(self.image.config["Healthcheck"]["Test"][1:])
        said = (done.stderr or done.stdout).strip()
        return "" if done.returncode == 0 else f"{self.name}: {said}"

    def stop(self) -> tuple[int, float]:
        """The exit code after SIGTERM to its first process, and the seconds until then."""
        started = time.monotonic()
        run([*_CRUN, "kill", self.name, "TERM"])
        code = self.process.wait(_STOP_SECONDS)
        return code, time.monotonic() - started

    def log_tail(self) -> str:
        return "\n  ".join(self.log.read_text(errors="replace").splitlines()[-8:])


@contextmanager
def running(
    image: Image,
    network_pid: int,
    environment: Mapping[str, str],
    command: Sequence[str] | None = None,
) -> Iterator[Container]:
    """The container until the block ends; ``command`` instead of the image's own."""
    name = f"candor-{image.name}-{network_pid}"
    bundle = OUT / "bundles" / name
    bundle.mkdir(parents=True, exist_ok=True)
    (bundle / "hosts").write_text(_HOSTS)
    specification = _specification(image, network_pid, environment, command, bundle)
    (bundle / "config.json").write_text(json_text(specification))
    log = bundle / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*_CRUN, "run", "--bundle", str(bundle), name],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield Container(name, image, process, log)
    finally:
        subprocess.run([*_CRUN, "delete", "--force", name], capture_output=True)
        process.wait(_STOP_SECONDS)


def _specification(
    image: Image,
    network_pid: int,
    environment: Mapping[str, str],
    command: Sequence[str] | None,
    bundle: Path,
) -> dict[str, object]:
    """As the OCI's runtime specification has it."""
    config = image.config
    own = dict(item.split("=", 1) for item in config["Env"])
    words = [*(config["Entrypoint"] or ()), *(command or config["Cmd"] or ())]
    return {
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": USER, "gid": USER},
            "args": [*_WITHOUT_HOME, *words],
            "env": [f"{name}={value}" for name, value in {**own, **environment}.items()],
            "cwd": config["WorkingDir"],
            "capabilities": _NO_CAPABILITIES,
            "noNewPrivileges": True,
        },
        "root": {"path": str(image.root), "readonly": True},
        "mounts": _mounts(bundle),
        "linux": {
            "namespaces": [
                *({"type": kind} for kind in ("pid", "ipc", "uts", "mount")),
                {"type": "network", "path": f"/proc/{network_pid}/ns/net"},
            ]
        },
    }


def _mounts(bundle: Path) -> list[dict[str, object]]:
    def temporary(place: str, *options: str) -> dict[str, object]:
        return {"destination": place, "type": "tmpfs", "source": "tmpfs", "options": [*options]}

    hosts = {"destination": "/etc/hosts", "type": "bind", "source": str(bundle / "hosts")}
    return [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        temporary("/dev", "nosuid", "strictatime", "mode=755", "size=65536k"),
        temporary("/dev/shm", "nosuid", "nodev", "noexec", "mode=1777", "size=65536k"),
        # What compose gives the worker; nothing else can be written.
        temporary("/tmp", "nosuid", "nodev", "mode=1777", "size=256m"),
        {**hosts, "options": ["rbind", "ro"]},
    ]
