"""Jobs that explain many images: the contract over gRPC, REST and the clients."""

import asyncio
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from candor.client.aio import AsyncCandorClient
from candor.contracts.errors import ErrorCode, ServiceError
from candor.contracts.explanation_jobs import (
    CreateExplanationJobRequest,
    ExplanationJob,
    ExplanationJobProgress,
    ExplanationJobResult,
)
from candor.contracts.reports import CreateReportRequest, ReportFile, ReportState
from candor.store.engine import Store, open_store
from candor.store.job_queue import JobQueue
from tests.gateway.servers import Servers, opened

TABLE = b"PAR1" * 100_000
RESULT = ExplanationJobResult(
    files=(
        ReportFile(
            name="explanations.parquet",
            byte_count=len(TABLE),
            sha256=hashlib.sha256(TABLE).hexdigest(),
        ),
    ),
    image_count=10,
    error_count=1,
    flip_count=8,
    median_radius=0.01,
)
HALF = ExplanationJobProgress(
    fraction=0.5, stage="explain", images_done=5, image_count=10, seconds_left=None
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("reports")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    store = open_store(str(tmp_path_factory.mktemp("store") / "store.sqlite"))
    yield store
    store.close()


@pytest.fixture(scope="module")
def servers(shared: Store, folder: Path) -> Iterator[Servers]:
    yield from opened(store_url=shared.address, reports_dir=folder)


def test_both_clients_and_rest_create_see_cancel_and_download_the_same_job(
    servers: Servers, shared: Store, folder: Path
) -> None:
    asked = {"folder": "cats", "target": {"index": 1}, "norm": "l1.5", "idempotency_key": "once"}
    job = servers.client.create_explanation_job(CreateExplanationJobRequest(**asked))
    assert (job.state, job.request.model) == (ReportState.QUEUED, "linear")
    assert (job.request.solver, job.request.steps) == ("fast", 8)
    assert servers.rest.post("/v1/explanation-jobs", json=asked).json()["name"] == job.name
    # The same key of another kind is another job.
    report = servers.client.create_report(CreateReportRequest(idempotency_key="once"))
    workers = JobQueue(shared, "one", lease_seconds=60.0)
    leased, other = workers.lease(), workers.lease()
    assert leased is not None
    assert other is not None
    assert (leased.name, other.name) == (job.name, report.name), "of any kind, the oldest first"
    workers.renew(leased, HALF)
    shown = servers.rest.get(f"/v1/{job.name}").json()
    assert ExplanationJob.model_validate(shown).progress == HALF
    workers.finish(leased, RESULT)
    (folder / leased.public_id).mkdir()
    (folder / leased.public_id / "explanations.parquet").write_bytes(TABLE)
    done = servers.client.get_explanation_job(job.name)
    assert (done.state, done.response) == (ReportState.SUCCEEDED, RESULT)
    assert servers.client.cancel_explanation_job(job.name) == done, "what has ended stays"
    assert [one.name for one in servers.client.list_explanation_jobs().jobs] == [job.name]
    assert (
        b"".join(servers.client.download_explanation_job(job.name, RESULT.files[0].name)) == TABLE
    )
    response = servers.rest.get(f"/v1/{job.name}/files/explanations.parquet")
    assert response.content == TABLE
    assert asyncio.run(_through_asyncio(servers.client_address, job.name)) == TABLE
    queued = servers.client.create_explanation_job(CreateExplanationJobRequest(folder="dogs"))
    response = servers.rest.post(f"/v1/{queued.name}:cancel")
    assert response.json()["state"] == "cancelled"


async def _through_asyncio(address: str, name: str) -> bytes:
    async with AsyncCandorClient(address) as client:
        listed = await client.list_explanation_jobs()
        assert listed.jobs[0] == await client.get_explanation_job(name)
        parts = client.download_explanation_job(name, "explanations.parquet")
        return b"".join([part async for part in parts])


@pytest.mark.parametrize(
    ("fields", "field", "text"),
    [
        ({}, "folder", "required"),
        ({"folder": "../secret"}, "folder", "got '../secret'"),
        ({"folder": "/etc"}, "folder", "got '/etc'"),
        ({"folder": "a/./b"}, "folder", "got 'a/./b'"),
        ({"folder": "a\u202eb"}, "folder", "expected the name of a folder"),
        ({"folder": ""}, "folder", "expected the name of a folder"),
        ({"folder": "a", "target": {"name": "cow"}}, "target.name", "expected one of"),
        ({"folder": "a", "solver": "slow"}, "solver", "expected one of paper, fast, got 'slow'"),
        ({"folder": "a", "rho": 0.0}, "rho", "got 0"),
        ({"folder": "a", "norm": "l3"}, "norm", "l1.5"),
        ({"folder": "a", "batch_size": 0}, "batch_size", "got 0"),
    ],
)
def test_bad_field_is_named(
    servers: Servers, fields: dict[str, Any], field: str, text: str
) -> None:
    response = servers.rest.post("/v1/explanation-jobs", json=fields)
    assert response.status_code == 400
    violations = {
        one["field"]: one["description"] for one in response.json()["error"]["violations"]
    }
    assert text in violations[field]


@pytest.mark.parametrize("name", ["explanation-jobs/0", "reports/0", ""])
def test_job_there_is_none_of_is_not_found(servers: Servers, name: str) -> None:
    with pytest.raises(ServiceError, match="expected explanation-jobs/ID") as caught:
        servers.client.get_explanation_job(name)
    assert caught.value.code is ErrorCode.JOB_NOT_FOUND
