"""The annotation pages as plain forms: one for each question.

Their script uses the annotation API instead and survives a lost connection.  A cookie holds the
name of the annotator.
"""

from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import quote, unquote

from fastapi import FastAPI, Request, Response
from pydantic import BaseModel, ValidationError
from starlette.responses import RedirectResponse

from candor.contracts.annotations import AnnotatorRequest, AnswerRequest, FlipAnswerRequest
from candor.contracts.errors import ErrorCode, ServiceError, invalid_input
from candor.contracts.violations import violations_of
from candor.gateway.access.keys import Scope
from candor.gateway.access.rules import add_page
from candor.gateway.pools import STORE
from candor.gateway.web.assets import page
from candor.gateway.web.errors import Form, error_page
from candor.gateway.web.forms import read_form
from candor.store.annotations import Annotations
from candor.store.flips import Flips
from candor.store.lending import Lending

RequestT = TypeVar("RequestT", bound=BaseModel)

Opened = Callable[[str, Request], AbstractContextManager[object]]
"""Puts a call, by its verb, into the log; see `candor.gateway.transport.rest.call`."""

PAGE = "/annotate"
FLIPS_PAGE = f"{PAGE}/flips"
MAX_BODY_BYTES = 4096
_COOKIE = "candor_annotator"
_COOKIE_SECONDS = 180 * 24 * 3600
_MAX_VIOLATIONS = 8
_SHOWN_PIXELS = 320  # an image is magnified by the largest whole number that keeps it below


def add_annotation_pages(
    app: FastAPI, annotations: Annotations, flips: Flips, opened: Opened
) -> None:
    """Adds the pages under `/annotate`, each in the log and with a page for its errors."""
    asked = _Pages(FLIPS_PAGE, "flips.html", flips, FlipAnswerRequest, "shown_png", None)
    first = _Pages(PAGE, "annotate.html", annotations, AnswerRequest, "original_png", asked)
    for pages in (first, asked):
        for method, path, serve in (
            ("GET", "", pages.show),
            ("POST", "/name", pages.name),
            ("POST", "/answer", pages.answer),
            ("POST", "/undo", pages.undo),
            ("POST", "/leave", pages.leave),
        ):
            endpoint = _with_errors(serve, opened, pages.path)
            add_page(app, method, f"{pages.path}{path}", endpoint, Scope.ANNOTATE)


def _with_errors(
    serve: Callable[[Request], Awaitable[Response]], opened: Opened, path: str
) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        try:
            with opened("annotation_page", request):
                return await serve(request)
        except ServiceError as err:
            return error_page(err, path, getattr(request.state, "refused_form", None))

    return endpoint


@dataclass(frozen=True, slots=True)
class _Pages:
    """The pages of one question.

    Attributes:
        picture: field of the task by whose width its images are magnified.
        after: pages of a question to go on with when nothing waits.
    """

    path: str
    template: str
    lending: Lending[Any]
    answer_request: type[AnswerRequest] | type[FlipAnswerRequest]
    picture: str
    after: "_Pages | None"

    async def show(self, request: Request) -> Response:
        """The next task; before that, the form for the annotator's name."""
        annotator = _annotator(request)
        if annotator is None:
            return page("name.html", message="", path=self.path)
        state = await STORE.run(self.lending.next, annotator)
        if state.task is None and self.after is not None:
            other = await STORE.run(self.after.lending.next, annotator)
            if other.task is not None:
                return self.after._to_task()
        return self._task_page(state)

    async def name(self, request: Request) -> Response:
        fields = await read_form(request, MAX_BODY_BYTES)
        try:
            name = parsed(AnnotatorRequest, {"annotator": fields.get("annotator", "")}).annotator
        except ServiceError as err:
            return page("name.html", message=err.message, path=self.path, http_status=400)
        response = self._to_task()
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
            return self._to_task()
        asked = self.lending.asked_name
        try:
            fields = await read_form(request, MAX_BODY_BYTES)
            # To be sent again, should the store not answer.
            request.state.refused_form = Form(f"{self.path}/answer", fields)
            sent = parsed(self.answer_request, {**_typed(fields, asked), "annotator": annotator})
            number, verdict = getattr(sent, asked), sent.verdict
            await STORE.run(self.lending.answer, sent.annotator, number, verdict)
        except ServiceError as err:
            if err.code is not ErrorCode.INVALID_INPUT:
                raise
            state = await STORE.run(self.lending.next, annotator)
            return self._task_page(state, message=f"Not saved: {err.message}", http_status=400)
        return self._to_task()

    async def undo(self, request: Request) -> Response:
        annotator = _annotator(request)
        if annotator is not None:
            await STORE.run(self.lending.undo, annotator)
        return self._to_task()

    async def leave(self, request: Request) -> Response:
        response = self._to_task()
        response.delete_cookie(_COOKIE, path=PAGE)
        return response

    def _task_page(self, state: Any, *, message: str = "", http_status: int = 200) -> Response:
        width = _shown_width(getattr(state.task, self.picture)) if state.task else _SHOWN_PIXELS
        return page(
            self.template,
            http_status=http_status,
            state=state.model_dump(mode="json"),
            message=message,
            width=width,
            path=self.path,
        )

    def _to_task(self) -> RedirectResponse:
        """See other: a reload of the page fetches the task again instead of answering twice."""
        return RedirectResponse(self.path, status_code=303, headers={"cache-control": "no-store"})


def parsed(kind: type[RequestT], fields: Any) -> RequestT:
    """A request of the annotation API or of a form.

    Raises:
        ServiceError: INVALID_INPUT, with every bad field.
    """
    try:
        return kind.model_validate(fields)
    except ValidationError as err:
        raise invalid_input(violations_of(err)[:_MAX_VIOLATIONS]) from err


def _typed(fields: dict[str, str], asked: str) -> dict[str, Any]:
    """A form has only texts; the number of the image is a number in the contract."""
    number = fields.get(asked, "")
    is_number = number.isascii() and number.isdigit() and len(number) < 20
    return {**fields, asked: int(number)} if is_number else dict(fields)


def _annotator(request: Request) -> str | None:
    """The name in the cookie; None if there is no usable one."""
    try:
        name = unquote(request.cookies.get(_COOKIE, ""), errors="strict")
        return parsed(AnnotatorRequest, {"annotator": name}).annotator
    except (ServiceError, UnicodeDecodeError):
        return None


def _shown_width(png: bytes) -> int:
    """Pixels on the screen: whole multiples keep the image crisp."""
    width = max(1, int.from_bytes(png[16:20]))  # of the PNG's header
    return width * max(1, _SHOWN_PIXELS // width)
