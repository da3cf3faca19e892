"""Reads a `torch.save` file from an untrusted source without running code that it names.

Every pickle in the file is scanned first and may name only what a state dict needs; then torch's
own restricted unpickler reads the same bytes, with an inert stand-in for names of ``__main__``.
"""

import io
import pickletools
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import torch

_ZIP_MAGIC = b"PK\x03\x04"
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # first pickle of a torch.save stream
_LEGACY_PICKLES = 5  # magic, protocol, system, the object, storage keys; raw storages follow
_ALLOWED_GLOBALS = frozenset(
    {
        "collections OrderedDict",
        "torch._utils _rebuild_tensor_v2",
        "torch._utils _rebuild_parameter",
    }
    | {f"torch {kind}Storage" for kind in ("Float", "Double", "Half", "BFloat16")}
    | {f"torch {kind}Storage" for kind in ("Long", "Int", "Short", "Char", "Byte", "Bool")}
)
# Opcodes that build objects or name globals in ways no state dict needs.
_REJECTED_OPCODES = frozenset({"OBJ", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4"})
_STRING_OPCODES = frozenset({"BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "UNICODE"})
_MEMO_OPCODES = frozenset({"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"})


class UnsafeCheckpoint(ValueError):
    """The file names or calls something that no checkpoint of weights needs; nothing was run."""


class _Inert:
    """Stands for a name of the authors' ``__main__``; raises when it is called."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __call__(self, *args: object) -> NoReturn:
        raise UnsafeCheckpoint(f"rejected global: it calls {self._name}")


def load_state(content: bytes) -> Any:
    """The object in a `torch.save` file, stream or zip, with its tensors on the CPU.

    Raises:
        UnsafeCheckpoint: it names or calls anything beyond tensors; the message names it.
        ValueError: it is damaged or another kind of file.
    """
    if not content:
        raise ValueError("the file is empty")
    names: set[str] = set()
    for pickle_stream in _pickles(content):
        names |= _scanned_names(pickle_stream)
    inert = [(_Inert(name), name) for name in sorted(names)]
    try:
        with torch.serialization.safe_globals(inert):  # type: ignore[arg-type]
            return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except UnsafeCheckpoint:
        raise
    except Exception as err:  # on garbage the unpickler raises nearly anything
        reason = str(err).partition("\n")[0][:200]
        raise ValueError(f"not a readable checkpoint: {type(err).__name__}: {reason}") from err


def _pickles(content: bytes) -> Iterator[io.BytesIO]:
    """Every pickle that `torch.load` will read, each positioned at its start."""
    if content.startswith(_ZIP_MAGIC):
        yield io.BytesIO(_zipped_pickle(content))
        return
    stream = io.BytesIO(content)
    if _first_value(content) != _LEGACY_MAGIC:
        # Scanned before it is rejected, so that a hostile bare pickle is reported as unsafe.
        _scanned_names(stream)
        raise ValueError("not a torch.save file: its magic number is missing")
    for _ in range(_LEGACY_PICKLES):
        yield stream  # the scan leaves it at the next one


def _first_value(content: bytes) -> object:
    try:
        operations = pickletools.genops(content)
        next(operations)  # PROTO
        return next(operations)[1]
    except (ValueError, StopIteration, IndexError):
        return None


def _zipped_pickle(content: bytes) -> bytes:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = archive.infolist()
            pickles = [member for member in members if member.filename.endswith(".pkl")]
            if any(member.compress_type != zipfile.ZIP_STORED for member in members):
                raise ValueError("its zip archive is compressed, which torch.save never does")
            if [Path(member.filename).name for member in pickles] != ["data.pkl"]:
                found = sorted(member.filename for member in pickles)
                raise ValueError(f"expected exactly one data.pkl, got pickles {found}")
            return archive.read(pickles[0])
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, OSError) as err:
        raise ValueError(f"its zip archive is damaged: {err}") from err


def _scanned_names(stream: io.BytesIO) -> set[str]:
    """Names of ``__main__`` in the pickle at ``stream``, which is left behind it.

    Raises:
        UnsafeCheckpoint: a global or opcode that no state dict needs.
        ValueError: not a pickle.
    """
    names = set()
    strings: list[str] = []
    try:
        for opcode, argument, _ in pickletools.genops(stream):
            if opcode.name in _REJECTED_OPCODES:
                raise UnsafeCheckpoint(f"rejected global: opcode {opcode.name}")
            if opcode.name in ("GLOBAL", "INST", "STACK_GLOBAL"):
                # STACK_GLOBAL takes its names from the stack, usually the two strings just pushed.
                names |= _checked_global(argument or " ".join(strings[-2:]), opcode.name)
            if opcode.name in _STRING_OPCODES:
                strings = [*strings[-1:], str(argument)]
            elif opcode.name not in _MEMO_OPCODES:
                strings = []
    except UnsafeCheckpoint:
        raise
    except (ValueError, IndexError, OverflowError) as err:
        raise ValueError(f"damaged or cut short: {err}") from err
    return names


def _checked_global(described: str, opcode: str) -> set[str]:
    """The dotted name to stand in for, if any, of "module name" as pickletools gives it."""
    if opcode != "GLOBAL":
        raise UnsafeCheckpoint(f"rejected global {described or '(computed)'} ({opcode})")
    if described in _ALLOWED_GLOBALS:
        return set()
    module, _, name = described.partition(" ")
    if module != "__main__" or not name.isidentifier():
        raise UnsafeCheckpoint(f"rejected global {module}.{name}")
    return {f"{module}.{name}"}
