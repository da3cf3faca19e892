"""The endpoints of predict, explain, probe, compare and the models.

Bodies are read by `candor.gateway.transport.rest.request_body` rather than by the framework, so
that limits hold while a body still arrives and every error response has the same body.
"""

from typing import Any

from fastapi import FastAPI, Request, Response
from pydantic import BaseModel

from candor.contracts import api
from candor.gateway.access.keys import Scope
from candor.gateway.access.rules import Access
from candor.gateway.transport.parts import Parts
from candor.gateway.transport.rest.call import Events, RestCall, RestCalls
from candor.gateway.transport.rest.openapi import (
    HEADER_PARAMETERS,
    add_operation,
    reference,
    request_body,
)
from candor.gateway.transport.rest.streaming import MEDIA_TYPE, StreamedResponse


class ServedModel(api.ModelDetails):
    """A model, with the fields that KServe's v1 expects on the same path."""

    name: str
    ready: bool


def add_endpoints(app: FastAPI, parts: Parts, calls: RestCalls) -> None:
    """Adds the paths of `CandorService`."""
    endpoints = _Endpoints(parts, calls)
    for path, endpoint, rule, request, response in (
        ("/v1/predict", endpoints.predict, Scope.PREDICT, api.PredictRequest, api.PredictResponse),
        ("/v1/explain", endpoints.explain, Scope.EXPLAIN, api.ExplainRequest, api.ExplainResponse),
        ("/v1/probe", endpoints.probe, Scope.EXPLAIN, api.ProbeRequest, api.ProbeResponse),
        ("/v1/compare", endpoints.compare, Scope.EXPLAIN, api.CompareRequest, api.CompareResponse),
    ):
        body = _image_body(app, request)
        add_operation(app, "POST", path, endpoint, rule, response=response, openapi_extra=body)
    _add_stream(app, endpoints)
    add_operation(
        app, "GET", "/v1/models", endpoints.list_models, Access.ANY_KEY, response=api.ModelList
    )
    add_operation(
        app, "GET", "/v1/models/{name}", endpoints.get_model, Access.ANY_KEY, response=ServedModel
    )


def _add_stream(app: FastAPI, endpoints: "_Endpoints") -> None:
    events = {"type": "string", "description": "progress: ExplainProgress; result: ExplainResponse"}
    add_operation(
        app,
        "POST",
        "/v1/explain/stream",
        endpoints.explain_stream,
        Scope.EXPLAIN,
        responses={200: {"content": {MEDIA_TYPE: {"schema": events}}}},
        status_code=200,
        response_class=StreamedResponse,
        openapi_extra=_image_body(app, api.ExplainRequest),
    )


class _Endpoints:
    def __init__(self, parts: Parts, calls: RestCalls) -> None:
        self._service = parts.service
        self._is_ready = parts.is_ready
        self._calls = calls

    async def predict(self, request: Request) -> Response:
        """What does this image show?"""
        return await self._calls.respond_to_body("predict", request, self._service.predict)

    async def explain(self, request: Request) -> Response:
        """This image changed by RMSE rho so that the network predicts the target."""
        return await self._calls.respond_to_body("explain", request, self._service.explain)

    async def explain_stream(self, request: Request) -> Response:
        """Explain as server-sent events: `progress` on the way, at the end `result` or `error`."""

        async def events(call: RestCall) -> Events:
            return self._service.explain_stream(await call.payload(), call.context)

        return self._calls.stream("explain_stream", request, events)

    async def probe(self, request: Request) -> Response:
        """How little must this image change before the network errs or becomes undecided?"""
        return await self._calls.respond_to_body("probe", request, self._service.probe)

    async def compare(self, request: Request) -> Response:
        """Do other explanations agree with the adversarial one, and are they stable?"""
        return await self._calls.respond_to_body("compare", request, self._service.compare)

    async def list_models(self, request: Request) -> Response:
        """The models, the default first."""

        async def models(call: RestCall) -> api.ModelList:
            return self._service.list_models()

        return await self._calls.respond("list_models", request, models)

    async def get_model(self, request: Request, name: str) -> Response:
        """One model: its classes, its input and its measured robustness."""

        async def model(call: RestCall) -> ServedModel:
            return self._with_readiness(self._service.get_model(name))

        return await self._calls.respond("get_model", request, model, model=name)

    def _with_readiness(self, model: api.ModelDetails) -> ServedModel:
        fields = {name: getattr(model, name) for name in api.ModelDetails.model_fields}
        return ServedModel(**fields, name=model.model.name, ready=self._is_ready())


def _image_body(app: FastAPI, request: type[BaseModel]) -> dict[str, Any]:
    """JSON, or a form whose parts `image` and `mask` are files."""
    file = {"type": "string", "format": "binary"}
    parts = {
        "image": file,
        **({"mask": file} if "region" in request.model_fields else {}),
        "request": {
            "type": "string",
            "contentMediaType": "application/json",
            "description": f"{request.__name__} without what is a part of its own",
        },
    }
    form = {"type": "object", "properties": parts, "required": ["image"]}
    body = request_body({"application/json": reference(app, request), "multipart/form-data": form})
    return {"requestBody": body, "parameters": HEADER_PARAMETERS}
