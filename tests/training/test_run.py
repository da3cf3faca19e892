"""A run from its configuration to its folder: the weights that are stored, the precision kept."""

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch

from candor.models.folder import WEIGHTS_FILE, load_model
from tests.training.tiny import colours, new_network
from training.config import TrainConfig
from training.engine import Precision
from training.run import RunTarget, run_experiment
from training.stored import WeightsDtype, rounded_weights


def run(folder, report=lambda progress: None, **changes):
    config = TrainConfig(architecture="cifar-resnet20", batch_size=16, psi_mode="fixed", **changes)
    target = RunTarget(
        experiment="tiny", run_dir=folder, folder=folder / "model", name="tiny", note=""
    )
    return run_experiment(config, colours(), colours(), target, report)


def test_matrices_and_kernels_are_halves_and_vectors_are_not():
    network = new_network()
    exact = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    stored = rounded_weights(network, WeightsDtype.FLOAT16)
    assert stored.keys() == exact.keys()
    for name, tensor in stored.items():
        if exact[name].dim() >= 2:
            assert tensor.dtype == torch.float16, name
            assert torch.equal(tensor, exact[name].half()), name
        else:
            assert torch.equal(tensor, exact[name]), name
        assert torch.equal(network.state_dict()[name], tensor.to(exact[name].dtype)), name


def test_float32_changes_nothing():
    network = new_network()
    exact = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    stored = rounded_weights(network, WeightsDtype.FLOAT32)
    assert all(torch.equal(stored[name], tensor) for name, tensor in exact.items())


@pytest.mark.parametrize("dtype", list(WeightsDtype))
def test_a_run_stores_what_it_measured(tmp_path: Path, dtype):
    run(tmp_path, epochs=1, weights_dtype=dtype)
    weights = safetensors.torch.load_file(tmp_path / "model" / WEIGHTS_FILE)
    kinds = {tensor.dtype for tensor in weights.values() if tensor.dim() >= 2}
    assert kinds == {getattr(torch, dtype)}
    model = load_model(tmp_path / "model")
    for name, tensor in model.network.state_dict().items():
        assert torch.equal(tensor, weights[name].to(tensor.dtype)), name
    assert all(tensor.dtype == torch.float32 for tensor in model.network.parameters())
    data = colours()
    found = model.network(data.images(slice(None))).argmax(1)
    [accuracy] = [metric for metric in model.card.metrics if metric.name == "accuracy"]
    assert accuracy.value == int((found == data.labels).sum()) / len(data)
    assert json.loads((tmp_path / "config.json").read_text())["weights_dtype"] == dtype


def test_a_run_keeps_the_precision_it_measured_when_it_began(tmp_path: Path, monkeypatch):
    def stop(progress):
        if progress.step == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr("training.run.fastest_precision", lambda *shape: Precision.BFLOAT16)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, stop, epochs=2, precision="fastest")
    monkeypatch.setattr("training.run.fastest_precision", lambda *shape: Precision.FLOAT32)
    card = run(tmp_path, epochs=2, precision="fastest")
    assert card is not None
    assert card.recipe["precision"] == "bfloat16"
    assert json.loads((tmp_path / "config.json").read_text())["precision"] == "bfloat16"
