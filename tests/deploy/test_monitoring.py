"""Rules, alerts and dashboards: sound, tested, documented, and of measures there are."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from candor.gateway.observability.metrics import (
    FIRST_PROGRESS_OBJECTIVE_SECONDS,
    OBJECTIVE_SECONDS,
    Metrics,
)
from tools import monitoring

DEPLOY_DIR = monitoring.REPOSITORY / "deploy"
RUNBOOKS = monitoring.REPOSITORY / "docs/runbooks.md"
RULES_TEST = Path(__file__).with_name("rules_test.yaml")
needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool here")

GROUPS = yaml.safe_load(monitoring.RULES.read_text())["groups"]
RULES: list[dict[str, Any]] = [rule for group in GROUPS for rule in group["rules"]]
ALERTS = [rule for rule in RULES if "alert" in rule]
DASHBOARDS = sorted(monitoring.DASHBOARDS_DIR.glob("*.json"))
# Of TorchServe, of Prometheus itself and of its client.
FOREIGN = re.compile(r"ts_\w+|QueueTime|PredictionTime|ALERTS|process_\w+")


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["promtool", *arguments], capture_output=True, text=True)


@needs_promtool
@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "config", str(DEPLOY_DIR / "prometheus/prometheus.yaml")),
        ("check", "rules", str(monitoring.RULES)),
        ("test", "rules", str(RULES_TEST)),
    ],
    ids=" ".join,
)
def test_prometheus_accepts_them(arguments: tuple[str, ...]) -> None:
    done = promtool(*arguments)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
@pytest.mark.parametrize(
    ("sound", "broken"),
    [
        ("absent(candor_ready)", "absent(candor_build_info)"),
        ("candor_ready == 0", "candor_ready == 1"),
        ("> 0.144", "> 0.9"),
        ('le="0.25"', 'le="30.0"'),
        ("scalar(count(candor_ready == 1)) > 60", "scalar(count(candor_ready == 1)) > 6"),
        ('kind="fault"', 'kind="died"'),
        ("count by (model) (count", "count (count"),
        (
            '/ sum by (model) (rate(candor_requests_total{model=~".+@.+"}',
            "/ sum(rate(candor_requests_total{}",
        ),
        ('agree|disagree"}[1h])) > 50', 'agree|disagree"}[1h])) > 0'),
        ('outcome!="skipped"', 'outcome!="none"'),
    ],
)
def test_a_broken_rule_fails_its_test(tmp_path: Path, sound: str, broken: str) -> None:
    text = monitoring.RULES.read_text()
    assert sound in text
    (tmp_path / "rules.yaml").write_text(text.replace(sound, broken))
    test = RULES_TEST.read_text().replace("../../deploy/prometheus/rules.yaml", "rules.yaml")
    (tmp_path / "test.yaml").write_text(test)
    assert promtool("test", "rules", str(tmp_path / "test.yaml")).returncode != 0


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_an_alert_says_what_to_do_and_is_tested(rule: dict[str, Any]) -> None:
    notes = rule["annotations"]
    assert notes.keys() == {"summary", "description", "runbook_url"}
    assert rule["labels"]["severity"] in ("page", "ticket")
    page, _, anchor = notes["runbook_url"].partition("#")
    assert page == str(RUNBOOKS.relative_to(monitoring.REPOSITORY))
    sections = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", RUNBOOKS.read_text(), re.S | re.M))
    assert anchor in map(str.lower, sections)
    steps = next(text for name, text in sections.items() if name.lower() == anchor)
    assert re.search(r"^1\. ", steps, re.M), "no steps"
    raised = re.findall(r'alertname="(\w+)",alertstate="firing"', RULES_TEST.read_text())
    assert rule["alert"] in raised


def test_rules_know_the_objectives() -> None:
    late = next(
        r["expr"] for r in RULES if r.get("record") == "verb:candor_requests_late:ratio_rate5m"
    )
    edges: dict[str, float] = {}
    for verbs, edge in re.findall(r'verb=~?"([\w|]+)",le="([\d.]+)"', late):
        edges |= dict.fromkeys(verbs.split("|"), float(edge))
    assert edges == OBJECTIVE_SECONDS
    (first,) = (r["expr"] for r in ALERTS if r["alert"] == "CandorFirstProgressLate")
    assert float(first.rpartition(">")[2]) == FIRST_PROGRESS_OBJECTIVE_SECONDS


def known_series() -> set[str]:
    """Every name that can be queried."""
    metrics = Metrics(["m"])
    metrics.set_build("1")
    families = list(metrics.registry.collect())
    names = {sample.name for family in families for sample in family.samples}
    for family in families:
        if family.type == "histogram":
            names |= {f"{family.name}_{part}" for part in ("bucket", "sum", "count")}
    names |= {family.name for family in families if family.type == "gauge"}
    return names | {rule["record"] for rule in RULES if "record" in rule}


def queries() -> list[str]:
    panels = [p for path in DASHBOARDS for p in json.loads(path.read_text())["panels"]]
    return [target["expr"] for panel in panels for target in panel["targets"]]


@pytest.mark.parametrize("query", [*(rule["expr"] for rule in RULES), *queries()])
def test_nothing_is_asked_for_that_is_not_told(query: str) -> None:
    bare = re.sub(r'"[^"]*"|\{[^}]*\}|\[[^\]]*\]|(by|on) \([^)]*\)', "", query)
    queried = set(re.findall(r"[a-zA-Z_:]*candor_[\w:]*|ts_\w+|[A-Z]\w+Time|process_\w+", bare))
    assert queried, query
    assert {name for name in queried if not FOREIGN.fullmatch(name)} <= known_series()


def test_derived_files_are_fresh() -> None:
    for path, text in monitoring.derived().items():
        assert path.read_text() == text, f"{path.name}: run make monitoring"
    assert set(DASHBOARDS) <= set(monitoring.derived())


def test_every_dashboard_is_shipped_to_both() -> None:
    names = {path.name for path in DASHBOARDS}
    component = yaml.safe_load((DEPLOY_DIR / "grafana/kustomization.yaml").read_text())
    (generator,) = component["configMapGenerator"]
    assert {Path(file).name for file in generator["files"]} == names
    compose = yaml.safe_load((DEPLOY_DIR / "compose.yaml").read_text())
    provider = yaml.safe_load(
        (DEPLOY_DIR / "grafana/provisioning/dashboards/candor.yaml").read_text()
    )["providers"][0]
    mount = f"./grafana/dashboards:{provider['options']['path']}:ro"
    assert mount in compose["services"]["grafana"]["volumes"]


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_panels_do_not_overlap(path: Path) -> None:
    board = json.loads(path.read_text())
    taken = {
        (x, y)
        for place in (panel["gridPos"] for panel in board["panels"])
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    }
    area = sum(panel["gridPos"]["w"] * panel["gridPos"]["h"] for panel in board["panels"])
    assert len(taken) == area
    assert max(x for x, _ in taken) < 24
