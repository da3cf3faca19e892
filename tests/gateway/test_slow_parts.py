"""One slow thing holds nothing else: a pool of threads for each kind of work."""

import asyncio
import sqlite3
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from candor.contracts.errors import ErrorCode, ServiceError
from candor.gateway import pools
from candor.gateway.pools import Pool
from candor.store.engine import StoreError, open_store
from tests.gateway.servers import Servers, opened, until
from tests.store.stores import PostgresCluster, fill

CROWD = 30
QUICK_SECONDS = 2.0
PORTS = {"metrics_port": 0, "health_port": 0, "ready_seconds": 0.2, "store_seconds": 1.5}


@pytest.fixture(scope="module")
def locked_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("locked") / "store.sqlite"
    store = open_store(str(file))
    fill(store, 5)
    store.close()
    return file


@pytest.fixture(scope="module")
def servers(locked_store: Path) -> Iterator[Servers]:
    yield from opened(store_url=str(locked_store), **PORTS)


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """As a backup or another writer does it."""
    connection = sqlite3.connect(file, isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")
        connection.close()


def assert_the_rest_is_quick(servers: Servers, png: bytes) -> None:
    host = f"http://{servers.rest.base_url.host}"
    started = time.monotonic()
    assert servers.rest.post("/v1/predict", files={"image": png}).status_code == 200
    assert servers.rest.get("/healthz/ready").status_code == 200
    assert servers.rest.get("/").status_code == 200
    assert httpx.get(f"{host}:{servers.gateway.health_port}/healthz/ready").status_code == 200
    metrics = httpx.get(f"{host}:{servers.gateway.metrics_port}/metrics").text
    assert "candor_ready 1.0" in metrics
    assert time.monotonic() - started < QUICK_SECONDS


def test_locked_store_holds_no_prediction(servers: Servers, locked_store: Path, png: bytes) -> None:
    def next_task(_: int) -> httpx.Response:
        return servers.rest.post("/v1/annotations:next", json={"annotator": "ada"})

    servers.rest.post("/annotate/name", data={"annotator": "ada"})
    with ThreadPoolExecutor(CROWD) as crowd:
        with locked(locked_store):
            asked = [crowd.submit(next_task, one) for one in range(CROWD)]
            report = crowd.submit(_create_report, servers)
            page = crowd.submit(servers.rest.get, "/annotate")
            fields = {"candidate": "1", "verdict": "unsure"}
            form = crowd.submit(servers.rest.post, "/annotate/answer", data=fields)
            time.sleep(0.5)  # every thread of the store waits for the lock
            assert_the_rest_is_quick(servers, png)
            refused = [one.result() for one in (*asked, report, page, form)]
        for response in refused:
            assert response.status_code == 503
            assert float(response.headers["retry-after"]) >= 1
        for shown in (page.result().text, form.result().text):
            assert "store: does not answer" in shown
        assert "Not saved" in form.result().text
        assert 'name="candidate" value="1"' in form.result().text
    assert next_task(0).status_code == 200
    assert servers.rest.get("/annotate").status_code == 200


def _create_report(servers: Servers) -> httpx.Response:
    return servers.rest.post("/v1/reports", json={"model": "linear"})


def test_locked_table_of_postgresql_holds_no_prediction(
    postgres: PostgresCluster, png: bytes
) -> None:
    address = postgres.new_database()
    store = open_store(address)
    fill(store, 3)
    for servers in opened(store_url=address, **PORTS):
        with store.writing() as session:
            session.connection().exec_driver_sql("LOCK TABLE annotators IN ACCESS EXCLUSIVE MODE")
            with ThreadPoolExecutor(CROWD) as crowd:
                asked = [
                    crowd.submit(
                        servers.rest.post, "/v1/annotations:next", json={"annotator": "ada"}
                    )
                    for _ in range(CROWD)
                ]
                time.sleep(0.5)
                assert_the_rest_is_quick(servers, png)
                assert {one.result().status_code for one in asked} == {503}
    store.close()


@pytest.mark.parametrize(
    "pool", ["STORE", "IMAGES", "BODIES", "PICTURES", "FILES", "ISSUER", "UPKEEP"]
)
def test_full_pool_holds_nothing_else(servers: Servers, png: bytes, pool: str) -> None:
    free = threading.Event()
    busy: Pool = getattr(pools, pool)

    async def occupy() -> list[asyncio.Task[bool]]:
        return [asyncio.create_task(busy.run(free.wait, 20.0)) for _ in range(40)]

    waiting = servers.wait(occupy())
    try:
        assert_the_rest_is_quick(servers, png)
    finally:
        free.set()
    until(lambda: all(task.done() for task in waiting))
    for task in waiting:
        task.exception()  # those that found no thread in time


def test_call_that_finds_no_thread_does_nothing_and_says_so() -> None:
    free, done = threading.Event(), []

    async def scenario() -> ServiceError:
        pool = Pool("store", 1, wait_seconds=0.05)
        first = asyncio.create_task(pool.run(free.wait, 10.0))
        await asyncio.sleep(0.02)
        with pytest.raises(ServiceError) as caught:
            await pool.run(done.append, "late")
        cancelled = asyncio.create_task(pool.run(done.append, "cancelled"))
        await asyncio.sleep(0.02)
        cancelled.cancel()
        await asyncio.gather(cancelled, return_exceptions=True)
        free.set()
        assert await first
        assert await pool.run(lambda: "next") == "next"
        return caught.value

    error = asyncio.run(scenario())
    assert error.code is ErrorCode.MODEL_NOT_READY
    assert error.retry_seconds
    assert done == []


def test_locked_store_ends_a_start_and_says_why(tmp_path: Path) -> None:
    file = tmp_path / "store.sqlite"
    open_store(str(file)).close()
    with locked(file), pytest.raises(StoreError, match="cannot be opened: database is locked"):
        open_store(str(file), patience_seconds=0.1)


def test_nothing_shares_the_pool_of_the_event_loop() -> None:
    folder = Path(pools.__file__).parent
    shared = [path.name for path in folder.rglob("*.py") if "to_thread" in path.read_text()]
    assert shared == []


def test_report_jobs_are_counted_apart_from_readiness(servers: Servers, locked_store: Path) -> None:
    with locked(locked_store):
        servers.backend.broken.add("linear")
        try:
            until(lambda: servers.rest.get("/healthz/ready").status_code == 503, 4.0)
        finally:
            servers.backend.broken.clear()
        until(lambda: servers.rest.get("/healthz/ready").status_code == 200, 4.0)
