"""The annotation API: both questions, each with the same three verbs.

A response says "saved" only once the verdict is on disk.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from fastapi import FastAPI, Request, Response
from pydantic import BaseModel

from candor.contracts.annotations import (
    AnnotationState,
    AnnotatorRequest,
    AnswerRequest,
    FlipAnswerRequest,
    FlipState,
)
from candor.gateway.access.keys import Scope
from candor.gateway.pools import STORE
from candor.gateway.transport.rest.call import RestCall, RestCalls
from candor.gateway.transport.rest.openapi import add_operation, request_body
from candor.gateway.transport.rest.request_body import read_small_json
from candor.gateway.web.annotate import MAX_BODY_BYTES, parsed
from candor.store.annotations import Annotations
from candor.store.flips import Flips
from candor.store.lending import Lending

RequestT = TypeVar("RequestT", bound=BaseModel)


def add_annotations(app: FastAPI, annotations: Annotations, flips: Flips, calls: RestCalls) -> None:
    """Adds the API under `/v1/annotations:` and `/v1/flips:`."""
    for endpoints in (
        _Endpoints("annotations", annotations, AnswerRequest, AnnotationState, calls),
        _Endpoints("flips", flips, FlipAnswerRequest, FlipState, calls),
    ):
        for name, endpoint, kind in (
            ("next", endpoints.next, AnnotatorRequest),
            ("answer", endpoints.answer, endpoints.answer_request),
            ("undo", endpoints.undo, AnnotatorRequest),
        ):
            add_operation(
                app,
                "POST",
                f"/v1/{endpoints.name}:{name}",
                endpoint,
                Scope.ANNOTATE,
                response=endpoints.state,
                openapi_extra={
                    "requestBody": request_body({"application/json": kind.model_json_schema()})
                },
            )


@dataclass(frozen=True, slots=True)
class _Endpoints:
    """JSON in, the annotator's state out, for one question."""

    name: str
    lending: Lending[Any]
    answer_request: type[AnswerRequest] | type[FlipAnswerRequest]
    state: type[BaseModel]
    calls: RestCalls

    async def next(self, request: Request) -> Response:
        """Lend the annotator an image, the first that waits."""
        return await self._respond(
            "next", request, AnnotatorRequest, lambda sent: self.lending.next(sent.annotator)
        )

    async def answer(self, request: Request) -> Response:
        """Keep a verdict, on disk before the response, and lend the next image."""
        asked = self.lending.asked_name
        return await self._respond(
            "answer",
            request,
            self.answer_request,
            lambda sent: self.lending.answer(sent.annotator, getattr(sent, asked), sent.verdict),
        )

    async def undo(self, request: Request) -> Response:
        """Take back the annotator's latest verdict and lend that image again."""
        return await self._respond(
            "undo", request, AnnotatorRequest, lambda sent: self.lending.undo(sent.annotator)
        )

    async def _respond(
        self,
        verb: str,
        request: Request,
        kind: type[RequestT],
        serve: Callable[[RequestT], BaseModel],
    ) -> Response:
        async def work(call: RestCall) -> BaseModel:
            sent = parsed(kind, await read_small_json(request, MAX_BODY_BYTES))
            return await STORE.run(serve, sent)

        return await self.calls.respond(f"{self.name}_{verb}", request, work)
