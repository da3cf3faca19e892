"""`candor reports` against a real gateway; a worker's part is played by the test."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from candor.cli.main import build_app
from candor.contracts.reports import ReportResult
from candor.files.writing import write_files
from candor.store.engine import Store, open_store
from tests.gateway.servers import Servers, opened, until
from tests.gateway.test_reports import FILES, HALF, INCOMPLETE, PAGE, RESULT, queue


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    shared = open_store(str(tmp_path_factory.mktemp("store") / "store.sqlite"))
    yield shared
    shared.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("reports")


@pytest.fixture(scope="module")
def servers(store: Store, folder: Path) -> Iterator[Servers]:
    yield from opened(store_url=store.address, reports_dir=folder)


def run(servers: Servers, *words: object) -> Result:
    address = f"127.0.0.1:{servers.gateway.grpc_port}"
    arguments = ["reports", *map(str, words), "--address", address]
    return CliRunner().invoke(build_app(), arguments)


def finish_next_job(store: Store, folder: Path, result: ReportResult | None = RESULT) -> None:
    """As a worker would."""
    workers = queue(store)
    leased = None

    def has_job() -> bool:
        nonlocal leased
        leased = workers.lease()
        return leased is not None

    until(has_job, 30.0)
    assert leased is not None
    workers.renew(leased, HALF)
    if result is None:
        workers.fail(leased, "no data")
        return
    write_files(folder / leased.public_id, FILES)
    workers.finish(leased, result)


def test_job_is_shown_listed_and_cancelled(servers: Servers) -> None:
    made = run(servers, "create", "--images", 10, "--attacks", "paper, fgsm", "--json")
    assert made.exit_code == 0, made.output
    job = json.loads(made.stdout)
    assert job["request"]["attacks"] == ["paper", "fgsm"]
    shown = run(servers, "show", job["name"])
    assert "linear  queued" in shown.stderr
    listed = run(servers, "list", "--state", "queued")
    assert job["name"] in listed.stderr
    assert "cancelled" in run(servers, "cancel", job["name"]).stderr
    refused = run(servers, "download", job["name"], "--out", "nowhere")
    assert refused.exit_code == 1
    assert "expected a job with a result, got" in refused.stderr


def test_waiting_ends_with_the_files_and_what_matters(
    servers: Servers, store: Store, folder: Path, tmp_path: Path
) -> None:
    worker = threading.Thread(target=finish_next_job, args=(store, folder), daemon=True)
    worker.start()
    result = run(servers, "create", "--images", 10, "--wait", "--out", tmp_path / "got")
    worker.join()
    assert result.exit_code == 0, result.output
    assert "10 images are too few" in result.stderr
    assert "attack_ara 0.0100 [0.0090, 0.0110], n = 10" in result.stderr
    found = [path for path in (tmp_path / "got").rglob("*") if path.is_file()]
    got = {str(path.relative_to(tmp_path / "got")): path.read_bytes() for path in found}
    assert got == FILES


@pytest.mark.parametrize(("result", "code"), [(INCOMPLETE, 3), (None, 1)])
def test_waiting_for_a_report_that_is_none_or_not_complete_is_no_success(
    servers: Servers, store: Store, folder: Path, result: ReportResult | None, code: int
) -> None:
    worker = threading.Thread(target=finish_next_job, args=(store, folder, result), daemon=True)
    worker.start()
    waited = run(servers, "create", "--images", 10, "--wait", "--json")
    worker.join()
    assert waited.exit_code == code, waited.output
    job = json.loads(waited.stdout)
    assert job["state"] == {3: "incomplete", 1: "failed"}[code]
    if result is not None:
        said = "candor reports: not complete, square failed on some images"
        assert waited.stderr.splitlines()[-1] == said
        got = run(servers, "download", job["name"], "--out", folder / "got")
        assert (got.exit_code, got.stderr.splitlines()[-1]) == (3, said)
        assert (folder / "got" / "report.html").read_bytes() == PAGE


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("create", "--images", 1), "image_count: expected 2 or more, got 1"),
        (("create", "--attacks", "magic"), "label-only, got 'magic'"),
        (("create", "--name", "other"), "model: expected one of linear, got 'other'"),
        (("show", "reports/0"), "of this store and tenant, got 'reports/0'"),
    ],
)
def test_refusal_is_one_line(servers: Servers, words: tuple[object, ...], message: str) -> None:
    result = run(servers, *words)
    assert result.exit_code == 1
    assert message in result.stderr
    assert "Traceback" not in result.output
