"""A run that diverges ends in one line and leaves what was good as it was."""

import dataclasses
import json
import math

import pytest
import torch

from candor.terms import NotFinite
from tests.training.tiny import colours, config_of, new_network
from training.checkpoint import load_checkpoint
from training.divergence import Diverged
from training.loop import train

# The seventh step, the first of the third epoch, is one that no weight survives.
_GOOD_STEPS = 6


def _begun(folder, **changes):
    network, config = new_network(), config_of(**changes)
    train(network, colours(), config, run_dir=folder, stop_after=_GOOD_STEPS)
    return (folder / "checkpoint.pt").read_bytes(), (folder / "log.jsonl").read_bytes()


def _spoilt(value):
    """The images with a network whose first weight turns to ``value`` before the next step."""
    network = new_network()

    def spoil(progress):
        with torch.no_grad():
            next(network.parameters()).flatten()[0] = value

    return network, spoil


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_loss_that_is_no_number_ends_the_run_with_step_and_loss(tmp_path, value):
    kept = _begun(tmp_path)
    network, spoil = _spoilt(value)
    with pytest.raises(Diverged, match=r"^diverged at step 8 of 12 \(epoch 3\): loss nan") as found:
        train(network, colours(), config_of(), run_dir=tmp_path, report=spoil)
    assert "\n" not in str(found.value)
    left = (tmp_path / "checkpoint.pt").read_bytes(), (tmp_path / "log.jsonl").read_bytes()
    assert left == kept
    assert load_checkpoint(tmp_path / "checkpoint.pt")["step"] == _GOOD_STEPS


def test_weights_that_the_last_step_spoils_are_not_kept(tmp_path):
    kept = _begun(tmp_path)
    network, spoil = _spoilt(math.nan)
    with pytest.raises(Diverged, match=r"^diverged at step 7: network\..* holds nan"):
        train(network, colours(), config_of(), run_dir=tmp_path, report=spoil, stop_after=7)
    assert (tmp_path / "checkpoint.pt").read_bytes() == kept[0]


def test_psi_beyond_every_float_ends_the_run(tmp_path):
    config = config_of(psi_rate=1000.0, loss_target=1e6, clip_better=1e3)
    with pytest.raises(Diverged, match="^diverged at step 1 of 12 .*psi inf"):
        train(new_network(), colours(), config, run_dir=tmp_path)
    assert not (tmp_path / "checkpoint.pt").exists()


def test_huge_learning_rate_diverges_in_one_line(tmp_path):
    config = config_of(peak_learning_rate=100.0, weight_decay=1.0, psi_min=1e9, epochs=60)
    with pytest.raises(Diverged, match=r"^diverged at step \d+"):
        train(new_network(), colours(), config, run_dir=tmp_path)
    for line in (tmp_path / "log.jsonl").read_text().splitlines() if _has_log(tmp_path) else ():
        assert all(math.isfinite(value) for value in json.loads(line).values())


def _has_log(folder):
    return (folder / "log.jsonl").exists()


def test_report_that_meets_nan_ends_the_run_without_a_new_checkpoint(tmp_path):
    kept = _begun(tmp_path)

    def failing(progress):
        raise NotFinite("the outputs of the network: expected finite numbers, got nan")

    with pytest.raises(Diverged, match="^diverged at step 7 of 12, loss .*the outputs"):
        train(new_network(), colours(), config_of(), run_dir=tmp_path, report=failing)
    assert (tmp_path / "checkpoint.pt").read_bytes() == kept[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda data: {"class_names": ("red", "blue", "green")},
            "classes: class 1: expected 'green', got 'blue'",
        ),
        (lambda data: {"class_names": ("red", "green")}, "classes: class 2: expected 'blue'"),
        (lambda data: {"labels": data.labels.roll(1)}, "data digest: expected '"),
        (lambda data: {"pixels": data.pixels.flip(0)}, "data digest: expected '"),
        (
            lambda data: {"pixels": data.pixels[:-1], "labels": data.labels[:-1]},
            "images: expected 21, got 20",
        ),
    ],
)
def test_run_goes_on_with_nothing_but_what_it_began_with(tmp_path, change, message):
    kept = _begun(tmp_path)
    data = colours()
    other = dataclasses.replace(data, **change(data))
    with pytest.raises(ValueError, match=f"^{message}.*choose another --run-dir"):
        train(new_network(), other, config_of(), run_dir=tmp_path)
    assert (tmp_path / "checkpoint.pt").read_bytes() == kept[0]
