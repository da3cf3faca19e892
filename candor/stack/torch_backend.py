"""The handlers TorchServe would run, called in this process."""

import asyncio
from pathlib import Path
from types import SimpleNamespace

from candor.contracts import wire
from candor.gateway.workers.protocol import Role
from handlers.envelopes import INPUT_NAME
from handlers.predict_handler import PredictHandler
from handlers.search_handler import SearchHandler


class TorchBackend:
    """A worker backend of the gateway over one model folder.

    Raises:
        ArtifactError: the folder is missing, damaged or contradicts itself.
    """

    def __init__(self, folder: Path) -> None:
        options = {"handler": {"model_dir": str(folder)}}
        context = SimpleNamespace(model_yaml_config=options, system_properties={})
        self._handlers: dict[Role, PredictHandler | SearchHandler] = {
            "predict": PredictHandler(),
            "search": SearchHandler(),
        }
        for handler in self._handlers.values():
            handler.initialize(context)

    async def call(self, model: str, role: Role, items: list[bytes]) -> list[bytes]:
        rows = [{INPUT_NAME: wire.pack_list(items)}]
        (packed,) = await asyncio.to_thread(self._handlers[role].handle, rows, None)
        return wire.unpack_list(packed)
