"""An experiment's configuration: one TOML file, validated, with overrides.  Imports candor only."""

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from candor.nets.architectures import ACTIVATIONS, architecture_names
from training.regularizers import Pairing
from training.schedule import Schedule

EXPERIMENTS_DIR = Path(__file__).parent / "experiments"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """Everything that decides a run's result, besides the data and the code.

    Attributes:
        description: one line for people.
        architecture, activation, curvature, width_factor: see `NetworkSpec`.
        data: registered data set.
        epochs, batch_size, seed: as usual.
        schedule, peak_learning_rate, momentum, weight_decay: SGD; weight decay on weights and
            biases (III-I1).
        crop_padding: reflected border of the random crop, pixels.
        loss_target, psi_min, psi_rate, clip_better, clip_worse: Eq. 15, see `PsiController`.
        power, true_class_share, dead_zone, pairing: Eq. 9, see `training.regularizers`.
        penalty_start_epoch: first epoch with L_adv; before it psi rests at its start.
        penalty_interval: L_adv is computed every so many steps with its weight multiplied by the
            same number, which keeps its expected force and saves the double backward between.
    """

    description: str = ""
    architecture: str
    activation: str = "hhrelu"
    curvature: float = 1.0
    width_factor: int = 1
    data: str = "cifar10"
    epochs: int
    batch_size: int = 128
    seed: int = 0
    schedule: str = Schedule.ONE_CYCLE.value
    peak_learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 1e-4
    crop_padding: int = 4
    loss_target: float = 1.5
    psi_min: float = 220.0
    psi_rate: float = 0.02
    clip_better: float = 1.0
    clip_worse: float = 0.01
    power: float = 2.0
    true_class_share: float = 0.2
    dead_zone: float = 0.0
    pairing: str = Pairing.DIFFERENCE.value
    penalty_start_epoch: int = 0
    penalty_interval: int = 1

    def __post_init__(self) -> None:
        _check_choice("architecture", self.architecture, architecture_names())
        _check_choice("activation", self.activation, ACTIVATIONS)
        _check_choice("schedule", self.schedule, tuple(Schedule))
        _check_choice("pairing", self.pairing, tuple(Pairing))
        for name, low, high in _RANGES:
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"{name}: got {value!r}, allowed [{low}, {high}]")

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


_RANGES: tuple[tuple[str, float, float], ...] = (
    ("epochs", 1, 100_000),
    ("curvature", 1e-6, 1e6),
    ("width_factor", 1, 64),
    ("loss_target", 1e-6, 1e6),
    ("psi_min", 1e-12, 1e12),
    ("psi_rate", 1e-9, 1e3),
    ("clip_better", 1e-9, 1e6),
    ("clip_worse", 1e-9, 1e6),
    ("batch_size", 1, 1_000_000),
    ("seed", 0, 2**31 - 1),
    ("peak_learning_rate", 0.0, 100.0),
    ("momentum", 0.0, 1.0),
    ("weight_decay", 0.0, 1.0),
    ("crop_padding", 0, 64),
    ("power", 1.0, 5.0),
    ("true_class_share", 0.0, 1.0),
    ("dead_zone", 0.0, 1e6),
    ("penalty_start_epoch", 0, 100_000),
    ("penalty_interval", 1, 1_000),
)


def experiment_names() -> tuple[str, ...]:
    """Experiments that ship with Candor, sorted."""
    return tuple(sorted(path.stem for path in EXPERIMENTS_DIR.glob("*.toml")))


def load_experiment(name: str, overrides: Sequence[str] = ()) -> TrainConfig:
    """The configuration of a shipped experiment or of a TOML file.

    Args:
        name: an experiment's name or the path of a ``.toml`` file.
        overrides: "key=value" pairs, the value in TOML syntax (a bare word is a string).
    Raises:
        ValueError: unknown experiment or key (with the nearest valid name), or a bad value.
    """
    path = Path(name) if name.endswith(".toml") else EXPERIMENTS_DIR / f"{name}.toml"
    if not path.is_file():
        raise ValueError(
            f"experiment: got {name!r}, allowed {experiment_names()} or a .toml file"
            f"{_suggestion(name, experiment_names())}"
        )
    values = tomllib.loads(path.read_text())
    for override in overrides:
        values.update(_parse_override(override))
    return config_from_mapping(values)


def config_from_mapping(values: Mapping[str, Any]) -> TrainConfig:
    """`TrainConfig` from plain values; unknown keys and wrong types are refused by name."""
    known = {field.name: field.type for field in fields(TrainConfig)}
    for key, value in values.items():
        if key not in known:
            raise ValueError(f"{key}: unknown key{_suggestion(key, known)}")
        expected = known[key]
        if expected is float and type(value) is int:
            continue
        if type(value) is not expected:
            raise ValueError(f"{key}: got {value!r}, allowed a value of type {expected}")
    missing = {"architecture", "epochs"} - values.keys()
    if missing:
        raise ValueError(f"{sorted(missing)[0]}: missing")
    return TrainConfig(**values)


def _parse_override(override: str) -> dict[str, Any]:
    key, separator, text = override.partition("=")
    if not separator:
        raise ValueError(f"--set: got {override!r}, allowed key=value")
    try:
        return {key: tomllib.loads(f"value = {text}")["value"]}
    except tomllib.TOMLDecodeError:
        return {key: text}


def _check_choice(name: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise ValueError(f"{name}: got {value!r}, allowed {tuple(map(str, allowed))}")


def _suggestion(word: str, known: Mapping[str, Any] | Sequence[str]) -> str:
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
