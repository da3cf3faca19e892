"""How TorchServe is started: its configuration and the command of its JVM."""

import ipaddress
import os
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from string import Template

from candor.contracts.addresses import is_ipv6
from candor.gateway.sockets import listening_host, loopback
from candor.stack.archives import REPOSITORY, archive_names
from candor.stack.errors import StackError
from candor.stack.identity import identity
from candor.stack.java import java

SEARCH_WORKERS_VARIABLE = "CANDOR_SEARCH_WORKERS"  # the gateway's setting and the handlers', too
_CONFIG_DIR = REPOSITORY / "deploy" / "torchserve"
# Threads that spin while they wait take the cores from the threads they wait for.
_WORKER_ENVIRONMENT = {"OMP_WAIT_POLICY": "passive"}
# In the locale C the JVM finds no file whose path has letters beyond ASCII.
_LOCALE = {"LC_ALL": "C.UTF-8"}


@dataclass(frozen=True, slots=True)
class TorchServePorts:
    """TorchServe's five ports."""

    inference: int
    management: int
    metrics: int
    grpc_inference: int
    grpc_management: int


# TorchServe's own defaults; 7070 is where the gateway looks for it by default.
STANDARD_PORTS = TorchServePorts(8080, 8081, 8082, 7070, 7071)


@dataclass(frozen=True, slots=True)
class Launch:
    """A command and the whole environment it needs."""

    command: list[str]
    environment: dict[str, str]


@dataclass(frozen=True, slots=True)
class _Hosts:
    """The addresses on which TorchServe listens."""

    metrics: str
    loopback: str = field(default_factory=loopback)

    def java_options(self, run_dir: Path) -> list[str]:
        """Makes the names of IPv6 addresses known to the JVM; none where it needs no names."""
        named = [host for host in (self.loopback, self.metrics) if is_ipv6(host)]
        if not named:
            return []
        lines = [f"{host} {_http_name(host)}\n" for host in named]
        file = run_dir / "hosts"  # the JVM then knows these names and no others
        file.write_text("".join([*lines, f"{self.loopback} {socket.gethostname()}\n"]))
        return [f"-Djdk.net.hosts.file={file}"]


def _http_name(host: str) -> str:
    """The host as TorchServe's HTTP addresses take it, which must not have a colon."""
    if not is_ipv6(host):
        return host
    return f"ipv6-{ipaddress.ip_address(host).exploded.replace(':', '-')}"


def prepare_launch(
    archives_dir: Path,
    models: Sequence[str],
    ports: TorchServePorts,
    run_dir: Path,
    *,
    metrics_host: str | None = None,
    search_workers: int = 1,
    compiles: bool = False,
) -> Launch:
    """Write TorchServe's configuration into ``run_dir`` and return how to start it.

    Args:
        run_dir: takes everything TorchServe writes; a path short enough for sockets (107 bytes).
        metrics_host: where the metrics are read, as a `candor.gateway.sockets.listening_host`;
            every other port stays on loopback, and this one, too, where it is None.
        search_workers: of each model; they share the cores.
        compiles: whether search workers have their network compiled behind; the environment's
            CANDOR_COMPILE goes before it.

    Raises:
        StackError: TorchServe or its JVM is not installed.
        OSError, ValueError: ``metrics_host`` is no address.
    """
    properties = run_dir / "config.properties"
    hosts = _Hosts(loopback() if metrics_host is None else listening_host(metrics_host))
    properties.write_text(_properties(archives_dir, models, ports, hosts, search_workers))
    compiling = {"CANDOR_COMPILE": "auto" if compiles else "off"}
    sharing = {SEARCH_WORKERS_VARIABLE: str(search_workers)}
    folders = dict.fromkeys(("TMPDIR", "TEMP", "LOG_LOCATION", "METRICS_LOCATION"), str(run_dir))
    return Launch(
        _java_command(properties, archives_dir, run_dir, hosts),
        {
            **_WORKER_ENVIRONMENT,
            **compiling,
            **os.environ,
            **_LOCALE,
            **identity(run_dir),
            **sharing,
            **folders,
        },
    )


def _properties(
    archives_dir: Path,
    models: Sequence[str],
    ports: TorchServePorts,
    hosts: "_Hosts",
    search_workers: int,
) -> str:
    template = Template((_CONFIG_DIR / "config.properties").read_text())
    return template.substitute(
        inference_port=ports.inference,
        management_port=ports.management,
        loopback=_http_name(hosts.loopback),
        loopback_address=hosts.loopback,
        metrics_host=_http_name(hosts.metrics),
        metrics_port=ports.metrics,
        grpc_inference_port=ports.grpc_inference,
        grpc_management_port=ports.grpc_management,
        model_store=_of_properties(str(archives_dir.resolve())),
        model_store_pattern=_of_properties(f"\\Q{archives_dir.resolve()}\\E"),
        search_workers=search_workers,
        load_models=",".join(archive_names(tuple(models))),
    )


def _of_properties(value: str) -> str:
    """A value as Java's properties files write it: Latin-1 with escapes of UTF-16."""
    units = value.encode("utf-16-be")
    codes = (int.from_bytes(units[at : at + 2], "big") for at in range(0, len(units), 2))
    return "".join(
        chr(code) if 32 <= code < 127 and code != ord("\\") else f"\\u{code:04x}" for code in codes
    )


def _java_command(
    properties: Path, archives_dir: Path, run_dir: Path, hosts: "_Hosts"
) -> list[str]:
    """The JVM itself, not TorchServe's launcher, which would not pass signals on."""
    packages = _site_packages()
    return [
        str(java()),
        *(_CONFIG_DIR / "jvm.options").read_text().split(),
        f"-Djava.io.tmpdir={run_dir}",
        *hosts.java_options(run_dir),
        f"-Dmodel_server_home={packages}",
        f"-Dlog4j.configurationFile={(_CONFIG_DIR / 'log4j2.xml').as_uri()}",
        *("-cp", f"{packages}/ts/frontend/*", "org.pytorch.serve.ModelServer"),
        *("--python", sys.executable, "-f", str(properties)),
        *("-s", str(archives_dir.resolve()), "-ncs"),
    ]


def _site_packages() -> Path:
    spec = find_spec("ts")
    if spec is None or spec.origin is None:
        raise StackError("torchserve is not installed in this environment; run make setup")
    return Path(spec.origin).parents[1]
