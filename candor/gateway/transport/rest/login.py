"""Where people enter a key: `/login` and `/logout`.

Programs send ``Authorization: Bearer KEY``; a browser keeps the key in a cookie that no script can
read and no other site can send.
"""

from urllib.parse import quote, urlsplit

from fastapi import FastAPI, Request, Response
from starlette.responses import RedirectResponse

from candor.contracts.errors import ErrorCode, ServiceError
from candor.gateway.access.authorizer import Authorizer, Credentials
from candor.gateway.access.rules import Access, add_page
from candor.gateway.web.assets import page
from candor.gateway.web.forms import read_form

SESSION_COOKIE = "candor_key"
LOGIN = "/login"
_SESSION_SECONDS = 12 * 3600
_MAX_BODY_BYTES = 16 * 1024  # a token may have 8 KiB


def add_login(app: FastAPI, authorizer: Authorizer) -> None:
    """Adds the page where a person enters a key, and the path that forgets it."""
    pages = _LoginPages(authorizer)
    add_page(app, "GET", LOGIN, pages.show, Access.PUBLIC)
    add_page(app, "POST", LOGIN, pages.enter, Access.PUBLIC)
    add_page(app, "POST", "/logout", pages.leave, Access.PUBLIC)


class _LoginPages:
    def __init__(self, authorizer: Authorizer) -> None:
        self._authorizer = authorizer

    async def show(self, request: Request) -> Response:
        if not self._authorizer.needs_keys:
            return _see_other("/")
        return login_page(request.query_params.get("next", "/"))

    async def enter(self, request: Request) -> Response:
        """Keeps a valid key in the cookie and redirects to the page the person wanted."""
        then = "/"
        try:
            fields = await read_form(request, _MAX_BODY_BYTES)
            key, then = fields.get("key", "").strip(), fields.get("next", "/")
            await self._authorizer.identify(Credentials(session=key))
        except ServiceError as err:
            is_unread = err.code is ErrorCode.INVALID_INPUT
            return login_page(then, err.message, 400 if is_unread else 401)
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


def login_page(then: str, message: str = "", http_status: int = 200) -> Response:
    """The page with a form for the key; ``then`` is the path that follows."""
    return page("login.html", http_status=http_status, then=_own_path(then), message=message)


def redirect_to_login(path: str) -> Response:
    """Sends a browser without a key to the login page, and from there back to ``path``."""
    return _see_other(f"{LOGIN}?next={quote(path, safe='')}")


def _own_path(address: str) -> str:
    """A path of this server; never another site, however it is written."""
    try:
        parts = urlsplit(address.replace("\\", "/"))
    except ValueError:  # brackets without an IPv6 address
        return "/"
    is_own = not parts.scheme and not parts.netloc and parts.path.startswith("/")
    return quote(parts.path) if is_own and not parts.path.startswith("//") else "/"


def _see_other(path: str) -> RedirectResponse:
    return RedirectResponse(path, status_code=303, headers={"cache-control": "no-store"})
