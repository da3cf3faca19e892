"""The command `candor report-worker`: computes the jobs of a store, one at a time."""

from pathlib import Path
from typing import Annotated

import typer

from candor.audit.report.signing import load_or_create_key
from candor.cli.audit_options import KeyFile, key_file
from candor.cli.options import DataDir
from candor.cli.store_options import DEFAULT_STORE, StoreAddress, opened_store
from candor.jobs.report_worker import run_worker
from candor.stack.archives import MODELS_DIR
from candor.stack.config import REPORTS_DIR


def report_worker(
    store: StoreAddress = DEFAULT_STORE,
    reports: Annotated[
        Path,
        typer.Option(envvar="CANDOR_REPORTS_DIR", help="Folder of reports, the gateway's too."),
    ] = REPORTS_DIR,
    models_dir: Annotated[Path, typer.Option(help="Folder of model folders.")] = MODELS_DIR,
    data_dir: DataDir = None,
    key: KeyFile = None,
    lease_seconds: Annotated[
        float,
        typer.Option(min=1.0, help="Silence after which another worker takes this one's job."),
    ] = 60.0,
    until_idle: Annotated[
        bool, typer.Option("--until-idle", help="End when no job waits, instead of waiting too.")
    ] = False,
) -> None:
    """Compute the jobs of a store until SIGTERM, which gives the job back.

    Jobs are robustness reports and explanations of many images; of the latter the images are in the
    folder images/ of the data.
    """
    with opened_store(store) as opened:
        run_worker(
            opened,
            reports=reports,
            models_dir=models_dir,
            data_dir=data_dir,
            key=load_or_create_key(key_file(key)),
            lease_seconds=lease_seconds,
            until_idle=until_idle,
        )
