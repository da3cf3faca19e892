"""What decides a run's result, validated."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import Any

from candor.nets.architectures import ACTIVATIONS, RESIDUAL_DROPS, architecture_names
from training.adversaries import Adversary, NormMode
from training.engine import Engine, Precision
from training.optimizer import WeightDecayOn
from training.psi import PsiFollows, PsiMode
from training.regularizers import Pairing, PenaltyMode
from training.schedule import Schedule
from training.stored import WeightsDtype

OF_START = "start_from"  # the architecture of the model that a run starts from
_OF_NETWORK = (
    "activation",
    "curvature",
    "width_factor",
    "residual_drop",
    "last_survival",
    "image_size",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """Everything that decides a run's result, besides the data and the code.

    Attributes:
        description: one line for people.
        architecture, activation, curvature, width_factor, residual_drop, last_survival: see
            `NetworkSpec`.  The architecture "start_from" is the whole network of that model, with
            its preprocessing and its classes, whatever library it comes from.
        start_from: model folder whose weights the run starts with; "" draws them at random.
            ``runs/NAME/model`` of a shipped experiment is trained first where it is not there.
        data: registered data set.
        image_size: edge of the images of "folder", pixels; 0 is any other data set's own size.
        extra_digest: `ImageSet.digest` of the images joined to it, "" for none; set by the caller,
            so that a run goes on only with the images it began with.
        epochs, batch_size, seed: as usual.
        schedule, peak_learning_rate, momentum, weight_decay: SGD.
        weight_decay_on: "all" weights and biases (III-I1) or "biases" alone (III-C).
        class_balance: beta of `class_balanced_weights`; 0 weighs all classes alike, 1 is the
            inverse of a class's share (IV-E).
        crop_padding: reflected border of the random crop, pixels.
        label_smoothing: part of every label that all classes share alike, [0, 1).  (Szegedy et al.
            2016, arXiv 1512.00567)  A psi that follows the loss follows the smoothed one.
        cutmix_share: share of the batches of which every image gets a part of another, see
            `training.mixing.cut_mix`; 0.5 in its paper.
        parseval, spectral: weights of `parseval_penalty` and `spectral_penalty`; the former was
            3e-4 in its paper.
        spectral_limit: largest singular value of a layer after each step, see
            `limit_spectral_norms`; 0 for none.
        psi_mode, psi: "fixed" at psi, where 0 switches L_adv off; or "adaptive", which ignores psi.
        loss_target, psi_min, psi_rate, clip_better, clip_worse: Eq. 15, see `PsiController`.
        power, cross_power, outputs_per_image, true_class_share, dead_zone, pairing: z, q, K, zeta,
            sigma of Eq. 9 and III-B, see `training.regularizers`; K = V where it exceeds V.
        output_zeroing: k_out of Eq. 12.
        penalty_start_epoch: first epoch with L_adv; before it psi rests at its start.
        penalty_interval: L_adv is computed every so many steps with its weight multiplied by the
            same number, which keeps its expected force and saves the double backward between.
        penalty_mode: how L_adv is differentiated by the weights, see `PenaltyMode`.
        engine: "eager", or "compiled" for passes compiled by `torch.compile` in channels-last
            layout, which "double-backward" does not allow where there is a penalty.
        precision: see `Precision`; "bfloat16" is for devices that have it, and too coarse for
            "finite-difference"; "fastest" is settled when a run begins, and recorded.
        weight_average: decay of the exponential moving average of the weights and of the
            statistics of batch normalisation, which becomes the model; 0 keeps the last weights
            themselves.  See `training.averaging`.
        adversary: what training images meet, see `Adversary` and III-G.
        psi_follows: whose cross-entropy moves an adaptive psi, see `PsiFollows`.
        adversary_eps: RMSE on the [0, 1] pixel scale; of "gaussian" the standard deviation.
        adversary_steps: steps of the attack; 7 in III-G.
        adversary_step_ratio: length of a step of "pgd" and "trades" in units of eps / steps.
        adversary_share: part of each batch that is attacked; half-half (HHAT) is 0.5.
        trades_weight: beta of TRADES, weight of its divergence.
        attack_norm_mode: batch normalisation during attack passes, see `norm_mode`.
        weights_dtype: of the model's matrices and kernels on disk, "float32" or "float16", to which
            they are rounded before the accuracy is measured.
        recommended_rho: RMSE of an explanation that asks for none, for the model's card.
    """

    description: str = ""
    architecture: str
    activation: str = "hhrelu"
    curvature: float = 1.0
    width_factor: int = 1
    residual_drop: str = "none"
    last_survival: float = 1.0
    start_from: str = ""
    data: str = "cifar10"
    image_size: int = 0
    extra_digest: str = ""
    epochs: int
    batch_size: int = 128
    seed: int = 0
    schedule: str = Schedule.ONE_CYCLE.value
    peak_learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 1e-4
    weight_decay_on: str = WeightDecayOn.ALL.value
    class_balance: float = 0.0
    crop_padding: int = 4
    label_smoothing: float = 0.0
    cutmix_share: float = 0.0
    parseval: float = 0.0
    spectral: float = 0.0
    spectral_limit: float = 0.0
    psi_mode: str = PsiMode.ADAPTIVE.value
    psi: float = 0.0
    loss_target: float = 1.5
    psi_min: float = 220.0
    psi_rate: float = 0.02
    clip_better: float = 1.0
    clip_worse: float = 0.01
    power: float = 2.0
    cross_power: float = 0.0
    outputs_per_image: int = 1
    true_class_share: float = 0.2
    dead_zone: float = 0.0
    pairing: str = Pairing.DIFFERENCE.value
    output_zeroing: float = 0.0
    penalty_start_epoch: int = 0
    penalty_interval: int = 1
    penalty_mode: str = PenaltyMode.DOUBLE_BACKWARD.value
    engine: str = Engine.EAGER.value
    weight_average: float = 0.0
    psi_follows: str = PsiFollows.ALL.value
    precision: str = Precision.FLOAT32.value
    adversary: str = Adversary.NONE.value
    adversary_eps: float = 0.01
    adversary_steps: int = 7
    adversary_step_ratio: float = 2.5
    adversary_share: float = 1.0
    trades_weight: float = 6.0
    attack_norm_mode: str = NormMode.EVAL.value
    weights_dtype: str = WeightsDtype.FLOAT32.value
    recommended_rho: float = 0.1

    def __post_init__(self) -> None:
        _check_choice("architecture", self.architecture, (*architecture_names(), OF_START))
        if self.architecture == OF_START:
            self._check_start()
        _check_choice("activation", self.activation, ACTIVATIONS)
        _check_choice("residual_drop", self.residual_drop, RESIDUAL_DROPS)
        for name, choices in _CHOICES.items():
            _check_choice(name, getattr(self, name), tuple(choices))
        for name, low, high in _RANGES:
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"{name}: expected [{low}, {high}], got {value!r}")
        self._check_powers()
        self._check_engine()
        if self.cutmix_share > 0.0 and self.class_balance > 0.0:
            raise ValueError(
                f"class_balance: expected 0 where batches are mixed, got {self.class_balance!r}"
            )
        if self.psi_follows == PsiFollows.CLEAN and self.adversary_share == 1.0:
            raise ValueError(
                "adversary_share: expected [0, 1) where psi_follows is 'clean', got 1.0"
            )

    def _check_start(self) -> None:
        """The model says what its network is and how large its images are."""
        if not self.start_from:
            raise ValueError(f"start_from: expected a model folder for architecture {OF_START!r}")
        for name in _OF_NETWORK:
            own, value = _DEFAULTS[name], getattr(self, name)
            if value != own:
                raise ValueError(
                    f"{name}: expected {own!r} where architecture is {OF_START!r}, got {value!r}"
                )

    def _check_powers(self) -> None:
        """Between 0 and 1 the derivative of a power is infinite at 0; z = q = 0 is a constant."""
        for name in ("power", "cross_power"):
            value = getattr(self, name)
            if 0.0 < value < 1.0:
                raise ValueError(f"{name}: expected 0 or at least 1, got {value!r}")
        if self.power == self.cross_power == 0.0:
            raise ValueError("power: expected [1, 5] where cross_power is 0, got 0.0")

    def _check_engine(self) -> None:
        """A way to differentiate L_adv does not go with every engine and precision."""
        if not self.has_penalty:
            return
        needed = _NEEDED[PenaltyMode(self.penalty_mode)]
        for name, allowed in needed.items():
            value = getattr(self, name)
            if value != allowed:
                raise ValueError(
                    f"{name}: expected {allowed!r}, got {value!r}, where penalty_mode is "
                    f"{self.penalty_mode!r}"
                )

    @property
    def has_penalty(self) -> bool:
        """Whether L_adv is part of the loss at all."""
        return self.psi_mode == PsiMode.ADAPTIVE or self.psi > 0.0

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


_CHOICES: Mapping[str, type[StrEnum]] = {
    "schedule": Schedule,
    "pairing": Pairing,
    "psi_mode": PsiMode,
    "psi_follows": PsiFollows,
    "weight_decay_on": WeightDecayOn,
    "adversary": Adversary,
    "attack_norm_mode": NormMode,
    "penalty_mode": PenaltyMode,
    "engine": Engine,
    "precision": Precision,
    "weights_dtype": WeightsDtype,
}

_NEEDED: Mapping[PenaltyMode, Mapping[str, str]] = {
    # torch supports no second backward through a compiled function.
    PenaltyMode.DOUBLE_BACKWARD: {"engine": Engine.EAGER.value},
    # A difference needs the digits of float32, and a network that draws nothing.
    PenaltyMode.FINITE_DIFFERENCE: {
        "precision": Precision.FLOAT32.value,
        "residual_drop": "none",
    },
    PenaltyMode.INNER_GRADIENT: {"residual_drop": "none"},
}

_RANGES: tuple[tuple[str, float, float], ...] = (
    ("epochs", 1, 100_000),
    ("image_size", 0, 1024),
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
    ("class_balance", 0.0, 1.0),
    ("label_smoothing", 0.0, 0.999),
    ("cutmix_share", 0.0, 1.0),
    ("parseval", 0.0, 1e6),
    ("spectral", 0.0, 1e6),
    ("spectral_limit", 0.0, 1e6),
    ("last_survival", 1e-6, 1.0),
    ("psi", 0.0, 1e12),
    ("power", 0.0, 5.0),
    ("cross_power", 0.0, 2.0),
    ("outputs_per_image", 1, 1_000_000),
    ("output_zeroing", 0.0, 1e6),
    ("adversary_eps", 0.0, 1.0),
    ("adversary_steps", 1, 1_000),
    ("adversary_step_ratio", 1e-6, 1e3),
    ("adversary_share", 0.0, 1.0),
    ("trades_weight", 0.0, 1e6),
    ("recommended_rho", 1e-6, 1.0),
    ("true_class_share", 0.0, 1.0),
    ("dead_zone", 0.0, 1e6),
    ("weight_average", 0.0, 0.999999),
    ("penalty_start_epoch", 0, 100_000),
    ("penalty_interval", 1, 1_000),
)


_DEFAULTS: Mapping[str, Any] = {field.name: field.default for field in fields(TrainConfig)}


def config_from_mapping(values: Mapping[str, Any]) -> TrainConfig:
    """`TrainConfig` from plain values; unknown keys and wrong types are rejected by name."""
    known = {field.name: field.type for field in fields(TrainConfig)}
    for key, value in values.items():
        if key not in known:
            raise ValueError(f"{key}: unknown key{suggestion(key, known)}")
        expected = known[key]
        if expected is float and type(value) is int:
            continue
        if type(value) is not expected:
            raise ValueError(f"{key}: expected a value of type {expected}, got {value!r}")
    missing = {"architecture", "epochs"} - values.keys()
    if missing:
        raise ValueError(f"{sorted(missing)[0]}: missing")
    return TrainConfig(**values)


def _check_choice(name: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise ValueError(f"{name}: expected {tuple(map(str, allowed))}, got {value!r}")


def suggestion(word: str, known: Mapping[str, Any] | Sequence[str]) -> str:
    """The nearest of the known words, as the end of an error message; empty where none is near."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
