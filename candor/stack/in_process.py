"""The service in this process: the gateway's own service over a model, without a server.

Same
checks and same numbers as through a door.
"""

import asyncio
import hashlib
import os
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace, TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from candor.cli.output import console
from candor.contracts import api, wire
from candor.contracts.worker import ItemError, PredictAnswer, PredictItem
from candor.gateway.access.request_context import RequestContext
from candor.gateway.config.settings import Settings
from candor.gateway.service.candor_service import CandorService
from candor.gateway.workers.protocol import Role, WorkerBackend
from handlers.envelopes import INPUT_NAME, Task, answer_rows, seal, wrong_kind

if TYPE_CHECKING:
    from candor.models.onnx.session import OnnxModel

RUNTIMES = ("torch", "onnx")
_ALL_CORES = 0


class LocalBackend:
    """The handlers TorchServe would run, called directly."""

    def __init__(self, folder: Path) -> None:
        from handlers.predict_handler import PredictHandler
        from handlers.search_handler import SearchHandler

        options = {"handler": {"model_dir": str(folder)}}
        context = SimpleNamespace(model_yaml_config=options, system_properties={})
        self._handlers = {"predict": PredictHandler(), "search": SearchHandler()}
        for handler in self._handlers.values():
            handler.initialize(context)

    async def call(self, model: str, role: Role, items: list[bytes]) -> list[bytes]:
        rows = [{INPUT_NAME: wire.pack_list(items)}]
        (packed,) = await asyncio.to_thread(self._handlers[role].handle, rows, None)
        return wire.unpack_list(packed)


class OnnxBackend:
    """Predictions by ONNX Runtime; searches need gradients, which it has not."""

    def __init__(self, model: "OnnxModel") -> None:
        self._model = model

    async def call(self, model: str, role: Role, items: list[bytes]) -> list[bytes]:
        rows = [{INPUT_NAME: wire.pack_list(items)}]
        card = self._model.card
        (packed,) = await asyncio.to_thread(answer_rows, rows, card, _only_predict, self._compute)
        return wire.unpack_list(packed)

    def _compute(self, tasks: Sequence[Task]) -> list[bytes]:
        logits = self._model.logits(np.stack([task.arrays["image"] for task in tasks]))
        return [seal(PredictAnswer(), {"logits": row}) for row in logits]


def _only_predict(task: Task) -> ItemError | None:
    return None if isinstance(task.item, PredictItem) else wrong_kind(task.item, "predict")


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


def open_local(model: Path, runtime: str | None = None) -> LocalClient:
    """A client of a model folder or of a file that `candor export` wrote, which only predicts.

    Args:
        runtime: one of `RUNTIMES`; default torch for a folder and onnx for a file.  The ONNX graph
            of a folder is kept in the user's cache.
    Raises:
        ValueError: another runtime, or a file where torch needs a folder.
        ArtifactError: the model folder is missing, damaged or contradicts itself.
        OnnxError: the file is missing, damaged, or none of Candor.
    """
    is_file = model.suffix == ".onnx"
    runtime = runtime or ("onnx" if is_file else "torch")
    if runtime not in RUNTIMES:
        raise ValueError(f"runtime: got {runtime!r}, allowed {RUNTIMES}")
    if runtime == "torch":
        if is_file:
            raise ValueError(
                f"model: got {model}, allowed a model folder; ONNX files only predict, with onnx"
            )
        from candor.models.folder import read_card

        return LocalClient(read_card(model).name, LocalBackend(model))
    from candor.models.onnx.session import read_onnx

    graph = read_onnx(model if is_file else _cached_export(model), threads=_ALL_CORES)
    return LocalClient(graph.card.name, OnnxBackend(graph))


def _cached_export(folder: Path) -> Path:
    """The ONNX file of a model folder, written when the folder or the exporter has changed."""
    from candor.data.registry import default_data_dir
    from candor.models.folder import load_model, read_card

    card = read_card(folder)
    inputs = " ".join((card.model_dump_json(), *map(version, ("candor", "torch", "onnxscript"))))
    name = f"{card.name}-{hashlib.sha256(inputs.encode()).hexdigest()[:16]}.onnx"
    path = default_data_dir().parent / "onnx" / name
    if not path.exists():
        from candor.models.onnx.export import export_onnx

        console().print(f"exporting {folder} to {path}, takes some seconds the first time ...")
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(f".{os.getpid()}")
        draft.write_bytes(export_onnx(load_model(folder)))
        draft.replace(path)
    return path


def _request_context() -> RequestContext:
    return RequestContext(request_id="local")


def _payload(request: Any) -> dict[str, Any]:
    payload: dict[str, Any] = request.model_dump(exclude_none=True)
    return payload
