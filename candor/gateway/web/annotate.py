"""The annotation pages (III-H, Fig. 12) as plain forms.

Their script uses the annotation API instead and survives a lost connection.  A cookie holds the
name of the annotator.
"""

from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from typing import Any, TypeVar
from urllib.parse import quote, unquote

from fastapi import FastAPI, Request, Response
from pydantic import BaseModel, ValidationError
from starlette.responses import RedirectResponse

from candor.contracts.annotations import AnnotatorRequest, AnswerRequest
from candor.contracts.errors import ErrorCode, ServiceError, invalid_input
from candor.contracts.violations import violations_of
from candor.gateway.access.keys import Scope
from candor.gateway.access.rules import add_page
from candor.gateway.pools import STORE
from candor.gateway.web.assets import page
from candor.gateway.web.errors import Form, error_page
from candor.gateway.web.forms import read_form
from candor.store.annotations import Annotations

RequestT = TypeVar("RequestT", bound=BaseModel)

Opened = Callable[[str, Request], AbstractContextManager[object]]
"""Puts a call, by its verb, into the log; see `candor.gateway.transport.rest.call`."""

PAGE = "/annotate"
_ANSWER = f"{PAGE}/answer"
MAX_BODY_BYTES = 4096
_COOKIE = "candor_annotator"
_COOKIE_SECONDS = 180 * 24 * 3600
_MAX_VIOLATIONS = 8
_SHOWN_PIXELS = 320  # an image is magnified by the largest whole number that keeps it below


def add_annotation_pages(app: FastAPI, annotations: Annotations, opened: Opened) -> None:
    """Adds the pages under `/annotate`, each in the log and with a page for its errors."""
    pages = _Pages(annotations)
    for method, path, serve in (
        ("GET", PAGE, pages.show),
        ("POST", f"{PAGE}/name", pages.name),
        ("POST", _ANSWER, pages.answer),
        ("POST", f"{PAGE}/undo", pages.undo),
        ("POST", f"{PAGE}/leave", pages.leave),
    ):
        add_page(app, method, path, _with_errors(serve, opened), Scope.ANNOTATE)


def _with_errors(
    serve: Callable[[Request], Awaitable[Response]], opened: Opened
) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        try:
            with opened("annotation_page", request):
                return await serve(request)
        except ServiceError as err:
            return error_page(err, PAGE, getattr(request.state, "refused_form", None))

    return endpoint


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
        try:
            fields = await read_form(request, MAX_BODY_BYTES)
            # To be sent again, should the store not answer.
            request.state.refused_form = Form(_ANSWER, fields)
            sent = parsed(AnswerRequest, {**_typed(fields), "annotator": annotator})
            await STORE.run(self._annotations.answer, sent.annotator, sent.candidate, sent.verdict)
        except ServiceError as err:
            if err.code is not ErrorCode.INVALID_INPUT:
                raise
            message = f"Not saved: {err.message}"
            return await self._task_page(annotator, message=message, http_status=400)
        return _to_task()

    async def undo(self, request: Request) -> Response:
        annotator = _annotator(request)
        if annotator is not None:
            await STORE.run(self._annotations.undo, annotator)
        return _to_task()

    async def leave(self, request: Request) -> Response:
        response = _to_task()
        response.delete_cookie(_COOKIE, path=PAGE)
        return response

    async def _task_page(
        self, annotator: str, *, message: str = "", http_status: int = 200
    ) -> Response:
        state = await STORE.run(self._annotations.next, annotator)
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
        raise invalid_input(violations_of(err)[:_MAX_VIOLATIONS]) from err


def _typed(fields: dict[str, str]) -> dict[str, Any]:
    """A form has only texts; the number of the candidate is a number in the contract."""
    candidate = fields.get("candidate", "")
    is_number = candidate.isascii() and candidate.isdigit() and len(candidate) < 20
    return {**fields, "candidate": int(candidate)} if is_number else dict(fields)


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
