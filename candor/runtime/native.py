"""A graph that was compiled into a shared library, called without holding Python's lock.

torch's own loader (`torch._inductor.aoti_load_package`) keeps the lock while the graph computes, so
the threads of `candor.runtime.threads` would wait for each other.  Here the library's C interface
(torch/csrc/inductor/aoti_runtime/interface.h) is called through ctypes, which releases it.  Nothing
of torch's compiler is imported, so that loading takes milliseconds.
"""

import ctypes
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor
from torch._C import _aoti

_Handle = ctypes.c_void_p
_get_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_get_pointer.restype = ctypes.c_void_p
_get_pointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
_new_capsule = ctypes.pythonapi.PyCapsule_New
_new_capsule.restype = ctypes.py_object
_new_capsule.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]


class _Weight(ctypes.Structure):
    """AOTInductorConstantMapEntry of the interface."""

    _fields_ = (("name", ctypes.c_char_p), ("handle", ctypes.c_void_p))


class NativeGraph:
    """One compiled graph; may be called in several threads at once.

    Args:
        file: the shared library; it is code, and is run.
        weights: by the names that the graph was compiled with, in the layout they had then; they
            are read where they are, not copied.
        copies: calls that may run at once; further ones wait.
        device: "cpu" or "cuda".

    Raises:
        OSError: no library, or one for another machine.
        RuntimeError: it does not accept these weights.
    """

    def __init__(
        self, file: Path, weights: Mapping[str, Tensor], *, copies: int = 1, device: str = "cpu"
    ) -> None:
        self._name = file.name
        self._library = ctypes.CDLL(str(file.resolve()))
        self._container = _Handle()
        self._call(
            "CreateWithDevice",
            ctypes.byref(self._container),
            ctypes.c_size_t(copies),
            device.encode(),
            None,
        )
        self._use(weights)
        count = ctypes.c_size_t()
        self._call("GetNumOutputs", self._container, ctypes.byref(count))
        self._output_count = count.value

    def __call__(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """The outputs of the graph.

        Args:
            inputs: of the shapes, types and layouts that the graph was compiled for.
        Raises:
            RuntimeError: the graph failed; the library wrote to stderr why.
        """
        given = _handles(inputs)  # the graph takes them over, also when it fails
        made = (_Handle * self._output_count)()
        counts = ctypes.c_size_t(len(inputs)), ctypes.c_size_t(self._output_count)
        self._call("Run", self._container, given, counts[0], made, counts[1], None, None)
        capsules = [_new_capsule(pointer, None, None) for pointer in made]
        return _aoti.alloc_tensors_by_stealing_from_void_ptrs(capsules)

    def _use(self, weights: Mapping[str, Tensor]) -> None:
        names = self._weight_names()
        missing = sorted(original for original in names.values() if original not in weights)
        if missing:
            raise RuntimeError(f"{self._name}: expected weights of the model, got {missing}")
        # Kept, for the library reads their memory.
        self._weights = [weights[original] for original in names.values()]
        self._weight_handles = _handles(self._weights)
        entries = (_Weight * len(names))(
            *(
                _Weight(name.encode(), handle)
                for name, handle in zip(names, self._weight_handles, strict=True)
            )
        )
        self._call(
            "UpdateUserManagedConstantBufferPairs",
            self._container,
            entries,
            ctypes.c_size_t(len(names)),
            ctypes.c_bool(False),
            ctypes.c_bool(True),
        )

    def _weight_names(self) -> dict[str, str]:
        """The name in the network, by the name in the library."""
        count = ctypes.c_size_t()
        self._call("GetNumConstants", self._container, ctypes.byref(count))
        names = {}
        for index in range(count.value):
            found = {}
            for what in ("ConstantName", "ConstantOriginalFQN"):
                text = ctypes.c_char_p()
                self._call(
                    f"Get{what}", self._container, ctypes.c_size_t(index), ctypes.byref(text)
                )
                found[what] = (text.value or b"").decode()
            names[found["ConstantName"]] = found["ConstantOriginalFQN"]
        return names

    def _call(self, function: str, *arguments: object) -> None:
        """Raises: RuntimeError: it returned an error, whose text the library wrote to stderr."""
        if self._library[f"AOTInductorModelContainer{function}"](*arguments) != 0:
            raise RuntimeError(f"{self._name}: {function} failed")


def _handles(tensors: Sequence[Tensor]) -> "ctypes.Array[ctypes.c_void_p]":
    """A new handle for each tensor; whoever receives it has to free it."""
    capsules = _aoti.unsafe_alloc_void_ptrs_from_tensors(list(tensors))
    return (_Handle * len(capsules))(*(_get_pointer(capsule, None) for capsule in capsules))
