"""Compiled steps against eager ones, and bfloat16 against float32."""

import pytest
import torch

from tests.training.tiny import colours, config_of, new_network
from training.engine import Engine, runner
from training.loop import train


def test_eager_is_the_network_itself():
    network = new_network()
    assert runner(network, Engine.EAGER) is network


def weights_after(steps, folder, **changes):
    folder.mkdir()
    network = new_network()
    state = train(network, colours(), config_of(**changes), run_dir=folder, stop_after=steps)
    return network.state_dict(), state


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["finite-difference", "inner-gradient"])
def test_compiled_run_reaches_what_an_eager_one_reaches(tmp_path, mode):
    common = {"penalty_mode": mode, "psi_min": 20.0}
    expected, _ = weights_after(4, tmp_path / "eager", **common)
    weights, _ = weights_after(4, tmp_path / "compiled", engine="compiled", **common)
    start = new_network().state_dict()
    assert weights.keys() == expected.keys()
    for name, tensor in expected.items():
        moved = (tensor - start[name]).double().norm()
        assert (weights[name] - tensor).double().norm() <= 0.02 * moved + 1e-6, name


def test_bfloat16_run_stays_close_and_its_weights_are_float32(tmp_path):
    expected, whole = weights_after(4, tmp_path / "float32")
    weights, state = weights_after(4, tmp_path / "bfloat16", precision="bfloat16")
    assert weights["stem.weight"].dtype == torch.float32
    assert not torch.equal(weights["stem.weight"], expected["stem.weight"])
    entropy, expected_entropy = (run.history[0]["cross_entropy"] for run in (state, whole))
    assert entropy == pytest.approx(expected_entropy, rel=0.02)


@pytest.mark.gpu
@pytest.mark.parametrize("engine", list(Engine))
def test_run_on_cuda_reaches_what_one_on_cpu_reaches(tmp_path, engine):
    """Only about: the generators of two devices draw differently."""
    losses = []
    for device in ("cpu", "cuda"):
        folder = tmp_path / device
        folder.mkdir()
        network = new_network().to(device)
        config = config_of(
            epochs=12,
            penalty_mode="finite-difference",
            engine=engine if device == "cuda" else Engine.EAGER,
        )
        losses.append(train(network, colours(), config, run_dir=folder).history[-1])
    assert losses[1]["cross_entropy"] == pytest.approx(losses[0]["cross_entropy"], abs=0.1)
