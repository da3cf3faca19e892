"""Both transports with the same methods, for users of either.

Every method returns a response of `candor.contracts.api` or raises a ServiceError.
"""

import json
from collections.abc import Iterator
from typing import Any, Protocol

import requests
from pydantic import BaseModel

from candor.client.sync import CandorClient
from candor.contracts import api
from candor.contracts.errors import ErrorCode, FieldViolation, ServiceError

_TIMEOUT_SECONDS = 120.0


class Transport(Protocol):
    """What a user needs."""

    def predict(self, request: api.PredictRequest) -> api.PredictResponse: ...
    def explain(self, request: api.ExplainRequest) -> api.ExplainResponse: ...
    def explain_stream(self, request: api.ExplainRequest) -> Iterator[api.ExplainStreamResponse]:
        """Closing it ends the call."""
        ...

    def probe(self, request: api.ProbeRequest) -> api.ProbeResponse: ...
    def close(self) -> None: ...


class GrpcTransport(CandorClient):
    """The typed client; it does not try again, so that every rejection is seen."""

    def __init__(self, address: str) -> None:
        super().__init__(address, timeout_seconds=_TIMEOUT_SECONDS, max_attempts=1)


class RestTransport:
    """JSON in, JSON or server-sent events out."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._session = requests.Session()

    def predict(self, request: api.PredictRequest) -> api.PredictResponse:
        return api.PredictResponse.model_validate_json(self._post("predict", request).content)

    def explain(self, request: api.ExplainRequest) -> api.ExplainResponse:
        return api.ExplainResponse.model_validate_json(self._post("explain", request).content)

    def explain_stream(self, request: api.ExplainRequest) -> Iterator[api.ExplainStreamResponse]:
        with self._post("explain/stream", request, stream=True) as response:
            kind = ""
            for line in response.iter_lines():
                if line.startswith(b"event:"):
                    kind = line.partition(b":")[2].strip().decode()
                elif line.startswith(b"data:"):
                    yield _event(kind, json.loads(line.partition(b":")[2]))

    def probe(self, request: api.ProbeRequest) -> api.ProbeResponse:
        return api.ProbeResponse.model_validate_json(self._post("probe", request).content)

    def close(self) -> None:
        self._session.close()

    def _post(self, verb: str, request: BaseModel, *, stream: bool = False) -> requests.Response:
        response = self._session.post(
            f"{self._url}/v1/{verb}",
            json=request.model_dump(mode="json", exclude_none=True),
            timeout=_TIMEOUT_SECONDS,
            stream=stream,
        )
        if response.status_code != 200:
            raise _error(response.json()["error"])
        return response


def read_model(url: str) -> api.ModelDetails:
    """The default model behind a REST server."""
    models = requests.get(f"{url}/v1/models", timeout=_TIMEOUT_SECONDS).content
    name = api.ModelList.model_validate_json(models).models[0].model.name
    described = requests.get(f"{url}/v1/models/{name}", timeout=_TIMEOUT_SECONDS).json()
    # KServe's fields stand beside ours.
    details = {field: described[field] for field in api.ModelDetails.model_fields}
    return api.ModelDetails.model_validate(details)


def _event(kind: str, data: Any) -> api.ExplainStreamResponse:
    if kind == "error":
        raise _error(data["error"])
    return api.ExplainStreamResponse.model_validate({kind: data})


def _error(body: dict[str, Any]) -> ServiceError:
    violations = [FieldViolation(**one) for one in body["violations"]]
    return ServiceError(
        ErrorCode(body["code"]),
        body["message"],
        violations=violations,
        retry_seconds=body["retry_seconds"],
    )
