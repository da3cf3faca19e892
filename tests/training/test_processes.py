"""Runs in processes of their own: killed at any moment, and several that train as one."""

import json
import os
import subprocess
import sys

import pytest
import torch

from tests.training.tiny import colours, config_of, new_network
from training.loop import train

WORKER = "tests.training.worker"
# Every part of the step whose result depends on the images of other processes.
JOBS = {
    "double-backward": {"psi_min": 20.0, "outputs_per_image": 2, "class_balance": 1.0},
    "finite-difference": {"psi_min": 20.0, "penalty_mode": "finite-difference"},
    "attacked": {
        "psi_mode": "fixed",  # at 0: which outputs are drawn differs with an adversary
        "adversary": "l2",
        "adversary_eps": 0.05,
        "attack_norm_mode": "train",
    },
}
# Share of the distance travelled.  A difference of gradients magnifies float32's rounding: weights
# that start 1e-7 off end up to 5 % off in one process alone, in a network as small as this.
TOLERANCES = {"double-backward": 1e-3, "finite-difference": 0.1, "attacked": 1e-3}


def job(folder, stops, config):
    folder.mkdir(exist_ok=True)
    return json.dumps({"folder": str(folder), "stops": stops, "config": config})


def start(*command):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", *command], stdout=subprocess.PIPE, text=True, env=environment
    )


def test_run_killed_again_and_again_ends_bit_equal(tmp_path):
    folder = tmp_path / "killed"
    for last in (3, 8):
        with start(WORKER, job(folder, [None], {})) as process:
            steps = [int(line) for line in process.stdout if int(line) != last or process.kill()]
        assert process.returncode == -9
        assert last - 1 in steps
    with start(WORKER, job(folder, [None], {})) as process:
        steps = [int(line) for line in process.stdout]
    assert process.returncode == 0
    assert 8 <= steps[0] <= steps[-1] == 12

    result = torch.load(folder / "result.pt")
    network, whole = new_network(), tmp_path / "whole"
    whole.mkdir()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the processes above: more of them add in another order
    try:
        state = train(network, colours(), config_of(), run_dir=whole)
    finally:
        torch.set_num_threads(threads)
    assert result["integral"] == state.integral
    for name, tensor in network.state_dict().items():
        assert torch.equal(result["weights"][name], tensor), name


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Results of two processes under torchrun, resumed in the middle, by the name of the job."""
    root = tmp_path_factory.mktemp("pair")
    jobs = [job(root / name, [2, 4], config) for name, config in JOBS.items()]
    launch = ("torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", WORKER)
    with start(*launch, *jobs) as process:
        lines = process.stdout.read().split()
    assert process.returncode == 0
    assert lines == ["1", "2", "3", "4"] * len(JOBS)  # the first process alone reports
    return {name: torch.load(root / name / "result.pt") for name in JOBS}


@pytest.mark.parametrize("name", JOBS)
def test_two_processes_reach_the_weights_of_one(pair, name, tmp_path, monkeypatch):
    """The third batch of 5 is filled up to 6 for two; alone it gets the same image here."""
    monkeypatch.setattr("training.loop.padded_to_world", padded_to_two)
    network = new_network()
    state = train(network, colours(), config_of(**JOBS[name]), run_dir=tmp_path, stop_after=4)
    together = pair[name]
    tolerance = TOLERANCES[name]
    assert together["integral"] == pytest.approx(state.integral, rel=tolerance)
    start = new_network().state_dict()
    for key, tensor in network.state_dict().items():
        moved = (tensor - start[key]).double().norm()
        apart = (together["weights"][key] - tensor).double().norm()
        assert apart <= tolerance * moved + 1e-6, key
    for entry, expected in zip(together["history"], state.history, strict=True):
        assert entry["train_accuracy"] == expected["train_accuracy"]
        assert entry["cross_entropy"] == pytest.approx(expected["cross_entropy"], rel=tolerance)
        assert entry["penalty"] == pytest.approx(expected["penalty"], rel=tolerance)


def padded_to_two(chosen, order):
    return torch.cat([chosen, order[: len(chosen) % 2]])
