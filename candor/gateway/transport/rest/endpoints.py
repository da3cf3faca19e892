"""The REST door: JSON or multipart in, JSON or server-sent events out.

Bodies are read by `candor.gateway.transport.rest.request_body` rather than by the
framework, so that limits hold while a body still arrives and every refusal has the one error body.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import aclosing
from typing import Any, TypeVar

from fastapi import FastAPI, Request, Response
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from candor.contracts import api
from candor.contracts.errors import ErrorCode, ServiceError
from candor.gateway.access.authorizer import Authorizer
from candor.gateway.access.request_context import HEADERS, RequestContext, request_context_of
from candor.gateway.config.settings import Settings
from candor.gateway.observability import request_log
from candor.gateway.observability.request_log import RequestLog
from candor.gateway.service import validation
from candor.gateway.service.candor_service import CandorService
from candor.gateway.transport.rest.errors import error_response
from candor.gateway.transport.rest.middleware import (
    AuthorizationMiddleware,
    SecurityHeaders,
    add_login,
)
from candor.gateway.transport.rest.request_body import BodyBudget, ClientGone, read_payload
from candor.gateway.transport.rest.streaming import (
    MEDIA_TYPE,
    encode_error,
    encode_event,
    with_heartbeats,
)
from candor.rpc import status

T = TypeVar("T")

REQUEST_ID_HEADER = "x-request-id"
_CLIENT_GONE_STATUS = 499  # seen in no answer, only by whoever wraps the application
_STREAM_HEADERS = [
    (b"content-type", MEDIA_TYPE.encode()),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),  # proxies must pass every event on at once
]
_UNPARSED: tuple[type[BaseModel], ...] = (  # models the framework does not see by itself
    api.PredictRequest,
    api.ExplainRequest,
    api.ProbeRequest,
    api.CompareRequest,
    api.ExplainProgress,
)

Verb = Callable[[Any, RequestContext], Coroutine[Any, Any, BaseModel]]


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
    """What every refusal says."""

    error: _Error


class ServedModel(api.ModelDetails):
    """A model, and what KServe's v1 asks of the same path."""

    name: str
    ready: bool


class _RequestId:
    """Gives every request its id and puts it on every answer, refusals of the framework too."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        request_id = request_log.request_id(Headers(scope=scope).get(REQUEST_ID_HEADER))
        scope.setdefault("state", {})["request_id"] = request_id

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[REQUEST_ID_HEADER] = request_id
            await send(message)

        return await self._app(scope, receive, send_with_id)


class RestDoor:
    """The endpoints over one `CandorService`."""

    def __init__(
        self,
        service: CandorService,
        observer: RequestLog,
        is_ready: Callable[[], bool],
        settings: Settings,
    ) -> None:
        self._service = service
        self._request_log = observer
        self._is_ready = is_ready
        self._body_seconds = settings.body_seconds
        self._heartbeat_seconds = settings.heartbeat_seconds

    async def predict(self, request: Request) -> Response:
        """What is this image?"""
        return await self._verb("predict", self._service.predict, request)

    async def explain(self, request: Request) -> Response:
        """This image changed by RMSE rho so that the network says the target."""
        return await self._verb("explain", self._service.explain, request)

    async def explain_stream(self, request: Request) -> Response:
        """Explain as server-sent events: `progress` on the way, at last `result` or `error`."""
        return _Streamed(self._send_events, request)

    async def probe(self, request: Request) -> Response:
        """How little must this image change before the network errs or knows nothing?"""
        return await self._verb("probe", self._service.probe, request)

    async def compare(self, request: Request) -> Response:
        """Do other explanations agree with the adversarial one, and do they hold still?"""
        return await self._verb("compare", self._service.compare, request)

    async def list_models(self, request: Request) -> Response:
        """The models served, the default first."""
        return await self._respond("list_models", "", request, self._service.list_models)

    async def get_model(self, request: Request, name: str) -> Response:
        """One model: its classes, its input and what was measured of it."""
        return await self._respond(
            "get_model", name, request, lambda: self._served(self._service.get_model(name))
        )

    def _served(self, model: api.ModelDetails) -> ServedModel:
        fields = {name: getattr(model, name) for name in api.ModelDetails.model_fields}
        return ServedModel(**fields, name=model.model.name, ready=self._is_ready())

    async def live(self) -> dict[str, str]:
        """The process answers."""
        return {"status": "live"}

    async def ready(self, request: Request) -> Response:
        """Every model answered a real prediction and a real search step lately."""
        if self._is_ready():
            return Response('{"status":"ready"}', media_type="application/json")
        error = ServiceError(ErrorCode.MODEL_NOT_READY, "not ready", retry_seconds=1.0)
        return error_response(error, request)

    async def _verb(self, verb: str, serve: Verb, request: Request) -> Response:
        request_id = request.state.request_id
        call = request_log.Call(verb, request_id)
        try:
            with self._request_log.watch(call, request.headers):
                request_context = rest_request_context(request)
                payload = await read_payload(request, self._body_seconds)
                call.model = validation.requested_model(payload)
                answer = await unless_gone(request, serve(payload, request_context))
                call.note(answer)
                # In a thread: explanations with tensors make tens of megabytes of base64.
                body = await asyncio.to_thread(answer.model_dump_json)
        except ServiceError as err:
            return error_response(err, request)
        except ClientGone:
            return Response(status_code=_CLIENT_GONE_STATUS)
        return Response(body, media_type="application/json")

    async def _respond(
        self, verb: str, model: str, request: Request, get: Callable[[], BaseModel]
    ) -> Response:
        call = request_log.Call(verb, request.state.request_id, model)
        try:
            with self._request_log.watch(call, request.headers):
                body = get().model_dump_json()
        except ServiceError as err:
            return error_response(err, request)
        return Response(body, media_type="application/json")

    async def _send_events(self, request: Request, send: Send) -> None:
        """A refusal before the first event is an answer like any other, later an event."""
        call = request_log.Call("explain_stream", request.state.request_id)
        stream = _Opened(send)
        try:
            with self._request_log.watch(call, request.headers):
                request_context = rest_request_context(request)
                payload = await read_payload(request, self._body_seconds)
                call.model = validation.requested_model(payload)
                await unless_gone(
                    request, self._pass_events(payload, request_context, call, stream)
                )
        except ServiceError as err:
            if not stream.is_open:
                await error_response(err, request)(request.scope, request.receive, send)
                return
            await stream.write(encode_error(err, call.request_id))
        except ClientGone:
            return
        await stream.close()

    async def _pass_events(
        self,
        payload: Any,
        request_context: RequestContext,
        call: request_log.Call,
        stream: "_Opened",
    ) -> None:
        events = self._service.explain_stream(payload, request_context)
        async with aclosing(with_heartbeats(events, self._heartbeat_seconds)) as passed:
            async for event in passed:
                if event is not None and event.result is not None:
                    call.note(event.result)
                await stream.write(await asyncio.to_thread(encode_event, event))


class _Streamed(Response):
    """An answer that is written by a function of its own."""

    media_type = MEDIA_TYPE

    def __init__(self, write: Callable[[Request, Send], Awaitable[None]], request: Request) -> None:
        super().__init__()
        self._write = write
        self._request = request

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._write(self._request, send)


class _Opened:
    """An event stream that begins with its first event."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.is_open = False

    async def write(self, chunk: bytes) -> None:
        if not self.is_open:
            self.is_open = True
            await self._send(
                {"type": "http.response.start", "status": 200, "headers": _STREAM_HEADERS}
            )
        await self._send({"type": "http.response.body", "body": chunk, "more_body": True})

    async def close(self) -> None:
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})


def rest_request_context(request: Request) -> RequestContext:
    """Who asks, from the headers."""
    return request_context_of(request.state.request_id, dict(request.headers), None)


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The answer, or the end of the work as soon as the caller hangs up."""
    working = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_hang_up(request))
    try:
        await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientGone
        return working.result()
    finally:
        working.cancel()
        gone.cancel()
        await asyncio.gather(working, gone, return_exceptions=True)


async def _hang_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _framework_refusal(request: Request, err: Exception) -> Response:
    """An unknown path or method, in our error body."""
    http_status = err.status_code if isinstance(err, HTTPException) else 500
    error = ServiceError(ErrorCode.INVALID_INPUT, f"{request.method} {request.url.path}: {err}")
    return error_response(error, request, http_status)


def make_app(
    service: CandorService,
    observer: RequestLog,
    is_ready: Callable[[], bool],
    settings: Settings,
    authorizer: Authorizer,
) -> FastAPI:
    """The whole REST application."""
    described = "/openapi.json" if settings.docs else None
    app = FastAPI(title="Candor", version="v1", openapi_url=described)
    app.state.unparsed = list(_UNPARSED)
    door = RestDoor(service, observer, is_ready, settings)
    _add_verb(app, "/v1/predict", door.predict, api.PredictRequest, api.PredictResponse)
    _add_verb(app, "/v1/explain", door.explain, api.ExplainRequest, api.ExplainResponse)
    _add_stream(app, "/v1/explain/stream", door.explain_stream, api.ExplainRequest)
    _add_verb(app, "/v1/probe", door.probe, api.ProbeRequest, api.ProbeResponse)
    _add_verb(app, "/v1/compare", door.compare, api.CompareRequest, api.CompareResponse)
    _add_get(app, "/v1/models", door.list_models, api.ModelList)
    _add_get(app, "/v1/models/{name}", door.get_model, ServedModel)
    app.add_api_route("/healthz/live", door.live, methods=["GET"])
    app.add_api_route("/healthz/ready", door.ready, methods=["GET"], response_model=None)
    app.add_exception_handler(HTTPException, _framework_refusal)
    add_login(app, authorizer)
    app.add_middleware(BodyBudget, max_bytes=settings.body_bytes)
    app.add_middleware(AuthorizationMiddleware, authorizer=authorizer, observer=observer)
    app.add_middleware(_RequestId)
    app.add_middleware(SecurityHeaders)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    return app


Endpoint = Callable[..., Awaitable[Response]]
REFUSALS: dict[int | str, dict[str, Any]] = {
    code: {"model": ErrorBody} for code in (*sorted(set(status.HTTP_STATUS.values())), 413)
}


HEADER_PARAMETERS = [
    {"name": name, "in": "header", "description": text, "schema": {"type": "string"}}
    for name, text in HEADERS.items()
]


def _add_get(app: FastAPI, path: str, endpoint: Endpoint, answer: type[BaseModel]) -> None:
    app.add_api_route(path, endpoint, methods=["GET"], response_model=answer, responses=REFUSALS)


def _add_verb(
    app: FastAPI,
    path: str,
    endpoint: Endpoint,
    request: type[BaseModel],
    answer: type[BaseModel],
) -> None:
    app.add_api_route(
        path,
        endpoint,
        methods=["POST"],
        response_model=answer,
        responses=REFUSALS,
        openapi_extra={"requestBody": _body_schema(request), "parameters": HEADER_PARAMETERS},
    )


def _add_stream(app: FastAPI, path: str, endpoint: Endpoint, request: type[BaseModel]) -> None:
    events = {"type": "string", "description": "progress: ExplainProgress; result: ExplainResponse"}
    streamed: dict[int | str, dict[str, Any]] = {200: {"content": {MEDIA_TYPE: {"schema": events}}}}
    app.add_api_route(
        path,
        endpoint,
        methods=["POST"],
        status_code=200,
        response_class=_Streamed,
        responses={**REFUSALS, **streamed},
        openapi_extra={"requestBody": _body_schema(request), "parameters": HEADER_PARAMETERS},
    )


def _body_schema(request: type[BaseModel]) -> dict[str, Any]:
    reference = {"$ref": f"#/components/schemas/{request.__name__}"}
    parts = {
        "image": {"type": "string", "format": "binary"},
        "request": {
            "type": "string",
            "contentMediaType": "application/json",
            "description": f"{request.__name__} without `image`",
        },
    }
    form = {"type": "object", "properties": parts, "required": ["image"]}
    content = {"application/json": {"schema": reference}, "multipart/form-data": {"schema": form}}
    return {"required": True, "content": content}


def _openapi(app: FastAPI) -> dict[str, Any]:
    """The framework's description plus the request models, which it does not parse itself."""
    if app.openapi_schema is None:
        schema = get_openapi(title=app.title, version=app.version, routes=app.routes)
        _, defined = models_json_schema(
            [(model, "validation") for model in app.state.unparsed],
            ref_template="#/components/schemas/{model}",
        )
        schema["components"]["schemas"].update(defined["$defs"])
        app.openapi_schema = schema
    return app.openapi_schema
