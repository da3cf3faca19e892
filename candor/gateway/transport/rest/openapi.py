"""The description of the REST API: errors, bodies, headers, and who may call what."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from fastapi import FastAPI, Response
from fastapi.openapi.docs import get_redoc_html, get_swagger_ui_html
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.responses import JSONResponse

from candor.contracts import api, headers
from candor.contracts.errors import ErrorCode
from candor.gateway.access.keys import Scope
from candor.gateway.access.rules import Access, DeclaredPath, Rule, add_page, add_path
from candor.gateway.transport.rest.login import SESSION_COOKIE
from candor.rpc import status

BODY_TOO_LARGE_STATUS = 413
HEADER_PARAMETERS = [
    {"name": name, "in": "header", "description": text, "schema": {"type": "string"}}
    for name, text in headers.DESCRIPTIONS.items()
]
_SCHEMA_PATH, _REFERENCE = "/openapi.json", "#/components/schemas/{model}"
_SECURITY_SCHEMES = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "A key made by `candor keys create`, or a JSON Web Token of the issuer.",
    },
    "session": {
        "type": "apiKey",
        "in": "cookie",
        "name": SESSION_COOKIE,
        "description": "The same key in a browser, entered at `/login`.",
    },
}

Endpoint = Callable[..., Awaitable[Any]]


class _Violation(BaseModel):
    field: str
    description: str


class _Error(BaseModel):
    code: ErrorCode
    message: str
    violations: tuple[_Violation, ...]
    retry_seconds: float | None
    request_id: str


class ErrorBody(BaseModel):
    """The body of every error response."""

    error: _Error


ERRORS: dict[int | str, dict[str, Any]] = {
    code: {"model": ErrorBody}
    for code in (*sorted(set(status.HTTP_STATUS.values())), BODY_TOO_LARGE_STATUS)
}


def add_operation(
    app: FastAPI,
    method: str,
    path: str,
    endpoint: Endpoint,
    rule: Rule,
    *,
    response: type[BaseModel] | None = None,
    responses: Mapping[int | str, dict[str, Any]] | None = None,
    **options: Any,
) -> None:
    """Adds a path of the API.

    Args:
        rule: who may call it; the description says so.
        response: the body of a successful response, None for an undescribed one.
        responses: further responses; those of errors are described for every path.
        options: those of `FastAPI.add_api_route`.
    """
    described = {**ERRORS, **(responses or {})}
    add_path(
        app, method, path, endpoint, rule, response_model=response, responses=described, **options
    )


def request_body(content: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """``requestBody`` of an operation, with a schema for every media type."""
    types = {media_type: {"schema": schema} for media_type, schema in content.items()}
    return {"required": True, "content": types}


def reference(app: FastAPI, model: type[BaseModel]) -> dict[str, Any]:
    """A reference to the schema of a model that the framework does not see by itself."""
    app.state.referenced.append(model)
    return {"$ref": _REFERENCE.format(model=model.__name__)}


def add_docs(app: FastAPI) -> None:
    """Adds the schema at `/openapi.json` and the viewers at `/docs` and `/redoc`."""
    title = app.title

    async def schema() -> Response:
        return JSONResponse(app.openapi())

    async def swagger() -> Response:
        return get_swagger_ui_html(openapi_url=_SCHEMA_PATH, title=f"{title} - Swagger UI")

    async def redoc() -> Response:
        return get_redoc_html(openapi_url=_SCHEMA_PATH, title=f"{title} - ReDoc")

    for path, endpoint in ((_SCHEMA_PATH, schema), ("/docs", swagger), ("/redoc", redoc)):
        add_page(app, "GET", path, endpoint, Access.ANY_KEY)


def describe(app: FastAPI, *, needs_keys: bool) -> None:
    """Sets ``app.openapi``.

    Args:
        needs_keys: False describes keys as optional, because the gateway has none.
    """
    app.state.referenced = [api.ExplainProgress]  # inside a stream of events

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _schema(app, needs_keys)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _schema(app: FastAPI, needs_keys: bool) -> dict[str, Any]:
    schema = get_openapi(title=app.title, version=app.version, routes=app.routes)
    _, defined = models_json_schema(
        [(model, "validation") for model in app.state.referenced], ref_template=_REFERENCE
    )
    schema["components"]["schemas"].update(defined["$defs"])
    schema["components"]["securitySchemes"] = _SECURITY_SCHEMES
    for route in app.routes:
        if isinstance(route, DeclaredPath) and route.include_in_schema:
            for method in route.methods or ():
                operation = schema["paths"][route.path_format][method.lower()]
                _add_security(operation, route.rule, needs_keys)
    return schema


def _add_security(operation: dict[str, Any], rule: Rule, needs_keys: bool) -> None:
    """The scope stands in ``security``, and as text for viewers that do not show it there."""
    scopes = [rule.value] if isinstance(rule, Scope) else []
    required = [{name: scopes} for name in _SECURITY_SCHEMES]
    if rule is Access.PUBLIC:
        operation["security"] = []
    else:
        operation["security"] = required if needs_keys else [*required, {}]
    text = {Access.PUBLIC: "Needs no key.", Access.ANY_KEY: "Needs any key."}
    needed = f"Needs the scope `{rule.value}`." if isinstance(rule, Scope) else text[rule]
    operation["description"] = f"{operation.get('description', '')}\n\n{needed}".strip()
