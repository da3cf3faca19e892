"""The annotation API (III-H, Fig. 12).

A response says "saved" only once the verdict is on disk.
"""

from collections.abc import Callable
from typing import TypeVar

from fastapi import FastAPI, Request, Response
from pydantic import BaseModel

from candor.contracts.annotations import AnnotationState, AnnotatorRequest, AnswerRequest
from candor.gateway.access.keys import Scope
from candor.gateway.pools import STORE
from candor.gateway.transport.rest.call import RestCall, RestCalls
from candor.gateway.transport.rest.openapi import add_operation, request_body
from candor.gateway.transport.rest.request_body import read_small_json
from candor.gateway.web.annotate import MAX_BODY_BYTES, parsed
from candor.store.annotations import Annotations

RequestT = TypeVar("RequestT", bound=BaseModel)


def add_annotations(app: FastAPI, annotations: Annotations, calls: RestCalls) -> None:
    """Adds the API under `/v1/annotations:`."""
    endpoints = _Endpoints(annotations, calls)
    for name, endpoint, kind in (
        ("next", endpoints.next, AnnotatorRequest),
        ("answer", endpoints.answer, AnswerRequest),
        ("undo", endpoints.undo, AnnotatorRequest),
    ):
        add_operation(
            app,
            "POST",
            f"/v1/annotations:{name}",
            endpoint,
            Scope.ANNOTATE,
            response=AnnotationState,
            openapi_extra={
                "requestBody": request_body({"application/json": kind.model_json_schema()})
            },
        )


class _Endpoints:
    """JSON in, an `AnnotationState` out."""

    def __init__(self, annotations: Annotations, calls: RestCalls) -> None:
        self._annotations = annotations
        self._calls = calls

    async def next(self, request: Request) -> Response:
        """Lend the annotator a candidate, the most informative first."""
        return await self._respond(
            "next", request, AnnotatorRequest, lambda sent: self._annotations.next(sent.annotator)
        )

    async def answer(self, request: Request) -> Response:
        """Keep a verdict, on disk before the response, and lend the next candidate."""
        return await self._respond(
            "answer",
            request,
            AnswerRequest,
            lambda sent: self._annotations.answer(sent.annotator, sent.candidate, sent.verdict),
        )

    async def undo(self, request: Request) -> Response:
        """Take back the annotator's latest verdict and lend that candidate again."""
        return await self._respond(
            "undo", request, AnnotatorRequest, lambda sent: self._annotations.undo(sent.annotator)
        )

    async def _respond(
        self,
        name: str,
        request: Request,
        kind: type[RequestT],
        serve: Callable[[RequestT], AnnotationState],
    ) -> Response:
        async def work(call: RestCall) -> AnnotationState:
            sent = parsed(kind, await read_small_json(request, MAX_BODY_BYTES))
            return await STORE.run(serve, sent)

        return await self._calls.respond(f"annotations_{name}", request, work)
