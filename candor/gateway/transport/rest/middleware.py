"""What stands before the REST door: keys, security headers, and where people enter a key.

Programs send ``Authorization: Bearer KEY``; a browser keeps
the key in a cookie that no script can read and no other site can send.
"""

from urllib.parse import quote, urlsplit

from fastapi import FastAPI, Request, Response
from starlette.datastructures import MutableHeaders
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from candor.contracts.errors import ErrorCode, FieldViolation, ServiceError
from candor.gateway.access.authorizer import Authorizer, Credentials, rule_of_path
from candor.gateway.access.request_context import named_tenant, tenant_of_key
from candor.gateway.observability.request_log import RequestLog
from candor.gateway.transport.rest.errors import error_response
from candor.gateway.transport.rest.request_body import read_form
from candor.gateway.web.assets import page

SESSION_COOKIE = "candor_key"
LOGIN = "/login"
_SESSION_SECONDS = 12 * 3600
_MAX_BODY_BYTES = 16 * 1024  # a token may have 8 KiB
_SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
_OWN_SITE = ("same-origin", "none")
# A page may say otherwise of itself; an answer that is no page runs and frames nothing.
_HEADERS = {
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
_STRICT_TRANSPORT = "max-age=31536000"
# The framework's description loads its viewer from there.
_DOCS_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' https://cdn.jsdelivr.net; "
    "style-src 'unsafe-inline' https://cdn.jsdelivr.net; img-src data: https:; "
    "connect-src 'self'; frame-ancestors 'none'"
)


class SecurityHeaders:
    """Puts them on every answer, refusals too; what an answer says itself stays."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                if scope["path"] in ("/docs", "/redoc"):
                    headers["content-security-policy"] = _DOCS_POLICY
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                if scope["scheme"] == "https":
                    headers["strict-transport-security"] = _STRICT_TRANSPORT
            await send(message)

        return await self._app(scope, receive, send_guarded)


class AuthorizationMiddleware:
    """Lets through whom the guard admits; everybody else hears why not."""

    def __init__(self, app: ASGIApp, authorizer: Authorizer, observer: RequestLog) -> None:
        self._app = app
        self._authorizer = authorizer
        self._request_log = observer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        request = Request(scope)
        try:
            _check_site(request)
            identity = await self._authorizer.admit(
                rule_of_path(scope["path"]), _credentials(request)
            )
        except ServiceError as err:
            self._request_log.refused(request.state.request_id, request.headers, err)
            return await _turned_away(request, err)(scope, receive, send)
        tenant_of_key.set(None if identity is None else identity.tenant)
        return await self._app(scope, receive, send)


def add_login(app: FastAPI, authorizer: Authorizer) -> None:
    """The page at `/login` where a person enters a key, and `/logout`."""
    pages = _LoginPages(authorizer)
    for path, endpoint, method in (
        (LOGIN, pages.show, "GET"),
        (LOGIN, pages.enter, "POST"),
        ("/logout", pages.leave, "POST"),
    ):
        app.add_api_route(
            path, endpoint, methods=[method], include_in_schema=False, response_model=None
        )


class _LoginPages:
    def __init__(self, authorizer: Authorizer) -> None:
        self._authorizer = authorizer

    async def show(self, request: Request) -> Response:
        if not self._authorizer.needs_keys:
            return _see_other("/")
        return _login_page(request.query_params.get("next", "/"))

    async def enter(self, request: Request) -> Response:
        """Keeps a key that is good in the cookie and goes where the person wanted to go."""
        fields = await read_form(request, _MAX_BODY_BYTES)
        key, then = fields.get("key", "").strip(), fields.get("next", "/")
        try:
            await self._authorizer.identify(Credentials(session=key))
        except ServiceError as err:
            return _login_page(then, err.message, 401)
        response = _see_other(_own_path(then))
        response.set_cookie(
            SESSION_COOKIE,
            key,
            max_age=_SESSION_SECONDS,
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https",
        )
        return response

    async def leave(self) -> Response:
        response = _see_other(LOGIN)
        response.delete_cookie(SESSION_COOKIE)
        return response


def _credentials(request: Request) -> Credentials:
    return Credentials(
        authorization=request.headers.get("authorization", ""),
        session=request.cookies.get(SESSION_COOKIE, ""),
        tenant=named_tenant(request.headers),
    )


def _check_site(request: Request) -> None:
    """A page of another site may not act with the cookie of this one.

    The cookie is SameSite=Strict already; this also keeps out other hosts of the same site.
    """
    site = request.headers.get("sec-fetch-site", "none")
    if request.method in _SAFE_METHODS or site in _OWN_SITE or "authorization" in request.headers:
        return
    violation = FieldViolation("sec-fetch-site", f"got {site[:20]!r}, allowed same-origin")
    raise ServiceError(
        ErrorCode.PERMISSION_DENIED,
        f"{violation.field}: {violation.description}",
        violations=[violation],
    )


def _turned_away(request: Request, error: ServiceError) -> Response:
    """People are asked for a key, programs are told what is missing."""
    is_page = request.method == "GET" and "text/html" in request.headers.get("accept", "")
    if is_page and error.code is ErrorCode.UNAUTHENTICATED:
        return _see_other(f"{LOGIN}?next={quote(request.url.path, safe='')}")
    if is_page and error.code is ErrorCode.PERMISSION_DENIED:
        return _login_page(request.url.path, f"This key will not do. {error.message}", 403)
    return error_response(error, request)


def _login_page(then: str, message: str = "", http_status: int = 200) -> Response:
    return page("login.html", http_status=http_status, then=_own_path(then), message=message)


def _own_path(address: str) -> str:
    """A path of this server; never another site, however it is written."""
    parts = urlsplit(address.replace("\\", "/"))
    is_own = not parts.scheme and not parts.netloc and parts.path.startswith("/")
    return quote(parts.path) if is_own and not parts.path.startswith("//") else "/"


def _see_other(path: str) -> RedirectResponse:
    return RedirectResponse(path, status_code=303, headers={"cache-control": "no-store"})
