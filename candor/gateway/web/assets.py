"""What every page of the gateway shares: templates, security headers, styles and scripts."""

from pathlib import Path
from typing import Any

from fastapi import FastAPI, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, HTMLResponse

from candor.gateway.access.rules import Access, add_page

_FOLDER = Path(__file__).parent / "pages"
_ASSETS = frozenset(path.name for path in _FOLDER.iterdir() if path.suffix in (".css", ".js"))
_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "cache-control": "no-store",
}
_TEMPLATES = Environment(
    loader=FileSystemLoader(_FOLDER), autoescape=True, undefined=StrictUndefined
)


def page(template: str, *, http_status: int = 200, **values: Any) -> Response:
    """A page that may load only our own scripts and styles."""
    html = _TEMPLATES.get_template(template).render(values)
    return HTMLResponse(html, status_code=http_status, headers=_HEADERS)


def add_assets(app: FastAPI) -> None:
    """Styles and scripts under `/pages/`."""
    add_page(app, "GET", "/pages/{name}", _asset, Access.PUBLIC)


async def _asset(name: str) -> Response:
    if name not in _ASSETS:
        raise HTTPException(404, "no such file")
    return FileResponse(_FOLDER / name, headers={"cache-control": "no-cache"})
