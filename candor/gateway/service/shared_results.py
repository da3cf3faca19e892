"""Finished searches that several gateways share."""

import asyncio
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from candor.contracts import wire
from candor.contracts.worker import SearchEnd
from candor.gateway.pools import CHUNKS, run_if_large
from candor.gateway.service.cache import ResultCache
from candor.gateway.shared import SharedMemory
from candor.gateway.workers.codec import SearchOutcome

_PREFIX = b"candor:search:1:"  # the number is that of the format
_KEPT_SECONDS = 86400
_ARRAYS = ("image", "logits_before", "logits_after")


class SharedResults:
    """The cache of this gateway, and what others have found.

    Args:
        own: what a search is answered from.
        memory: None for a gateway that shares nothing.
    """

    def __init__(self, own: ResultCache, memory: SharedMemory | None) -> None:
        self.own = own
        self._memory = memory if own.keeps_any else None
        self._sending: set[asyncio.Task[None]] = set()

    @property
    def is_shared(self) -> bool:
        """Whether others are asked."""
        return self._memory is not None

    async def fetch(self, keys: Sequence[bytes]) -> None:
        """Takes over what another gateway has found of searches that this one does not know."""
        missing = [key for key in dict.fromkeys(keys) if self.own.get(key) is None]
        if self._memory is None or not missing:
            return
        found = await self._memory.ask(lambda redis: redis.mget([_PREFIX + key for key in missing]))
        for key, value in zip(missing, found or (), strict=False):
            outcome = None if value is None else _read(value)
            if outcome is not None:
                self.own.put(key, outcome)

    def put(self, key: bytes, outcome: SearchOutcome) -> None:
        """Keeps a whole outcome here, and a moment later for the others."""
        self.own.put(key, outcome)
        if self._memory is not None:
            task = asyncio.get_running_loop().create_task(self._send(self._memory, key, outcome))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)

    async def close(self) -> None:
        """Sends what has been found and not sent yet."""
        await asyncio.gather(*self._sending)

    async def _send(self, memory: SharedMemory, key: bytes, outcome: SearchOutcome) -> None:
        value = await run_if_large(CHUNKS, outcome.byte_count, _written, outcome)
        await memory.ask(lambda redis: redis.set(_PREFIX + key, value, ex=_KEPT_SECONDS))


def _written(outcome: SearchOutcome) -> bytes:
    arrays = {name: getattr(outcome, name) for name in _ARRAYS}
    return wire.pack(outcome.end.model_dump(mode="json"), arrays)


def _read(value: Any) -> SearchOutcome | None:
    """None for what no gateway of this version wrote."""
    try:
        end, arrays = wire.unpack(value)
        image, before, after = (arrays[name] for name in _ARRAYS)
        return SearchOutcome(
            end=SearchEnd.model_validate(end),
            image=image,
            logits_before=before,
            logits_after=after,
        )
    except (wire.WireError, ValidationError, KeyError):
        return None
