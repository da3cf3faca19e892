"""ONNX files of others through `candor import`: loaded, explained, exported again, refused."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from typer.testing import CliRunner

from candor.audit.importing import ImportRequest, import_model, preprocessing_of
from candor.cli.main import build_app
from candor.contracts import api
from candor.contracts.card import ModelCard, Preprocessing
from candor.explainers.saliency import grad_cam
from candor.models.folder import CARD_FILE, GRAPH_FILE, ArtifactError, LoadedModel, load_model
from candor.models.onnx.export import export_onnx
from candor.models.onnx.session import OnnxModel
from candor.models.sources import SourceError
from candor.onnx_import.reader import read_onnx
from candor.stack.archives import ROLES, build_archives
from candor.stack.in_process import open_local
from tests.onnx_import.graphs import normal, written

RULE = Preprocessing(normalization="candor", mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.2))
SIZE = (24, 40)  # not square
V = 5


def nodes(*last: onnx.NodeProto) -> list[onnx.NodeProto]:
    make = helper.make_node
    return [
        make("Conv", ["images", "kernel", "bias"], ["first"], "stem", pads=[1, 1, 1, 1]),
        make("Relu", ["first"], ["relu"]),
        make("MaxPool", ["relu"], ["pooled"], kernel_shape=[2, 2], strides=[2, 2]),
        make("Conv", ["pooled", "kernel2"], ["second"], pads=[1, 1, 1, 1]),
        make("Relu", ["second"], ["maps"]),
        make("GlobalAveragePool", ["maps"], ["mean"]),
        make("Flatten", ["mean"], ["flat"]),
        make("Gemm", ["flat", "w", "b"], ["z" if last else "logits"], transB=1),
        *last,
    ]


def tensors(count: int = V) -> dict[str, np.ndarray]:
    shapes: dict[str, tuple[int, ...]] = {
        "kernel": (6, 3, 3, 3), "bias": (6,), "kernel2": (8, 6, 3, 3), "w": (count, 8),
        "b": (count,),
    }  # fmt: skip
    return {name: normal(*shape) for name, shape in shapes.items()}


def file_of(folder: Path, *last: onnx.NodeProto, count: int = V, **how: Any) -> Path:
    folder.mkdir(exist_ok=True)
    return written(folder, nodes(*last), tensors(count), **{"shape": ("N", 3, *SIZE)} | how)


def request_for(source: Path, **changes: Any) -> ImportRequest:
    values: dict[str, Any] = {
        "source": source, "architecture": None, "name": "brought", "model_version": "1",
        "output": None, "input_size": None, "preprocessing": RULE, "classes": None,
        "data_dir": None, "matches_by_order": False,
    }  # fmt: skip
    return ImportRequest(**values | changes)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return file_of(tmp_path_factory.mktemp("onnx"))


@pytest.fixture(scope="module")
def imported(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "brought"
    import_model(request_for(source), folder)
    return folder


def inputs(count: int = 3) -> torch.Tensor:
    return torch.rand(count, 3, *SIZE, generator=torch.Generator().manual_seed(1))


def normalized(images: torch.Tensor) -> torch.Tensor:
    mean, std = (torch.tensor(values)[None, :, None, None] for values in (RULE.mean, RULE.std))
    return (images - mean) / std


def test_folder_loads_without_the_file_and_without_onnx(
    source: Path, imported: Path, tmp_path: Path
) -> None:
    expected = read_onnx(source).module(normalized(inputs())).detach()
    np.save(tmp_path / "images.npy", inputs().numpy())
    np.save(tmp_path / "expected.npy", expected.numpy())
    program = f"""
import sys
sys.modules.update(onnx=None, onnxruntime=None, onnxscript=None)
import numpy, pathlib, torch
from candor.models.folder import load_model
model = load_model(pathlib.Path({str(imported)!r}))
images, expected = (torch.from_numpy(numpy.load({str(tmp_path)!r} + "/" + name + ".npy"))
                    for name in ("images", "expected"))
assert torch.allclose(model.network(images), expected, atol=1e-5)
assert model.card.network.family == "onnx" and model.card.input.width == {SIZE[1]}
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


def test_card_names_the_file_and_what_it_measured(source: Path, imported: Path) -> None:
    card = load_model(imported).card
    assert (card.input.height, card.input.width, len(card.classes)) == (*SIZE, V)
    assert card.provenance is not None
    (file,) = card.provenance.files
    assert file.sha256 == hashlib.sha256(source.read_bytes()).hexdigest()
    assert card.acceptance is not None
    assert card.acceptance.gradient_error < 0.1


@pytest.mark.parametrize("is_told", [False, True])
def test_graph_changed_after_its_acceptance_is_refused(
    is_told: bool, imported: Path, tmp_path: Path
) -> None:
    for file in imported.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    content = (tmp_path / GRAPH_FILE).read_bytes()
    changed = content.replace(b'"Relu"', b'"Tanh"', 1)
    assert changed != content
    (tmp_path / GRAPH_FILE).write_bytes(changed)
    if is_told:  # the card names the new graph, but its own digest covers that
        text = (tmp_path / CARD_FILE).read_text()
        old, new = (hashlib.sha256(graph).hexdigest() for graph in (content, changed))
        (tmp_path / CARD_FILE).write_text(text.replace(old, new))
    with pytest.raises(ArtifactError, match="digest: weights|graph.json: SHA-256"):
        load_model(tmp_path)
    (tmp_path / GRAPH_FILE).unlink()
    with pytest.raises(ArtifactError, match="digest: weights|graph.json: missing"):
        load_model(tmp_path)


@pytest.fixture(scope="module")
def loaded(imported: Path) -> LoadedModel:
    return load_model(imported)


def test_archives_of_torchserve_hold_the_graph(imported: Path, tmp_path: Path) -> None:
    build_archives(imported.parent, tmp_path)
    graphs = sorted(tmp_path.glob(f"*/{GRAPH_FILE}"))
    assert [path.read_bytes() for path in graphs] == [(imported / GRAPH_FILE).read_bytes()] * len(
        ROLES
    )


def test_it_is_explained_and_compared_in_process(imported: Path, photo: Path) -> None:
    image = api.ImageInput(encoded=photo.read_bytes())
    target = api.ClassRef(index=3)
    with open_local(imported) as client:
        request = api.ExplainRequest(image=image, targets=(target,), rhos=(0.1,), steps=40)
        (explanation,) = client.explain(request).explanations
        compared = client.compare(api.CompareRequest(image=image, target=target, steps=20))
    assert explanation.confidence_after > explanation.confidence_before
    assert explanation.rmse <= 0.1
    assert {method.method.name for method in compared.methods} >= {"GRAD_CAM", "LIME"}


def test_grad_cam_uses_the_last_maps(loaded: LoadedModel) -> None:
    layer = loaded.network.get_submodule("network").get_submodule(loaded.network.feature_layer)
    assert (layer.kind, layer.outputs) == ("Relu", ["maps"])
    saliency = grad_cam(loaded.network, inputs(2), torch.tensor([0, 3]))
    assert saliency.shape == (2, *SIZE)
    assert float(saliency.std()) > 0


def test_it_is_exported_again(loaded: LoadedModel) -> None:
    model = OnnxModel(export_onnx(loaded), "again")
    expected = loaded.network(inputs()).detach().numpy()
    np.testing.assert_allclose(model.logits(inputs().numpy()), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.filterwarnings("ignore")  # of torch's compiler about its own parts
@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiled_it_gives_the_same_logits_and_gradients(backend: str, loaded: LoadedModel) -> None:
    compiled = torch.compile(loaded.network, fullgraph=True, backend=backend)
    found = []
    for network in (loaded.network, compiled):
        images = inputs().requires_grad_()
        logits = network(images)
        (slope,) = torch.autograd.grad(logits[:, 1].sum(), images)
        found.append((logits.detach(), slope))
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-5)


LAST = {
    "softmax": helper.make_node("Softmax", ["z"], ["logits"], axis=1),
    "sigmoid": helper.make_node("Sigmoid", ["z"], ["logits"]),
}


def test_a_softmax_at_the_end_is_cut_off(imported: Path, tmp_path: Path) -> None:
    import_model(request_for(file_of(tmp_path / "file", LAST["softmax"])), tmp_path / "out")
    logits = [load_model(folder).network(inputs()) for folder in (imported, tmp_path / "out")]
    torch.testing.assert_close(*logits)


def test_one_sigmoid_is_a_classifier_of_two(tmp_path: Path) -> None:
    path = file_of(tmp_path / "file", LAST["sigmoid"], count=1)
    card = import_model(request_for(path), tmp_path / "out")
    assert (card.output, card.network.class_count) == ("sigmoid", 2)
    logits = load_model(tmp_path / "out").network(inputs())
    z = read_onnx(path).module(normalized(inputs()))
    torch.testing.assert_close(logits, torch.cat([torch.zeros_like(z), z], 1))


@pytest.mark.parametrize(
    ("last", "count", "changes", "message"),
    [
        ("sigmoid", V, {}, "multi-label"),
        ("", 1, {}, "say --output sigmoid; regression is not supported"),
        ("softmax", V, {"output": "sigmoid"}, "output: expected softmax"),
        ("", V, {"preprocessing": None}, "mean, std: expected from options"),
        ("", V, {"input_size": (3, 24, 24)}, "expected size .24, 40., got .24, 24."),
        ("", V, {"input_size": (1, *SIZE)}, "input_size: expected .3, 24, 40., got .1, 24, 40."),
        ("", V, {"classes": ("a", "b")}, "classes: expected 5 names, got 2"),
        ("", V, {"output_name": "z"}, "output: expected one of .'logits'., got 'z'"),
    ],
)
def test_what_the_file_does_not_decide_is_asked_for(
    last: str, count: int, changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = file_of(tmp_path / "file", *([LAST[last]] if last else []), count=count)
    with pytest.raises(SourceError, match=message):
        import_model(request_for(path, **changes), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_open_size_and_several_outputs_are_named(tmp_path: Path) -> None:
    path = file_of(
        tmp_path / "file", helper.make_node("Neg", ["z"], ["logits"]),
        shape=("N", 3, "height", "width"), outputs=("z", "logits"),
    )  # fmt: skip
    with pytest.raises(SourceError, match="leaves height or width open"):
        import_model(request_for(path), tmp_path / "out")
    size = (3, 30, 50)
    with pytest.raises(SourceError, match="expected the name of one of .'z', 'logits'."):
        import_model(request_for(path, input_size=size), tmp_path / "out")
    card = import_model(request_for(path, input_size=size, output_name="logits"), tmp_path / "out")
    assert (card.input.height, card.input.width) == size[1:]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, None),
        ({"normalization": "network"}, Preprocessing(interpolation="bilinear")),
        (
            {"mean": RULE.mean, "std": RULE.std, "resize": "exact", "edge": (9, 9)},
            Preprocessing(
                interpolation="bilinear", normalization="candor", mean=RULE.mean, std=RULE.std,
                resize="exact", edge=(9, 9),
            ),
        ),
    ],
)  # fmt: skip
def test_preprocessing_of_options(given: dict[str, Any], expected: Preprocessing | None) -> None:
    assert preprocessing_of(**given) == expected


def test_who_normalises_is_never_guessed() -> None:
    with pytest.raises(ValueError, match="normalization: expected --mean and --std"):
        preprocessing_of(resize="cover")


def _infinite(model: onnx.ModelProto) -> None:
    array = numpy_helper.to_array(model.graph.initializer[0]).copy()
    array[0] = np.nan
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(array, "kernel"))


def _quantised(model: onnx.ModelProto) -> None:
    model.graph.node[1].op_type, model.graph.node[1].name = "DequantizeLinear", "scale_back"


def _unknown(model: onnx.ModelProto) -> None:
    model.graph.node[1].op_type, model.graph.node[1].domain = "Secret", "org.example"


def _outside(model: onnx.ModelProto) -> None:
    weight = model.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="../graph.onnx")


def _probabilities(model: onnx.ModelProto) -> None:
    """A softmax in parts, which nobody can cut off."""
    make = helper.make_node
    model.graph.node[-1].output[0] = "z"
    sums = numpy_helper.from_array(np.array([1]), "axis")
    model.graph.initializer.append(sums)
    model.graph.node.extend(
        [
            make("ReduceMax", ["z"], ["largest"], axes=[1]),
            make("Sub", ["z", "largest"], ["low"]),
            make("Exp", ["low"], ["powers"]),
            make("ReduceSum", ["powers", "axis"], ["total"]),
            make("Div", ["powers", "total"], ["logits"]),
        ]
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_infinite, "weight 'kernel': expected numbers, got 27 NaN"),
        (_quantised, "node 'scale_back': operator DequantizeLinear .* is not supported"),
        (_unknown, "node 'Secret_1': operator org.example.Secret .* is not supported"),
        (_outside, "location: expected a relative path inside the model's folder"),
        (_probabilities, "expected logits, got probabilities"),
    ],
)
def test_what_must_be_refused(change: Any, message: str, tmp_path: Path) -> None:
    path = file_of(tmp_path / "file")
    model = onnx.load(str(path))
    change(model)
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ValueError, match=message):
        import_model(request_for(path), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_command(source: Path, tmp_path: Path) -> None:
    options = ["--accept-without-data", "--normalization", "network", "--json"]
    words = ["import", str(source), "--out", str(tmp_path / "mine"), *options]
    result = CliRunner().invoke(build_app(), words)
    assert result.exit_code == 0, result.output
    card = ModelCard.model_validate(json.loads(result.stdout))
    assert (card.network.family, card.preprocessing.normalization) == ("onnx", "network")
    assert load_model(tmp_path / "mine").card == card
