"""Finished searches by everything that decides their outcome."""

import hashlib
from collections import OrderedDict
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from candor.contracts.worker import SearchItem
from candor.gateway.scheduling.jobs import SearchResult

_ENTRY_BYTES = 2048  # of one entry beside its arrays, about
_NOT_OF_THE_SEARCH = {"step", "chunk_steps"}  # where it stands, not what it is


def key_maker(image: NDArray[np.float32], weights_digest: str) -> Callable[[SearchItem], bytes]:
    """SHA-256 over decoded pixels, weights and every parameter of a search of ``image``."""
    picture = hashlib.sha256(f"{weights_digest}/{image.shape}/".encode())
    picture.update(np.ascontiguousarray(image, dtype="<f4").tobytes())

    def key(item: SearchItem) -> bytes:
        digest = picture.copy()
        digest.update(item.model_dump_json(exclude=_NOT_OF_THE_SEARCH).encode())
        return digest.digest()

    return key


class ResultCache:
    """The most recently used results that fit into ``max_bytes``; 0 keeps none."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._results: OrderedDict[bytes, SearchResult] = OrderedDict()
        self._byte_count = 0

    @property
    def byte_count(self) -> int:
        return self._byte_count

    def get(self, key: bytes) -> SearchResult | None:
        result = self._results.get(key)
        if result is not None:
            self._results.move_to_end(key)
        return result

    def put(self, key: bytes, result: SearchResult) -> None:
        """Raises: ValueError: the result is partial."""
        if result.is_partial:
            raise ValueError("result: got a partial one, allowed whole ones")
        size = _size(result)
        if size > self._max_bytes or key in self._results:
            return
        self._results[key] = result
        self._byte_count += size
        while self._byte_count > self._max_bytes:
            _, oldest = self._results.popitem(last=False)
            self._byte_count -= _size(oldest)


def _size(result: SearchResult) -> int:
    return result.byte_count + _ENTRY_BYTES
