"""The annotation pages (III-H, Fig. 12) as plain forms.

Their script uses the annotation API instead and survives a lost connection.  A cookie holds the
name of the annotator.
"""

import asyncio
import reprlib
from collections.abc import Mapping
from typing import Any, TypeVar
from urllib.parse import quote, unquote

from fastapi import FastAPI, Request, Response
from pydantic import BaseModel, ValidationError
from starlette.responses import RedirectResponse

from candor.contracts.annotations import AnnotatorRequest, AnswerRequest
from candor.contracts.errors import FieldViolation, ServiceError, invalid_input
from candor.gateway.access.keys import Scope
from candor.gateway.access.rules import add_page
from candor.gateway.web.assets import page
from candor.gateway.web.forms import read_form
from candor.store.annotations import Annotations

RequestT = TypeVar("RequestT", bound=BaseModel)

PAGE = "/annotate"
MAX_BODY_BYTES = 4096
_COOKIE = "candor_annotator"
_COOKIE_SECONDS = 180 * 24 * 3600
_MAX_VIOLATIONS = 8
_SHOWN_PIXELS = 320  # an image is magnified by the largest whole number that keeps it below


def add_annotation_pages(app: FastAPI, annotations: Annotations) -> None:
    """Adds the pages under `/annotate`."""
    pages = _Pages(annotations)
    add_page(app, "GET", PAGE, pages.show, Scope.ANNOTATE)
    add_page(app, "POST", f"{PAGE}/name", pages.name, Scope.ANNOTATE)
    add_page(app, "POST", f"{PAGE}/answer", pages.answer, Scope.ANNOTATE)
    add_page(app, "POST", f"{PAGE}/undo", pages.undo, Scope.ANNOTATE)
    add_page(app, "POST", f"{PAGE}/leave", pages.leave, Scope.ANNOTATE)


class _Pages:
    def __init__(self, annotations: Annotations) -> None:
        self._annotations = annotations

    async def show(self, request: Request) -> Response:
        """The next pair to judge; before that, the form for the annotator's name."""
        annotator = _annotator(request)
        if annotator is None:
            return page("name.html", message="")
        return await self._task_page(annotator)

    async def name(self, request: Request) -> Response:
        fields = await read_form(request, MAX_BODY_BYTES)
        try:
            name = parsed(AnnotatorRequest, {"annotator": fields.get("annotator", "")}).annotator
        except ServiceError as err:
            return page("name.html", message=err.message, http_status=400)
        response = _to_task()
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
            return _to_task()
        fields = {**await read_form(request, MAX_BODY_BYTES), "annotator": annotator}
        try:
            sent = parsed(AnswerRequest, fields)
            await asyncio.to_thread(
                self._annotations.answer, sent.annotator, sent.candidate, sent.verdict
            )
        except ServiceError as err:
            return await self._task_page(annotator, message=err.message, http_status=400)
        return _to_task()

    async def undo(self, request: Request) -> Response:
        annotator = _annotator(request)
        if annotator is not None:
            await asyncio.to_thread(self._annotations.undo, annotator)
        return _to_task()

    async def leave(self) -> Response:
        response = _to_task()
        response.delete_cookie(_COOKIE, path=PAGE)
        return response

    async def _task_page(
        self, annotator: str, *, message: str = "", http_status: int = 200
    ) -> Response:
        state = await asyncio.to_thread(self._annotations.next, annotator)
        shown = state.model_dump(mode="json")
        width = _shown_width(state.task.original_png) if state.task else _SHOWN_PIXELS
        return page(
            "annotate.html", http_status=http_status, state=shown, message=message, width=width
        )


def parsed(kind: type[RequestT], fields: Any) -> RequestT:
    """A request of the annotation API or of a form.

    Raises:
        ServiceError: INVALID_INPUT, with every bad field.
    """
    try:
        return kind.model_validate(fields)
    except ValidationError as err:
        found = err.errors(include_url=False)[:_MAX_VIOLATIONS]
        raise invalid_input([_violation(one) for one in found]) from err


def _violation(error: Mapping[str, Any]) -> FieldViolation:
    field = ".".join(map(str, error["loc"]))[:60] or "request"
    got = "" if error["type"] == "missing" else f", got {reprlib.repr(error['input'])}"
    return FieldViolation(field, str(error["msg"]) + got)


def _annotator(request: Request) -> str | None:
    """The name in the cookie; None if there is no usable one."""
    try:
        name = unquote(request.cookies.get(_COOKIE, ""), errors="strict")
        return parsed(AnnotatorRequest, {"annotator": name}).annotator
    except (ServiceError, UnicodeDecodeError):
        return None


def _to_task() -> RedirectResponse:
    """See other: a reload of the page fetches the task again instead of answering twice."""
    return RedirectResponse(PAGE, status_code=303, headers={"cache-control": "no-store"})


def _shown_width(png: bytes) -> int:
    """Pixels on the screen: whole multiples keep the image crisp."""
    width = max(1, int.from_bytes(png[16:20]))  # of the PNG's header
    return width * max(1, _SHOWN_PIXELS // width)
