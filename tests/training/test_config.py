"""Experiment files: every mistake is refused with the key's name."""

import math

import pytest

from training.config import TrainConfig, config_from_mapping, experiment_names, load_experiment

REQUIRED = {"architecture": "cifar-resnet20", "epochs": 3}


@pytest.mark.parametrize("name", experiment_names())
def test_shipped_experiment_is_valid(name):
    config = load_experiment(name)
    assert config.description
    assert config_from_mapping(config.as_dict()) == config


@pytest.mark.parametrize(
    ("key", "nearest"),
    [("epoch", "epochs"), ("learning_rate", "peak_learning_rate"), ("psimin", "psi_min")],
)
def test_unknown_key_is_refused_with_the_nearest_valid_name(key, nearest):
    with pytest.raises(ValueError, match=rf"^{key}: unknown key; did you mean '{nearest}'\?"):
        config_from_mapping(REQUIRED | {key: 1})


def test_unknown_key_like_no_other_is_refused_without_a_suggestion():
    with pytest.raises(ValueError, match="^zzz: unknown key$"):
        config_from_mapping(REQUIRED | {"zzz": 1})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("epochs", 3.0),
        ("epochs", "3"),
        ("epochs", True),
        ("momentum", "0.9"),
        ("momentum", True),
        ("momentum", None),
        ("architecture", 20),
        ("pairing", ["none"]),
    ],
)
def test_value_of_the_wrong_type_is_refused(key, value):
    with pytest.raises(ValueError, match=f"^{key}: got .*allowed a value of type"):
        config_from_mapping(REQUIRED | {key: value})


def test_whole_number_is_a_float_where_one_is_wanted():
    assert config_from_mapping(REQUIRED | {"momentum": 0}).momentum == 0.0


@pytest.mark.parametrize("key", sorted(REQUIRED))
def test_missing_key_is_named(key):
    with pytest.raises(ValueError, match=f"^{key}: missing"):
        config_from_mapping({name: value for name, value in REQUIRED.items() if name != key})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("architecture", "resnet"),
        ("activation", "tanh"),
        ("schedule", "cosine"),
        ("pairing", "both"),
        ("epochs", 0),
        ("batch_size", 0),
        ("seed", -1),
        ("true_class_share", 1.01),
        ("true_class_share", math.nan),
        ("power", 0.5),
        ("dead_zone", -1.0),
        ("penalty_interval", 0),
        ("momentum", 1.5),
    ],
)
def test_value_out_of_range_is_refused_by_name(key, value):
    with pytest.raises(ValueError, match=f"^{key}: got .*allowed"):
        TrainConfig(**REQUIRED | {key: value})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("psi_min", 0.0),
        ("psi_rate", -0.02),
        ("clip_better", 0.0),
        ("clip_worse", math.nan),
        ("loss_target", 0.0),
        ("curvature", 0.0),
        ("width_factor", 0),
    ],
)
def test_bad_value_is_refused_before_the_run_begins(key, value):
    with pytest.raises(ValueError, match=f"^{key}: got"):
        TrainConfig(**REQUIRED | {key: value})


def test_override_wins_over_the_file(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('architecture = "cifar-resnet20"\nepochs = 9\npsi_min = 5.0\n')
    config = load_experiment(
        str(path), ["epochs=2", "psi_min=1e-2", "pairing=sum", 'architecture="cifar-resnet44"']
    )
    assert (config.epochs, config.psi_min) == (2, 0.01)
    assert (config.pairing, config.architecture) == ("sum", "cifar-resnet44")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("epochs", "^--set: got 'epochs', allowed key=value"),
        ("epoch=3", "^epoch: unknown key; did you mean 'epochs'"),
        ("epochs=many", "^epochs: got 'many'"),
    ],
)
def test_bad_override_is_refused(override, message):
    with pytest.raises(ValueError, match=message):
        load_experiment("cifar10-resnet20", [override])


def test_unknown_experiment_is_refused_with_the_nearest_name():
    with pytest.raises(ValueError, match="did you mean 'cifar10-resnet20'"):
        load_experiment("cifar10-resnet2")
    with pytest.raises(ValueError, match="none.toml"):
        load_experiment("none.toml")


def test_file_that_is_not_toml_is_refused(tmp_path):
    path = tmp_path / "broken.toml"
    path.write_text("epochs = = 3")
    with pytest.raises(ValueError, match="line 1"):
        load_experiment(str(path))
