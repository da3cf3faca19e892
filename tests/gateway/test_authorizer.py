"""Keys, tokens, quotas and pages behind them, through real gRPC and REST."""

import asyncio
import base64
import json
import logging
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import grpc
import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from fastapi import FastAPI
from google.rpc import status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from pydantic import ValidationError

from candor.gateway.access.keys import Scope, add_key, revoke_key
from candor.gateway.access.quotas import Quota
from candor.gateway.access.rules import Access, DeclaredPath, rule_of_method, rule_of_path
from candor.gateway.access.tokens import KeySource, TokenReader
from candor.gateway.config.settings import Settings
from candor.gateway.transport.grpc.open_inference import OpenInferenceServicer
from candor.gateway.transport.grpc.servicers import (
    CandorServicer,
    ExplanationJobServicer,
    ReportServicer,
)
from candor.rpc.pb.candor.v1 import candor_pb2 as pb
from candor.rpc.pb.candor.v1 import explanation_jobs_pb2, reports_pb2, reports_pb2_grpc
from candor.rpc.pb.openinference import inference_pb2
from tests.gateway.servers import Servers, opened, settings

ISSUER, AUDIENCE = "https://issuer.example", "candor"
SCOPES = {name: [name] for name in ("predict", "explain", "report", "annotate")}


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def as_json(encoded: bytes) -> dict[str, str]:
    return {"encoded": base64.b64encode(encoded).decode()}


def image_body(png: bytes) -> dict[str, Any]:
    return {"image": as_json(png)}


def grpc_error(call: Any, request: Any, **options: Any) -> tuple[grpc.StatusCode, set[str]]:
    """The code, and which details came with it."""
    with pytest.raises(grpc.RpcError) as caught:
        call(request, timeout=20, **options)
    trailing = dict(caught.value.trailing_metadata())
    status = status_pb2.Status.FromString(trailing["grpc-status-details-bin"])
    return caught.value.code(), {one.type_url.rsplit(".", 1)[1] for one in status.details}


@pytest.fixture(scope="module")
def signing_keys() -> dict[str, Any]:
    return {
        "rsa": rsa.generate_private_key(public_exponent=65537, key_size=2048),
        "ec": ec.generate_private_key(ec.SECP256R1()),
    }


@pytest.fixture(scope="module")
def protected(
    tmp_path_factory: pytest.TempPathFactory, signing_keys: dict[str, Any]
) -> Iterator[tuple[Servers, dict[str, str], Path]]:
    """A gateway that needs keys or tokens, a key of every scope, and the file of keys."""
    folder = tmp_path_factory.mktemp("protected")
    file = folder / "keys"
    keys = {name: add_key(file, name, "acme", scopes) for name, scopes in SCOPES.items()}
    keys["admin"] = add_key(file, "admin", "ops", ["admin"])
    jwks = folder / "jwks.json"
    jwks.write_text(json.dumps({"keys": [public_jwk(signing_keys["rsa"], "one")]}))
    yield from (
        (servers, keys, file)
        for servers in opened(
            keys_file=str(file),
            oidc_issuer=ISSUER,
            oidc_audience=AUDIENCE,
            oidc_jwks=str(jwks),
            store_url=str(folder / "store.sqlite"),
        )
    )


def public_jwk(key: Any, key_id: str) -> dict[str, Any]:
    algorithm = jwt.algorithms.RSAAlgorithm
    return {**algorithm.to_jwk(key.public_key(), as_dict=True), "kid": key_id, "use": "sig"}


def token(key: Any, **changes: Any) -> str:
    claims = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "user-7",
        "exp": time.time() + 60,
        "scope": "openid predict",
        "tenant": "globex",
        **changes,
    }
    headers = {"kid": claims.pop("kid", "one")}
    algorithm = claims.pop("alg", "RS256")
    present = {name: value for name, value in claims.items() if value is not None}
    return jwt.encode(present, key, algorithm, headers=headers)


# --- keys --------------------------------------------------------------------------------------


def test_rest_returns_401_without_a_key_and_names_the_header(protected: Any, png: bytes) -> None:
    servers = protected[0]
    for headers in ({}, bearer("candor_nonsense"), {"authorization": "Basic YTpi"}):
        response = servers.rest.post("/v1/predict", json=image_body(png), headers=headers)
        assert response.status_code == 401
        assert response.headers["www-authenticate"].startswith("Bearer")
        error = response.json()["error"]
        assert error["code"] == "UNAUTHENTICATED"
        assert error["violations"][0]["field"] == "authorization"
        assert error["request_id"] == response.headers["x-request-id"]


def test_rest_returns_403_and_names_the_scope_that_is_missing(protected: Any, png: bytes) -> None:
    servers, keys, _ = protected
    body = {**image_body(png), "targets": [{"index": 0}], "steps": 2}
    response = servers.rest.post("/v1/explain", json=body, headers=bearer(keys["predict"]))
    assert response.status_code == 403
    assert "insufficient_scope" in response.headers["www-authenticate"]
    assert (
        response.json()["error"]["message"] == "scope: expected explain, got predict of 'predict'"
    )
    for name in ("explain", "admin"):
        answer = servers.rest.post("/v1/explain", json=body, headers=bearer(keys[name]))
        assert answer.status_code == 200, answer.text


def test_a_comparison_needs_the_scope_of_an_explanation(protected: Any, png: bytes) -> None:
    servers, keys, _ = protected
    body = {**image_body(png), "steps": 2}
    for name, http_status in (("predict", 403), ("explain", 200)):
        response = servers.rest.post("/v1/compare", json=body, headers=bearer(keys[name]))
        assert response.status_code == http_status, response.text
    request = pb.CompareRequest(image=pb.Image(encoded=png), steps=2)
    metadata = tuple(bearer(keys["predict"]).items())
    code, _ = grpc_error(servers.stub.Compare, request, metadata=metadata)
    assert code is grpc.StatusCode.PERMISSION_DENIED


def test_the_console_asks_for_a_key_and_its_styles_do_not(protected: Any) -> None:
    rest, page = protected[0].rest, {"accept": "text/html"}
    response = rest.get("/", headers=page)
    assert (response.status_code, response.headers["location"]) == (303, "/login?next=%2F")
    for path in re.findall(r"/pages/[\w.]+", rest.get("/login").text):
        assert rest.get(path).status_code == 200
    cookie = page | {"cookie": f"candor_key={protected[1]['predict']}"}
    assert "console.js" in rest.get("/", headers=cookie).text


def test_grpc_rejects_with_its_own_codes_and_details(protected: Any, png: bytes) -> None:
    servers, keys, _ = protected
    request = pb.PredictRequest(image=pb.Image(encoded=png))
    code, details = grpc_error(servers.stub.Predict, request)
    assert code is grpc.StatusCode.UNAUTHENTICATED
    assert {"ErrorInfo", "RequestInfo", "BadRequest"} <= details
    metadata = tuple(bearer(keys["explain"]).items())
    code, _ = grpc_error(servers.stub.Predict, request, metadata=metadata)
    assert code is grpc.StatusCode.PERMISSION_DENIED
    metadata = tuple(bearer(keys["predict"]).items())
    assert servers.stub.Predict(request, metadata=metadata, timeout=20).predictions
    events = servers.stub.ExplainStream(pb.ExplainRequest(), metadata=metadata, timeout=20)
    with pytest.raises(grpc.RpcError) as caught:
        next(events)
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED


def test_health_is_open_and_reflection_is_not(protected: Any) -> None:
    servers, keys, _ = protected
    health = health_pb2_grpc.HealthStub(servers.channel)
    answer = health.Check(health_pb2.HealthCheckRequest())
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    assert servers.rest.get("/healthz/live").status_code == 200
    stub = reflection_pb2_grpc.ServerReflectionStub(servers.channel)
    asked = reflection_pb2.ServerReflectionRequest(list_services="")
    with pytest.raises(grpc.RpcError) as caught:
        list(stub.ServerReflectionInfo(iter([asked])))
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    metadata = tuple(bearer(keys["predict"]).items())
    assert list(stub.ServerReflectionInfo(iter([asked]), metadata=metadata))


def test_revoked_key_is_rejected_from_the_next_request_on(protected: Any, png: bytes) -> None:
    servers, _, file = protected
    key = add_key(file, "short-lived", "acme", ["predict"])
    answers = [servers.rest.post("/v1/predict", json=image_body(png), headers=bearer(key))]
    revoke_key(file, "short-lived")
    answers.append(servers.rest.post("/v1/predict", json=image_body(png), headers=bearer(key)))
    assert [answer.status_code for answer in answers] == [200, 401]


def test_tenant_is_that_of_the_key_whatever_the_header_says(
    protected: Any, png: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    servers, keys, _ = protected
    seen = []
    admission = servers.gateway.service.admission
    usual = admission.admit
    monkeypatch.setattr(
        admission,
        "admit",
        lambda p, k, request_context: (
            seen.append(request_context.tenant) or usual(p, k, request_context)
        ),
    )
    liar = {"x-candor-tenant": "ops"}
    headers = bearer(keys["predict"]) | liar
    servers.rest.post("/v1/predict", json=image_body(png), headers=headers)
    metadata = tuple(headers.items())
    servers.stub.Predict(pb.PredictRequest(image=pb.Image(encoded=png)), metadata=metadata)
    assert seen == ["acme", "acme"]


def test_rejection_leaves_one_log_line_without_the_key(
    protected: Any, caplog: pytest.LogCaptureFixture
) -> None:
    servers = protected[0]
    caplog.set_level(logging.INFO)
    headers = bearer("candor_secret") | {"x-request-id": "rejected"}
    servers.rest.get("/v1/models", headers=headers)
    lines = [record.fields for record in caplog.records if record.name == "gateway.requests"]
    (line,) = [line for line in lines if line["request_id"] == "rejected"]
    assert (line["verb"], line["code"]) == ("refused", "UNAUTHENTICATED")
    assert "candor_secret" not in f"{caplog.text}{line}"


def test_rejections_over_grpc_and_rest_are_counted(protected: Any) -> None:
    servers = protected[0]
    labels = {"verb": "refused", "model": "", "outcome": "UNAUTHENTICATED"}
    registry = servers.gateway.metrics.registry
    before = registry.get_sample_value("candor_requests_total", labels)
    servers.rest.get("/v1/models")
    grpc_error(servers.stub.ListModels, pb.ListModelsRequest())
    assert registry.get_sample_value("candor_requests_total", labels) == before + 2


def test_report_jobs_need_their_scope_over_grpc_and_rest(protected: Any) -> None:
    servers, keys, _ = protected
    stub = reports_pb2_grpc.ReportServiceStub(servers.channel)
    request = reports_pb2.CreateReportRequest(image_count=10)
    for name in ("predict", "explain", "annotate"):
        response = servers.rest.get("/v1/reports", headers=bearer(keys[name]))
        assert response.status_code == 403
        assert response.json()["error"]["message"].startswith("scope: expected report")
        metadata = tuple(bearer(keys[name]).items())
        code, _ = grpc_error(stub.CreateReport, request, metadata=metadata)
        assert code is grpc.StatusCode.PERMISSION_DENIED
    metadata = tuple(bearer(keys["report"]).items())
    made = stub.CreateReport(request, metadata=metadata, timeout=20)
    response = servers.rest.get(f"/v1/{made.name}", headers=bearer(keys["report"]))
    assert response.json()["name"] == made.name
    response = servers.rest.get(f"/v1/{made.name}", headers=bearer(keys["admin"]))
    assert response.status_code == 404, "of another tenant"


# --- rules -------------------------------------------------------------------------------------

PUBLIC_PATHS = {
    *("/healthz/live", "/healthz/ready", "/v2/health/live", "/v2/health/ready"),
    *("/login", "/logout", "/pages/{name}", "/photographs/{name}"),
}


def application(servers: Servers) -> FastAPI:
    return servers.gateway._rest.config.app


def test_every_path_declares_who_may_call_it(protected: Any) -> None:
    routes = application(protected[0]).routes
    assert all(isinstance(route, DeclaredPath) for route in routes)
    public = {route.path for route in routes if route.rule is Access.PUBLIC}
    assert public == PUBLIC_PATHS
    assert Scope.ADMIN not in {route.rule for route in routes}


def test_every_grpc_method_declares_who_may_call_it() -> None:
    for servicer, file in (
        (CandorServicer, pb.DESCRIPTOR),
        (ReportServicer, reports_pb2.DESCRIPTOR),
        (ExplanationJobServicer, explanation_jobs_pb2.DESCRIPTOR),
        (OpenInferenceServicer, inference_pb2.DESCRIPTOR),
    ):
        for service in file.services_by_name.values():
            for name in service.methods_by_name:
                assert rule_of_method(getattr(servicer, name)) is not Scope.ADMIN, name


@pytest.mark.parametrize("needs_keys", [True, False])
def test_openapi_shows_the_scope_of_every_path(
    protected: Any, servers: Servers, needs_keys: bool
) -> None:
    """A gateway without keys describes them as optional."""
    app = application(protected[0] if needs_keys else servers)
    schema = app.openapi()
    assert schema["components"]["securitySchemes"].keys() == {"bearer", "session"}
    described = [route for route in app.routes if route.include_in_schema]
    assert len(described) > 15
    for route in described:
        scopes = [route.rule.value] if isinstance(route.rule, Scope) else []
        expected = [{"bearer": scopes}, {"session": scopes}, *([] if needs_keys else [{}])]
        (method,) = route.methods
        operation = schema["paths"][route.path_format][method.lower()]
        assert operation["security"] == ([] if route.rule is Access.PUBLIC else expected)
        assert all(scope in operation["description"] for scope in scopes)


def test_what_declares_nothing_is_for_administrators(protected: Any) -> None:
    servers, keys, _ = protected
    assert rule_of_path(application(servers).routes, "GET", "/metrics") is Scope.ADMIN
    assert rule_of_method(lambda request, context: None) is Scope.ADMIN
    for name, http_status in (("predict", 403), ("admin", 404)):
        response = servers.rest.get("/nowhere", headers=bearer(keys[name]))
        assert response.status_code == http_status


@pytest.mark.parametrize(
    "path", ["//v1/predict", "/v1/predict/", "/V1/predict", "/v1/predict\n", "/v1/../v1/models"]
)
def test_other_spellings_of_a_path_do_not_slip_through(servers: Servers, path: str) -> None:
    routes = application(servers).routes
    assert rule_of_path(routes, "POST", path) is Scope.ADMIN
    assert rule_of_path(routes, "GET", "/healthz/ready") is Access.PUBLIC


def test_rule_is_that_of_the_path_which_serves_the_request(servers: Servers) -> None:
    routes = application(servers).routes
    for method, path, rule in (
        ("GET", "/v1/models/linear", Access.ANY_KEY),
        ("POST", "/v1/models/linear:predict", Scope.PREDICT),
        ("POST", "/v1/models/linear:explain", Scope.EXPLAIN),
        ("DELETE", "/v1/predict", Scope.PREDICT),
    ):
        assert rule_of_path(routes, method, path) is rule


# --- tokens ------------------------------------------------------------------------------------


def test_token_of_the_issuer_is_accepted(
    protected: Any, signing_keys: dict[str, Any], png: bytes
) -> None:
    servers = protected[0]
    headers = bearer(token(signing_keys["rsa"]))
    assert (
        servers.rest.post("/v1/predict", json=image_body(png), headers=headers).status_code == 200
    )
    body = {**image_body(png), "targets": [{"index": 0}]}
    response = servers.rest.post("/v1/explain", json=body, headers=headers)
    assert response.json()["error"]["message"] == "scope: expected explain, got predict of 'user-7'"
    listed = bearer(token(signing_keys["rsa"], scope=["explain", 7], tenant=None))
    assert servers.rest.post("/v1/explain", json=body, headers=listed).status_code == 200


@pytest.mark.parametrize("claim", ["tenant", "sub"])
def test_tenants_of_tokens_are_told_apart_in_every_script(
    signing_keys: dict[str, Any], tmp_path: Path, claim: str
) -> None:
    keys = tmp_path / "jwks.json"
    keys.write_text(json.dumps({"keys": [public_jwk(signing_keys["rsa"], "one")]}))
    reader = TokenReader(
        KeySource(str(keys)),
        issuer=ISSUER,
        audience=AUDIENCE,
        algorithms=("RS256",),
        tenant_claim="tenant",
        scope_claim="scope",
    )
    tenants = ("\u732b", "\u72d7", "\u00fcnal", "u\u0308nal", "nal", "x" * 65, "x" * 66)

    async def read() -> list[str]:
        claims = ({"tenant": None, claim: tenant} for tenant in tenants)
        return [(await reader.read(token(signing_keys["rsa"], **one))).tenant for one in claims]

    found = asyncio.run(read())
    assert found[2] == found[3], "two spellings of one name"
    assert len(set(found)) == len(tenants) - 1


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "https://other.example"},
        {"aud": "other"},
        {"aud": None},
        {"exp": time.time() - 3600},
        {"exp": None},
        {"sub": None},
        {"nbf": time.time() + 3600},
        {"kid": "unknown"},
    ],
    ids=lambda changes: "-".join(changes),
)
def test_token_with_a_wrong_claim_is_rejected(
    protected: Any, signing_keys: dict[str, Any], changes: dict[str, Any]
) -> None:
    headers = bearer(token(signing_keys["rsa"], **changes))
    response = protected[0].rest.get("/v1/models", headers=headers)
    assert response.status_code == 401
    assert "token rejected" in response.json()["error"]["message"]


def test_token_signed_otherwise_is_rejected(protected: Any, signing_keys: dict[str, Any]) -> None:
    rest = protected[0].rest
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    public = signing_keys["rsa"].public_key().public_numbers()
    forged = [
        token(other),
        token(signing_keys["ec"], alg="ES256"),
        token(f"{public.n}", alg="HS256"),
        token(None, alg="none"),
        token(signing_keys["rsa"])[:-4] + "AAAA",
        "a.b.c",
        "x" * 10_000,
    ]
    for one in forged:
        response = rest.get("/v1/models", headers=bearer(one))
        assert response.status_code == 401, one
        assert response.json()["error"]["code"] == "UNAUTHENTICATED"


def test_issuer_may_change_its_keys(
    tmp_path: Path, signing_keys: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("candor.gateway.access.tokens._REFETCH_SECONDS", 0.0)
    jwks = tmp_path / "jwks.json"
    jwks.write_text(json.dumps({"keys": [public_jwk(signing_keys["rsa"], "one")]}))
    oidc = {"oidc_issuer": ISSUER, "oidc_audience": AUDIENCE, "oidc_jwks": str(jwks)}
    newer = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    for servers in opened(**oidc):
        headers = bearer(token(newer, kid="two"))
        assert servers.rest.get("/v1/models", headers=headers).status_code == 401
        jwks.write_text(json.dumps({"keys": [public_jwk(newer, "two")]}))
        assert servers.rest.get("/v1/models", headers=headers).status_code == 200
        withdrawn = bearer(token(signing_keys["rsa"]))
        assert servers.rest.get("/v1/models", headers=withdrawn).status_code == 401
        jwks.write_text("not JSON")
        assert servers.rest.get("/v1/models", headers=withdrawn).status_code == 401
        assert servers.rest.get("/v1/models", headers=headers).status_code == 200


def test_issuers_keys_come_over_http_but_never_by_a_detour(
    signing_keys: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # where nothing answers
    jwks = json.dumps({"keys": [public_jwk(signing_keys["rsa"], "one")]}).encode()

    class Issuer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(302 if self.path == "/detour" else 200)
            self.send_header("location", "/keys")
            self.end_headers()
            if self.path == "/keys":
                self.wfile.write(jwks)

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Issuer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for path, status in (("keys", 200), ("detour", 401)):
            address = f"http://127.0.0.1:{server.server_port}/{path}"
            for servers in opened(oidc_issuer=ISSUER, oidc_audience=AUDIENCE, oidc_jwks=address):
                headers = bearer(token(signing_keys["rsa"]))
                assert servers.rest.get("/v1/models", headers=headers).status_code == status
        server.shutdown()


# --- quotas ------------------------------------------------------------------------------------


def test_rate_and_compute_quotas_hold_over_grpc_and_rest(png: bytes) -> None:
    quota = Quota(compute_seconds_per_day=0.001)
    rate = Quota(requests_per_second=0.01, burst=2)
    for servers in opened(quota=quota, tenant_quotas={"hasty": rate}):
        body = {**image_body(png), "targets": [{"index": 0}], "steps": 40}
        assert servers.rest.post("/v1/explain", json=body).status_code == 200
        response = servers.rest.post("/v1/explain", json=body)
        assert response.status_code == 429
        error = response.json()["error"]
        assert error["code"] == "QUOTA_EXCEEDED"
        assert "compute-seconds per day" in error["message"]
        assert int(response.headers["retry-after"]) >= error["retry_seconds"] > 0
        assert servers.rest.post("/v1/predict", json=image_body(png)).status_code == 200
        request = pb.PredictRequest(image=pb.Image(encoded=png))
        metadata = (("x-candor-tenant", "hasty"),)
        for _ in range(2):
            servers.stub.Predict(request, metadata=metadata)
        code, details = grpc_error(servers.stub.Predict, request, metadata=metadata)
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert {"QuotaFailure", "RetryInfo", "ErrorInfo"} <= details


# --- pages -------------------------------------------------------------------------------------


def test_browser_enters_a_key_once_and_then_has_the_pages(protected: Any) -> None:
    servers, keys, _ = protected
    page = {"accept": "text/html", "sec-fetch-site": "same-origin"}
    with httpx.Client(base_url=servers.rest.base_url) as browser:
        response = browser.get("/annotate", headers=page)
        assert (response.status_code, response.headers["location"]) == (
            303,
            "/login?next=%2Fannotate",
        )
        shown = browser.get(response.headers["location"], headers=page)
        assert 'value="/annotate"' in shown.text
        assert browser.get("/pages/base.css").status_code == 200
        wrong = browser.post("/login", data={"key": "candor_no", "next": "/annotate"}, headers=page)
        assert wrong.status_code == 401
        assert "not known" in wrong.text
        entered = {"key": keys["annotate"], "next": "/annotate"}
        response = browser.post("/login", data=entered, headers=page)
        assert (response.status_code, response.headers["location"]) == (303, "/annotate")
        cookie = response.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=strict" in cookie
        assert browser.get("/annotate", headers=page).status_code == 200
        body = {"annotator": "ann"}
        assert browser.post("/v1/annotations:next", json=body, headers=page).status_code == 200
        foreign = {"sec-fetch-site": "cross-site"}
        response = browser.post("/v1/annotations:next", json=body, headers=foreign)
        assert response.status_code == 403
        response = browser.get("/", headers=page)
        browser.post("/logout", headers=page)
        assert browser.get("/annotate", headers=page).status_code == 303


def test_page_says_which_scope_the_key_lacks(protected: Any) -> None:
    servers, keys, _ = protected
    headers = {"accept": "text/html", "cookie": f"candor_key={keys['predict']}"}
    response = servers.rest.get("/annotate", headers=headers)
    assert response.status_code == 403
    assert "expected annotate" in response.text
    assert "<form" in response.text


@pytest.mark.parametrize(
    "then", ["https://evil.example", "//evil.example", "/\\evil.example", "javascript:alert(1)", ""]
)
def test_login_leads_to_no_other_site(protected: Any, then: str) -> None:
    servers, keys, _ = protected
    response = servers.rest.post("/login", data={"key": keys["predict"], "next": then})
    assert response.status_code == 303
    assert response.headers["location"].startswith("/")
    assert not response.headers["location"].startswith("//")


# --- headers -----------------------------------------------------------------------------------


def test_every_response_has_the_security_headers(protected: Any, servers: Servers) -> None:
    answers = [
        servers.rest.get("/healthz/live"),
        servers.rest.get("/nothing"),
        servers.rest.post("/v1/predict", content=b"{"),
        protected[0].rest.get("/v1/models"),
    ]
    for answer in answers:
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "server" not in answer.headers
        assert "strict-transport-security" not in answer.headers


def test_no_other_site_may_read_responses(servers: Servers, png: bytes) -> None:
    origin = {"origin": "https://evil.example", "access-control-request-method": "POST"}
    for response in (
        servers.rest.options("/v1/predict", headers=origin),
        servers.rest.post("/v1/predict", json=image_body(png), headers=origin),
    ):
        assert not [name for name in response.headers if name.startswith("access-control")]


def test_description_and_reflection_can_be_switched_off(servers: Servers) -> None:
    assert servers.rest.get("/docs").status_code == 200
    for closed in opened(docs=False, reflection=False):
        for path in ("/docs", "/redoc", "/openapi.json"):
            assert closed.rest.get(path).status_code == 404
        stub = reflection_pb2_grpc.ServerReflectionStub(closed.channel)
        asked = reflection_pb2.ServerReflectionRequest(list_services="")
        with pytest.raises(grpc.RpcError) as caught:
            list(stub.ServerReflectionInfo(iter([asked])))
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


# --- settings ----------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "candor.example"])
def test_gateway_beyond_loopback_needs_keys_or_an_explicit_setting(host: str) -> None:
    with pytest.raises(ValidationError, match="allow_anonymous"):
        settings(host=host)
    assert settings(host=host, allow_anonymous=True).host == host
    assert settings(host=host, keys_file="keys").has_keys


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "localhost"])
def test_loopback_needs_none(host: str) -> None:
    assert not settings(host=host).has_keys


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"tls_cert": "a"}, "tls_key"),
        ({"tls_client_ca": "a"}, "tls_client_ca"),
        ({"oidc_issuer": "https://a"}, "oidc_audience"),
        (
            {"oidc_issuer": "https://a", "oidc_audience": "b", "oidc_jwks": "http://a/keys"},
            "https",
        ),
        ({"oidc_algorithms": ("HS256",)}, "oidc_algorithms"),
        ({"quota": {"requests_per_second": -1}}, "requests_per_second"),
    ],
)
def test_incomplete_protection_is_rejected(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        settings(**changes)


def test_process_does_not_start_unprotected_or_with_bad_keys(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("nonsense\n")
    for changes, complaint in (
        ({"CANDOR_HOST": "0.0.0.0"}, "allow_anonymous"),
        ({"CANDOR_KEYS_FILE": str(tmp_path / "keys")}, "line 1"),
        ({"CANDOR_KEYS_FILE": str(tmp_path / "none")}, "none"),
        ({"CANDOR_TLS_CERT": str(tmp_path / "none"), "CANDOR_TLS_KEY": "none"}, "No such file"),
    ):
        environment = {**os.environ, "CANDOR_MODELS": '["linear"]', "CANDOR_REST_PORT": "0"}
        done = subprocess.run(
            [sys.executable, "-m", "candor.gateway"],
            env=environment | {"CANDOR_GRPC_PORT": "0"} | changes,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 2, done.stderr
        assert complaint in done.stderr
        assert "Traceback" not in done.stderr


def test_every_setting_is_described() -> None:
    assert all(field.description for field in Settings.model_fields.values())
