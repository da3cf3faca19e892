"""ONNX files: the logits are torch's, the card travels along, and a changed file is refused."""

import json
import re
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from candor.contracts.card import InputCard, ModelCard, NetworkCard
from candor.models.folder import LoadedModel
from candor.models.onnx.export import IR_VERSION, OPSET, export_onnx
from candor.models.onnx.session import OnnxError, OnnxModel, read_onnx
from candor.nets.activations import HalfHuberReLU
from candor.nets.drop import StochasticDepth
from candor.nets.resnet import PreActivationResNet

CLASSES = ("cat", "dog", "Gänse & Enten")


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    """Three blocks with everything the architectures have, statistics and weights drawn."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        network = PreActivationResNet(
            blocks=(1, 2),
            widths=(4, 8),
            channels=3,
            class_count=3,
            mean=(0.5, 0.4, 0.3),
            std=(0.2, 0.3, 0.25),
            activation=lambda: HalfHuberReLU(0.7),
            drop=lambda depth: StochasticDepth(1.0 - 0.5 * depth),
        )
        for value in network.state_dict().values():
            if value.is_floating_point():
                value.uniform_(0.1, 0.9)
    card = ModelCard(
        name="small",
        version="1.2",
        description="For tests",
        network=NetworkCard(
            architecture="cifar-resnet20",
            activation="hhrelu",
            curvature=0.7,
            width_factor=1,
            class_count=3,
            mean=(0.5, 0.4, 0.3),
            std=(0.2, 0.3, 0.25),
        ),
        input=InputCard(channels=3, height=8, width=12),
        classes=CLASSES,
        recipe={"epochs": 0},
        code_version="0",
        weights_sha256="ab" * 32,
    )
    return LoadedModel(network=network.eval().requires_grad_(False), card=card)


@pytest.fixture(scope="module")
def content(model: LoadedModel) -> bytes:
    return export_onnx(model)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(2).random((5, 3, 8, 12), dtype=np.float32)


def assert_torchs(logits: np.ndarray, model: LoadedModel, images: np.ndarray) -> None:
    expected = model.network(torch.from_numpy(images)).numpy()
    assert np.ptp(expected) > 0.1, "logits that tell nothing apart"
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("count", [1, 5])
def test_open_batch_answers_any_number_of_images(
    content: bytes, model: LoadedModel, images: np.ndarray, count: int
) -> None:
    graph = OnnxModel(content, "here")
    assert graph.batch is None
    assert_torchs(graph.logits(images[:count]), model, images[:count])


def test_fixed_batch_is_filled_up_and_says_its_size(model: LoadedModel, images: np.ndarray) -> None:
    content = export_onnx(model, batch=2)
    graph = OnnxModel(content, "here")
    assert graph.batch == 2
    assert_torchs(graph.logits(images), model, images)
    assert shape_of(content) == [2, 3, 8, 12]


def shape_of(content: bytes) -> list[int]:
    (entry,) = onnx.load_from_string(content).graph.input
    return [axis.dim_value for axis in entry.type.tensor_type.shape.dim]


def test_a_plain_runtime_reads_the_file_and_its_metadata(
    content: bytes, model: LoadedModel, images: np.ndarray
) -> None:
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    assert_torchs(session.run(None, {"images": images})[0], model, images)
    entries = session.get_modelmeta().custom_metadata_map
    assert entries["candor.name"] == "small"
    assert entries["candor.version"] == "1.2"
    assert entries["candor.weights_sha256"] == "ab" * 32
    assert tuple(json.loads(entries["candor.classes"])) == CLASSES
    assert ModelCard.model_validate_json(entries["candor.card"]) == model.card


def test_the_file_says_what_wrote_it_and_nothing_of_the_machine(content: bytes) -> None:
    proto = onnx.load_from_string(content)
    assert (proto.ir_version, proto.producer_name) == (IR_VERSION, "candor")
    assert [(entry.domain, entry.version) for entry in proto.opset_import] == [("", OPSET)]
    assert b"/site-packages/" not in content
    assert str(Path(__file__).parents[2]).encode() not in content


def test_what_is_written_is_read(tmp_path: Path, content: bytes, model: LoadedModel) -> None:
    path = tmp_path / "small.onnx"
    path.write_bytes(content)
    assert read_onnx(path).card == model.card


@pytest.mark.parametrize("place", [0.01, 0.5, 0.9])
def test_one_changed_byte_is_refused_with_both_digests(content: bytes, place: float) -> None:
    damaged = bytearray(content)
    damaged[int(place * len(damaged))] ^= 1
    with pytest.raises(OnnxError, match=r"^here: SHA-256 is \w{64}, but the file names \w{64}"):
        OnnxModel(bytes(damaged), "here")


def test_another_digest_is_refused(content: bytes) -> None:
    with pytest.raises(OnnxError, match="the file names " + "0" * 64):
        OnnxModel(content[:-64] + b"0" * 64, "here")


def test_a_file_of_others_or_cut_short_is_refused(content: bytes) -> None:
    foreign = onnx.load_from_string(content)
    del foreign.metadata_props[:]
    for other in (foreign.SerializeToString(), content[:-1000], b"", b"hello"):
        with pytest.raises(OnnxError, match=re.escape("candor.content_sha256: missing")):
            OnnxModel(other, "here")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(OnnxError, match=r"none\.onnx: missing"):
        read_onnx(tmp_path / "none.onnx")


def test_a_batch_of_no_images_is_refused(model: LoadedModel) -> None:
    with pytest.raises(ValueError, match=r"batch: expected \[1, inf\), got 0"):
        export_onnx(model, batch=0)
