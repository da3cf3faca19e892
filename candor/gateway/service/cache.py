"""Finished searches by everything that decides their outcome."""

import hashlib
from collections import OrderedDict
from collections.abc import Callable

import numpy as np

from candor.contracts.worker import SearchItem
from candor.gateway.workers.codec import Arrays, SearchOutcome

_ENTRY_BYTES = 2048  # of one entry beside its arrays, about
_PROGRESS_FIELDS = {"step", "chunk_steps"}  # how far a search is, not which search it is


def key_maker(arrays: Arrays, weights_digest: str) -> Callable[[SearchItem], bytes]:
    """SHA-256 over decoded pixels, mask, weights and every parameter of a search.

    Args:
        arrays: those that a search begins with, float32.
    """
    begun = hashlib.sha256(f"{weights_digest}/".encode())
    for name, array in sorted(arrays.items()):
        begun.update(f"{name}/{array.shape}/".encode())
        begun.update(np.ascontiguousarray(array, dtype="<f4").tobytes())

    def key(item: SearchItem) -> bytes:
        digest = begun.copy()
        digest.update(item.model_dump_json(exclude=_PROGRESS_FIELDS).encode())
        return digest.digest()

    return key


class ResultCache:
    """The most recently used outcomes that fit into ``max_bytes``; 0 keeps none."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._outcomes: OrderedDict[bytes, SearchOutcome] = OrderedDict()
        self._byte_count = 0

    @property
    def keeps_any(self) -> bool:
        """Whether there is room at all."""
        return self._max_bytes > 0

    @property
    def byte_count(self) -> int:
        """Bytes in use, at most ``max_bytes``."""
        return self._byte_count

    def get(self, key: bytes) -> SearchOutcome | None:
        """The outcome kept under ``key``, which counts as used now."""
        outcome = self._outcomes.get(key)
        if outcome is not None:
            self._outcomes.move_to_end(key)
        return outcome

    def put(self, key: bytes, outcome: SearchOutcome) -> None:
        """Keeps a whole outcome; drops the least recently used ones where it does not fit.

        Raises:
            ValueError: the outcome is partial.
        """
        if outcome.is_partial:
            raise ValueError("outcome: expected a whole one, got a partial one")
        size = _size(outcome)
        if size > self._max_bytes or key in self._outcomes:
            return
        self._outcomes[key] = outcome
        self._byte_count += size
        while self._byte_count > self._max_bytes:
            _, oldest = self._outcomes.popitem(last=False)
            self._byte_count -= _size(oldest)


def _size(outcome: SearchOutcome) -> int:
    return outcome.byte_count + _ENTRY_BYTES
