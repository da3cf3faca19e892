"""ONNX files of Candor: read, checked and run by ONNX Runtime.

A file is an ONNX model whose metadata holds the model card, and whose last metadata entry is the
SHA-256 of every byte before it, its seal.
"""

import hashlib
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from candor.contracts.card import ModelCard
from candor.contracts.strict_json import JsonError
from candor.contracts.violations import read_model
from candor.files.reading import GIB, UnusableFile, read_file
from candor.terms import NotFinite

INPUT_NAME, OUTPUT_NAME = "images", "logits"
CARD_KEY = "candor.card"
SEAL_KEY = "candor.content_sha256"

_HEX_BYTES = 64
_MAX_BYTES = 2 * GIB  # what protobuf can hold
# As protobuf writes the entry: tag and length of the entry, of its key and of its value.
_SEAL_BYTES = 2 + (2 + len(SEAL_KEY)) + (2 + _HEX_BYTES)


class OnnxError(ValueError):
    """An ONNX file is missing, damaged, or not one that `candor export` wrote."""


class OnnxModel:
    """The predict graph of a model and its card.

    Attributes:
        card: of the model folder it was exported from.
        batch: images of one run of the graph; None for any number.
    """

    def __init__(self, content: bytes, source: str, *, threads: int = 1) -> None:
        """Reads a whole file.

        Args:
            source: names the file in errors.
            threads: that one run may use; 0 = one per core.
        Raises:
            OnnxError: the seal is missing or broken, the card is not valid, or ONNX Runtime cannot
                run the graph.
        """
        _check_seal(content, source)
        self._session = _session(content, source, threads)
        self.card = _card(self._session, source)
        batch = self._session.get_inputs()[0].shape[0]
        self.batch: int | None = batch if isinstance(batch, int) else None

    def logits(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits (B, V) float32 of images (B, C, H, W) float32 in [0, 1], B >= 1.

        A graph of fixed batch runs as often as needed, the last time filled up with black images.

        Raises:
            NotFinite: a logit is infinite or NaN.
        """
        count, size = len(images), self.batch or len(images)
        missing = -count % size
        filled = np.pad(images, ((0, missing), (0, 0), (0, 0), (0, 0)))
        parts = np.split(filled, len(filled) // size)
        runs = [self._session.run([OUTPUT_NAME], {INPUT_NAME: part})[0] for part in parts]
        logits: NDArray[np.float32] = np.concatenate(runs)[:count]
        if not np.isfinite(logits).all():
            bad = logits[~np.isfinite(logits)][0]
            raise NotFinite(f"the outputs of the network: expected finite numbers, got {bad}")
        return logits


def read_onnx(path: Path, *, threads: int = 1) -> OnnxModel:
    """The model of a file that `candor export` wrote.

    Raises:
        OnnxError: the file is missing, or as `OnnxModel`.
    """
    try:
        content = read_file(path, _MAX_BYTES)
    except FileNotFoundError as err:
        raise OnnxError(f"{path}: missing; candor export writes it") from err
    except UnusableFile as err:
        raise OnnxError(str(err)) from err
    return OnnxModel(content, str(path), threads=threads)


def _check_seal(content: bytes, source: str) -> None:
    body, seal = content[:-_SEAL_BYTES], content[-_SEAL_BYTES:]
    if SEAL_KEY.encode() not in seal:
        raise OnnxError(
            f"{source}: {SEAL_KEY}: missing at its end; "
            "the file is damaged, or candor export did not write it"
        )
    digest, named = hashlib.sha256(body).hexdigest(), seal[-_HEX_BYTES:].decode("ascii", "replace")
    if digest != named:
        raise OnnxError(
            f"{source}: SHA-256 is {digest}, but the file names {named}; it is damaged or was "
            "changed after candor export"
        )


def _session(content: bytes, source: str, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Threads that spin while they wait take the cores from the threads they wait for.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as err:  # its errors have no base class of their own
        raise OnnxError(f"{source}: ONNX Runtime {onnxruntime.__version__}: {err}") from err


def _card(session: onnxruntime.InferenceSession, source: str) -> ModelCard:
    text = session.get_modelmeta().custom_metadata_map.get(CARD_KEY, "")
    try:
        return read_model(ModelCard, text)
    except JsonError as err:
        raise OnnxError(f"{source}: {CARD_KEY}: {err}") from err
