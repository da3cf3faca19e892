"""What an audit will do, fixed before it starts, and its digest."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Annotated, Literal, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from candor import terms
from candor.contracts import limits
from candor.contracts.api import Seed, Steps
from candor.contracts.card import Digest
from candor.contracts.json_text import json_text
from candor.search.seeds import derived_seed

Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
PLAN_FILE = "plan.json"
# Whose source decides the numbers.
_PACKAGES = (
    "candor.attacks",
    "candor.audit",
    "candor.contracts",
    "candor.data",
    "candor.explainers",
    "candor.images",
    "candor.models",
    "candor.nets",
    "candor.robustness",
    "candor.runtime",
    "candor.search",
)


class Frozen(BaseModel):
    """Base of every model here: unknown fields are rejected, values never change."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False
    )


class Budget(Frozen):
    """How much work every part of an audit gets.

    The solvers and whatever else is cheap see every image; the costly parts see the first images of
    the same order, so that subsets are nested and their n is stated beside every number.

    Attributes:
        steps: of the solvers (N of Algorithm 1).
        descent_steps: of DDN, FMN, PGD and of one search of C&W.
        descent_images: seen by DDN, FMN, FGSM, PGD and C&W.
        autoattack_images: seen by AutoAttack.
        query_images: seen by Square and the hard-label attack.
        square_queries, label_queries: allowed to Square and to the hard-label attack, one image.
        panel_images: seen by the probes of the masking panel.
        noise_trials: random perturbations of one image in the panel.
        smoothing_images, smoothing_samples: certified images, noisy copies of each.
        clever_images, clever_samples: estimated images, gradients of each.
        explanation_images: explained images.
        gallery_images: of each part of the gallery, see `candor.audit.sections.gallery`.
        calibration_images: searched for BTR at both temperatures.
    """

    steps: Steps = terms.PAPER_STEPS
    descent_steps: Positive = 100
    descent_images: Count = 100
    autoattack_images: Count = 100
    query_images: Count = 10
    square_queries: Positive = 1000
    label_queries: Positive = 2000
    panel_images: Count = 20
    noise_trials: Positive = 10_000
    smoothing_images: Count = 20
    smoothing_samples: Positive = 10_000
    clever_images: Count = 20
    clever_samples: Positive = 256
    explanation_images: Count = 20
    gallery_images: Count = 50
    calibration_images: Count = 100


QUICK = Budget(
    steps=60,
    descent_steps=40,
    descent_images=10,
    autoattack_images=8,
    query_images=2,
    square_queries=200,
    label_queries=400,
    panel_images=3,
    noise_trials=200,
    smoothing_images=3,
    smoothing_samples=400,
    clever_images=3,
    clever_samples=32,
    explanation_images=3,
    gallery_images=6,
    calibration_images=10,
)
_EVERY_IMAGE = limits.MAX_REPORT_IMAGES
FULL = Budget(
    descent_images=_EVERY_IMAGE,
    autoattack_images=_EVERY_IMAGE,
    query_images=100,
    panel_images=100,
    smoothing_images=100,
    clever_images=100,
    explanation_images=100,
    calibration_images=_EVERY_IMAGE,
)
BUDGETS: Mapping[str, Budget] = dict(zip(limits.BUDGETS, (QUICK, Budget(), FULL), strict=True))
# The counts of a budget; the steps of the solvers are an option of their own.
COUNTS = tuple(name for name in Budget.model_fields if name != "steps")


def nearest_budget(budget: Budget) -> tuple[str, dict[str, int]]:
    """Name of the budget that differs from ``budget`` in the fewest counts, and these counts."""
    differing = {
        name: {
            key: getattr(budget, key)
            for key in COUNTS
            if getattr(budget, key) != getattr(named, key)
        }
        for name, named in BUDGETS.items()
    }
    name = min(differing, key=lambda key: len(differing[key]))
    return name, differing[name]


class FittedTemperature(Frozen):
    """The temperature of least negative log-likelihood, see `candor.robustness.calibration`.

    It decides numbers of the audit, so it has two decimals: any machine finds the same.

    Attributes:
        low, high: 95 % interval.
        image_count: images it was found on.
        is_held_out: whether these are other images than the audited ones.
    """

    value: Annotated[float, Field(gt=0.0)]
    low: float
    high: float
    image_count: Positive
    is_held_out: bool


class AuditPlan(Frozen):
    """Everything the numbers of an audit follow from; two equal plans give equal ledgers.

    Attributes:
        weights_sha256, data_sha256, code_sha256: of the model, the images and labels, the source.
        data: registered name and split.
        image_count: first images of the order drawn by ``seed``.
        stages: parts of the audit, in order.
        batch_size: images that enter one computation together.
        engine: who takes the solvers' steps; the compiled network differs in its last bits.  All
            else, verification above all, is done by the network as it is.
        independent_sha256, undefended_sha256: weights of the models given beside it, if any.
        real_sha256: of the training images that explanations are compared with, if any.
        temperature: second one that BTR is measured at; None where calibration is no part of it.
    """

    weights_sha256: Digest
    data: str
    data_sha256: Digest
    code_sha256: Digest
    image_count: Annotated[int, Field(ge=2)]
    seed: Seed = 0
    stages: tuple[str, ...]
    batch_size: Positive = 32
    engine: Literal["eager", "compiled"] = "eager"
    budget: Budget = Budget()
    independent_sha256: Digest | None = None
    undefended_sha256: Digest | None = None
    real_sha256: Digest | None = None
    temperature: FittedTemperature | None = None

    @model_validator(mode="after")
    def _unique_stages(self) -> Self:
        if len(set(self.stages)) != len(self.stages):
            raise ValueError(f"stages: expected each once, got {self.stages}")
        return self

    @property
    def digest(self) -> str:
        """SHA-256 of the plan's canonical JSON, hex."""
        text = json_text(self.model_dump(mode="json"), is_compact=True, is_sorted=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def image_indices(self, available: int) -> list[int]:
        """Rows of the data set that are audited, see `image_order`."""
        indices: list[int] = image_order(available, self.seed)[: self.image_count].tolist()
        return indices


@dataclass(frozen=True, slots=True)
class Shard:
    """Share ``index`` of ``count`` equal shares of the work."""

    index: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise ValueError(f"shard: expected 0/n to (n-1)/n, got {self.index}/{self.count}")

    @classmethod
    def parse(cls, text: str) -> Self:
        """From "i/n", i counted from 0 as the index of a Kubernetes indexed Job is.

        Raises:
            ValueError: not of that form or out of range.
        """
        index, slash, count = text.partition("/")
        if not (slash and _is_number(index) and _is_number(count)):
            raise ValueError(f"shard: expected i/n with 0 <= i < n, got {text!r}")
        return cls(int(index), int(count))


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def image_order(available: int, seed: int) -> Tensor:
    """(N,) int64: all rows of a data set in the order of an audit and of `candor ara`."""
    return torch.randperm(available, generator=torch.Generator().manual_seed(seed))


def image_seed(seed: int, index: int, stage: str) -> int:
    """32 bits for one image in one stage; batch, shard and order have no part in it."""
    return derived_seed(seed, stage, index)


def code_digest() -> str:
    """SHA-256 over the names and contents of the Python files that decide the numbers."""
    sha = hashlib.sha256()
    for package in _PACKAGES:
        root = Path(str(import_module(package).__file__)).parent
        for path in sorted(root.rglob("*.py")):
            sha.update(f"{package}/{path.relative_to(root)}\0".encode())
            sha.update(hashlib.sha256(path.read_bytes()).digest())
    return sha.hexdigest()


def differences(old: AuditPlan, new: AuditPlan) -> Sequence[str]:
    """Names of the fields in which two plans differ."""
    return [name for name in AuditPlan.model_fields if getattr(old, name) != getattr(new, name)]
