"""Whole classifiers: exported as users do, imported, and compared with the network they were."""

import copy
import logging
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from candor.onnx_import.limits import OnnxImportError
from candor.onnx_import.network import OnnxNetwork, build_onnx
from candor.onnx_import.reader import read_onnx

SIZE = (3, 24, 32)  # not square
V = 5


class Convolutions(nn.Module):
    """As EfficientNet and MobileNet: depthwise, squeeze and excitation, several activations."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.SiLU()
        )
        self.depthwise = nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1, groups=8), nn.Hardswish())
        self.squeeze = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(8, 4, 1),
            nn.ReLU6(),
            nn.Conv2d(4, 8, 1),
            nn.Hardsigmoid(),
        )
        self.pool = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.norm = nn.GroupNorm(2, 8)
        self.head = nn.Linear(8, V)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.depthwise(self.stem((images - 0.45) / 0.22))
        maps = self.norm(self.pool(maps * self.squeeze(maps)))
        return self.head(torch.nn.functional.gelu(maps).mean((2, 3)))


class Transformer(nn.Module):
    """As ViT: patches, a class token, position embedding, attention."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 8, 8)
        self.token = nn.Parameter(torch.randn(1, 1, 16))
        self.places = nn.Parameter(torch.randn(1, 13, 16))
        self.norm, self.mixed = nn.LayerNorm(16), nn.Linear(16, 48)
        self.out, self.head = nn.Linear(16, 16), nn.Linear(16, V)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.patches(images).flatten(2).transpose(1, 2)
        batch = tokens.shape[0]
        tokens = torch.cat([self.token.expand(batch, -1, -1), tokens], 1) + self.places
        mixed = self.mixed(self.norm(tokens)).reshape(batch, 13, 3, 2, 8).permute(2, 0, 3, 1, 4)
        queries, keys, values = mixed.unbind(0)
        weights = (queries @ keys.transpose(-2, -1) * 8**-0.5).softmax(-1)
        mixed = (weights @ values).transpose(1, 2).reshape(batch, 13, 16)
        return self.head((tokens + self.out(mixed))[:, 0])


class Windows(nn.Module):
    """As Swin: windows are merged into the axis of the batch, and taken out of it again."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.mixed = nn.Conv2d(3, 8, 2, 2), nn.Linear(8, 8)
        self.head = nn.Linear(8, V)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.patches(images).permute(0, 2, 3, 1)
        batch, height, width, depth = maps.shape
        parts = maps.reshape(batch, height // 4, 4, width // 4, 4, depth).permute(0, 1, 3, 2, 4, 5)
        parts = parts.reshape(-1, 16, depth)
        parts = self.mixed(parts).softmax(1) * parts
        parts = parts.reshape(batch, height // 4, width // 4, 4, 4, depth).permute(0, 1, 3, 2, 4, 5)
        return self.head(parts.reshape(batch, height, width, depth).mean((1, 2)))


class TokensFirst(nn.Module):
    """As torch's MultiheadAttention: tokens before images, so the batch lies inside."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 8, 8)
        self.attention = nn.MultiheadAttention(16, 2)
        self.head = nn.Linear(16, V)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.patches(images).flatten(2).permute(2, 0, 1)
        return self.head(self.attention(tokens, tokens, tokens, need_weights=True)[0].mean(0))


NETWORKS = {kind.__name__: kind for kind in (Convolutions, Transformer, Windows, TokensFirst)}
EXPORTS = {
    "opset 13, batch of 1": {"opset_version": 13, "dynamo": False},
    "opset 17, any batch": {"opset_version": 17, "dynamo": False, "dynamic_axes": {"images": [0]}},
    "opset 18, batch of 1": {"opset_version": 18, "dynamo": True},
    "opset 20, any batch": {
        "opset_version": 20,
        "dynamo": True,
        "dynamic_shapes": ({0: torch.export.Dim("batch")},),
    },
}


def exported(folder: Path, network: nn.Module, **how: object) -> Path:
    path = folder / "network.onnx"
    count = 2 if "dynamic_shapes" in how else 1
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        names = {"input_names": ["images"], "output_names": ["logits"]}
        torch.onnx.export(
            network, (torch.rand(count, *SIZE),), str(path), verbose=False, **names, **how
        )
    return path


def made(kind: str) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        network = NETWORKS[kind]().eval()
        for norm in filter(lambda module: isinstance(module, nn.BatchNorm2d), network.modules()):
            norm.running_mean.normal_(0, 0.3)
            norm.running_var.uniform_(0.5, 2)
    return network


def gradient(network: nn.Module, images: Tensor) -> Tensor:
    images = images.clone().requires_grad_()
    (slope,) = torch.autograd.grad(network(images)[:, 1].sum(), images)
    return slope.double().flatten()


@pytest.fixture
def images_here(generator: torch.Generator) -> Tensor:
    return torch.rand(3, *SIZE, generator=generator)


@pytest.mark.parametrize("how", EXPORTS)
@pytest.mark.parametrize("kind", NETWORKS)
def test_logits_and_gradients_are_those_of_the_exported_network(
    kind: str, how: str, tmp_path: Path, images_here: Tensor
) -> None:
    """For three images, whatever batch the exporter knew; and the same after a state dict."""
    network = made(kind)
    path = exported(tmp_path, network, **EXPORTS[how])
    imported = read_onnx(path)
    assert (imported.input_shape, imported.classes) == (SIZE, V)
    assert imported.module.chunk is None
    expected, logits = network(images_here), imported.module(images_here)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
    session = onnxruntime.InferenceSession(str(path))
    (again,) = session.run(None, {"images": images_here[:1].numpy()})
    np.testing.assert_allclose(logits[:1].detach(), again, rtol=1e-4, atol=1e-5)
    slopes = gradient(network, images_here), gradient(imported.module, images_here)
    assert torch.cosine_similarity(*slopes, dim=0) >= 0.9999
    assert torch.equal(restored(imported).module(images_here), logits)


def restored(imported: OnnxNetwork) -> OnnxNetwork:
    """From the graph and a file of weights alone."""
    weights = safetensors.torch.save(imported.module.state_dict())
    network = build_onnx(imported.graph)
    network.module.load_state_dict(safetensors.torch.load(weights), strict=True)
    return network


def test_module_is_copied_fine_tuned_and_differentiated_twice(
    tmp_path: Path, images_here: Tensor
) -> None:
    imported = read_onnx(exported(tmp_path, made("Convolutions"), opset_version=17, dynamo=False))
    tuned = copy.deepcopy(imported.module)
    points = images_here.clone().requires_grad_()
    logits = tuned(points)
    (slope,) = torch.autograd.grad(logits[:, 0].sum(), points, create_graph=True)
    (logits.square().mean() + slope.square().sum()).backward()
    assert all(weight.grad is not None for weight in tuned.parameters())
    torch.optim.SGD(tuned.parameters(), 0.1).step()
    assert not torch.allclose(tuned(images_here), imported.module(images_here))
    kept = build_onnx(imported.graph)
    kept.module.load_state_dict(tuned.state_dict(), strict=True)
    assert torch.equal(kept.module(images_here), tuned(images_here))


def test_preprocessing_inside_the_graph_is_not_fine_tuned(tmp_path: Path) -> None:
    class Normalised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mean", torch.tensor([0.4, 0.5, 0.6]).view(1, 3, 1, 1))
            self.network = made("Windows")

        def forward(self, images: Tensor) -> Tensor:
            return self.network(images - self.mean)

    module = read_onnx(exported(tmp_path, Normalised(), opset_version=17, dynamo=False)).module
    fixed = [buffer for buffer in module.buffers() if buffer.numel() == 3]
    assert len(fixed) == 1
    assert all(weight.numel() != 3 for weight in module.parameters())


def test_maps_for_grad_cam_are_found_where_there_are_any(
    tmp_path: Path, images_here: Tensor
) -> None:
    network = read_onnx(exported(tmp_path, made("Convolutions"), opset_version=17, dynamo=False))
    seen = []
    assert network.cam_layer is not None
    layer = network.module.get_submodule(network.cam_layer)
    layer.register_forward_hook(lambda _, inputs, output: seen.append(output.shape))
    network.module(images_here)
    assert [tuple(shape[:2]) for shape in seen] == [(3, 8)]
    assert seen[0][2] * seen[0][3] > 1
    folder = tmp_path / "vit"
    folder.mkdir()
    vit = read_onnx(exported(folder, made("Transformer"), opset_version=17, dynamo=False))
    assert vit.cam_layer is None


@pytest.mark.parametrize(("last", "word"), [(nn.Softmax(-1), "softmax"), (nn.Sigmoid(), "sigmoid")])
def test_a_last_activation_is_cut_off(
    last: nn.Module, word: str, tmp_path: Path, images_here: Tensor
) -> None:
    network = made("Windows")
    path = exported(tmp_path, nn.Sequential(network, last), opset_version=17, dynamo=False)
    imported = read_onnx(path)
    assert imported.output_activation == word
    torch.testing.assert_close(imported.module(images_here), network(images_here))


def test_channels_last_as_keras_writes_them(tmp_path: Path, images_here: Tensor) -> None:
    class Turned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = made("Windows")

        def forward(self, images: Tensor) -> Tensor:
            return self.network(images.permute(0, 3, 1, 2))

    network, path = Turned(), tmp_path / "keras.onnx"
    example = images_here[:1].permute(0, 2, 3, 1).contiguous()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(network, (example,), str(path), opset_version=17, dynamo=False)
    imported = read_onnx(path)
    assert imported.input_shape == SIZE
    expected = network.network(images_here)
    torch.testing.assert_close(imported.module(images_here), expected, rtol=1e-4, atol=1e-5)


def _changed(path: Path, change) -> Path:
    model = onnx.load(str(path))
    change(model)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return exported(tmp_path, made("Windows"), opset_version=17, dynamo=False)


def _nan(model: onnx.ModelProto) -> None:
    weight = next(w for w in model.graph.initializer if len(w.dims) == 4)
    array = onnx.numpy_helper.to_array(weight).copy()
    array[0] = np.nan
    weight.CopyFrom(onnx.numpy_helper.from_array(array, weight.name))


def _quantised(model: onnx.ModelProto) -> None:
    model.graph.node[0].op_type, model.graph.node[0].name = "QLinearConv", "first"


def _opset(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 8


def _bomb(model: onnx.ModelProto) -> None:
    shape = onnx.numpy_helper.from_array(np.array([1 << 20, 1 << 20]), "huge")
    model.graph.initializer.append(shape)
    make, first = onnx.helper.make_node, model.graph.node[0]
    added = make("Add", [first.input[0], "a"], ["b"], "sum")
    first.input[0] = "b"
    model.graph.node.insert(0, added)
    model.graph.node.insert(0, make("ConstantOfShape", ["huge"], ["a"], "bomb"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_nan, "expected numbers, got .* NaN"),
        (_quantised, "node 'first': operator QLinearConv .* is not supported"),
        (_opset, "opset: expected 9 to 22, got 8"),
        (_bomb, "'bomb' .* is too large"),
    ],
)
def test_what_cannot_be_imported_is_named(change, message: str, path: Path) -> None:
    with pytest.raises(OnnxImportError, match=message):
        read_onnx(_changed(path, change))


@pytest.mark.parametrize(
    "location", ["../weights.bin", "/etc/passwd", "link.bin", "sub/../../x", "C:\\x", "", "absent"]
)
def test_external_data_that_leaves_the_folder_is_refused(location: str, path: Path) -> None:
    (path.parent / "link.bin").symlink_to("/etc/passwd")
    (path.parent.parent / "weights.bin").write_bytes(bytes(1 << 16))

    def move(model: onnx.ModelProto) -> None:
        weight = next(w for w in model.graph.initializer if len(w.dims) == 4)
        weight.ClearField("raw_data")
        weight.data_location = onnx.TensorProto.EXTERNAL
        weight.external_data.add(key="location", value=location)

    with pytest.raises(OnnxImportError, match="location: expected"):
        read_onnx(_changed(path, move))


def test_external_data_inside_the_folder_is_read(path: Path, images_here: Tensor) -> None:
    expected = read_onnx(path).module(images_here)
    model = onnx.load(str(path))
    onnx.save(model, str(path), save_as_external_data=True, location="w.bin", size_threshold=0)
    assert torch.equal(read_onnx(path).module(images_here), expected)


def test_what_is_no_onnx_file_is_refused(tmp_path: Path) -> None:
    for name, content in (("text", b"not a model" * 9), ("empty", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(OnnxImportError, match="expected an ONNX"):
            read_onnx(tmp_path / name)
    with pytest.raises(OnnxImportError, match="cannot be read"):
        read_onnx(tmp_path / "absent.onnx")
