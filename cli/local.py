"""The service in this process: the gateway's own service over a model folder, without a server.

May import candor, handlers and gateway.  Same checks and same numbers as through a door.
"""

import asyncio
from pathlib import Path
from types import SimpleNamespace, TracebackType
from typing import Any, Self

from candor.artifact import read_card
from candor.contracts import api, wire
from gateway.backend import Role
from gateway.caller import Caller
from gateway.service import CandorService
from gateway.settings import Settings
from handlers.envelopes import INPUT_NAME
from handlers.predict_handler import PredictHandler
from handlers.search_handler import SearchHandler


class LocalBackend:
    """The handlers TorchServe would run, called directly."""

    def __init__(self, folder: Path) -> None:
        options = {"handler": {"model_dir": str(folder)}}
        context = SimpleNamespace(model_yaml_config=options, system_properties={})
        self._handlers = {"predict": PredictHandler(), "search": SearchHandler()}
        for handler in self._handlers.values():
            handler.initialize(context)

    async def call(self, model: str, role: Role, items: list[bytes]) -> list[bytes]:
        rows = [{INPUT_NAME: wire.pack_list(items)}]
        (packed,) = await asyncio.to_thread(self._handlers[role].handle, rows, None)
        return wire.unpack_list(packed)


class LocalClient:
    """Stands in for `gateway.client.CandorClient`; a context manager, one model.

    Raises:
        ArtifactError: the model folder is missing, damaged or contradicts itself.
    """

    def __init__(self, folder: Path) -> None:
        card = read_card(folder)
        self._runner = asyncio.Runner()
        self._service = CandorService(
            LocalBackend(folder), Settings(models=(card.name,), request_seconds=86400.0)
        )
        self._runner.run(self._service.start())

    def predict(self, request: api.PredictRequest) -> api.PredictResponse:
        return self._runner.run(self._service.predict(_payload(request), _caller()))

    def explain(self, request: api.ExplainRequest) -> api.ExplainResponse:
        return self._runner.run(self._service.explain(_payload(request), _caller()))

    def probe(self, request: api.ProbeRequest) -> api.ProbeResponse:
        return self._runner.run(self._service.probe(_payload(request), _caller()))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._runner.run(self._service.drain())
        self._runner.close()


def _caller() -> Caller:
    return Caller(request_id="local")


def _payload(request: Any) -> dict[str, Any]:
    payload: dict[str, Any] = request.model_dump(exclude_none=True)
    return payload
