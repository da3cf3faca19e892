"""Report jobs: the store on both databases, the workers' side of it, gRPC and REST."""

import asyncio
import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from sqlalchemy import event, select

from candor.audit.sections.attacks import ATTACK_STAGES
from candor.client.aio import AsyncCandorClient
from candor.contracts import limits
from candor.contracts.card import MetricCard
from candor.contracts.errors import ErrorCode, ServiceError
from candor.contracts.reports import (
    CreateReportRequest,
    ListReportsRequest,
    NotTried,
    Report,
    ReportFile,
    ReportProgress,
    ReportResult,
    ReportState,
)
from candor.data.registry import dataset_names
from candor.files.writing import write_files
from candor.rpc.pb.candor.v1 import reports_pb2, reports_pb2_grpc
from candor.store.engine import Store, open_store
from candor.store.job_kinds import REPORTS
from candor.store.job_queue import MAX_ATTEMPTS, JobQueue
from candor.store.jobs import Jobs
from candor.store.leases import LeaseLost
from candor.store.tables import StoredJob
from tests.gateway.servers import Servers, opened
from tests.store.stores import Clock

LEASE_SECONDS = 60.0
HALF = ReportProgress(
    fraction=0.5, stage="paper", images_done=5, image_count=10, attack_ara=0.01, seconds_left=9.0
)
PAGE = b"<!doctype html><p>" + b"0123456789" * 60_000
FILES = {"report.html": PAGE, "gallery/index.html": b"<!doctype html><p>gallery"}
RESULT = ReportResult(
    files=tuple(
        ReportFile(name=name, byte_count=len(text), sha256=hashlib.sha256(text).hexdigest())
        for name, text in FILES.items()
    ),
    metrics=(
        MetricCard(
            name="attack_ara",
            value=0.01,
            low=0.009,
            high=0.011,
            image_count=10,
            data="cifar10/test",
            method="candor audit",
        ),
    ),
    warnings=("10 images are too few",),
)


INCOMPLETE = RESULT.model_copy(
    update={
        "not_tried": (
            NotTried(attack="square", image_count=2, planned_count=10, reasons=("view size",)),
        )
    }
)


def asked(**fields: Any) -> CreateReportRequest:
    return CreateReportRequest(model="linear", **fields)


def queue(store: Store, worker: str = "one", clock: Clock | None = None) -> JobQueue:
    return JobQueue(store, worker, lease_seconds=LEASE_SECONDS, clock=clock or Clock())


# --- the store, clients' side ------------------------------------------------------------------


def test_names_in_the_contract_are_those_of_the_registries() -> None:
    assert dataset_names() == limits.DATA_SETS
    assert tuple(ATTACK_STAGES) == limits.ATTACKS


def test_job_is_there_with_its_defaults_after_opening_again(address: str, store: Store) -> None:
    made = Jobs(store, REPORTS).create(asked(image_count=10))
    again = open_store(address)
    assert Jobs(again, REPORTS).get(made.name) == made
    again.close()
    assert (made.state, made.done, made.request.batch_size) == (ReportState.QUEUED, False, 32)
    assert made.progress is made.error is made.response is made.start_time is None


def test_same_key_with_the_same_fields_is_the_same_job(store: Store) -> None:
    reports = Jobs(store, REPORTS)
    first = reports.create(asked(idempotency_key="k", seed=1), tenant="a")
    assert reports.create(asked(idempotency_key="k", seed=1), tenant="a") == first
    assert reports.create(asked(idempotency_key="k", seed=2), tenant="b").name != first.name
    with pytest.raises(ServiceError, match="idempotency_key: .*got 'k' with") as caught:
        reports.create(asked(idempotency_key="k", seed=2), tenant="a")
    assert caught.value.code is ErrorCode.CONFLICT
    assert first.name in caught.value.message


def test_one_key_sent_many_times_at_once_makes_one_job(store: Store) -> None:
    reports = Jobs(store, REPORTS)
    with ThreadPoolExecutor(6) as pool:
        made = pool.map(lambda _: reports.create(asked(idempotency_key="k")), range(12))
    assert len({job.name for job in made}) == 1


def test_without_a_key_every_call_makes_a_job(store: Store) -> None:
    reports = Jobs(store, REPORTS)
    assert reports.create(asked()).name != reports.create(asked()).name


def test_pages_show_every_job_once_the_newest_first(store: Store) -> None:
    reports = Jobs(store, REPORTS)
    made = [reports.create(asked(seed=seed)).name for seed in range(5)]
    page = reports.list(ListReportsRequest(page_size=2))
    reports.create(asked(seed=9))  # moves nothing on the pages that follow
    seen = [job.name for job in page.reports]
    while page.next_page_token:
        page = reports.list(ListReportsRequest(page_size=2, page_token=page.next_page_token))
        seen += [job.name for job in page.reports]
    assert seen == made[::-1]


def test_list_filters_by_state(store: Store) -> None:
    reports = Jobs(store, REPORTS)
    waiting, cancelled = reports.create(asked()), reports.create(asked())
    reports.cancel(cancelled.name)
    for state, job in ((ReportState.QUEUED, waiting), (ReportState.CANCELLED, cancelled)):
        (found,) = reports.list(ListReportsRequest(state=state)).reports
        assert found.name == job.name


def test_tenant_sees_and_cancels_its_own_jobs_alone(store: Store) -> None:
    reports = Jobs(store, REPORTS)
    name = reports.create(asked(), tenant="a").name
    assert reports.list(ListReportsRequest(), tenant="b").reports == ()
    for call in (reports.get, reports.cancel):
        with pytest.raises(ServiceError, match="name: expected reports/ID") as caught:
            call(name, tenant="b")
        assert caught.value.code is ErrorCode.REPORT_NOT_FOUND
    assert reports.get(name, tenant="a").state is ReportState.QUEUED
    assert reports.counts() == {ReportState.QUEUED: 1}


@pytest.mark.parametrize("token", ["x", "-1", "²", "9" * 30])
def test_token_that_no_page_gave_is_rejected(store: Store, token: str) -> None:
    with pytest.raises(ServiceError, match="page_token: expected"):
        Jobs(store, REPORTS).list(ListReportsRequest(page_token=token))


# --- the store, workers' side ------------------------------------------------------------------


def test_jobs_are_leased_oldest_first_and_once(store: Store) -> None:
    reports, clock = Jobs(store, REPORTS), Clock()
    made = [reports.create(asked(seed=seed)) for seed in range(2)]
    leased = [queue(store, worker, clock).lease() for worker in ("one", "two", "three")]
    assert [job and job.name for job in leased] == [made[0].name, made[1].name, None]
    assert reports.get(made[0].name).state is ReportState.RUNNING


def test_many_workers_at_once_never_lease_the_same_job(store: Store) -> None:
    reports, clock = Jobs(store, REPORTS), Clock()
    made = {reports.create(asked(seed=seed)).name for seed in range(8)}
    with ThreadPoolExecutor(8) as pool:
        leased = list(pool.map(lambda w: queue(store, f"worker-{w}", clock).lease(), range(8)))
    # A row that another worker is about to take is skipped, so a worker may have got none.
    names = [job.name for job in leased if job is not None]
    while (job := queue(store, "last", clock).lease()) is not None:
        names.append(job.name)
    assert sorted(names) == sorted(made)


def test_silent_workers_job_goes_to_another_and_is_no_longer_its_own(store: Store) -> None:
    clock = Clock()
    name = Jobs(store, REPORTS).create(asked()).name
    silent, other = queue(store, "silent", clock), queue(store, "other", clock)
    lost = silent.lease()
    assert lost is not None
    assert silent.renew(lost, HALF)
    clock.seconds += LEASE_SECONDS - 1
    assert other.lease() is None
    clock.seconds += 2
    taken = other.lease()
    assert taken is not None
    assert taken.name == name
    for late in (
        lambda: silent.renew(lost, HALF),
        lambda: silent.finish(lost, RESULT),
        lambda: silent.fail(lost, "no"),
        lambda: silent.release(lost),
    ):
        with pytest.raises(LeaseLost):
            late()
    assert Jobs(store, REPORTS).get(name).progress == HALF


def test_job_given_back_is_taken_at_once(store: Store) -> None:
    clock = Clock()
    Jobs(store, REPORTS).create(asked())
    leased = queue(store, "one", clock).lease()
    assert leased is not None
    queue(store, "one", clock).release(leased)
    assert queue(store, "two", clock).lease() == leased


def test_job_that_ends_its_workers_is_given_up_unless_it_gets_on(store: Store) -> None:
    clock = Clock()
    reports = Jobs(store, REPORTS, clock=clock)
    name = reports.create(asked()).name
    workers = queue(store, "one", clock)
    for attempt in range(2 * MAX_ATTEMPTS - 1):
        leased = workers.lease()
        assert leased is not None
        if attempt == MAX_ATTEMPTS - 1:
            workers.renew(leased, HALF)
        clock.seconds += LEASE_SECONDS + 1
    leased = workers.lease()
    assert leased is not None
    clock.seconds += LEASE_SECONDS + 1
    assert workers.lease() is None
    report = reports.get(name)
    assert report.state is ReportState.FAILED
    assert report.error is not None
    assert "batch_size: got 32" in report.error.message


def test_job_of_another_version_fails_by_its_field_and_delays_no_other(store: Store) -> None:
    reports = Jobs(store, REPORTS)
    other, own = reports.create(asked(image_count=10)).name, reports.create(asked()).name
    with store.writing() as session:
        job = session.scalars(select(StoredJob).order_by(StoredJob.id).limit(1)).one()
        job.request = job.request | {"image_count": 10**9, "colours": True, "attacks": ["magic"]}
    assert [job.name for job in reports.list(ListReportsRequest()).reports] == [own, other]
    leased = queue(store).lease()
    assert leased is not None
    assert leased.name == own
    report = reports.get(other)
    assert (report.state, report.request.image_count) == (ReportState.FAILED, 10**9)
    assert report.error is not None
    assert report.error.message.startswith("image_count: ")
    assert "another version of Candor" in report.error.message
    json.loads(report.model_dump_json())


def test_queued_job_is_cancelled_at_once(store: Store) -> None:
    reports = Jobs(store, REPORTS)
    name = reports.create(asked()).name
    assert reports.cancel(name).state is ReportState.CANCELLED
    assert queue(store).lease() is None
    assert reports.cancel(name) == reports.get(name)


def test_running_job_is_cancelled_through_its_worker(store: Store) -> None:
    clock = Clock()
    reports, workers = Jobs(store, REPORTS, clock=clock), queue(store, "one", clock)
    name = reports.create(asked()).name
    leased = workers.lease()
    assert leased is not None
    assert workers.renew(leased, None)
    report = reports.cancel(name)
    assert (report.state, report.cancel_requested) == (ReportState.RUNNING, True)
    assert not workers.renew(leased, HALF)
    workers.cancel(leased)
    assert reports.get(name).state is ReportState.CANCELLED


def test_cancelled_job_of_a_silent_worker_is_not_begun_again(store: Store) -> None:
    clock = Clock()
    reports, workers = Jobs(store, REPORTS, clock=clock), queue(store, "one", clock)
    name = reports.create(asked()).name
    workers.lease()
    reports.cancel(name)
    clock.seconds += LEASE_SECONDS + 1
    assert workers.lease() is None
    assert reports.get(name).state is ReportState.CANCELLED


def test_what_has_ended_stays(store: Store) -> None:
    clock = Clock()
    reports, workers = Jobs(store, REPORTS, clock=clock), queue(store, "one", clock)
    name = reports.create(asked()).name
    leased = workers.lease()
    assert leased is not None
    workers.renew(leased, HALF)
    workers.finish(leased, RESULT)
    report = reports.cancel(name)
    assert report.state is ReportState.SUCCEEDED
    assert report.response == RESULT
    assert report.progress is not None
    assert (report.progress.fraction, report.progress.images_done) == (1.0, 5)
    with pytest.raises(LeaseLost):
        workers.fail(leased, "too late")


# --- gRPC and REST -----------------------------------------------------------------------------


def test_report_in_which_an_attack_failed_has_not_succeeded(
    servers: Servers, shared: Store, folder: Path
) -> None:
    made = finished(servers, shared, folder, INCOMPLETE)
    over_grpc = servers.client.get_report(made.name)
    assert (over_grpc.state, over_grpc.done) == (ReportState.INCOMPLETE, True)
    assert over_grpc.response == INCOMPLETE
    over_rest = servers.rest.get(f"/v1/{made.name}").json()
    assert over_rest["state"] == "incomplete"
    assert over_rest["response"]["not_tried"] == [
        {"attack": "square", "image_count": 2, "planned_count": 10, "reasons": ["view size"]}
    ]
    listed = servers.rest.get("/v1/reports", params={"state": "incomplete"}).json()["reports"]
    assert [one["name"] for one in listed] == [made.name]
    listed = servers.rest.get("/v1/reports", params={"state": "succeeded"}).json()["reports"]
    assert made.name not in [one["name"] for one in listed]
    content = b"".join(servers.client.download_report(made.name, "report.html"))
    assert content == PAGE


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("reports")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    opened_store = open_store(str(tmp_path_factory.mktemp("store") / "store.sqlite"))
    yield opened_store
    opened_store.close()


@pytest.fixture(scope="module")
def servers(shared: Store, folder: Path) -> Iterator[Servers]:
    yield from opened(store_url=shared.address, reports_dir=folder)


@pytest.fixture(scope="module")
def stub(servers: Servers) -> reports_pb2_grpc.ReportServiceStub:
    return reports_pb2_grpc.ReportServiceStub(servers.channel)


def finished(
    servers: Servers, shared: Store, folder: Path, result: ReportResult = RESULT
) -> Report:
    """A report as a worker leaves it."""
    report = servers.client.create_report(CreateReportRequest(image_count=10))
    workers = queue(shared)
    while (leased := workers.lease()) is not None:
        workers.renew(leased, HALF)
        workers.finish(leased, result)
        write_files(folder / leased.public_id, FILES)
    return servers.client.get_report(report.name)


def rejected(response: httpx.Response, code: int) -> dict[str, Any]:
    assert response.status_code == code, response.text
    error: dict[str, Any] = response.json()["error"]
    assert error["request_id"] == response.headers["x-request-id"]
    return error


def test_grpc_and_rest_show_the_same_job(servers: Servers) -> None:
    fields = {"image_count": 10, "attacks": ["paper", "fgsm"], "steps": 20, "seed": 3}
    made = servers.rest.post("/v1/reports", json=fields).json()
    assert made["request"]["model"] == "linear"
    assert made["request"]["attacks"] == ["paper", "fgsm"]
    over_grpc = servers.client.get_report(made["name"])
    assert json.loads(over_grpc.model_dump_json()) == made
    assert servers.rest.get(f"/v1/{made['name']}").json() == made
    servers.client.cancel_report(made["name"])
    assert servers.rest.get(f"/v1/{made['name']}").json()["state"] == "cancelled"


def test_idempotency_holds_across_grpc_and_rest(servers: Servers) -> None:
    fields = {"image_count": 10, "idempotency_key": "both"}
    made = servers.rest.post("/v1/reports", json=fields).json()
    again = servers.client.create_report(CreateReportRequest(**fields))
    assert again.name == made["name"]
    error = rejected(servers.rest.post("/v1/reports", json={**fields, "seed": 1}), 409)
    assert error["code"] == "CONFLICT"
    with pytest.raises(ServiceError, match="idempotency_key: .* got 'both'") as caught:
        servers.client.create_report(CreateReportRequest(**fields, seed=1))
    assert caught.value.code is ErrorCode.CONFLICT
    servers.rest.post(f"/v1/{made['name']}:cancel")


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"image_count": 1}, {"image_count": "expected a whole number in [2, 1000000], got 1"}),
        ({"data": "mnist"}, {"data": "expected one of cifar10, "}),
        ({"attacks": ["magic", "paper"]}, {"attacks.0": "expected one of paper, "}),
        (
            {"attacks": ["fgsm"]},
            {"request": "attacks: expected paper or fast among them, got fgsm"},
        ),
        (
            {"steps": 0, "batch_size": 2000, "more": 1},
            {
                "steps": "expected a whole number in [1, ",
                "batch_size": "got 2000",
                "more": "no such field",
            },
        ),
        ({"seed": -1, "quick": "perhaps"}, {"seed": "got -1", "quick": "expected true or false"}),
        ({"budget": "huge"}, {"budget": "expected one of quick, standard, full, got 'huge'"}),
        (
            {"budget": "full", "quick": True},
            {"request": "budget: expected quick, as `quick` says, got full"},
        ),
        ({"independent": "x"}, {"independent": "expected one of linear, got 'x'"}),
        ({"compare": "reports/1"}, {"compare": "got 'reports/1' (no report of this store)"}),
        ({"idempotency_key": "k" * 101}, {"idempotency_key": "expected at most 100 printable"}),
    ],
)
def test_every_bad_field_is_named(
    servers: Servers, fields: dict[str, Any], expected: dict[str, str]
) -> None:
    error = rejected(servers.rest.post("/v1/reports", json=fields), 400)
    violations = {item["field"]: item["description"] for item in error["violations"]}
    assert violations.keys() == expected.keys()
    for field, text in expected.items():
        assert text in violations[field]


def test_bad_field_is_named_over_grpc_too(stub: reports_pb2_grpc.ReportServiceStub) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stub.CreateReport(reports_pb2.CreateReportRequest(image_count=1), timeout=20)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "image_count: expected a whole number in [2, 1000000], got 1" in caught.value.details()


def test_unknown_model_is_rejected_by_name(servers: Servers) -> None:
    error = rejected(servers.rest.post("/v1/reports", json={"model": "other", "seed": -1}), 404)
    assert error["code"] == "MODEL_NOT_FOUND"
    assert [item["field"] for item in error["violations"]] == ["model", "seed"]


def test_only_json_begins_a_report_so_that_other_sites_must_ask_first(servers: Servers) -> None:
    headers = {"content-type": "text/plain"}
    error = rejected(servers.rest.post("/v1/reports", content=b"{}", headers=headers), 400)
    assert "expected content type application/json" in error["message"]


@pytest.mark.parametrize("name", ["reports/0", "reports/", "x", "reports/../../etc"])
def test_report_there_is_none_of_is_not_found(servers: Servers, name: str) -> None:
    for call in (servers.client.get_report, servers.client.cancel_report):
        with pytest.raises(ServiceError, match="name: expected reports/ID") as caught:
            call(name)
        assert caught.value.code is ErrorCode.REPORT_NOT_FOUND


def test_list_takes_its_fields_from_the_query(servers: Servers) -> None:
    names = [servers.client.create_report(CreateReportRequest(seed=seed)).name for seed in range(3)]
    page = servers.rest.get("/v1/reports", params={"page_size": 2, "state": "queued"}).json()
    assert [job["name"] for job in page["reports"]] == names[:0:-1]
    request = ListReportsRequest(page_size=1, page_token=page["next_page_token"])
    assert servers.client.list_reports(request).reports[0].name == names[0]
    error = rejected(servers.rest.get("/v1/reports", params={"page_size": 0, "state": "x"}), 400)
    assert {item["field"] for item in error["violations"]} == {"page_size", "state"}
    for name in names:
        servers.client.cancel_report(name)


def test_finished_report_says_what_matters_and_its_files_are_what_their_digests_say(
    servers: Servers, shared: Store, folder: Path
) -> None:
    report = finished(servers, shared, folder)
    assert report.done
    assert report.response == RESULT
    assert b"".join(servers.client.download_report(report.name, "report.html")) == PAGE
    response = servers.rest.get(f"/v1/{report.name}/files/report.html")
    assert response.content == PAGE
    assert response.headers["content-type"].startswith("text/html")
    assert response.headers["content-security-policy"].startswith("sandbox; default-src 'none'")
    gallery = servers.rest.get(f"/v1/{report.name}/files/gallery/index.html")
    assert gallery.content == FILES["gallery/index.html"]
    policy = gallery.headers["content-security-policy"]
    assert policy.startswith("sandbox allow-scripts; default-src 'none'; style-src 'self'")
    assert response.headers["repr-digest"].startswith("sha-256=:")
    part = servers.rest.get(f"/v1/{report.name}/files/report.html", headers={"range": "bytes=0-8"})
    assert part.content == PAGE[:9]


def test_both_clients_do_the_same(servers: Servers, shared: Store, folder: Path) -> None:
    name = finished(servers, shared, folder).name

    async def ask() -> list[Any]:
        async with AsyncCandorClient(f"127.0.0.1:{servers.gateway.grpc_port}") as client:
            made = await client.create_report(CreateReportRequest())
            cancelled = await client.cancel_report(made.name)
            listed = await client.list_reports()
            page = [part async for part in client.download_report(name, "report.html")]
            with pytest.raises(ServiceError, match="expected one of report.html"):
                [part async for part in client.download_report(name, "x")]
            return [await client.get_report(made.name), cancelled, listed, b"".join(page)]

    made, cancelled, listed, page = asyncio.run(ask())
    assert made == cancelled == servers.client.get_report(made.name)
    assert made.request.idempotency_key, "a call that is repeated must not make a second job"
    assert listed == servers.client.list_reports()
    assert page == PAGE


def test_chunks_are_small_and_the_first_message_is_the_file(
    servers: Servers, shared: Store, folder: Path, stub: reports_pb2_grpc.ReportServiceStub
) -> None:
    name = finished(servers, shared, folder).name
    request = reports_pb2.DownloadReportRequest(name=name, file="report.html")
    first, *rest = stub.DownloadReport(request, timeout=20)
    assert (first.file.name, first.file.byte_count) == ("report.html", len(PAGE))
    assert len(rest) == 3
    assert max(len(part.chunk) for part in rest) == 256 * 1024


def test_file_that_was_changed_is_noticed_by_the_client(
    servers: Servers, shared: Store, folder: Path
) -> None:
    name = finished(servers, shared, folder).name
    (folder / name.removeprefix("reports/") / "report.html").write_bytes(b"else")
    with pytest.raises(ServiceError, match="expected the digest of report.html"):
        list(servers.client.download_report(name, "report.html"))


def test_files_that_do_not_exist_are_rejected(
    servers: Servers, shared: Store, folder: Path
) -> None:
    name = finished(servers, shared, folder).name
    for file in (
        "report.exe",
        "..%2f..%2fstore.sqlite",
        "plan.json",
        "gallery/",
        "gallery//index.html",
    ):
        error = rejected(servers.rest.get(f"/v1/{name}/files/{file}"), 404)
        assert error["code"] in ("REPORT_NOT_FOUND", "INVALID_INPUT")
    with pytest.raises(ServiceError, match="expected one of report.html"):
        list(servers.client.download_report(name, "../../store.sqlite"))
    (folder / name.removeprefix("reports/") / "report.html").unlink()
    with pytest.raises(ServiceError, match="no longer in the gateway's folder"):
        list(servers.client.download_report(name, "report.html"))
    waiting = servers.client.create_report(CreateReportRequest())
    with pytest.raises(ServiceError, match="none while it is queued"):
        list(servers.client.download_report(waiting.name, "report.html"))
    servers.client.cancel_report(waiting.name)


def test_comparison_needs_a_finished_report(servers: Servers, shared: Store, folder: Path) -> None:
    other = finished(servers, shared, folder)
    made = servers.client.create_report(CreateReportRequest(compare=other.name))
    with pytest.raises(ServiceError, match=r"expected a finished report, got .*\(queued\)"):
        servers.client.create_report(CreateReportRequest(compare=made.name))
    servers.client.cancel_report(made.name)


def test_jobs_of_another_tenant_are_not_found_over_grpc_and_rest(servers: Servers) -> None:
    body = {"image_count": 10}
    made = servers.rest.post("/v1/reports", json=body, headers={"x-candor-tenant": "a"}).json()
    rejected(servers.rest.get(f"/v1/{made['name']}"), 404)
    rejected(servers.rest.get(f"/v1/{made['name']}/files/report.json"), 404)
    for call in (servers.client.get_report, servers.client.cancel_report):
        with pytest.raises(ServiceError, match="name: expected reports/ID"):
            call(made["name"])
    own = servers.rest.post(f"/v1/{made['name']}:cancel", headers={"x-candor-tenant": "a"}).json()
    assert own["state"] == "cancelled"


def test_jobs_are_counted_by_state(servers: Servers) -> None:
    name = servers.client.create_report(CreateReportRequest()).name
    servers.wait(servers.gateway._count_jobs())
    registry = servers.gateway.metrics.registry
    assert registry.get_sample_value("candor_report_jobs", {"state": "queued"}) == 1
    servers.client.cancel_report(name)
    servers.wait(servers.gateway._count_jobs())
    assert registry.get_sample_value("candor_report_jobs", {"state": "queued"}) == 0


def test_api_is_described(servers: Servers) -> None:
    paths = servers.rest.get("/openapi.json").json()["paths"]
    create = paths["/v1/reports"]["post"]["requestBody"]["content"]["application/json"]
    assert create["schema"]["properties"]["data"]["enum"] == list(limits.DATA_SETS)
    assert {"/v1/reports/{job}", "/v1/reports/{job}/files/{file}"} <= paths.keys()


def test_there_are_no_reports_without_a_store() -> None:
    for servers in opened():
        assert servers.rest.get("/v1/reports").status_code == 404
        stub = reports_pb2_grpc.ReportServiceStub(servers.channel)
        with pytest.raises(grpc.RpcError) as caught:
            stub.ListReports(reports_pb2.ListReportsRequest(), timeout=20)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_full_store_rejects_jobs_until_there_is_room_and_loses_nothing(tmp_path: Path) -> None:
    def full(connection: Any, record: Any) -> None:
        connection.execute("PRAGMA max_page_count = 1")  # no less than it has: it cannot grow

    body = {"model": "linear", "image_count": 10}
    for servers in opened(store_url=str(tmp_path / "store.sqlite")):
        engine = servers.gateway._store._engine
        engine.dispose()
        event.listen(engine, "connect", full)
        answers = [servers.rest.post("/v1/reports", json=body) for _ in range(40)]
        kept = [answer for answer in answers if answer.status_code == 200]
        rejected = [answer for answer in answers if answer.status_code != 200]
        assert {answer.status_code for answer in rejected} == {503}
        assert {answer.headers["retry-after"] for answer in rejected} == {"5"}
        assert "store: " in rejected[0].json()["error"]["message"]
        event.remove(engine, "connect", full)
        engine.dispose()
        assert servers.rest.post("/v1/reports", json=body).status_code == 200
        listed = servers.rest.get("/v1/reports", params={"page_size": 100}).json()["reports"]
        assert len(listed) == len(kept) + 1
