"""Explains test images and stores them for people to say what they show.

Of ten drawn images eight are explained, one stays as it is and is asked about another class, and
one stays as it is and is asked about its own class.  The last two are catch trials: they are
prepared, shown and ordered as the explanations are, and their verdicts are known beforehand.
"""

from dataclasses import asdict, dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from candor.annotation.collect import Collection, CollectionJob, SetWork, digest, search_key
from candor.contracts.annotations import FlipKind
from candor.data.images import Images
from candor.images.encode import levels_toward, png_of
from candor.images.pixels import Levels, image_of, to_levels
from candor.models.folder import LoadedModel
from candor.runtime.threads import in_shares
from candor.search.batch import plan_goal, run_searches
from candor.search.seeds import derived_seed
from candor.store.blocks import DEFAULT_LEASE_SECONDS
from candor.store.engine import Store
from candor.store.flips import FlipSetKey, FlipWriter, NewFlipImage
from candor.terms import Goal, Norm

_KINDS = (*(FlipKind.EXPLANATION,) * 8, FlipKind.ORIGINAL, FlipKind.TARGET)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking(Collection):
    """One set of images to ask about.

    Attributes:
        rho: size that an explanation may reach in ``norm``, (0, 1]; None for the card's.
    """

    rho: float | None = None
    norm: Norm = Norm.L2


@dataclass(frozen=True, slots=True, kw_only=True)
class AskingJob(CollectionJob):
    """A set that processes share; every one of them has the same."""

    collection: Asking
    split: ClassVar[str] = "test"

    def work(self, loaded: LoadedModel, dataset: Images, store: Store) -> "AskingWork":
        return AskingWork(loaded, dataset, self.collection, store, self.lease_seconds)


class AskingWork(SetWork[NewFlipImage]):
    """One worker's part in a set.

    Explained are images that the network classifies correctly, for its runner-up class; images of
    the others stay out.

    Raises:
        ValueError: rho out of its range, or as `SetWork`.
    """

    written_by = FlipWriter

    def __init__(
        self,
        loaded: LoadedModel,
        dataset: Images,
        asking: Asking,
        store: Store,
        lease_seconds: float = DEFAULT_LEASE_SECONDS,
    ) -> None:
        rho = loaded.card.recommended_rho if asking.rho is None else asking.rho
        if not 0.0 < rho <= 1.0:
            raise ValueError(f"rho: expected a number in (0, 1], got {rho:g}")
        search = asdict(search_key(loaded, dataset, asking))
        self._key = FlipSetKey(**search, rho=rho, norm=asking.norm.value)
        super().__init__(loaded, dataset, asking, store, self._key, lease_seconds)

    def summary(self) -> dict[str, int | str]:
        explanations = self._writer.count(kind=FlipKind.EXPLANATION.value)
        return {
            "set": self._writer.number,
            "images": self._writer.searched(),  # of an earlier one with more images, all of these
            "explanations": explanations,
            "catch_trials": self._writer.count() - explanations,
        }

    def rows(self, chosen: Tensor, before: int) -> list[NewFlipImage]:
        images, labels = self._dataset.images(chosen), self._dataset.labels[chosen]
        kinds = [_KINDS[(before + row) % len(_KINDS)] for row in range(len(chosen))]
        first, second = self._likeliest(images)
        is_own = torch.tensor([kind is FlipKind.TARGET for kind in kinds])
        targets = torch.where(is_own, labels, second)
        kept = is_own | (first == labels)
        is_explained = torch.tensor([kind is FlipKind.EXPLANATION for kind in kinds]) & kept
        shown = images.clone()
        if bool(is_explained.any()):
            shown[is_explained] = self._explained(
                images[is_explained], targets[is_explained], chosen[is_explained]
            )
        rows = [
            self._row(
                int(chosen[row]),
                kinds[row],
                int(targets[row]),
                to_levels(images[row].numpy()),
                levels_toward(shown[row].numpy(), images[row].numpy()),
            )
            for row in kept.nonzero()[:, 0].tolist()
        ]
        return sorted(rows, key=lambda row: row.place)  # numbers in the store tell nothing either

    @torch.no_grad()
    def _likeliest(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B,) int64 each, the likeliest class and the next."""
        network = self._loaded.network
        device = next(network.parameters()).device
        parts = torch.split(images, self._collection.batch_size)
        top = torch.cat([network(part.to(device)).topk(2, dim=1).indices.cpu() for part in parts])
        return top[:, 0], top[:, 1]

    def _explained(self, images: Tensor, targets: Tensor, indices: Tensor) -> Tensor:
        network, key = self._loaded.network, self._key
        device = next(network.parameters()).device
        plan = plan_goal(
            Goal.EXPLAIN_FOR,
            targets.to(device),
            steps=key.steps,
            rho=key.rho,
            norm=Norm(key.norm),
        )
        seeds = [derived_seed(key.seed, "flips", index) for index in indices.tolist()]
        return run_searches(
            network,
            images.to(device),
            replace(plan, seeds=torch.tensor(seeds)),
            solver=key.solver,
            batch_size=self._collection.batch_size,
            execute=in_shares,
        ).images.cpu()

    def _row(
        self, index: int, kind: FlipKind, target: int, original: Levels, shown: Levels
    ) -> NewFlipImage:
        difference = (shown.astype(np.float64) - original) / 255.0
        parts = (self._key.weights_sha256, self._key.rho, self._key.norm, self._key.seed, index)
        return NewFlipImage(
            kind=kind.value,
            data_index=index,
            identifier=self._dataset.identifiers[index],
            label=int(self._dataset.labels[index]),
            target=target,
            rmse=float(np.sqrt(np.mean(difference**2))),
            place=derived_seed(*map(str, parts)) >> 1,  # 31 bits: a database's integer
            shown_png=png_of(image_of(shown)),
            shown_sha256=digest(shown),
        )
