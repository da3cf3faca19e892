"""What runs before every endpoint: request id, security headers, last responses, authorization."""

from collections.abc import Callable
from contextlib import suppress

from fastapi import Request, Response
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from candor.contracts import headers
from candor.contracts.errors import ErrorCode, FieldViolation, ServiceError
from candor.gateway.access.authorizer import Authorizer, Credentials
from candor.gateway.access.request_context import named_tenant, tenant_of_key
from candor.gateway.access.rules import rule_of_path
from candor.gateway.observability.request_log import RequestLog, usable_request_id
from candor.gateway.transport.rest.errors import error_response
from candor.gateway.transport.rest.login import SESSION_COOKIE, login_page, redirect_to_login
from candor.gateway.transport.rest.targets import check_headers
from candor.gateway.web.annotate import MAX_BODY_BYTES
from candor.gateway.web.errors import Form, error_page, wants_page
from candor.gateway.web.forms import read_form

_SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
_OWN_SITE = ("same-origin", "none")
# A page may set others for itself; a response that is no page runs and frames nothing.
_SECURITY_HEADERS = {
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
_STRICT_TRANSPORT = "max-age=31536000"
# The viewers of the API description are loaded from there.
_DOCS_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' https://cdn.jsdelivr.net; "
    "style-src 'unsafe-inline' https://cdn.jsdelivr.net; img-src data: https:; "
    "connect-src 'self'; frame-ancestors 'none'"
)


class RequestId:
    """Gives every request an id and puts it on every response, the framework's own included."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        request_id = usable_request_id(Headers(scope=scope).get(headers.REQUEST_ID))
        scope.setdefault("state", {})["request_id"] = request_id

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[headers.REQUEST_ID] = request_id
            await send(message)

        return await self._app(scope, receive, send_with_id)


class SecurityHeaders:
    """Puts security headers on every response; those that a response sets itself stay."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                sent = MutableHeaders(scope=message)
                if scope["path"] in ("/docs", "/redoc"):
                    sent["content-security-policy"] = _DOCS_POLICY
                for name, value in _SECURITY_HEADERS.items():
                    sent.setdefault(name, value)
                if scope["scheme"] == "https":
                    sent["strict-transport-security"] = _STRICT_TRANSPORT
            await send(message)

        return await self._app(scope, receive, send_with_headers)


class LastResponses:
    """Asks clients of a gateway that drains to open their next connection to another one.

    Args:
        is_draining: whether this is a last response.
    """

    def __init__(self, app: ASGIApp, is_draining: Callable[[], bool]) -> None:
        self._app = app
        self._is_draining = is_draining

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)

        async def send_last(message: Message) -> None:
            if message["type"] == "http.response.start" and self._is_draining():
                MutableHeaders(scope=message)["connection"] = "close"
            await send(message)

        return await self._app(scope, receive, send_last)


class AuthorizationMiddleware:
    """Lets only admitted requests through, by the rule of the path that the router will choose."""

    def __init__(self, app: ASGIApp, authorizer: Authorizer, request_log: RequestLog) -> None:
        self._app = app
        self._authorizer = authorizer
        self._request_log = request_log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        request = Request(scope)
        rule = rule_of_path(scope["app"].routes, scope["method"], scope["path"])
        try:
            check_headers(scope)
            _check_site(request)
            identity = await self._authorizer.admit(rule, _credentials(request))
        except ServiceError as err:
            self._request_log.rejected(request.state.request_id, request.headers, err)
            response = await _rejection(request, err, receive)
            return await response(scope, receive, send)
        tenant_of_key.set(None if identity is None else identity.tenant)
        return await self._app(scope, receive, send)


def _credentials(request: Request) -> Credentials:
    return Credentials(
        authorization=request.headers.get(headers.AUTHORIZATION, ""),
        session=request.cookies.get(SESSION_COOKIE, ""),
        tenant=named_tenant(request.headers),
    )


def _check_site(request: Request) -> None:
    """A page of another site may not act with the cookie of this one.

    The cookie is SameSite=Strict already; this also keeps out other hosts of the same site.
    """
    site = request.headers.get("sec-fetch-site", "none")
    is_program = headers.AUTHORIZATION in request.headers
    if request.method in _SAFE_METHODS or site in _OWN_SITE or is_program:
        return
    violation = FieldViolation("sec-fetch-site", f"expected same-origin, got {site[:20]!r}")
    raise ServiceError(
        ErrorCode.PERMISSION_DENIED,
        f"{violation.field}: {violation.description}",
        violations=[violation],
    )


async def _rejection(request: Request, error: ServiceError, receive: Receive) -> Response:
    """People get the page where they enter a key, programs an error response."""
    if not wants_page(request):
        return error_response(error, request)
    path, is_form = request.url.path, request.method == "POST"
    if error.code is ErrorCode.UNAUTHENTICATED and not is_form:
        return redirect_to_login(path)
    # Of a form the page it stands on: /annotate of /annotate/answer.
    back = f"/{path.split('/')[1]}" if is_form else path
    lost = "Nothing was saved. " if is_form else ""
    if error.code is ErrorCode.UNAUTHENTICATED:
        return login_page(back, f"{lost}Your key is missing or no longer valid.", 401)
    if error.code is ErrorCode.PERMISSION_DENIED:
        return login_page(back, f"{lost}This key is not sufficient. {error.message}", 403)
    sent = await _sent_form(Request(request.scope, receive)) if is_form else None
    return error_page(error, back, sent)


async def _sent_form(request: Request) -> Form | None:
    """What a person sent, so that the page can send it again; None where it cannot be read."""
    with suppress(ServiceError):
        return Form(request.scope["path"], await read_form(request, MAX_BODY_BYTES))
    return None
