"""Experiments: TOML files, shipped or the user's, and what the paper says of them."""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from candor.files.reading import MIB, read_text
from training.config import TrainConfig, config_from_mapping, suggestion

EXPERIMENTS_DIR = Path(__file__).parent / "experiments"
MODEL_DIR = "model"  # of a run folder
_MAX_CONFIG_BYTES = MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperRow:
    """What the paper reports for an experiment; no part of the configuration.

    Attributes:
        row: table and words of the row.
        accuracy: of clean test images, %.
        attack_ara, btr_ara: III-A, RMSE; None, like ``accuracy``, where the text is unreadable.
        note: what the row does not say, or says twice; what was assumed.
    """

    row: str
    accuracy: float | None = None
    attack_ara: float | None = None
    btr_ara: float | None = None
    note: str = ""

    def __post_init__(self) -> None:
        for name, high in (("accuracy", 100.0), ("attack_ara", 1.0), ("btr_ara", 1.0)):
            value = getattr(self, name)
            if value is not None and not 0.0 <= value <= high:
                raise ValueError(f"paper_{name}: expected [0, {high}], got {value!r}")


PAPER_KEYS = ("paper_row", "paper_accuracy", "paper_attack_ara", "paper_btr_ara", "note")


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
    values, _ = _read_experiment(name)
    for override in overrides:
        values.update(_parse_override(override))
    return config_from_mapping(values)


def load_paper_row(name: str) -> PaperRow | None:
    """What the paper reports for an experiment, or None where it has no such row.

    Raises:
        ValueError: as `load_experiment`.
    """
    _, values = _read_experiment(name)
    if not values:
        return None
    for key, value in values.items():
        expected = str if key in ("paper_row", "note") else float
        if type(value) is not expected:
            raise ValueError(f"{key}: expected a value of type {expected}, got {value!r}")
    if "paper_row" not in values:
        raise ValueError("paper_row: missing")
    return PaperRow(**{key.removeprefix("paper_"): value for key, value in values.items()})


def _read_experiment(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Values of the configuration, and those about the paper."""
    path = Path(name) if name.endswith(".toml") else EXPERIMENTS_DIR / f"{name}.toml"
    if not path.exists():
        raise ValueError(
            "experiment: expected a name that candor experiments lists, or a .toml file, got "
            f"{name[:200]!r}{suggestion(name, experiment_names())}"
        )
    values = _read_toml(path)
    paper = {key: values.pop(key) for key in PAPER_KEYS if key in values}
    return values, paper


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(read_text(path, _MAX_CONFIG_BYTES))
    except tomllib.TOMLDecodeError as err:
        raise ValueError(f"{path}: expected TOML, got something else: {err}") from err


def first_experiment(config: TrainConfig) -> str | None:
    """The shipped experiment whose model a run starts from, where that model is not there yet."""
    folder = Path(config.start_from)
    name = folder.parent.name
    is_of_run = folder == run_folder(name) / MODEL_DIR and name in experiment_names()
    return name if is_of_run and not folder.exists() else None


def run_folder(label: str) -> Path:
    """Where a run of this name keeps its files unless another place is asked for."""
    return Path("runs") / label


def _parse_override(override: str) -> dict[str, Any]:
    key, separator, text = override.partition("=")
    if not separator:
        raise ValueError(f"--set: expected key=value, got {override!r}")
    try:
        return {key: tomllib.loads(f"value = {text}")["value"]}
    except tomllib.TOMLDecodeError:
        return {key: text}
