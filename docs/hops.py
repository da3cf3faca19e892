"""``python docs/hops.py`` counts the functions that get the image of one request.

It sends one `Explain` over gRPC to a gateway in this process, whose search worker is the handler
itself, and prints each function of ours that receives or returns the image, or an object that
holds it, in the order of the first call.  Layers of the network and generated code do not count.
"""

import asyncio
import dataclasses
import io
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

import numpy as np  # noqa: E402
from google.protobuf.message import Message  # noqa: E402
from PIL import Image  # noqa: E402
from pydantic import BaseModel  # noqa: E402
from torch import Tensor  # noqa: E402

from candor.client.sync import CandorClient  # noqa: E402
from candor.contracts import api  # noqa: E402
from candor.gateway.config.settings import Settings  # noqa: E402
from candor.gateway.main import Gateway  # noqa: E402
from candor.gateway.workers.torchserve import TorchServeBackend  # noqa: E402
from candor.tracing import NO_TRACING  # noqa: E402
from handlers.predict_handler import PredictHandler  # noqa: E402
from handlers.search_handler import SearchHandler  # noqa: E402

MODEL = "cifar10-plain"
_EDGE = 32
_VALUES = 3 * _EDGE * _EDGE
_ENCODED = _VALUES // 2  # bytes: noise hardly compresses, and nothing else is as long
_DEPTH = 5  # of objects in objects
_LEFT_OUT = ("/rpc/pb/", "/candor/nets/", "/docs/", "/.venv/")


class Trace:
    """Functions seen with the image, in order, while `watching`."""

    def __init__(self) -> None:
        self.functions: dict[tuple[str, str], None] = {}
        self._is_on = False

    @contextmanager
    def watching(self) -> Iterator[None]:
        self._is_on = True
        try:
            yield
        finally:
            self._is_on = False

    def profile(self, frame: FrameType, event: str, value: Any) -> None:
        """What Python calls at each call and return."""
        code = frame.f_code
        if not self._is_on or event not in ("call", "return") or not _is_ours(code.co_filename):
            return
        key = (str(Path(code.co_filename).relative_to(REPOSITORY)), code.co_qualname)
        if key in self.functions or code.co_name.startswith("<"):
            return
        names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        given = [frame.f_locals.get(name) for name in names] if event == "call" else [value]
        if any(_holds_image(one) for one in given):
            self.functions[key] = None


def _is_ours(path: str) -> bool:
    return path.startswith(f"{REPOSITORY}/") and not any(part in path for part in _LEFT_OUT)


def _holds_image(value: Any, depth: int = _DEPTH) -> bool:
    match value:
        case bytes() | bytearray() | memoryview():
            return len(value) >= _ENCODED
        case np.ndarray():
            return value.size >= _VALUES
        case Tensor():
            return value.numel() >= _VALUES
        case Message():
            return value.ByteSize() >= _ENCODED
    return depth > 0 and any(_holds_image(part, depth - 1) for part in _parts(value))


def _parts(value: Any) -> list[Any]:
    match value:
        case Mapping():
            return list(value.values())
        case list() | tuple():
            return list(value)
        case BaseModel():
            return list(vars(value).values())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [getattr(value, field.name, None) for field in dataclasses.fields(value)]
    return []


class _Workers:
    """Stands for TorchServe's stub: the handlers, called in a thread."""

    def __init__(self) -> None:
        options = {"handler": {"model_dir": str(REPOSITORY / "model_store" / MODEL), "threads": 1}}
        context = SimpleNamespace(model_yaml_config=options, system_properties={})
        self._handlers = {"predict": PredictHandler(), "search": SearchHandler()}
        for handler in self._handlers.values():
            handler.initialize(context)

    async def Predictions(self, request: Any, timeout: float) -> Any:
        role = request.model_name.rpartition("-")[2]
        rows = [dict(request.input)]
        (packed,) = await asyncio.to_thread(self._handlers[role].handle, rows, None)
        return SimpleNamespace(prediction=packed)


async def _started_gateway() -> Gateway:
    backend = TorchServeBackend("127.0.0.1:1", call_seconds=60.0)
    backend._stub = _Workers()
    settings = Settings(grpc_port=0, rest_port=0, models=(MODEL,), drain_seconds=1.0)
    gateway = Gateway(settings, backend, NO_TRACING)
    await gateway.start()
    return gateway


@contextmanager
def _running_gateway() -> Iterator[Gateway]:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    gateway = asyncio.run_coroutine_threadsafe(_started_gateway(), loop).result()
    try:
        yield gateway
    finally:
        asyncio.run_coroutine_threadsafe(gateway.stop(), loop).result()
        loop.call_soon_threadsafe(loop.stop)


def _request() -> api.ExplainRequest:
    noise = np.random.default_rng(0).integers(0, 256, (_EDGE, _EDGE, 3), dtype=np.uint8)
    png = io.BytesIO()
    Image.fromarray(noise).save(png, "PNG")
    image = api.ImageInput(encoded=png.getvalue())
    return api.ExplainRequest(image=image, targets=(api.ClassRef(index=3),), rhos=(0.1,), steps=20)


def main() -> None:
    """Prints the functions and their number."""
    trace = Trace()
    threading.setprofile(trace.profile)  # before any thread starts
    requests = [_request(), _request().model_copy(update={"seed": 1})]
    with (
        _running_gateway() as gateway,
        CandorClient(f"127.0.0.1:{gateway.grpc_port}", timeout_seconds=60) as client,
    ):
        client.explain(requests[0])  # the first one waits until the model is known
        sys.setprofile(trace.profile)
        with trace.watching():
            client.explain(requests[1])
        sys.setprofile(None)
    functions = list(trace.functions)
    for number, (path, name) in enumerate(functions, start=1):
        print(f"{number:4d}  {path}  {name}")
    is_step = [name == "_step" and path.startswith("candor/search/") for path, name in functions]
    to_step = is_step.index(True) + 1
    print(f"{len(functions)} functions, {to_step} of them up to the first step of the search")


if __name__ == "__main__":
    main()
