"""Compiled steps against eager ones, and bfloat16 against float32."""

import pytest
import torch

from tests.training.tiny import colours, config_of, new_network
from training.engine import Engine, Precision, fastest_precision, runner
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


def ticks(*seconds):
    """A clock of which the passes take these seconds, one after the other."""
    now = 0.0
    for one in seconds:
        yield now
        now += one
        yield now


@pytest.mark.parametrize(("half", "expected"), [(0.5, "bfloat16"), (2.0, "float32")])
def test_fastest_precision_is_the_one_that_takes_less_time(half, expected):
    """The first pass of each warms up, and one that was disturbed does not decide."""
    clock = ticks(9.0, 1.0, 30.0, 1.0, 0.1, half, half, 40.0)
    chosen = fastest_precision(new_network(), (2, 3, 8, 6), lambda: next(clock))
    assert chosen == expected


def test_measuring_the_precision_leaves_everything_as_it_was():
    network = new_network().train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    drawn = torch.get_rng_state()
    assert fastest_precision(network, (2, 3, 8, 6)) in (Precision.FLOAT32, Precision.BFLOAT16)
    assert network.training
    assert torch.equal(torch.get_rng_state(), drawn)
    assert all(torch.equal(network.state_dict()[name], one) for name, one in before.items())
    assert all(weight.grad is None for weight in network.parameters())


def test_a_precision_that_was_not_measured_trains_nothing(tmp_path):
    with pytest.raises(ValueError, match="precision: expected 'float32' or 'bfloat16'"):
        train(new_network(), colours(), config_of(precision="fastest"), run_dir=tmp_path)


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
