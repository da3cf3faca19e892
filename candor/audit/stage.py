"""What a stage of an audit is, and what it works on.

A stage turns one block of images into entries of the ledger.  It is a pure function of the subject,
the block and the budget, so blocks may run anywhere and in any order.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

from torch import Tensor, nn

from candor.attacks.batching import PaddedBatches
from candor.audit.plan import Budget, image_seed
from candor.audit.real_images import RealImages
from candor.audit.records import AttackRecord, Row
from candor.contracts.card import ModelCard
from candor.search.network import checked


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What is audited.

    Attributes:
        network: in evaluation mode, weights without gradient; all networks are `checked`.
        card: its card; the classes, the input and the name.
        searcher: the same network compiled, for the solvers' steps; None for ``network`` itself.
        independent, undefended: further networks for transfer and ablation, None where not given.
        real: images of the data as ``independent`` sees them; None without it, or without training
            images.
        temperature: second one that BTR is measured at; 1 is the network's own.
    """

    network: nn.Module
    card: ModelCard
    searcher: nn.Module | None = None
    independent: nn.Module | None = None
    undefended: nn.Module | None = None
    real: RealImages | None = None
    temperature: float = 1.0

    def __post_init__(self) -> None:
        for name in ("network", "searcher", "independent", "undefended"):
            network = getattr(self, name)
            if network is not None:  # a stage meets none that answers without numbers
                object.__setattr__(self, name, checked(network))

    @property
    def padded(self) -> nn.Module:
        """``network`` as the attacks on a whole batch call it."""
        return PaddedBatches(self.network)

    @property
    def attacked(self) -> nn.Module:
        """What attacks of many evaluations call: the compiled network, else the padded one."""
        return self.searcher or self.padded


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """The images of one block.

    Attributes:
        positions: (B,) place in the order of the audit.     indices: (B,) rows of the data set.
        identifiers: one name an image.
        images: (B, C, H, W) float32 in [0, 1], made contiguous.     labels: (B,) int64.
        seed: of the audit.     size: images that enter one evaluation, at most.
    """

    positions: Sequence[int]
    indices: Sequence[int]
    identifiers: Sequence[str]
    images: Tensor
    labels: Tensor
    seed: int
    size: int = 1024

    def __post_init__(self) -> None:
        # captum and the attack library refuse other layouts.
        object.__setattr__(self, "images", self.images.contiguous())

    def seeds(self, stage: str) -> list[int]:
        """One seed an image; see `image_seed`."""
        return [image_seed(self.seed, index, stage) for index in self.indices]

    def first(self, count: int) -> "Batch":
        """The first ``count`` images."""
        return replace(
            self,
            positions=self.positions[:count],
            indices=self.indices[:count],
            identifiers=self.identifiers[:count],
            images=self.images[:count],
            labels=self.labels[:count],
        )


EntryT = TypeVar("EntryT", AttackRecord, Row)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage(Generic[EntryT]):
    """One part of an audit: attack records, or rows of a measurement.

    Attributes:
        run: entries of one block.
        limit: images it sees by the budget, None for all.
        steps: about how many network evaluations an image costs, for the time left.
        settings: hyper-parameters, for the report, by the budget and the number of classes.
        block_images: largest block; small where an image takes long, for a kill loses a block.
        block_batches: batches that a block holds; several where images leave on the way and the
            others are batched anew.
    """

    run: Callable[[Subject, Batch, Budget], list[EntryT]]
    limit: Callable[[Budget], int | None]
    steps: Callable[[Budget], int]
    settings: Callable[[Budget, int], Mapping[str, Any]] = field(
        default=lambda budget, class_count: {}
    )
    block_images: int = 1024
    block_batches: int = 1
