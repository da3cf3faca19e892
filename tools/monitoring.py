"""``python -m tools.monitoring`` writes what is derived from panels.yaml and rules.yaml.

Grafana's dashboards, and the rules as the Prometheus operator wants them; with ``--check`` it only
says whether they are stale.
"""

import itertools
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from candor.contracts.json_text import json_text
from candor.files.writing import write_file

REPOSITORY = Path(__file__).resolve().parents[1]
RULES = REPOSITORY / "deploy/prometheus/rules.yaml"
PANELS = REPOSITORY / "deploy/grafana/panels.yaml"
DASHBOARDS_DIR = REPOSITORY / "deploy/grafana/dashboards"
PROMETHEUS_RULE = REPOSITORY / "k8s/components/monitoring/candor-prometheusRule.yaml"

_COLUMNS, _WIDTH, _HEIGHT = 3, 8, 8  # in Grafana's grid, which is 24 wide
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
_TABLE_COLUMNS = {"excludeByName": {"Time": True, "Value": True}}

Json = dict[str, Any]


def main() -> int:
    """Exit code 0 where everything is written or fresh, else 1."""
    stale = [path for path, text in derived().items() if _read(path) != text]
    if sys.argv[1:] == ["--check"]:
        for path in stale:
            print(f"{path.relative_to(REPOSITORY)}: stale, run make monitoring", file=sys.stderr)
        return int(bool(stale))
    for path in stale:
        path.parent.mkdir(exist_ok=True)
        write_file(path, derived()[path].encode())
    return 0


def derived() -> dict[Path, str]:
    """Every derived file with the text it should have."""
    dashboards: Mapping[str, Json] = yaml.safe_load(PANELS.read_text())
    texts = {
        DASHBOARDS_DIR / f"{name}.json": json_text(_dashboard(name, source), indent=1) + "\n"
        for name, source in dashboards.items()
    }
    return {**texts, PROMETHEUS_RULE: _prometheus_rule()}


def _read(path: Path) -> str | None:
    return path.read_text() if path.exists() else None


def _prometheus_rule() -> str:
    labels = {"name": "candor", "component": "gateway", "part-of": "candor"}
    rule = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {
            "name": "candor-gateway",
            "labels": {f"app.kubernetes.io/{key}": value for key, value in labels.items()},
        },
        "spec": yaml.safe_load(RULES.read_text()),
    }
    head = "# Written by make monitoring from deploy/prometheus/rules.yaml.\n"
    return head + yaml.safe_dump(rule, sort_keys=False, width=120)


def _dashboard(name: str, source: Json) -> Json:
    panels = [
        _panel(number, place, panel)
        for number, (place, panel) in enumerate(zip(_places(), source["panels"], strict=False), 1)
    ]
    return {
        "uid": f"candor-{name}",
        "title": source["title"],
        "tags": ["candor"],
        "schemaVersion": 39,
        "editable": False,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [_source_variable(), _model_variable()]},
        "links": [
            {"type": "dashboards", "tags": ["candor"], "title": "Candor", "asDropdown": True}
        ],
        "panels": panels,
    }


def _places() -> Iterator[Json]:
    """Where each panel goes, row by row."""
    for number in itertools.count():
        row, column = divmod(number, _COLUMNS)
        yield {"x": column * _WIDTH, "y": row * _HEIGHT, "w": _WIDTH, "h": _HEIGHT}


def _panel(number: int, place: Json, source: Json) -> Json:
    kind = source.get("kind", "timeseries")
    panel = {
        "id": number,
        "type": kind,
        "title": source["title"],
        "description": source.get("help", ""),
        "datasource": _SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": source.get("unit", "short"), "min": 0}},
        "targets": [
            _target(chr(ord("A") + place), legend, query, kind)
            for place, (legend, query) in enumerate(source["queries"].items())
        ],
    }
    if kind == "table":
        panel["transformations"] = [{"id": "organize", "options": _TABLE_COLUMNS}]
    return panel


def _target(letter: str, legend: str, query: str, kind: str) -> Json:
    target: Json = {"refId": letter, "datasource": _SOURCE, "expr": query, "legendFormat": legend}
    if kind in ("stat", "table"):
        target |= {"instant": True, "range": False}
    if kind in ("table", "heatmap"):
        target["format"] = kind
    return target


def _source_variable() -> Json:
    return {"name": "datasource", "label": "Source", "type": "datasource", "query": "prometheus"}


def _model_variable() -> Json:
    query = "label_values(candor_model_info, model)"
    return {
        "name": "model",
        "label": "Model",
        "type": "query",
        "datasource": _SOURCE,
        "query": {"query": query, "refId": "models"},
        "refresh": 2,  # with every change of the time range
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]},
    }


if __name__ == "__main__":
    sys.exit(main())
