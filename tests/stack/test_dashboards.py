"""A real Prometheus scrapes the running service: every panel and every rule has data."""

import json
import math
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from candor.client.sync import CandorClient
from candor.contracts import api
from candor.contracts.addresses import endpoint
from candor.contracts.errors import ServiceError
from candor.gateway.sockets import loopback
from candor.stack.supervisor import Stack
from tests.stack.test_stack import free_port, post
from tools import monitoring

_WAIT_SECONDS = 60.0
pytestmark = pytest.mark.skipif(shutil.which("prometheus") is None, reason="no prometheus here")


@pytest.fixture
def prometheus(stack: Stack, tmp_path: Path) -> Iterator[httpx.Client]:
    """As compose runs it, but every second and of this stack."""
    config = yaml.safe_load(
        (monitoring.REPOSITORY / "deploy/prometheus/prometheus.yaml").read_text()
    )
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(monitoring.RULES)]
    urls = {"candor-gateway": stack.metrics_url, "candor-torchserve": stack.torchserve_metrics_url}
    for job in config["scrape_configs"]:
        job["static_configs"] = [{"targets": [httpx.URL(urls[job["job_name"]]).netloc.decode()]}]
    (tmp_path / "prometheus.yaml").write_text(yaml.safe_dump(config))
    address = endpoint(loopback(), free_port())
    process = subprocess.Popen(
        [
            "prometheus",
            f"--config.file={tmp_path / 'prometheus.yaml'}",
            f"--storage.tsdb.path={tmp_path / 'data'}",
            f"--web.listen-address={address}",
            "--log.level=error",
        ]
    )
    await_ready(f"http://{address}/-/ready")
    with httpx.Client(base_url=f"http://{address}/api/v1", timeout=20) as client:
        yield client
    process.terminate()
    process.wait(30)


def await_ready(url: str) -> None:
    """Until Prometheus has read its storage; before, it refuses connections and then says 503."""
    give_up = time.monotonic() + _WAIT_SECONDS
    while time.monotonic() < give_up:
        with suppress(httpx.TransportError):
            if httpx.get(url).status_code == httpx.codes.OK:
                return
        time.sleep(0.1)
    raise TimeoutError(f"{url}: not ready after {_WAIT_SECONDS} s")


def asked(prometheus: httpx.Client, query: str) -> list[dict[str, Any]]:
    """The series of an instant query."""
    answer = prometheus.get("/query", params={"query": query})
    assert answer.status_code == 200, f"{query}: {answer.text}"
    return answer.json()["data"]["result"]


def has_data(prometheus: httpx.Client, query: str) -> bool:
    """Whether some series has a number; 0 is one, NaN is none."""
    return any(math.isfinite(float(one["value"][1])) for one in asked(prometheus, query))


def wait_for(prometheus: httpx.Client, queries: dict[str, str]) -> dict[str, str]:
    """Those that still have no data when time is up."""
    missing = dict(queries)
    give_up = time.monotonic() + _WAIT_SECONDS
    while missing and time.monotonic() < give_up:
        missing = {name: q for name, q in missing.items() if not has_data(prometheus, q)}
        time.sleep(0.5)
    return missing


def panel_queries() -> dict[str, str]:
    found = {}
    for path in monitoring.DASHBOARDS_DIR.glob("*.json"):
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel["targets"]:
                query = target["expr"].replace("$__rate_interval", "1m").replace("$model", ".*")
                found[f"{path.stem}/{panel['title']}/{target['refId']}"] = query
    return found


def recordings() -> dict[str, str]:
    groups = yaml.safe_load(monitoring.RULES.read_text())["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    return {rule["record"]: rule["record"] for rule in rules if "record" in rule}


def send_traffic(stack: Stack, client: CandorClient, images: list[api.ImageInput]) -> None:
    """Every verb, through both transports; found, cut short, from the cache and refused."""
    target = (api.ClassRef(index=1),)
    explain = api.ExplainRequest(image=images[0], targets=target, rhos=(0.05,), steps=20)
    long = api.ExplainRequest(
        image=images[1],
        targets=target,
        rhos=(0.05,),
        steps=1000,
        solver="paper",
        timeout_seconds=2.0,
    )
    client.predict(api.PredictRequest(image=images[0]))
    post(stack, "predict", api.PredictRequest(image=images[0]))
    for _ in range(2):
        client.explain(explain)
    client.explain(long)
    post(stack, "explain", api.ExplainRequest(image=images[2], targets=target, steps=20))
    list(client.explain_stream(explain))
    client.probe(api.ProbeRequest(image=images[3], steps=20))
    client.list_models()
    client.get_model()
    with suppress(ServiceError):
        client.get_model("unknown")
    httpx.post(f"{stack.rest_url}/v1/predict", content=b"{")


def test_every_panel_and_every_rule_has_data(
    prometheus: httpx.Client, stack: Stack, client: CandorClient, images: list[api.ImageInput]
) -> None:
    up = {job: f'up{{job="{job}"}} == 1' for job in ("candor-gateway", "candor-torchserve")}
    assert wait_for(prometheus, up) == {}
    send_traffic(stack, client, images)
    assert wait_for(prometheus, {**recordings(), **panel_queries()}) == {}
    assert asked(prometheus, 'ALERTS{alertstate="firing"}') == []
    health = prometheus.get("/rules").json()["data"]["groups"]
    assert {rule["health"] for group in health for rule in group["rules"]} == {"ok"}


def test_a_panel_of_an_unknown_metric_would_be_found_empty(
    prometheus: httpx.Client, stack: Stack
) -> None:
    assert wait_for(prometheus, {"up": "up == 1"}) == {}
    assert not has_data(prometheus, "candor_no_such_metric")
    assert not has_data(prometheus, "vector(0) / vector(0)")
