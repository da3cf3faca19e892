"""The predict graph of a model as an ONNX file, card inside."""

import hashlib
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version

import onnx
import torch

from candor.contracts.card import ModelCard
from candor.contracts.json_text import json_text
from candor.models.folder import LoadedModel
from candor.models.onnx.session import CARD_KEY, INPUT_NAME, OUTPUT_NAME, SEAL_KEY

# What torch writes by itself, and ONNX Runtime reads since 1.18.
OPSET = 20
IR_VERSION = 10


def export_onnx(model: LoadedModel, *, batch: int | None = None) -> bytes:
    """A whole ONNX file: images (B, C, H, W) float32 in [0, 1] to logits (B, V) float32.

    Args:
        model: on the CPU.
        batch: B; None leaves it open.
    Raises:
        ValueError: ``batch`` is less than 1.
    """
    if batch is not None and batch < 1:
        raise ValueError(f"batch: expected [1, inf), got {batch}")
    proto = _graph(model, batch)
    _remove_origin(proto)
    _describe(proto, model.card)
    onnx.checker.check_model(proto, full_check=True)
    return _sealed(proto.SerializeToString(deterministic=True))


def _graph(model: LoadedModel, batch: int | None) -> onnx.ModelProto:
    expected = model.card.input
    # For an open batch the example must not be 1, which torch would take as fixed.
    example = torch.zeros(batch or 2, expected.channels, expected.height, expected.width)
    open_axes = None if batch else ({0: torch.export.Dim("batch")},)
    with _quiet():
        program = torch.onnx.export(
            model.network,
            (example,),
            dynamo=True,
            verbose=False,
            input_names=[INPUT_NAME],
            output_names=[OUTPUT_NAME],
            opset_version=OPSET,
            dynamic_shapes=open_axes,
        )
    assert program is not None  # None only with dynamo=False
    proto: onnx.ModelProto = program.model_proto
    return proto


@contextmanager
def _quiet() -> Iterator[None]:
    """Without torch's messages about its internals and optional packages."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _remove_origin(proto: onnx.ModelProto) -> None:
    """Remove the exporter's stack traces, which hold paths of this machine."""
    graph = proto.graph
    values = (*graph.input, *graph.output, *graph.value_info, *graph.initializer)
    for part in (graph, *graph.node, *values):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")


def _describe(proto: onnx.ModelProto, card: ModelCard) -> None:
    proto.ir_version = IR_VERSION
    proto.producer_name, proto.producer_version = "candor", version("candor")
    proto.graph.name, proto.doc_string = card.name, card.description
    entries = {
        "candor.name": card.name,
        "candor.version": card.version,
        "candor.weights_sha256": card.weights_sha256,
        "candor.classes": json_text(card.classes),
        CARD_KEY: card.model_dump_json(),
    }
    onnx.helper.set_model_props(proto, entries)


def _sealed(content: bytes) -> bytes:
    """Two protobuf messages in a row are read as one: the second adds an entry to the first."""
    entry = onnx.StringStringEntryProto(key=SEAL_KEY, value=hashlib.sha256(content).hexdigest())
    seal: bytes = onnx.ModelProto(metadata_props=[entry]).SerializeToString()
    return content + seal
