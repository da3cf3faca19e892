"""Reads the bytes of an ONNX file and of the external data inside its folder."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import onnx
from google.protobuf.message import DecodeError

from candor.files.reading import UnusableFile, open_file, read_file
from candor.onnx_import.limits import OnnxImportError, OnnxLimits

_MOST_EXTERNAL = 1 << 40  # one file may hold the weights of other models, too
_EXTERNAL = onnx.TensorProto.EXTERNAL


def read_model(path: Path, limits: OnnxLimits) -> tuple[onnx.ModelProto, tuple[Path, ...]]:
    """The whole model, external data read into it, and the files that were read.

    Raises:
        OnnxImportError: a file is missing, damaged or too large, or lies outside the folder.
    """
    content = _content(path, limits.file_bytes)
    model = onnx.ModelProto()
    try:
        model.ParseFromString(content)
    except DecodeError as err:
        raise OnnxImportError(f"{path}: expected an ONNX file, got {len(content)} bytes") from err
    if not model.graph.node:
        raise OnnxImportError(f"{path}: expected an ONNX graph with nodes, got none")
    left = limits.file_bytes - len(content)
    files: dict[Path, None] = {path: None}
    for tensor in tensors_of(model):
        if tensor.data_location == _EXTERNAL:
            file, length = _read_external(tensor, path, left)
            left, files[file] = left - length, None
    return model, tuple(files)


def tensors_of(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every tensor of a model: initial values and attributes, of functions and subgraphs too."""
    yield from _graph_tensors(model.graph)
    for function in model.functions:
        yield from _node_tensors(function.node)


def _graph_tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _node_tensors(graph.node)


def _node_tensors(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for graph in (attribute.g, *attribute.graphs):
                yield from _graph_tensors(graph)


def _read_external(tensor: onnx.TensorProto, model_path: Path, left: int) -> tuple[Path, int]:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    where = f"{model_path}: tensor {tensor.name!r}: location"
    location = entries.get("location", "")
    file = _inside(model_path.resolve().parent, location, where)
    try:
        offset, length = int(entries.get("offset", 0)), int(entries.get("length", -1))
    except ValueError as err:
        raise OnnxImportError(f"{where} {location!r}: expected whole numbers: {err}") from err
    with _opened(file, where) as stream:
        size = os.fstat(stream.fileno()).st_size
        length = size - offset if length < 0 else length
        if not 0 <= offset <= offset + length <= size:
            raise OnnxImportError(
                f"{where} {location!r}: expected bytes {offset} to {offset + length}, "
                f"got {size} bytes"
            )
        if length > left:
            raise OnnxImportError(f"{where} {location!r}: the model is larger than allowed")
        stream.seek(offset)
        tensor.raw_data = stream.read(length)
    tensor.data_location = onnx.TensorProto.DEFAULT
    del tensor.external_data[:]
    return file, length


def _opened(file: Path, where: str) -> BinaryIO:
    try:
        return open_file(file, _MOST_EXTERNAL)
    except OSError as err:
        raise OnnxImportError(f"{where}: {err}") from err


def _inside(folder: Path, location: str, where: str) -> Path:
    """The file that a location names: relative, below the folder, and no link on the way."""
    parts = PurePosixPath(location).parts
    is_plain = bool(parts) and "\0" not in location and "\\" not in location and ":" not in location
    if not is_plain or location.startswith("/") or ".." in parts:
        raise OnnxImportError(
            f"{where}: expected a relative path inside the model's folder, got {location!r}"
        )
    file = folder
    for part in parts:
        file = file / part
        if file.is_symlink():
            raise OnnxImportError(f"{where}: expected a file, got the link {location!r}")
    if not file.is_file():
        raise OnnxImportError(f"{where}: expected a file in the model's folder, got {location!r}")
    return file


def _content(path: Path, most: int) -> bytes:
    try:
        return read_file(path, most)
    except UnusableFile as err:
        raise OnnxImportError(str(err)) from err
    except OSError as err:
        raise OnnxImportError(f"{path}: cannot be read: {err.strerror}") from err
