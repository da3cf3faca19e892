"""The annotation API and pages (III-H, Fig. 12).

Both lend and take through `candor.store.annotations`; an answer says "saved" only once it is on
disk.  The pages work as plain forms; their script uses the API and survives a lost connection.
"""

import asyncio
import reprlib
from collections.abc import Callable, Mapping
from typing import Any, TypeVar
from urllib.parse import quote, unquote

from fastapi import FastAPI, Request, Response
from pydantic import BaseModel, ValidationError
from starlette.responses import RedirectResponse

from candor.contracts.annotations import AnnotationState, AnnotatorRequest, AnswerRequest
from candor.contracts.errors import FieldViolation, ServiceError, invalid_input
from candor.gateway.observability import request_log
from candor.gateway.observability.request_log import RequestLog
from candor.gateway.transport.rest.errors import error_response
from candor.gateway.transport.rest.request_body import (
    parse_json,
    read_form,
    read_small_body,
    require_json,
)
from candor.gateway.web.assets import page
from candor.store.annotations import Annotations
from candor.store.engine import Store

RequestT = TypeVar("RequestT", bound=BaseModel)

PAGE = "/annotate"
_COOKIE = "candor_annotator"
_COOKIE_SECONDS = 180 * 24 * 3600
_MAX_BODY_BYTES = 4096
_MAX_VIOLATIONS = 8
_SHOWN_PIXELS = 320  # an image is magnified by the largest whole number that keeps it below


def add_annotations(
    app: FastAPI,
    store: Store,
    observer: RequestLog,
    *,
    annotators_per_image: int,
    lease_seconds: float,
) -> None:
    """Adds the pages under `/annotate` and the API under `/v1/annotations:`."""
    search_pool = Annotations(
        store, annotators_per_image=annotators_per_image, lease_seconds=lease_seconds
    )
    api, pages = _Api(search_pool, observer), _Pages(search_pool)
    for name, endpoint, kind in (
        ("next", api.next, AnnotatorRequest),
        ("answer", api.answer, AnswerRequest),
        ("undo", api.undo, AnnotatorRequest),
    ):
        app.add_api_route(
            f"/v1/annotations:{name}",
            endpoint,
            methods=["POST"],
            response_model=AnnotationState,
            openapi_extra={"requestBody": _body_schema(kind)},
        )
    for path, endpoint, method in (
        ("", pages.search_pool, "GET"),
        ("/name", pages.name, "POST"),
        ("/answer", pages.answer, "POST"),
        ("/undo", pages.undo, "POST"),
        ("/leave", pages.leave, "POST"),
    ):
        app.add_api_route(
            PAGE + path, endpoint, methods=[method], include_in_schema=False, response_model=None
        )


class _Api:
    """JSON in, an `AnnotationState` out."""

    def __init__(self, search_pool: Annotations, observer: RequestLog) -> None:
        self._search_pool = search_pool
        self._request_log = observer

    async def next(self, request: Request) -> Response:
        """Lend the annotator a candidate, the most informative first."""
        return await self._answered(
            request,
            "annotations_next",
            AnnotatorRequest,
            lambda r: self._search_pool.next(r.annotator),
        )

    async def answer(self, request: Request) -> Response:
        """Keep a verdict, on disk when this answers, and lend the next candidate."""
        return await self._answered(
            request,
            "annotations_answer",
            AnswerRequest,
            lambda r: self._search_pool.answer(r.annotator, r.candidate, r.verdict),
        )

    async def undo(self, request: Request) -> Response:
        """Take back the annotator's latest verdict and lend that candidate again."""
        return await self._answered(
            request,
            "annotations_undo",
            AnnotatorRequest,
            lambda r: self._search_pool.undo(r.annotator),
        )

    async def _answered(
        self,
        request: Request,
        verb: str,
        kind: type[RequestT],
        serve: Callable[[RequestT], AnnotationState],
    ) -> Response:
        call = request_log.Call(verb, request.state.request_id)
        try:
            with self._request_log.watch(call, request.headers):
                asked = _parsed(kind, await _json(request))
                body = (await asyncio.to_thread(serve, asked)).model_dump_json()
        except ServiceError as err:
            return error_response(err, request)
        return Response(body, media_type="application/json")


class _Pages:
    """The same for people, as plain forms; who they are is in a cookie."""

    def __init__(self, search_pool: Annotations) -> None:
        self._search_pool = search_pool

    async def search_pool(self, request: Request) -> Response:
        """What to judge next; before that, who is there."""
        annotator = _annotator(request)
        if annotator is None:
            return page("name.html", message="")
        return await self._desk_page(annotator)

    async def name(self, request: Request) -> Response:
        fields = await read_form(request, _MAX_BODY_BYTES)
        try:
            name = _parsed(AnnotatorRequest, {"annotator": fields.get("annotator", "")}).annotator
        except ServiceError as err:
            return page("name.html", message=err.message, http_status=400)
        response = _to_desk()
        response.set_cookie(
            _COOKIE,
            quote(name, safe=""),
            max_age=_COOKIE_SECONDS,
            path=PAGE,
            httponly=True,
            samesite="lax",
            secure=request.url.scheme == "https",
        )
        return response

    async def answer(self, request: Request) -> Response:
        annotator = _annotator(request)
        if annotator is None:
            return _to_desk()
        fields = {**await read_form(request, _MAX_BODY_BYTES), "annotator": annotator}
        try:
            asked = _parsed(AnswerRequest, fields)
            await asyncio.to_thread(
                self._search_pool.answer, asked.annotator, asked.candidate, asked.verdict
            )
        except ServiceError as err:
            return await self._desk_page(annotator, message=err.message, http_status=400)
        return _to_desk()

    async def undo(self, request: Request) -> Response:
        annotator = _annotator(request)
        if annotator is not None:
            await asyncio.to_thread(self._search_pool.undo, annotator)
        return _to_desk()

    async def leave(self) -> Response:
        response = _to_desk()
        response.delete_cookie(_COOKIE, path=PAGE)
        return response

    async def _desk_page(
        self, annotator: str, *, message: str = "", http_status: int = 200
    ) -> Response:
        state = await asyncio.to_thread(self._search_pool.next, annotator)
        shown = state.model_dump(mode="json")
        width = _shown_width(state.task.original_png) if state.task else _SHOWN_PIXELS
        return page(
            "annotate.html", http_status=http_status, state=shown, message=message, width=width
        )


async def _json(request: Request) -> Any:
    require_json(request)
    return parse_json(await read_small_body(request, _MAX_BODY_BYTES))


def _parsed(kind: type[RequestT], fields: Any) -> RequestT:
    try:
        return kind.model_validate(fields)
    except ValidationError as err:
        found = err.errors(include_url=False)[:_MAX_VIOLATIONS]
        raise invalid_input([_violation(one) for one in found]) from err


def _violation(error: Mapping[str, Any]) -> FieldViolation:
    field = ".".join(map(str, error["loc"]))[:60] or "request"
    got = "" if error["type"] == "missing" else f"got {reprlib.repr(error['input'])}: "
    return FieldViolation(field, got + str(error["msg"]))


def _annotator(request: Request) -> str | None:
    """Who the cookie says is there; None where it says nothing usable."""
    try:
        name = unquote(request.cookies.get(_COOKIE, ""), errors="strict")
        return _parsed(AnnotatorRequest, {"annotator": name}).annotator
    except (ServiceError, UnicodeDecodeError):
        return None


def _to_desk() -> RedirectResponse:
    """See other: a reload of the page asks again instead of answering twice."""
    return RedirectResponse(PAGE, status_code=303, headers={"cache-control": "no-store"})


def _shown_width(png: bytes) -> int:
    """Pixels on the screen: whole multiples keep the image crisp."""
    width = max(1, int.from_bytes(png[16:20]))  # of the PNG's header
    return width * max(1, _SHOWN_PIXELS // width)


def _body_schema(kind: type[BaseModel]) -> dict[str, Any]:
    return {"required": True, "content": {"application/json": {"schema": kind.model_json_schema()}}}
