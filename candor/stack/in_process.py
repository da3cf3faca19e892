"""The service in this process: the gateway's own service over a model, without a server.

It makes the same checks and returns the same numbers as a running service.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from candor.contracts import api
from candor.gateway.access.request_context import RequestContext
from candor.gateway.config.settings import Settings
from candor.gateway.service.candor_service import CandorService
from candor.gateway.workers.protocol import WorkerBackend
from candor.models.onnx.session import read_onnx
from candor.stack.onnx_backend import OnnxBackend

RUNTIMES = ("torch", "onnx")
_ALL_CORES = 0


class LocalClient:
    """Stands in for `candor.client.sync.CandorClient`; a context manager, one model."""

    def __init__(self, name: str, backend: WorkerBackend) -> None:
        self._runner = asyncio.Runner()
        self._service = CandorService(backend, Settings(models=(name,), request_seconds=86400.0))
        self._runner.run(self._service.start())

    def predict(self, request: api.PredictRequest) -> api.PredictResponse:
        return self._runner.run(self._service.predict(_payload(request), _request_context()))

    def explain(self, request: api.ExplainRequest) -> api.ExplainResponse:
        return self._runner.run(self._service.explain(_payload(request), _request_context()))

    def probe(self, request: api.ProbeRequest) -> api.ProbeResponse:
        return self._runner.run(self._service.probe(_payload(request), _request_context()))

    def compare(self, request: api.CompareRequest) -> api.CompareResponse:
        return self._runner.run(self._service.compare(_payload(request), _request_context()))

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


def open_local(
    model: Path, runtime: str | None = None, *, notify: Callable[[str], None] = lambda text: None
) -> LocalClient:
    """A client of a model folder or of a file that `candor export` wrote, which only predicts.

    Args:
        runtime: one of `RUNTIMES`; default torch for a folder and onnx for a file.  The ONNX graph
            of a folder is kept in the user's cache.
        notify: takes one sentence for people before something that takes seconds.
    Raises:
        ValueError: another runtime, or a file where torch needs a folder.
        ArtifactError: the model folder is missing, damaged or contradicts itself.
        OnnxError: the file is missing, damaged, or was not written by Candor.
    """
    is_file = model.suffix == ".onnx"
    runtime = runtime or ("onnx" if is_file else "torch")
    if runtime not in RUNTIMES:
        raise ValueError(f"runtime: expected one of {RUNTIMES}, got {runtime!r}")
    if runtime == "onnx":
        return _open_onnx(model if is_file else _cached_export(model, notify))
    if is_file:
        raise ValueError(
            f"model: expected a model folder, got {model}; ONNX files only predict, with onnx"
        )
    return _open_torch(model)


def _open_onnx(file: Path) -> LocalClient:
    graph = read_onnx(file, threads=_ALL_CORES)
    return LocalClient(graph.card.name, OnnxBackend(graph))


def _open_torch(folder: Path) -> LocalClient:
    # Here, since an ONNX file is predicted with on machines without torch, and sooner.
    from candor.models.folder import read_card
    from candor.stack.torch_backend import TorchBackend

    return LocalClient(read_card(folder).name, TorchBackend(folder))


def _cached_export(folder: Path, notify: Callable[[str], None]) -> Path:
    from candor.stack.onnx_cache import cached_export  # torch: only to export

    return cached_export(folder, notify)


def _request_context() -> RequestContext:
    return RequestContext(request_id="local")


def _payload(request: Any) -> dict[str, Any]:
    payload: dict[str, Any] = request.model_dump(exclude_none=True)
    return payload
