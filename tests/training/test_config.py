"""Experiment files: every mistake is refused with the key's name."""

import math

import pytest

from training.config import TrainConfig, config_from_mapping
from training.experiment import PaperRow, experiment_names, load_experiment, load_paper_row

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
    with pytest.raises(ValueError, match=f"^{key}: expected a value of type"):
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
        ("cross_power", 0.5),
        ("cross_power", 3.0),
        ("power", 0.0),
        ("outputs_per_image", 0),
        ("output_zeroing", -0.01),
        ("psi_mode", "constant"),
        ("psi", -1.0),
        ("residual_drop", "dropout"),
        ("last_survival", 0.0),
        ("weight_decay_on", "weights"),
        ("class_balance", 1.5),
        ("adversary", "fgsm"),
        ("adversary_eps", 1.5),
        ("adversary_steps", 0),
        ("adversary_share", -0.1),
        ("attack_norm_mode", "both"),
    ],
)
def test_value_out_of_range_is_refused_by_name(key, value):
    with pytest.raises(ValueError, match=f"^{key}: expected .*, got"):
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
    with pytest.raises(ValueError, match=f"^{key}: expected .*, got"):
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
        ("epochs", "^--set: expected key=value, got 'epochs'"),
        ("epoch=3", "^epoch: unknown key; did you mean 'epochs'"),
        ("epochs=many", "^epochs: expected a value of type .*, got 'many'"),
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


def test_power_of_zero_is_allowed_beside_a_cross_power():
    assert TrainConfig(**REQUIRED, power=0.0, cross_power=1.0).power == 0.0


def test_first_experiment_means_what_it_always_meant():
    """A run that began before the newer keys existed must be able to go on."""
    config = load_experiment("cifar10-resnet20").as_dict()
    newer = {
        "residual_drop": "none",
        "weight_decay_on": "all",
        "class_balance": 0.0,
        "psi_mode": "adaptive",
        "cross_power": 0.0,
        "outputs_per_image": 1,
        "output_zeroing": 0.0,
        "adversary": "none",
    }
    assert {key: config[key] for key in newer} == newer


@pytest.mark.parametrize(
    ("changes", "expected"),
    [({}, True), ({"psi": 5.0}, True), ({"psi_mode": "fixed"}, False),
     ({"psi_mode": "fixed", "psi": 0.1}, True)],
)  # fmt: skip
def test_fixed_psi_of_zero_switches_the_penalty_off(changes, expected):
    assert TrainConfig(**REQUIRED, **changes).has_penalty is expected


def write(folder, text):
    path = folder / "mine.toml"
    path.write_text('architecture = "cifar-resnet20"\nepochs = 9\n' + text)
    return str(path)


def test_paper_row_is_read_beside_the_configuration(tmp_path):
    path = write(tmp_path, 'paper_row = "Table I: K = 2"\npaper_accuracy = 85.0\nnote = "n"\n')
    row = load_paper_row(path)
    assert row == PaperRow(row="Table I: K = 2", accuracy=85.0, note="n")
    assert row.attack_ara is None
    assert load_experiment(path) == TrainConfig(**REQUIRED | {"epochs": 9})


def test_experiment_without_a_row_has_none(tmp_path):
    assert load_paper_row(write(tmp_path, "")) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            'paper_row = "r"\npaper_accuracy = "85"',
            "^paper_accuracy: expected a value of type .*, got '85'",
        ),
        ('paper_row = "r"\npaper_accuracy = 101.0', "^paper_accuracy: expected .*, got 101.0"),
        ('paper_row = "r"\npaper_btr_ara = -0.1', "^paper_btr_ara: expected .*, got -0.1"),
        ("paper_accuracy = 85.0", "^paper_row: missing"),
    ],
)
def test_bad_paper_row_is_refused(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        load_paper_row(write(tmp_path, text))


def test_unknown_key_about_the_paper_is_refused(tmp_path):
    with pytest.raises(ValueError, match="^paper_ara: unknown key"):
        load_experiment(write(tmp_path, "paper_ara = 0.1"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"engine": "compiled"}, "engine: expected 'eager', got 'compiled', where penalty_mode is"),
        (
            {"penalty_mode": "finite-difference", "precision": "bfloat16"},
            "precision: expected 'float32', got 'bfloat16', where penalty_mode is",
        ),
        (
            {"penalty_mode": "finite-difference", "residual_drop": "shakedrop"},
            "residual_drop: expected 'none', got 'shakedrop', where penalty_mode is",
        ),
    ],
)
def test_what_a_penalty_mode_cannot_do_is_refused_unless_there_is_no_penalty(changes, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        TrainConfig(architecture="cifar-resnet20", epochs=1, **changes)
    TrainConfig(architecture="cifar-resnet20", epochs=1, psi_mode="fixed", **changes)
