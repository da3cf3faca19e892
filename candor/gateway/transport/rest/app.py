"""The REST application: every endpoint, page and middleware."""

from fastapi import FastAPI
from starlette.exceptions import HTTPException

from candor.gateway.transport.parts import Parts
from candor.gateway.transport.rest.annotations import add_annotations
from candor.gateway.transport.rest.call import RestCalls
from candor.gateway.transport.rest.content_encoding import ContentEncoding
from candor.gateway.transport.rest.endpoints import add_endpoints
from candor.gateway.transport.rest.errors import framework_error
from candor.gateway.transport.rest.health import add_health
from candor.gateway.transport.rest.jobs import add_explanation_jobs, add_reports
from candor.gateway.transport.rest.login import add_login
from candor.gateway.transport.rest.methods import HeadAsGet
from candor.gateway.transport.rest.middleware import (
    AuthorizationMiddleware,
    LastResponses,
    RequestId,
    SecurityHeaders,
)
from candor.gateway.transport.rest.open_inference import add_open_inference
from candor.gateway.transport.rest.openapi import add_docs, describe
from candor.gateway.transport.rest.proxies import TrustedProxies
from candor.gateway.transport.rest.request_body import BodyBudget
from candor.gateway.transport.rest.targets import OwnTargets
from candor.gateway.web.annotate import add_annotation_pages
from candor.gateway.web.assets import add_assets
from candor.gateway.web.console import add_console


def make_app(parts: Parts, *, grpc_port: int) -> FastAPI:
    """The REST application over the parts of a gateway; ``grpc_port`` is shown on the console."""
    app = FastAPI(title="Candor", version="v1", openapi_url=None, redirect_slashes=False)
    app.add_exception_handler(HTTPException, framework_error)
    _add_api(app, parts)
    _add_pages(app, parts, grpc_port)
    # The last one added runs first.
    app.add_middleware(BodyBudget, max_bytes=parts.settings.body_bytes)
    app.add_middleware(ContentEncoding, request_log=parts.request_log)
    app.add_middleware(
        AuthorizationMiddleware, authorizer=parts.authorizer, request_log=parts.request_log
    )
    app.add_middleware(RequestId)
    admission = parts.service.admission
    app.add_middleware(LastResponses, is_draining=lambda: admission.is_draining)
    app.add_middleware(SecurityHeaders)
    app.add_middleware(HeadAsGet)
    app.add_middleware(TrustedProxies, networks=parts.settings.trusted_proxies)
    app.add_middleware(OwnTargets)
    return app


def _add_api(app: FastAPI, parts: Parts) -> None:
    calls = RestCalls(
        parts.request_log,
        body_seconds=parts.settings.body_seconds,
        heartbeat_seconds=parts.settings.heartbeat_seconds,
    )
    describe(app, needs_keys=parts.authorizer.needs_keys)
    add_endpoints(app, parts, calls)
    add_open_inference(app, parts, calls)
    add_health(app, parts.is_ready)
    if parts.annotations is not None and parts.flips is not None:
        add_annotations(app, parts.annotations, parts.flips, calls)
        add_annotation_pages(app, parts.annotations, parts.flips, calls.opened)
    if parts.reports is not None:
        add_reports(app, parts.reports, calls)
    if parts.explanation_jobs is not None:
        add_explanation_jobs(app, parts.explanation_jobs, calls)
    if parts.settings.docs:
        add_docs(app)


def _add_pages(app: FastAPI, parts: Parts, grpc_port: int) -> None:
    add_login(app, parts.authorizer)
    add_console(
        app,
        parts.service,
        grpc_port=grpc_port,
        has_annotations=parts.annotations is not None,
        has_docs=parts.settings.docs,
        needs_keys=parts.authorizer.needs_keys,
    )
    add_assets(app)
