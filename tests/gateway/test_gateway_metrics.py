"""The gateway's measures: names, units, edges, closed labels and what each event changes."""

import re
import urllib.request

import pytest
from prometheus_client import Histogram

from candor.contracts.api import ModelRef, SearchStatus
from candor.contracts.worker import Goal
from gateway import metrics as measured
from gateway.metrics import Metrics, start_exposition


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


def histograms(metrics: Metrics) -> dict[str, tuple[float, ...]]:
    found = {name: attribute for name, attribute in vars(metrics).items()}
    return {
        name: attribute._kwargs["buckets"]
        for name, attribute in found.items()
        if isinstance(attribute, Histogram)
    }


def test_edges_lie_on_the_objectives_and_reach_minutes(metrics: Metrics) -> None:
    edges = histograms(metrics)
    assert set(measured.OBJECTIVE_SECONDS.values()) <= set(edges["_request_seconds"])
    assert measured.FIRST_PROGRESS_OBJECTIVE_SECONDS in edges["_first_progress_seconds"]
    for name in ("_request_seconds", "_queue_seconds", "_first_progress_seconds"):
        assert max(edges[name]) >= 600
    for edge in edges.values():
        assert list(edge) == sorted(edge)


def test_what_a_caller_wrote_never_becomes_a_label(metrics: Metrics) -> None:
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
    for outcome in measured.OUTCOMES:
        labels = {"verb": "explain", "model": "tiny", "outcome": outcome}
        assert value(metrics, "candor_requests_total", **labels) == 0
    assert value(metrics, "candor_pending_compute_seconds", model="tiny") == 0
    assert value(metrics, "candor_report_jobs", state="running") == 0


def test_a_search_leaves_its_traces(metrics: Metrics) -> None:
    metrics.set_load("tiny", active=2, waiting=3, pending_seconds=4.5)
    metrics.search_started("tiny", 0.3)
    metrics.chunk_ended("tiny", 2, 0.08)
    metrics.search_progressed("tiny", 0.4)
    metrics.search_ended(
        "tiny", Goal.EXPLAIN_FOR, SearchStatus.FOUND, steps=40, rmse=0.05, is_partial=True
    )
    metrics.cache_asked("tiny", is_hit=True)
    metrics.computed("alice", 0.08)
    metrics.set_jobs({"running": 1})
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
        ("candor_search_steps_sum", ()): 40,
        ("candor_search_rmse_bucket", (("goal", "explain_for"), ("le", "0.05"))): 1,
        ("candor_cache_requests_total", (("result", "hit"),)): 1,
        ("candor_cache_requests_total", (("result", "miss"),)): 0,
    }
    for (name, labels), amount in expected.items():
        assert value(metrics, name, **model, **dict(labels)) == amount, name
    assert value(metrics, "candor_compute_seconds_total", tenant="alice") == 0.08
    assert value(metrics, "candor_report_jobs", state="running") == 1


def test_only_the_version_in_service_is_told(metrics: Metrics) -> None:
    for version in ("1", "2", "2"):
        metrics.set_model(ModelRef(name="tiny", version=version, weights_digest="d"))
    told = {"model": "tiny", "weights_digest": "d"}
    assert value(metrics, "candor_model_info", version="1", **told) is None
    assert value(metrics, "candor_model_info", version="2", **told) == 1


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
