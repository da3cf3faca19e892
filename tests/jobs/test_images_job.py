"""Jobs that explain the images of a folder, by a worker in this process."""

import io
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from candor.contracts.explanation_jobs import (
    CreateExplanationJobRequest,
    ExplanationJob,
    ListExplanationJobsResponse,
)
from candor.contracts.reports import ReportState
from candor.explained.local import LocalExplainer
from candor.explained.rows import read_rows
from candor.jobs.report_worker import Worker
from candor.store.blocks import SharedBlocks
from candor.store.engine import Store, open_store
from candor.store.job_kinds import EXPLANATIONS
from candor.store.job_queue import JobQueue
from candor.store.jobs import Jobs
from tests.explained.folders import make_images

ASKED = CreateExplanationJobRequest(
    model="tiny", folder="cats/new", solver="fast", steps=2, batch_size=2
)


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Store]:
    """SQLite alone: what differs between databases is tried with `Jobs` and `SharedBlocks`."""
    store = open_store(str(tmp_path / "store.sqlite"))
    yield store
    store.close()


@pytest.fixture
def jobs(
    opened: Store,
) -> Jobs[CreateExplanationJobRequest, ExplanationJob, ListExplanationJobsResponse]:
    return Jobs(opened, EXPLANATIONS)


@pytest.fixture
def worker(opened: Store, model: Path, tmp_path: Path) -> Worker:
    make_images(tmp_path / "data" / "images" / "cats" / "new", 3)
    return Worker(
        queue=JobQueue(opened, "here", lease_seconds=60.0),
        reports=tmp_path / "reports",
        models_dir=model.parent,
        data_dir=tmp_path / "data",
        key=Ed25519PrivateKey.generate(),
        lease_seconds=60.0,
        stopping=threading.Event(),
    )


def test_job_leaves_a_table_and_a_gallery_and_goes_on_where_a_worker_stopped(
    jobs: Jobs[Any, Any, Any], worker: Worker, opened: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = jobs.create(ASKED).name
    stopped = replace(worker, stopping=threading.Event())
    computed, explain = list[int](), LocalExplainer.explain

    def noted(self: LocalExplainer, files: Any) -> Any:
        computed.append(files[0].index)
        if len(computed) == 2:  # noticed before the next evaluation of the network
            stopped.stopping.set()
        return explain(self, files)

    monkeypatch.setattr(LocalExplainer, "explain", noted)
    stopped.run(until_idle=False)
    assert jobs.get(name).state is ReportState.QUEUED
    shared = SharedBlocks(opened, name.removeprefix(EXPLANATIONS.prefix), "any")
    assert len(shared.all()) == 3
    worker.run(until_idle=True)
    job = jobs.get(name)
    assert job.state is ReportState.SUCCEEDED, job
    assert computed == [0, 2, 2, 4], "nothing is computed again but the block that was stopped"
    assert (job.progress.fraction, job.progress.images_done) == (1.0, 5)
    result = job.response
    assert (result.image_count, result.error_count) == (5, 2)
    home = worker.reports / name.removeprefix("explanation-jobs/")
    rows = read_rows(home / "explanations.parquet")
    assert result.flip_count == sum(bool(row.flips) for row in rows)
    assert [file.name for file in result.files] == ["explanations.parquet", "explanations.zip"]
    with zipfile.ZipFile(io.BytesIO((home / "explanations.zip").read_bytes())) as archive:
        names = set(archive.namelist())
    assert {"index.html", "explanations.parquet", rows[0].explanation_file} <= names
    assert shared.all() == []


def test_job_that_is_cancelled_or_fails_leaves_no_blocks(
    jobs: Jobs[Any, Any, Any], opened: Store
) -> None:
    names = [jobs.create(ASKED).name for _ in range(3)]
    shared = [SharedBlocks(opened, name.removeprefix(EXPLANATIONS.prefix), "any") for name in names]
    for one in shared:
        one.extend(4, 2)
    queue = JobQueue(opened, "here", lease_seconds=60.0)
    leased = queue.lease()
    assert leased is not None
    queue.fail(leased, "a reason")
    jobs.cancel(names[1])
    assert [len(one.all()) for one in shared] == [0, 0, 2]


def test_job_whose_images_changed_starts_again(
    jobs: Jobs[Any, Any, Any], worker: Worker, opened: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = jobs.create(ASKED).name
    stopped = replace(worker, stopping=threading.Event())
    explain = LocalExplainer.explain

    def once(self: LocalExplainer, files: Any) -> Any:
        stopped.stopping.set()
        return explain(self, files)

    with monkeypatch.context() as patched:
        patched.setattr(LocalExplainer, "explain", once)
        stopped.run(until_idle=False)
    assert worker.data_dir is not None
    for gone in ("cut.png", "b/no.jpg"):
        (worker.data_dir / "images" / "cats" / "new" / gone).unlink()
    worker.run(until_idle=True)
    job = jobs.get(name)
    assert job.state is ReportState.SUCCEEDED, job
    assert (job.response.image_count, job.response.error_count) == (3, 0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model": "gone"}, "model: got 'gone'; "),
        (
            {"folder": "dogs"},
            "folder: expected a folder in images/ of the worker's data, got 'dogs'",
        ),
        ({"target": {"name": "cow"}}, "target: expected one of "),
    ],
)
def test_job_that_cannot_be_computed_says_why(
    jobs: Jobs[Any, Any, Any], worker: Worker, fields: dict[str, Any], message: str
) -> None:
    name = jobs.create(CreateExplanationJobRequest(**ASKED.model_dump() | fields)).name
    worker.run(until_idle=True)
    job = jobs.get(name)
    assert job.state is ReportState.FAILED
    assert job.error.message.startswith(message), job.error.message
