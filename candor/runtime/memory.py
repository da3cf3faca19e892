"""How much memory a computation needs."""

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def peak_bytes(compute: Callable[[], object]) -> int:
    """The most bytes that the tensors made by ``compute`` have at one time.

    What was there before (weights, images) does not count, nor does what an operator allocates and
    frees inside.  Unlike the memory of the process, it does not depend on what ran before.
    """
    with _LiveTensors() as tensors:
        compute()
    peak: int = tensors.peak
    return peak


class _LiveTensors(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the storages that operators return, from their making to their end."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak: int = 0
        self._live = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        self._remember((args, kwargs), is_counted=False)
        result = func(*args, **kwargs)
        self._remember(result, is_counted=True)
        return result

    def _remember(self, values: Any, *, is_counted: bool) -> None:
        for value in tree_leaves(values):
            if isinstance(value, Tensor):
                self._add(value.untyped_storage(), is_counted)

    def _add(self, storage: torch.UntypedStorage, is_counted: bool) -> None:
        key = storage._cdata
        if key in self._known:  # a view of one that was seen
            return
        self._known.add(key)
        size = storage.nbytes() if is_counted else 0
        self._live += size
        self.peak = max(self.peak, self._live)
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self._live -= size
