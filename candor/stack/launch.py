"""How each process of the local service is started."""

import os
import sys
from pathlib import Path

from candor.contracts.addresses import endpoint
from candor.contracts.json_text import json_text
from candor.gateway.sockets import loopback
from candor.stack.config import StackConfig
from candor.stack.identity import identity
from candor.stack.ports import Ports
from candor.stack.process import Process, spawn
from candor.stack.torchserve import SEARCH_WORKERS_VARIABLE, prepare_launch

_FILE_SETTINGS = (
    "CANDOR_KEYS_FILE",
    "CANDOR_TLS_CERT",
    "CANDOR_TLS_KEY",
    "CANDOR_TLS_CLIENT_CA",
)


def start_torchserve(
    config: StackConfig, models: tuple[str, ...], ports: Ports, run_dir: Path
) -> Process:
    """The JVM with every model's workers, on loopback."""
    launch = prepare_launch(
        config.archives_dir,
        models,
        ports,
        run_dir,
        search_workers=config.search_workers,
        compiles=config.compiles,
    )
    return spawn("torchserve", launch.command, launch.environment, log=run_dir / "torchserve.log")


def start_gateway(
    config: StackConfig, models: tuple[str, ...], ports: Ports, run_dir: Path
) -> Process:
    """The gateway in front of TorchServe."""
    settings = {
        "CANDOR_HOST": config.host,
        "CANDOR_GRPC_PORT": str(ports.grpc),
        "CANDOR_REST_PORT": str(ports.rest),
        "CANDOR_METRICS_PORT": str(ports.gateway_metrics),
        "CANDOR_HEALTH_PORT": str(ports.health),
        "CANDOR_TORCHSERVE_ADDRESS": endpoint(loopback(), ports.grpc_inference),
        "CANDOR_MODELS": json_text(models),
        SEARCH_WORKERS_VARIABLE: str(config.search_workers),
        **_store_settings(config),
        **_file_settings(),
    }
    log = None if config.shows_gateway_log else run_dir / "gateway.log"
    command = [sys.executable, "-m", "candor.gateway"]
    environment = {**os.environ, **identity(run_dir), **settings}
    return spawn("gateway", command, environment, log=log)


def start_report_worker(config: StackConfig, run_dir: Path) -> Process:
    """The process that computes the report jobs of ``config.store_url``."""
    log = None if config.shows_gateway_log else run_dir / "report-worker.log"
    models_dir = str(config.models_dir.absolute())
    command = [sys.executable, "-m", "candor.cli", "report-worker", "--models-dir", models_dir]
    environment = {**os.environ, **identity(run_dir), **_store_settings(config)}
    if "CANDOR_DATA" in environment:  # it runs in another folder
        environment["CANDOR_DATA"] = str(Path(environment["CANDOR_DATA"]).absolute())
    return spawn("report worker", command, environment, log=log)


def _file_settings() -> dict[str, str]:
    """Absolute, since the gateway runs in another folder."""
    given = {name: os.environ.get(name, "") for name in _FILE_SETTINGS}
    return {name: str(Path(file).absolute()) for name, file in given.items() if file}


def _store_settings(config: StackConfig) -> dict[str, str]:
    # As environment: every user of the machine can read passwords on a command line.
    settings = {"CANDOR_REPORTS_DIR": str(config.reports_dir.absolute())}
    if config.store_url is not None:
        settings["CANDOR_STORE_URL"] = config.store_url.reveal()
    return settings
