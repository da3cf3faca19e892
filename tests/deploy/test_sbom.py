"""Bill of materials, licences and the audit, the latter against a stand-in for the database."""

import json
import sys
import threading
from collections.abc import Iterator
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from tools import sbom
from tools.sbom import NotAudited, Package, UnknownLicence

WELL = Package("fastapi", "0.165.0", "MIT")
HOLED = Package("pillow", "1.0", "MIT-CMU")


class Database(BaseHTTPRequestHandler):
    """Knows a hole of every package in version 1.0, as osv.dev would say it."""

    def do_POST(self) -> None:
        queries = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["queries"]
        results = [self.response(query) for query in queries]
        body = json.dumps({"results": results[: getattr(self.server, "limit", None)]}).encode()
        self.send_response(200 if self.path == "/v1/querybatch" else 404)
        self.end_headers()
        self.wfile.write(body)

    def response(self, query: dict) -> dict:
        assert query["package"]["ecosystem"] == "PyPI"
        if query["version"] != "1.0":
            return {}
        return {"vulns": [{"id": f"PYSEC-{query['package']['name']}", "modified": "2026-01-01"}]}

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def database() -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Database) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def url_of(server: ThreadingHTTPServer) -> str:
    return f"http://127.0.0.1:{server.server_port}"


@pytest.mark.parametrize("image", sbom.IMAGES)
def test_the_document_is_valid_and_whole(image: str, tmp_path: Path) -> None:
    packages = sbom.read_packages(image)
    text = sbom.write_bom(image, packages, tmp_path).read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    document = json.loads(text)
    assert {c["bom-ref"] for c in document["components"]} == {
        f"{package.name}=={package.version}" for package in packages
    }
    edges = {entry["ref"]: entry.get("dependsOn", []) for entry in document["dependencies"]}
    fastapi = next(ref for ref in edges if ref.startswith("fastapi=="))
    assert any(ref.startswith("starlette==") for ref in edges[fastapi])


@pytest.mark.parametrize("image", sbom.IMAGES)
def test_every_licence_is_known_and_allowed(image: str) -> None:
    rejected = [package for package in sbom.read_packages(image) if not package.is_allowed]
    assert rejected == []


@pytest.mark.parametrize(
    ("licence", "is_allowed"),
    [
        ("MIT", True),
        ("Apache-2.0 OR BSD-2-Clause", True),
        ("GPL-3.0-only", False),
        ("LGPL-2.1-or-later", False),
        ("MIT AND AGPL-3.0-only", False),
    ],
)
def test_licences_that_ask_for_our_source_are_refused(licence: str, is_allowed: bool) -> None:
    assert Package("any", "1", licence).is_allowed is is_allowed


def described(**fields: str) -> Message:
    message = Message()
    message["Name"] = "any"
    for name, value in fields.items():
        message[name.replace("_", "-")] = value
    return message


@pytest.mark.parametrize(
    ("fields", "expression"),
    [
        ({"License_Expression": "MIT"}, "MIT"),
        ({"License": "Apache 2.0"}, "Apache-2.0"),
        ({"License": "Copyright (c) of us"}, None),
        ({"License": "Words: *", "Classifier": "License :: OSI Approved :: MIT License"}, "MIT"),
        ({"Classifier": "Programming Language :: Python"}, None),
    ],
)
def test_a_licence_is_read_or_asked_for(fields: dict[str, str], expression: str | None) -> None:
    if expression is None:
        with pytest.raises(UnknownLicence, match="any"):
            sbom.licence_of(described(**fields))
    else:
        assert sbom.licence_of(described(**fields)) == expression


def test_known_vulnerabilities_are_named(database: ThreadingHTTPServer) -> None:
    found = sbom.audit([WELL, HOLED], url_of(database))
    assert found == {"pillow": ["PYSEC-pillow"]}


def test_fewer_answers_than_questions_are_no_audit(database: ThreadingHTTPServer) -> None:
    database.limit = 1
    with pytest.raises(NotAudited, match="expected 2 results, got 1"):
        sbom.audit([WELL, HOLED], url_of(database))


@pytest.mark.parametrize(("required", "code"), [([], 0), (["--require-audit"], 2)])
def test_without_the_database_it_says_so(
    required: list[str],
    code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ["sbom", "--out", str(tmp_path), "--osv-url", "http://127.0.0.1:1", *required]
    monkeypatch.setattr(sys, "argv", arguments)
    assert sbom.main() == code
    printed = capsys.readouterr().out
    assert "NOT AUDITED" in printed
    assert "not audited" in printed
    assert (tmp_path / "gateway-licences.csv").read_text().startswith("package,version,licence\n")


def test_a_hole_fails_the_run(
    database: ThreadingHTTPServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sbom, "read_packages", lambda image: [HOLED] if image == "worker" else [])
    monkeypatch.setattr(
        sys, "argv", ["sbom", "--out", str(tmp_path), "--osv-url", url_of(database)]
    )
    assert sbom.main() == 1
    assert "PYSEC-pillow" in capsys.readouterr().out
