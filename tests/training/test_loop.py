"""A tiny training run: it learns, and an interrupted one ends where an uninterrupted one does."""

import dataclasses
import json

import pytest
import torch

from candor.nets.drop import ShakeDrop, StochasticDepth
from tests.training.tiny import assert_equal_runs, colours, config_of, new_network
from training.checkpoint import load_checkpoint, save_checkpoint
from training.loop import train

STEPS = 12  # 4 epochs of 3 steps, the last of an epoch a short one


class Interrupted(Exception):
    pass


@pytest.fixture(scope="module")
def data():
    return colours()


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """Weights and state of a run that nothing interrupted."""
    network = new_network()
    state = train(network, data, config_of(), run_dir=tmp_path_factory.mktemp("whole"))
    return network, state


def test_run_visits_every_step_and_reports_each(data, tmp_path):
    seen = []
    state = train(new_network(), data, config_of(), run_dir=tmp_path, report=seen.append)
    assert [progress.step for progress in seen] == list(range(1, STEPS + 1))
    assert [progress.epoch for progress in seen] == [step // 3 for step in range(STEPS)]
    assert {progress.step_count for progress in seen} == {STEPS}
    assert state.step == STEPS
    assert [entry["epoch"] for entry in state.history] == [0, 1, 2, 3]
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert log == state.history


@pytest.mark.parametrize("penalty_interval", [1, 2])
def test_loss_falls_and_the_classes_are_learnt(data, tmp_path, penalty_interval):
    config = config_of(epochs=12, penalty_interval=penalty_interval)
    history = train(new_network(), data, config, run_dir=tmp_path).history
    assert history[-1]["cross_entropy"] < 0.5 * history[0]["cross_entropy"]
    assert history[-1]["train_accuracy"] > 0.9


def test_penalty_makes_input_gradients_smaller(data, tmp_path):
    penalties = []
    for psi_min in (1e-9, 100.0):
        folder = tmp_path / str(psi_min)
        folder.mkdir()
        config = config_of(epochs=10, psi_min=psi_min)
        penalties.append(train(new_network(), data, config, run_dir=folder).history[-1]["penalty"])
    assert penalties[1] < 0.5 * penalties[0]


def test_same_seed_gives_the_same_weights(data, tmp_path, whole):
    network = new_network()
    assert_equal_runs(network, train(network, data, config_of(), run_dir=tmp_path), whole)


def test_another_seed_gives_other_weights(data, tmp_path, whole):
    network = new_network()
    train(network, data, config_of(seed=1), run_dir=tmp_path)
    assert not torch.equal(network.head.weight, whole[0].head.weight)


@pytest.mark.parametrize("stop_after", [0, 1, 3, 4, 11, 12])
def test_stopped_and_resumed_run_ends_bit_equal(data, tmp_path, whole, stop_after):
    stopped = train(new_network(), data, config_of(), run_dir=tmp_path, stop_after=stop_after)
    assert stopped.step == stop_after
    network = new_network()
    state = train(network, data, config_of(), run_dir=tmp_path)
    assert_equal_runs(network, state, whole)


@pytest.mark.parametrize("step", [1, 3, 5])
def test_run_that_failed_between_steps_resumes_bit_equal(data, tmp_path, whole, step):
    def report(progress):
        if progress.step == step:
            raise Interrupted

    with pytest.raises(Interrupted):
        train(new_network(), data, config_of(), run_dir=tmp_path, report=report)
    network = new_network()
    assert_equal_runs(network, train(network, data, config_of(), run_dir=tmp_path), whole)


@pytest.mark.parametrize("place", ["forward", "backward", "optimizer"])
def test_run_interrupted_inside_a_step_resumes_bit_equal(data, tmp_path, whole, place, monkeypatch):
    """Ctrl-C comes at any time: after the batch statistics moved, or with half the weights new."""
    network = new_network()
    calls = 0

    def interrupt(*arguments):
        nonlocal calls
        calls += 1
        if calls == 5:
            raise Interrupted

    if place == "forward":
        network.head.register_forward_hook(interrupt)
    elif place == "backward":
        network.head.weight.register_hook(lambda gradient: interrupt())
    else:
        real = torch.optim.SGD.step

        def step(self, *arguments):
            with torch.no_grad():
                network.stem.weight += 1.0
            interrupt()
            with torch.no_grad():
                network.stem.weight -= 1.0
            return real(self, *arguments)

        monkeypatch.setattr(torch.optim.SGD, "step", step)
    with pytest.raises(Interrupted):
        train(network, data, config_of(), run_dir=tmp_path)
    monkeypatch.undo()
    resumed = new_network()
    assert_equal_runs(resumed, train(resumed, data, config_of(), run_dir=tmp_path), whole)


def test_finished_run_is_not_trained_again(data, tmp_path, whole):
    train(new_network(), data, config_of(), run_dir=tmp_path)
    network = new_network()
    seen = []
    state = train(network, data, config_of(), run_dir=tmp_path, report=seen.append)
    assert seen == []
    assert_equal_runs(network, state, whole)


@pytest.mark.parametrize(
    ("key", "value"), [("seed", 9), ("psi_min", 1.0), ("epochs", 5), ("pairing", "sum")]
)
def test_changed_configuration_is_refused_and_the_checkpoint_survives(data, tmp_path, key, value):
    train(new_network(), data, config_of(), run_dir=tmp_path, stop_after=2)
    before = (tmp_path / "checkpoint.pt").read_bytes()
    changed = dataclasses.replace(config_of(), **{key: value})
    with pytest.raises(ValueError, match=f"^{key}: got {value!r}, but the run in this folder"):
        train(new_network(), data, changed, run_dir=tmp_path)
    assert (tmp_path / "checkpoint.pt").read_bytes() == before


def test_penalty_waits_for_its_epoch(data, tmp_path):
    config = config_of(penalty_start_epoch=2)
    history = train(new_network(), data, config, run_dir=tmp_path).history
    assert [entry["penalty"] > 0 for entry in history] == [False, False, True, True]
    assert [entry["psi"] for entry in history[:2]] == [0.1, 0.1]


def test_checkpoint_from_before_a_key_existed_goes_on(data, tmp_path, whole):
    train(new_network(), data, config_of(), run_dir=tmp_path, stop_after=5)
    saved = load_checkpoint(tmp_path / "checkpoint.pt")
    for key in ("psi_mode", "adversary", "output_zeroing"):
        del saved["config"][key]
    save_checkpoint(tmp_path / "checkpoint.pt", saved)
    with pytest.raises(ValueError, match="^output_zeroing: got 0.1"):
        train(new_network(), data, config_of(output_zeroing=0.1), run_dir=tmp_path)
    network = new_network()
    assert_equal_runs(network, train(network, data, config_of(), run_dir=tmp_path), whole)


def test_fixed_psi_stays_where_it_is_put(data, tmp_path):
    config = config_of(psi_mode="fixed", psi=7.0)
    state = train(new_network(), data, config, run_dir=tmp_path)
    assert [entry["psi"] for entry in state.history] == [7.0] * 4
    assert all(entry["penalty"] > 0 for entry in state.history)
    assert state.integral == 0.0


def test_fixed_psi_of_zero_is_a_traditional_network(data, tmp_path):
    config = config_of(psi_mode="fixed", psi=0.0)
    history = train(new_network(), data, config, run_dir=tmp_path).history
    assert [entry["penalty"] for entry in history] == [0.0] * 4


def test_fixed_psi_weighs_the_penalty(data, tmp_path):
    weights = []
    for psi in (1.0, 1.0, 2.0):
        folder = tmp_path / str(len(weights))
        folder.mkdir()
        network = new_network()
        train(network, data, config_of(psi_mode="fixed", psi=psi), run_dir=folder, stop_after=1)
        weights.append(network.head.weight)
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


FULL = {
    "adversary": "l2-min",
    "adversary_eps": 0.05,
    "adversary_steps": 2,
    "adversary_share": 0.5,
    "output_zeroing": 0.01,
    "outputs_per_image": 2,
    "class_balance": 1.0,
    "weight_decay_on": "biases",
    "residual_drop": "stochastic-depth",
    "last_survival": 0.5,
}


@pytest.mark.parametrize(
    ("name", "kind"), [("stochastic-depth", StochasticDepth), ("shakedrop", ShakeDrop)]
)
def test_run_with_everything_on_resumes_bit_equal(data, tmp_path, name, kind):
    """Also what draws from the global generator, wherever that stands."""
    config = config_of(**FULL | {"residual_drop": name})
    runs = []
    for place, stops in enumerate([(None,), (4, None)]):
        folder = tmp_path / str(place)
        folder.mkdir()
        for stop in stops:
            network = new_network(kind)
            torch.manual_seed(place)
            before = torch.get_rng_state()
            state = train(network, data, config, run_dir=folder, stop_after=stop)
            assert torch.equal(torch.get_rng_state(), before)
        runs.append((network, state))
    assert_equal_runs(*runs[0], runs[1])
    assert runs[0][1].history[-1]["cross_entropy"] < 2.0


@pytest.mark.parametrize("key", ["adversary", "output_zeroing", "class_balance", "weight_decay_on"])
def test_each_part_of_the_stack_changes_the_weights(data, tmp_path, key):
    network = new_network()
    # Labels in unequal numbers, else balanced weights are all 1.
    unequal = dataclasses.replace(data, labels=data.labels * (torch.arange(21) < 15))
    plain = new_network()
    for place, (trained, changes) in enumerate(((plain, {}), (network, {key: FULL[key]}))):
        folder = tmp_path / str(place)
        folder.mkdir()
        config = config_of(weight_decay=0.1, **changes)
        train(trained, unequal, config, run_dir=folder, stop_after=2)
    assert not torch.equal(network.stem.weight, plain.stem.weight)


def test_checkpoint_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "checkpoint.pt"
    assert load_checkpoint(path) is None
    save_checkpoint(path, {"step": 1, "weights": torch.ones(2)})
    with pytest.raises(Exception, match="pickle|Can't"):
        save_checkpoint(path, {"step": 2, "weights": lambda: None})
    assert load_checkpoint(path)["step"] == 1
    save_checkpoint(path, {"step": 3})
    assert load_checkpoint(path) == {"step": 3}
