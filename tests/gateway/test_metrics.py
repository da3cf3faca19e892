"""The gateway's measures: names, units, edges, closed labels and what each event changes."""

import contextlib
import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from candor.client.sync import CandorClient
from candor.contracts import api
from candor.contracts.api import ModelRef
from candor.contracts.errors import ServiceError
from candor.contracts.reports import CreateReportRequest, ReportState
from candor.gateway.observability import metrics as module
from candor.gateway.observability.metrics import Metrics, start_exposition
from candor.rpc.pb.candor.v1 import candor_pb2 as pb
from candor.store.engine import open_store
from candor.store.job_kinds import REPORTS
from candor.store.jobs import Jobs
from candor.terms import Goal, SearchStatus
from tests.gateway.linear_worker import CARD
from tests.gateway.servers import Servers, opened, running, until


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(["tiny"], ["alice"])


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def families(metrics: Metrics) -> list:
    ours = metrics.registry.collect()
    return [family for family in ours if not family.name.startswith("process_")]


def test_names_have_the_prefix_and_base_units(metrics: Metrics) -> None:
    for family in families(metrics):
        assert re.fullmatch(r"candor(_[a-z]+)+", family.name)
        assert not re.search(r"_(ms|millis|microseconds|minutes|percent)", family.name)
        assert not family.name.endswith("_total") or family.type == "counter"


def test_two_gateways_in_one_process_count_apart(metrics: Metrics) -> None:
    other = Metrics(["tiny"])
    metrics.request_ended("predict", "tiny", "OK", 0.1)
    labels = {"verb": "predict", "model": "tiny", "outcome": "OK"}
    assert value(metrics, "candor_requests_total", **labels) == 1
    assert value(other, "candor_requests_total", **labels) == 0


def test_edges_lie_on_the_objectives_and_reach_minutes() -> None:
    edges = {name: edges for name, (_, _, edges) in module.HISTOGRAMS.items()}
    assert set(module.OBJECTIVE_SECONDS.values()) <= set(edges["request_seconds"])
    assert module.FIRST_PROGRESS_OBJECTIVE_SECONDS in edges["first_progress_seconds"]
    for name in ("request_seconds", "queue_seconds", "first_progress_seconds"):
        assert max(edges[name]) >= 600
    for values in edges.values():
        assert list(values) == sorted(values)


def test_text_of_a_client_never_becomes_a_label(metrics: Metrics) -> None:
    for text in ("../etc", "x" * 300, "tiny\n"):
        metrics.request_ended("predict", text, "OK", 0.1)
        metrics.request_ended(text, "tiny", text, 0.1)
        metrics.computed(text, 1.0)
    shown = {
        label
        for family in families(metrics)
        for sample in family.samples
        for label in sample.labels.values()
    }
    assert not any(text in shown for text in ("../etc", "x" * 300, "tiny\n"))
    assert value(metrics, "candor_compute_seconds_total", tenant="other") == 3
    labels = {"verb": "predict", "model": "other", "outcome": "OK"}
    assert value(metrics, "candor_requests_total", **labels) == 3


def test_series_exist_before_the_first_event(metrics: Metrics) -> None:
    for outcome in module.OUTCOMES:
        labels = {"verb": "explain", "model": "tiny", "outcome": outcome}
        assert value(metrics, "candor_requests_total", **labels) == 0
    assert value(metrics, "candor_pending_compute_seconds", model="tiny") == 0
    assert value(metrics, "candor_report_jobs", state="running") == 0


def test_a_search_leaves_its_traces(metrics: Metrics) -> None:
    metrics.set_load("tiny", active=2, waiting=3, pending_seconds=4.5)
    metrics.search_started("tiny", 0.3)
    metrics.chunk_ended("tiny", 2, 0.08)
    metrics.search_progressed("tiny", 0.4)
    metrics.search_ended("tiny", Goal.EXPLAIN_FOR, SearchStatus.FOUND, steps=40, rmse=0.05)
    metrics.search_cut("tiny")
    metrics.search_cancelled("tiny")
    metrics.worker_failed("tiny", "search", "died")
    metrics.cache_asked("tiny", "hit")
    metrics.computed("alice", 0.08)
    metrics.set_jobs("report", {ReportState.RUNNING: 1})
    model = {"model": "tiny"}
    expected = {
        ("candor_active_searches", ()): 2,
        ("candor_waiting_searches", ()): 3,
        ("candor_pending_compute_seconds", ()): 4.5,
        ("candor_queue_seconds_sum", ()): 0.3,
        ("candor_chunk_searches_sum", ()): 2,
        ("candor_chunk_seconds_bucket", (("le", "0.075"),)): 0,
        ("candor_chunk_seconds_bucket", (("le", "0.1"),)): 1,
        ("candor_first_progress_seconds_count", ()): 1,
        ("candor_searches_total", (("goal", "explain_for"), ("status", "found"))): 1,
        ("candor_partial_searches_total", ()): 1,
        ("candor_cancelled_searches_total", ()): 1,
        ("candor_worker_errors_total", (("role", "search"), ("kind", "died"))): 1,
        ("candor_worker_errors_total", (("role", "predict"), ("kind", "died"))): 0,
        ("candor_search_steps_sum", ()): 40,
        ("candor_search_rmse_bucket", (("goal", "explain_for"), ("le", "0.05"))): 1,
        ("candor_cache_requests_total", (("result", "hit"),)): 1,
        ("candor_cache_requests_total", (("result", "miss"),)): 0,
    }
    for (name, labels), amount in expected.items():
        assert value(metrics, name, **model, **dict(labels)) == amount, name
    assert value(metrics, "candor_compute_seconds_total", tenant="alice") == 0.08
    assert value(metrics, "candor_report_jobs", state="running") == 1


def test_only_the_version_in_service_is_shown(metrics: Metrics) -> None:
    for version in ("1", "2", "2"):
        metrics.set_model(ModelRef(name="tiny", version=version, weights_digest="d"))
    labels = {"model": "tiny", "weights_digest": "d"}
    assert value(metrics, "candor_model_info", version="1", **labels) is None
    assert value(metrics, "candor_model_info", version="2", **labels) == 1


def test_prometheus_reads_it_over_http(metrics: Metrics) -> None:
    metrics.set_ready(True)
    server = start_exposition(metrics, "127.0.0.1", 0)
    try:
        url = f"http://127.0.0.1:{server.server_port}/metrics"
        with urllib.request.urlopen(url, timeout=5) as answer:
            assert "candor_ready 1.0" in answer.read().decode().splitlines()
    finally:
        server.shutdown()
        server.server_close()


# --- on a gateway ------------------------------------------------------------------------------


@pytest.fixture
def counted() -> Iterator[Servers]:
    yield from opened(metric_tenants=("acme",))


def count(servers: Servers, name: str, **labels: str) -> float:
    found = value(servers.gateway.metrics, f"candor_{name}", **labels)
    assert found is not None, name
    return found


def explanation(png: bytes, steps: int = 30, **fields: object) -> api.ExplainRequest:
    return api.ExplainRequest(
        image=api.ImageInput(encoded=png),
        targets=(api.ClassRef(index=1),),
        rhos=(0.02,),
        steps=steps,
        **fields,
    )


def test_requests_over_grpc_and_rest_are_counted(counted: Servers, png: bytes) -> None:
    image = api.ImageInput(encoded=png)
    counted.client.predict(api.PredictRequest(image=image))
    counted.client.predict(api.PredictRequest(image=image, model="linear"))
    counted.rest.get("/v1/models")
    counted.rest.post("/v1/probe", content=b"{")
    with pytest.raises(ServiceError):
        counted.client.get_model("unknown")
    seen = {
        ("predict", "linear", "OK"): 2,
        ("list_models", "", "OK"): 1,
        ("probe", "linear", "INVALID_INPUT"): 1,
        ("get_model", "other", "MODEL_NOT_FOUND"): 1,
    }
    for (verb, model, outcome), amount in seen.items():
        labels = {"verb": verb, "model": model}
        assert count(counted, "requests_total", outcome=outcome, **labels) == amount
        assert count(counted, "request_seconds_count", **labels) == amount


def test_a_search_is_counted_from_admission_to_its_end(counted: Servers, png: bytes) -> None:
    address = f"127.0.0.1:{counted.gateway.grpc_port}"
    with CandorClient(address, timeout_seconds=20, tenant="acme") as acme:
        answer = acme.explain(explanation(png))
        acme.explain(explanation(png))
    (found,) = answer.explanations
    model = {"model": "linear"}
    ended = {"goal": "explain_for", "status": found.status.value, **model}
    assert count(counted, "searches_total", **ended) == 1
    assert count(counted, "search_steps_sum", **model) == found.steps
    rmse = count(counted, "search_rmse_sum", goal="explain_for", **model)
    assert rmse == pytest.approx(found.rmse, abs=1e-4)
    for once in ("queue", "first_progress"):
        assert count(counted, f"{once}_seconds_count", **model) == 1
    assert count(counted, "chunk_searches_sum", **model) >= 1
    assert count(counted, "cache_requests_total", result="miss", **model) == 1
    assert count(counted, "cache_requests_total", result="hit", **model) == 1
    spent = count(counted, "compute_seconds_total", tenant="acme")
    assert 0 < spent <= count(counted, "chunk_seconds_sum", **model)
    assert count(counted, "compute_seconds_total", tenant="other") == 0
    info = {"version": CARD.version, "weights_digest": CARD.weights_sha256, **model}
    assert count(counted, "model_info", **info) == 1


def test_a_comparison_counts_its_searches_and_charges_its_errands(
    counted: Servers, png: bytes
) -> None:
    address = f"127.0.0.1:{counted.gateway.grpc_port}"
    with CandorClient(address, timeout_seconds=20, tenant="acme") as acme:
        acme.compare(api.CompareRequest(image=api.ImageInput(encoded=png), steps=30))
    model = {"model": "linear"}
    assert count(counted, "requests_total", verb="compare", outcome="OK", **model) == 1
    assert count(counted, "search_steps_count", **model) == 3
    for once in ("queue", "first_progress"):
        assert count(counted, f"{once}_seconds_count", **model) == 3
    kinds = [{item.kind for item in call} for call in counted.backend.search_calls]
    saliency_jobs = kinds.count({"compare"})
    assert saliency_jobs == len(api.Method)
    chunks = count(counted, "chunk_seconds_count", **model)
    assert 2 <= chunks <= len(kinds) - saliency_jobs
    spent = count(counted, "compute_seconds_total", tenant="acme")
    assert spent > count(counted, "chunk_seconds_sum", **model)


def test_load_rises_with_searches_and_falls_when_they_are_cancelled(
    counted: Servers, png: bytes
) -> None:
    counted.backend.call_seconds = 0.05
    message = pb.ExplainRequest(
        image=pb.Image(encoded=png), targets=[pb.ClassRef(index=0)], steps=1000
    )
    calls = [counted.stub.Explain.future(message) for _ in range(2)]
    until(lambda: count(counted, "active_searches", model="linear") == 1)
    until(lambda: count(counted, "cache_requests_total", model="linear", result="shared") == 1)
    assert count(counted, "pending_compute_seconds", model="linear") > 0
    for call in calls:
        call.cancel()
    cancelled = {"verb": "explain", "model": "linear", "outcome": "CANCELLED"}
    until(lambda: count(counted, "requests_total", **cancelled) == 2)
    until(lambda: count(counted, "active_searches", model="linear") == 0)
    assert count(counted, "pending_compute_seconds", model="linear") == 0
    assert count(counted, "cancelled_searches_total", model="linear") == 1


def test_an_answer_at_the_deadline_is_partial_and_not_cancelled(
    counted: Servers, png: bytes
) -> None:
    counted.backend.call_seconds = 0.06  # 2.4 s at the least, for a chunk is 50 steps at the most
    answer = counted.client.explain(explanation(png, steps=2000, timeout_seconds=1.0))
    assert answer.explanations[0].is_partial
    assert count(counted, "partial_searches_total", model="linear") == 1
    assert count(counted, "search_steps_count", model="linear") == 1
    assert count(counted, "cancelled_searches_total", model="linear") == 0


def test_calls_a_worker_did_not_answer_are_counted(counted: Servers, png: bytes) -> None:
    counted.backend.failures_left = 2
    counted.client.explain(explanation(png))
    lost = {"model": "linear", "role": "search", "kind": "unavailable"}
    assert count(counted, "worker_errors_total", **lost) == 2


def test_report_jobs_are_counted_by_state(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'store.db'}"
    with contextlib.closing(open_store(url)) as store:
        Jobs(store, REPORTS).create(CreateReportRequest(model="linear"))
    with running(store_url=url, ready_seconds=0.05) as (gateway, *_):
        until(lambda: value(gateway.metrics, "candor_report_jobs", state="queued") == 1)
        assert value(gateway.metrics, "candor_report_jobs", state="running") == 0
