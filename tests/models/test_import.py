"""Networks of other libraries: imported, tested, loaded again, and refused."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from candor.audit.acceptance import LEAST_IMAGES, NotAccepted, accept, meaning_of
from candor.audit.importing import ImportRequest, import_model
from candor.contracts.card import Preprocessing
from candor.models.folder import ArtifactError, load_model
from candor.models.sources import SourceError
from candor.nets.robust import build_robust

RULE = Preprocessing(
    interpolation="bilinear", normalization="candor", mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.2)
)


@pytest.fixture(scope="module", autouse=True)
def _torchvision_without_its_compiled_part() -> None:
    """A local build of torch does not load it; its two operators are not used here."""
    try:
        import torchvision  # noqa: F401
    except ImportError:
        return
    except RuntimeError:
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        globals()["_KEPT"] = library


def request_for(source: Path, **changes: Any) -> ImportRequest:
    values: dict[str, Any] = {
        "source": source,
        "architecture": None,
        "name": "brought",
        "model_version": "1",
        "output": "softmax",
        "input_size": (3, 32, 32),
        "preprocessing": RULE,
        "classes": None,
        "data_dir": None,
        "matches_by_order": False,
    }
    return ImportRequest(**values | changes)


def normalized(images: torch.Tensor) -> torch.Tensor:
    mean, std = (torch.tensor(values)[None, :, None, None] for values in (RULE.mean, RULE.std))
    return (images - mean) / std


def check_imported(folder: Path, network: torch.nn.Module, size: int = 32) -> None:
    loaded = load_model(folder)
    images = torch.rand(2, 3, size, size)
    with torch.no_grad():
        outputs = network.eval()(normalized(images))
    expected = getattr(outputs, "logits", outputs)
    assert torch.allclose(loaded.network(images), expected, atol=1e-4)
    assert loaded.card.is_accepted_without_data


@pytest.fixture
def robust_file(tmp_path: Path) -> tuple[Path, torch.nn.Module]:
    torch.manual_seed(0)
    network = build_robust("wrn-16-1", 10)
    path = tmp_path / "net.pt"
    torch.save({"state_dict": {f"module.{k}": v for k, v in network.state_dict().items()}}, path)
    return path, network


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
    tmp_path: Path, robust_file: tuple[Path, torch.nn.Module], changes: dict[str, Any]
) -> None:
    folder, card_file = tmp_path / "brought", tmp_path / "brought" / "card.json"
    import_model(request_for(robust_file[0], architecture="robust/wrn-16-1"), folder)
    card = json.loads(card_file.read_text())
    for name, value in changes.items():
        card[name] = card[name] | value if isinstance(value, dict) else value
    card_file.write_text(json.dumps(card))
    with pytest.raises(ArtifactError, match="digest: weights, preprocessing|output: expected 2"):
        load_model(folder)


def test_robustbench_layout(tmp_path: Path, robust_file: tuple[Path, torch.nn.Module]) -> None:
    path, network = robust_file
    card = import_model(request_for(path, architecture="robust/wrn-16-1"), tmp_path / "out")
    check_imported(tmp_path / "out", network)
    assert card.provenance is not None
    assert card.provenance.files[0].byte_count == path.stat().st_size


def test_madrylab_layout(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = build_robust("resnet18", 10)
    names = network.state_dict().items()
    model = {f"module.model.{k}": v for k, v in names}
    model |= {f"module.attacker.model.{k}": v for k, v in names}
    model |= {
        "module.normalizer.new_mean": torch.zeros(3),
        "module.normalizer.new_std": torch.ones(3),
    }
    path = tmp_path / "cifar.ckpt"
    torch.save({"model": model, "epoch": 1}, path)
    import_model(request_for(path, architecture="robust/resnet18"), tmp_path / "out")
    check_imported(tmp_path / "out", network)


@pytest.mark.parametrize("name", ["resnet50", "squeezenet1_1"])
def test_torchvision_weights(tmp_path: Path, name: str) -> None:
    models = pytest.importorskip("torchvision").models
    network = models.get_model(name, num_classes=5)
    path = tmp_path / "weights.pth"
    torch.save(network.state_dict(), path)
    request = request_for(path, architecture=f"torchvision/{name}")
    import_model(request, tmp_path / "out")
    check_imported(tmp_path / "out", network)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "convnext_atto"])
def test_timm_folder(tmp_path: Path, name: str) -> None:
    timm = pytest.importorskip("timm")
    arguments = {"img_size": 32, "depth": 2} if name.startswith("vit") else {}
    network = timm.create_model(name, num_classes=4, **arguments)
    folder = tmp_path / "timm"
    folder.mkdir()
    cfg = {"input_size": [3, 32, 32], "mean": RULE.mean, "std": RULE.std, "crop_pct": 0.9}
    cfg |= {"interpolation": "bicubic", "label_names": ["a", "b", "c", "d"]}
    config = {"architecture": name, "num_classes": 4, "model_args": arguments}
    (folder / "config.json").write_text(json.dumps(config | {"pretrained_cfg": cfg}))
    safetensors.torch.save_file(network.state_dict(), folder / "model.safetensors")
    request = request_for(folder, preprocessing=None, input_size=None)
    card = import_model(request, tmp_path / "out")
    check_imported(tmp_path / "out", network)
    assert card.classes == ("a", "b", "c", "d")
    assert card.preprocessing.edge == (35,)


def test_transformers_folder(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        image_size=32, patch_size=8, num_labels=3, id2label={0: "x", 1: "y", 2: "z"},
    )  # fmt: skip
    network = transformers.ViTForImageClassification(config)
    folder = tmp_path / "hf"
    network.save_pretrained(folder)
    processor = {"size": {"height": 32, "width": 32}, "resample": 2}
    processor |= {"image_mean": RULE.mean, "image_std": RULE.std, "do_normalize": True}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    card = import_model(request_for(folder, preprocessing=None, input_size=None), tmp_path / "out")
    check_imported(tmp_path / "out", network)
    assert card.classes == ("x", "y", "z")


def test_weights_of_another_architecture_are_named(
    tmp_path: Path, robust_file: tuple[Path, torch.nn.Module]
) -> None:
    request = request_for(robust_file[0], architecture="robust/preact-resnet18")
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


@pytest.mark.parametrize("suffix", [".pt2", ".keras", ".pkl", ".onnx"])
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


def test_probabilities_are_noticed() -> None:
    network = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(192, 3), torch.nn.Softmax(1)
    ).eval()
    with pytest.raises(NotAccepted, match="without its last softmax"):
        accept(network, torch.rand(8, 3, 8, 8), torch.zeros(0, dtype=torch.int64), "")


def test_meaning_follows_the_radius() -> None:
    assert "noise" in meaning_of(0.002)
    assert "structures" in meaning_of(0.05)


def test_labelled_images_decide(
    tmp_path: Path, robust_file: tuple[Path, torch.nn.Module], rng: np.random.Generator
) -> None:
    """Folders named by index; labels that the network never predicts are no better than chance."""
    for label in (0, 1):
        (tmp_path / "data" / str(label)).mkdir(parents=True)
    for index in range(LEAST_IMAGES):
        pixels = rng.integers(0, 256, (32, 32, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "data" / str(index % 2) / f"{index}.png")
    request = request_for(
        robust_file[0], architecture="robust/wrn-16-1", data_dir=tmp_path / "data",
        classes=tuple(f"class {index}" for index in range(10)),
    )  # fmt: skip
    try:
        card = import_model(request, tmp_path / "out")
    except NotAccepted as err:
        assert "better than chance" in str(err)  # noqa: PT017
    else:
        assert card.metrics[0].image_count == LEAST_IMAGES
        assert not card.is_accepted_without_data


def test_card_without_acceptance_is_not_loaded(
    tmp_path: Path, robust_file: tuple[Path, torch.nn.Module]
) -> None:
    import_model(request_for(robust_file[0], architecture="robust/wrn-16-1"), tmp_path / "out")
    path = tmp_path / "out" / "card.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"acceptance": None}))
    with pytest.raises(ArtifactError, match="acceptance"):
        load_model(tmp_path / "out")
