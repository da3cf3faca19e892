"""Every shipped experiment loads, builds its network and, in a reduced form, trains."""

import dataclasses
import math

import pytest
import torch

from candor.data.images import ImageSet
from candor.data.registry import dataset_names, load_dataset
from candor.nets.architectures import NetworkSpec, build_network
from training.experiment import (
    experiment_names,
    first_experiment,
    load_experiment,
    load_paper_row,
)
from training.loop import train
from training.psi import EARLY_PARAMETERS, TYPICAL_PARAMETERS

# Classes, and height and width, of the data sets that experiments name.
SHAPES = {"cifar10": (10, 32), "imagenet": (1000, 224), "coco": (80, 96), "folder": (10, 128)}
NAMED = ("cifar10-n1", "cifar10-n2", "cifar10-n3", "cifar10-n4")
NAMED += tuple(f"{data}-{data[0]}{place}" for data in ("imagenet", "coco") for place in range(1, 5))
# Ours, of which the paper has no row.
ROBUST = ("robust-first", "robust-second", "robust-third", "robust")
OWN = {f"cifar10-{name}" for name in ("resnet20", *ROBUST, "plain")}
OWN |= {"imagenette-plain", "imagenette-robust"}
OWN |= {
    f"cifar10-{name}"
    for name in ("cutmix", "gpu", "parseval", "spectral-limit", "spectral-penalty")
}
PAPER = [name for name in experiment_names() if load_paper_row(name) is not None]
CIFAR = [name for name in experiment_names() if name.startswith("cifar10-")]


def is_large(config):
    return config.architecture == "cifar-resnet170" or config.width_factor > 1


LARGE = [name for name in CIFAR if is_large(load_experiment(name))]


def shape_of(config):
    return SHAPES[config.data.partition("-")[0]]


def network_of(config):
    class_count, _ = shape_of(config)
    spec = NetworkSpec(
        architecture=config.architecture,
        class_count=class_count,
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
        activation=config.activation,
        curvature=config.curvature,
        width_factor=config.width_factor,
        residual_drop=config.residual_drop,
        last_survival=config.last_survival,
    )
    return build_network(spec)


def images_of(count, class_count=10, size=8):
    generator = torch.Generator().manual_seed(0)
    return ImageSet(
        name="noise",
        pixels=torch.randint(256, (count, 3, size, size), dtype=torch.uint8, generator=generator),
        labels=torch.arange(count),
        class_names=tuple(map(str, range(class_count))),
        identifiers=tuple(map(str, range(count))),
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
    )


@pytest.mark.parametrize("name", experiment_names())
def test_experiment_builds_the_network_it_names(name):
    config = load_experiment(name)
    class_count, size = shape_of(config)
    with torch.device("meta"):
        logits = network_of(config).eval()(torch.empty(2, 3, size, size))
    assert logits.shape == (2, class_count)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow) if name in LARGE else name
        for name in experiment_names()
    ],
)
def test_experiment_takes_two_steps(name, tmp_path):
    """On images of 8x8; the networks of other data than CIFAR-10 make less of them, or 1x1.

    Those for photographs get 32x32, whose last stage is 1x1, too.
    """
    config = load_experiment(name)
    class_count = shape_of(config)[0]
    count = class_count if config.class_balance else 4  # which weighs every class
    config = dataclasses.replace(
        config,
        epochs=2,
        batch_size=count,
        crop_padding=min(config.crop_padding, 7),
        penalty_start_epoch=0,
        adversary_steps=2,
        engine="eager",  # compiling takes a minute and has tests of its own
        precision="float32",  # bfloat16 has them, too; it has no digits for statistics of 4 pixels
    )
    torch.manual_seed(0)
    network = network_of(config)
    before = network.stem.weight.detach().clone()
    images = images_of(count, class_count, size=32 if config.data == "folder" else 8)
    state = train(network, images, config, run_dir=tmp_path, stop_after=2)
    assert state.step == 2
    assert all(weight.isfinite().all() for weight in network.parameters())
    assert not torch.equal(network.stem.weight, before)
    assert (state.history[0]["penalty"] > 0) is config.has_penalty
    assert all(math.isfinite(entry["cross_entropy"]) for entry in state.history)


@pytest.mark.parametrize("name", LARGE)
def test_large_network_answers(name):
    with torch.no_grad():
        logits = network_of(load_experiment(name)).eval()(torch.rand(1, 3, 8, 8))
    assert logits.isfinite().all()


@pytest.mark.parametrize("name", sorted(set(experiment_names()) - OWN))
def test_experiment_says_which_row_of_the_paper_it_is(name):
    row = load_paper_row(name)
    assert row.row.startswith("Table I")
    assert row.accuracy is not None
    assert row.note or None not in (row.attack_ara, row.btr_ara)


@pytest.mark.parametrize("name", NAMED)
def test_networks_that_the_paper_names_are_here_by_that_name(name):
    assert f"({name.split('-')[1].upper()})" in load_paper_row(name).row


@pytest.mark.parametrize(
    ("name", "numbers"),
    [
        ("cifar10-n1", (92.2, 0.0013, 0.0014)),
        ("cifar10-n2", (87.4, 0.0107, 0.0153)),
        ("cifar10-n3", (68.4, 0.0197, 0.0450)),
        ("cifar10-n4", (68.7, 0.0151, 0.0423)),
        ("imagenet-i2", (42.2, 0.0053, 0.0282)),
        ("coco-c3", (25.8, 0.0055, 0.0335)),
        ("cifar10-power-4", (77.9, None, None)),
    ],
)
def test_paper_numbers_are_those_printed(name, numbers):
    row = load_paper_row(name)
    assert (row.accuracy, row.attack_ara, row.btr_ara) == numbers


def test_adaptive_experiments_of_the_paper_use_one_of_its_two_parameter_sets():
    found = set()
    for name in PAPER:
        config = load_experiment(name)
        if config.psi_mode == "adaptive":
            values = {key: getattr(config, key) for key in TYPICAL_PARAMETERS}
            assert values in (TYPICAL_PARAMETERS, EARLY_PARAMETERS), name
            found.add(config.psi_min)
    assert found == {220.0, 0.01}


def test_no_two_experiments_are_the_same():
    seen = {}
    for name in PAPER:
        values = {**load_experiment(name).as_dict(), "description": ""}
        key = tuple(values.items())
        assert key not in seen or {name, seen[key]} == REPEATED, (name, seen.get(key))
        seen[key] = name


# Table I gives psi = 220 two accuracies; both rows are kept as printed.
REPEATED = {"cifar10-psi-220", "cifar10-similar-accuracy"}


@pytest.mark.parametrize("data", sorted({load_experiment(name).data for name in PAPER}))
def test_data_that_cannot_be_read_yet_is_a_clear_error(data, tmp_path):
    if data in dataset_names():
        return
    with pytest.raises(ValueError, match=f"^data: expected one of .*, got '{data}'"):
        load_dataset(data, "train", tmp_path)


@pytest.mark.parametrize("name", sorted(OWN))
def test_a_clone_with_the_data_alone_has_what_a_run_starts_from(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = load_experiment(name)
    assert (first_experiment(config) is None) is (config.start_from == "")
