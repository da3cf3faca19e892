"""Networks of other libraries: imported, tested, loaded again, and refused."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import safetensors.torch
import torch
from PIL import Image

from candor.audit.importing import import_model
from candor.contracts import api
from candor.contracts.card import ModelCard
from candor.data.cifar10 import CLASS_NAMES
from candor.images.view import InputView
from candor.models.families.released import read_released
from candor.models.folder import ArtifactError, bare_network, load_model
from candor.models.processor import of_processor
from candor.models.sources import SourceError
from candor.nets.robust import build_robust
from candor.robustness.acceptance import LEAST_IMAGES, NotAccepted
from candor.stack.in_process import open_local
from tests.fixtures import brought
from tests.fixtures.brought import request_for


class Brought(NamedTuple):
    """Where a model's files are, how it is imported, and the network of the library itself."""

    source: Path
    options: dict[str, Any]
    network: torch.nn.Module


SAYS_ALL = {"preprocessing": None, "input_size": None}


def of_timm(name: str, **arguments: Any) -> Callable[[Path], Brought]:
    def write(folder: Path) -> Brought:
        network = brought.timm_folder(folder / "timm", name, classes=NAMES, **arguments)
        return Brought(folder / "timm", SAYS_ALL, network)

    return write


def of_transformers(folder: Path) -> Brought:
    return Brought(folder / "hf", SAYS_ALL, brought.transformers_folder(folder / "hf"))


def of_robust(name: str, wrap: Callable[[dict[str, torch.Tensor]], Any]) -> Any:
    def write(folder: Path) -> Brought:
        path = folder / "net.pt"
        network = brought.robust_file(path, name, wrap=wrap)
        # Smaller than they were trained on: they average over places, and cost 16 times less.
        options = {"architecture": f"robust/{name}", "input_size": (3, 8, 8)}
        return Brought(path, options, network)

    return write


def of_torchvision(name: str) -> Callable[[Path], Brought]:
    def write(folder: Path) -> Brought:
        network = brought.torchvision_file(folder / "weights.pth", name)
        return Brought(folder / "weights.pth", {"architecture": f"torchvision/{name}"}, network)

    return write


NAMES = ("a", "b", "c", "d")
FAMILIES: dict[str, Callable[[Path], Brought]] = {
    "timm ViT": of_timm("vit_tiny_patch16_224", img_size=32, depth=2),
    "timm ConvNeXt": of_timm("convnext_atto", depths=(1, 1, 1, 1), dims=(8, 8, 8, 8)),
    "transformers ViT": of_transformers,
    "RobustBench WRN": of_robust("wrn-16-1", brought.robustbench),
    "RobustBench PreAct": of_robust("preact-resnet18", brought.robustbench),
    "MadryLab ResNet": of_robust("resnet18", brought.madrylab),
    "torchvision ResNet": of_torchvision("resnet50"),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_network_of_a_library_is_imported_and_explained(tmp_path: Path, family: str) -> None:
    source, options, network = FAMILIES[family](tmp_path)
    card = import_model(request_for(source, **options), tmp_path / "out")
    loaded = load_model(tmp_path / "out")
    assert loaded.card == card
    assert card.is_accepted_without_data
    assert card.provenance is not None
    named = source if source.is_file() else source / "model.safetensors"
    sizes = {file.name: file.byte_count for file in card.provenance.files}
    assert sizes[named.name] == named.stat().st_size

    images = torch.rand(2, *InputView.of(card).shape)
    with torch.no_grad():
        outputs = network(brought.normalised(images))
    expected = getattr(outputs, "logits", outputs)
    assert torch.allclose(loaded.network(images), expected, atol=1e-4)

    pixels = images[0].numpy()
    request = api.ExplainRequest.model_validate(
        {
            "image": {"tensor": {"shape": pixels.shape, "data": pixels.tobytes()}},
            "targets": [{"index": 1}],
            "rhos": [0.05],
            "steps": 3,
        }
    )
    with open_local(tmp_path / "out") as client:
        (explanation,) = client.explain(request).explanations
    assert explanation.target.name == card.classes[1]
    assert 0 < explanation.rmse <= 0.05
    assert explanation.confidence_after > explanation.confidence_before


def test_files_say_names_and_preprocessing(tmp_path: Path) -> None:
    of_transformers(tmp_path)
    card = import_model(request_for(tmp_path / "hf", **SAYS_ALL), tmp_path / "out")
    assert card.classes == ("x", "y", "z")
    assert (card.preprocessing.mean, card.preprocessing.std) == (brought.MEAN, brought.STD)
    of_timm("test_resnet")(tmp_path)
    card = import_model(request_for(tmp_path / "timm", **SAYS_ALL), tmp_path / "other")
    assert card.classes == NAMES
    assert card.preprocessing.edge == (brought.EDGE,)


def test_one_output_is_the_softmax_over_nothing_and_it(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    network = brought.robust_file(path, "wrn-16-1", wrap=lambda weights: weights, class_count=1)
    request = request_for(path, architecture="robust/wrn-16-1", output="sigmoid")
    card = import_model(request, tmp_path / "out")
    assert card.classes == ("0", "1")
    images = torch.rand(2, 3, 32, 32)
    shares = load_model(tmp_path / "out").network(images).softmax(1)[:, 1]
    assert torch.allclose(shares, network(brought.normalised(images))[:, 0].sigmoid(), atol=1e-5)
    with pytest.raises(SourceError, match=r"fc.bias: \(2,\) is \(1,\)"):
        import_model(request_for(path, architecture="robust/wrn-16-1"), tmp_path / "other")


def test_checkpoint_of_the_papers_authors_says_what_it_is(
    tmp_path: Path, reference_dir: Path
) -> None:
    path = reference_dir / "resnet44-all.pt"
    card = import_model(request_for(path, **SAYS_ALL), tmp_path / "out")
    assert (card.network.family, card.network.architecture) == ("candor", "cifar-resnet44")
    assert card.recipe["training_options"]["l2_min"]
    assert card.classes == CLASS_NAMES
    assert card.acceptance is not None
    loaded = load_model(tmp_path / "out")
    assert loaded.card == card
    weights = read_released(path).state_dict
    assert all(torch.equal(loaded.network.state_dict()[name], weights[name]) for name in weights)
    with pytest.raises(SourceError, match="expected none for a file that says both"):
        import_model(request_for(path), tmp_path / "other")


@pytest.fixture
def robust_file(tmp_path: Path) -> Path:
    path = tmp_path / "net.pt"
    brought.robust_file(path, "wrn-16-1", wrap=brought.robustbench)
    return path


@pytest.mark.parametrize(
    "changes",
    [
        {"classes": [str(index) for index in reversed(range(10))]},
        {"output": "sigmoid"},
        {"preprocessing": {"interpolation": "bicubic"}},
        {"network": {"architecture": "resnet18"}},
    ],
)
def test_card_changed_after_its_acceptance_is_refused(
    tmp_path: Path, robust_file: Path, changes: dict[str, Any]
) -> None:
    folder, card_file = tmp_path / "brought", tmp_path / "brought" / "card.json"
    import_model(request_for(robust_file, architecture="robust/wrn-16-1"), folder)
    card = json.loads(card_file.read_text())
    for name, value in changes.items():
        card[name] = card[name] | value if isinstance(value, dict) else value
    card_file.write_text(json.dumps(card))
    with pytest.raises(ArtifactError, match="digest: weights, preprocessing|output: expected 2"):
        load_model(folder)


def test_weights_of_another_architecture_are_named(tmp_path: Path, robust_file: Path) -> None:
    request = request_for(robust_file, architecture="robust/preact-resnet18")
    with pytest.raises(SourceError, match=r"missing \(.*unexpected \(.*other shapes \("):
        import_model(request, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_nan_weights_are_refused(tmp_path: Path) -> None:
    weights = build_robust("wrn-16-1", 10).state_dict()
    weights["fc.bias"][3] = float("nan")
    path = tmp_path / "net.safetensors"
    safetensors.torch.save_file(weights, path)
    with pytest.raises(SourceError, match=r"fc\.bias: expected finite"):
        import_model(request_for(path, architecture="robust/wrn-16-1"), tmp_path / "out")


class _Runs:
    def __reduce__(self) -> Any:
        return (print, ("executed",))


@pytest.mark.parametrize("suffix", [".pt2", ".keras", ".pkl"])
def test_formats_that_hold_code_are_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"net{suffix}"
    path.write_bytes(b"anything")
    with pytest.raises(SourceError, match="refused|cannot be imported"):
        import_model(request_for(path, architecture="robust/resnet18"), tmp_path / "out")


@pytest.mark.parametrize("is_zip", [True, False])
def test_pickle_that_would_run_code_is_refused(
    tmp_path: Path, is_zip: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "net.pth"
    if is_zip:
        torch.save(_Runs(), path)
    else:
        path.write_bytes(pickle.dumps(_Runs()))
    with pytest.raises(SourceError, match="save_file"):
        import_model(request_for(path, architecture="robust/resnet18"), tmp_path / "out")
    assert "executed" not in capsys.readouterr().out


def decided(
    tmp_path: Path, source: Path, images: list[Image.Image], labels: list[int]
) -> ModelCard:
    data = brought.write_labelled(tmp_path / "data", images, labels)
    request = request_for(
        source, preprocessing=None, input_size=None, data="folder", data_dir=data, image_count=120
    )
    return import_model(request, tmp_path / "out")


def test_weights_of_a_folder_may_be_a_checkpoint_that_runs_no_code(tmp_path: Path) -> None:
    source = tmp_path / "timm"
    network = brought.timm_folder(source, "test_resnet", classes=NAMES)
    (source / "model.safetensors").unlink()
    torch.save(network.state_dict(), source / "pytorch_model.bin")
    request = request_for(source, preprocessing=None, input_size=None)
    import_model(request, tmp_path / "out")
    loaded = bare_network(load_model(tmp_path / "out").network).state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in network.state_dict().items())
    torch.save(network, source / "pytorch_model.bin")
    with pytest.raises(SourceError, match="where it holds a whole module"):
        import_model(request, tmp_path / "other")


def test_labelled_images_decide(tmp_path: Path) -> None:
    """The labels are what the network says by its library's own preprocessing, then others."""
    source, classes = tmp_path / "timm", tuple(f"class {index}" for index in range(10))
    network = brought.timm_folder(source, "test_resnet", classes=classes)
    images = brought.photographs(LEAST_IMAGES + 10, size=(70, 41))
    labels = brought.labelled_by(network, images)
    card = decided(tmp_path / "right", source, images, labels)
    accuracy, *_ = card.metrics
    assert (accuracy.value, accuracy.image_count) == (1.0, len(images))
    assert not card.is_accepted_without_data
    assert load_model(tmp_path / "right" / "out").card == card

    wrong = [(label + 1) % 10 for label in labels]
    with pytest.raises(NotAccepted, match="accuracy: expected better than chance"):
        decided(tmp_path / "wrong", source, images, wrong)
    assert not (tmp_path / "wrong" / "out").exists()
    with pytest.raises(NotAccepted, match="expected at least 100 labelled images, got 99"):
        decided(tmp_path / "few", source, images[:99], labels[:99])


def test_card_without_acceptance_is_not_loaded(tmp_path: Path, robust_file: Path) -> None:
    import_model(request_for(robust_file, architecture="robust/wrn-16-1"), tmp_path / "out")
    path = tmp_path / "out" / "card.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"acceptance": None}))
    with pytest.raises(ArtifactError, match="acceptance"):
        load_model(tmp_path / "out")


NORMAL = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.4, 0.2], "resample": 3}


@pytest.mark.parametrize(
    ("given", "resize", "edge", "shape"),
    [
        ({"size": {"height": 32, "width": 32}}, "exact", (32, 32), (32, 32)),
        ({"size": 32}, "exact", (32, 32), (32, 32)),
        (
            {"size": {"shortest_edge": 40}, "do_center_crop": True, "crop_size": 32},
            "shorter-edge",
            (40,),
            (32, 32),
        ),
        ({"size": {"shortest_edge": 224}, "crop_pct": 0.875}, "shorter-edge", (256,), (224, 224)),
        ({"size": {"shortest_edge": 384}, "crop_pct": 0.875}, "exact", (384, 384), (384, 384)),
    ],
)
def test_processors_of_transformers_are_understood(
    given: dict[str, Any], resize: str, edge: tuple[int, ...], shape: tuple[int, int]
) -> None:
    found, rule = of_processor(given | NORMAL)
    assert found == shape
    assert (rule.resize, rule.edge, rule.interpolation) == (resize, edge, "bicubic")
    assert (rule.mean, rule.std) == ((0.5, 0.5, 0.5), (0.5, 0.4, 0.2))
    turned = of_processor(given | NORMAL | {"do_flip_channel_order": True})[1]
    assert turned.channel_order == "bgr"
    twice = of_processor(given | NORMAL | {"include_top": True})[1]
    assert twice.std == pytest.approx((0.25, 0.16, 0.04))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"size": {"shortest_edge": 40}}, "do_center_crop: expected true"),
        ({"size": {"longest_edge": 40}}, "size: expected height and width"),
        ({"size": 32, "rescale_factor": 1.0}, "rescale_factor"),
        ({"size": 32, "rescale_offset": True}, "rescale_offset: expected false"),
        ({"size": 32, "do_resize": False}, "do_resize"),
    ],
)
def test_processors_that_no_card_can_say_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        of_processor(given | NORMAL)
