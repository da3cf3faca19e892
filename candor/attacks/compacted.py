"""Attacks of the library one after the other, each on the images that are left by then."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from candor.attacks.batching import Spread, in_turn
from candor.attacks.candidates import Candidates, proposed
from candor.attacks.library import check_model, collected, is_passed_on, run_library
from candor.attacks.library_rows import STANDARD, Attacked, attack_rows
from candor.attacks.margin import holds
from candor.attacks.pgd import pgd
from candor.attacks.projection import project
from candor.search.network import checked
from candor.terms import Goal


def run_compacted(
    attacks: Sequence[str] | None,
    network: nn.Module,
    originals: Tensor,
    labels: Tensor,
    eps: float,
    seeds: Sequence[int],
    *,
    targets: int,
    queries: int | None = None,
    cheap_steps: int = 0,
    smaller: Candidates | None = None,
    batch_size: int = 64,
    spread: Spread = in_turn,
) -> tuple[Candidates, list[str]]:
    """What `candor.attacks.library.run_library` finds for each image alone, many at a time.

    An image that is wrong as it came, or broken, leaves; those that stay are batched anew for the
    next attack.  Where the library raises an error the images of the batch are tried one by one.

    Args:
        network, originals, labels, eps, seeds, attacks, targets, queries: as of `run_library`.
            Attacks beside those of `STANDARD` run one image at a time.
        cheap_steps, smaller, batch_size, spread: as of `candor.attacks.autoattack.autoattack`.
    """
    run = _Run(checked(network), originals.contiguous(), labels, eps, seeds)
    run.leave_wrong_and_smaller(smaller)
    if cheap_steps:
        run.leave_to_pgd(cheap_steps)
    warnings: list[str] = []
    if attacks is not None and not set(attacks) <= set(STANDARD):
        warnings = run.attack_alone(run.left(), attacks, targets, queries)
    elif len(first := run.left()[:1]):
        with torch.random.fork_rng(), collected(warnings):  # the library seeds torch's generator
            check_model(run.network, originals[first], labels[first])
            for name in STANDARD if attacks is None else attacks:
                work = partial(run.attacked, name, targets, queries)
                rows = run.left()
                for part, found in spread(work, rows, batch_size) if len(rows) else ():
                    run.take(part, found)
    return run.candidates(), sorted(set(warnings))


@dataclass(slots=True)
class _Run:
    """Where every image of a batch stands.

    Attributes:
        images: (B, C, H, W), the originals where nothing was found.
        is_broken: (B,) bool, the network predicts another class for them.
        steps: (B,) int64, evaluations so far.
        failures: by row, why the library failed on it; it leaves, too.
    """

    network: nn.Module
    originals: Tensor
    labels: Tensor
    eps: float
    seeds: Sequence[int]
    images: Tensor = field(init=False)
    is_broken: Tensor = field(init=False)
    steps: Tensor = field(init=False)
    failures: dict[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.images = self.originals.clone()
        self.is_broken = torch.zeros_like(self.labels, dtype=torch.bool)
        self.steps = torch.zeros(len(self.labels), dtype=torch.int64)

    def left(self) -> Tensor:
        """Rows that neither are broken nor failed."""
        rows = (~self.is_broken).nonzero()[:, 0].tolist()
        return torch.tensor([row for row in rows if row not in self.failures], dtype=torch.int64)

    @torch.no_grad()
    def leave_wrong_and_smaller(self, smaller: Candidates | None) -> None:
        """Images that are wrong as they came, and those that a smaller ball has broken."""
        if smaller is not None:
            self.images = torch.where(
                smaller.is_found[:, None, None, None], smaller.images, self.images
            )
            self.failures |= smaller.failures
        logits = self.network(self.images)
        self.steps += 1
        self.is_broken = holds(logits, self.labels, Goal.ATTACK)

    def leave_to_pgd(self, steps: int) -> None:
        """Images that PGD breaks from the original."""
        rows = self.left()
        if len(rows):
            found = pgd(
                self.network, self.originals[rows], self.labels[rows], self.eps, steps=steps
            )
            self.take(rows, Attacked(found.images, found.is_found, found.steps + 1))

    def attacked(
        self, name: str, targets: int, queries: int | None, rows: Tensor
    ) -> Attacked | Candidates:
        """One attack on ``rows``; one image at a time where the library fails on the batch."""
        part = self.originals[rows], self.labels[rows], self.eps, self._seeds_of(rows)
        try:
            return attack_rows(name, self.network, *part, targets, queries)
        except Exception as err:  # whatever the library meets
            if is_passed_on(err):
                raise
        return run_library(self.network, *part, attacks=[name], targets=targets, queries=queries)[0]

    def attack_alone(
        self, rows: Tensor, attacks: Sequence[str], targets: int, queries: int | None
    ) -> list[str]:
        """All of ``attacks`` on ``rows``, one image at a time; the library's warnings."""
        if not len(rows):
            return []
        part = self.originals[rows], self.labels[rows], self.eps, self._seeds_of(rows)
        found, warnings = run_library(
            self.network, *part, attacks=attacks, targets=targets, queries=queries
        )
        self.take(rows, found)
        return warnings

    def take(self, rows: Tensor, found: Attacked | Candidates) -> None:
        """What an attack made of ``rows``; the images that it broke leave."""
        is_broken = found.is_broken if isinstance(found, Attacked) else found.is_found
        self.steps[rows] += found.steps
        if isinstance(found, Candidates):
            self.failures |= {int(rows[row]): why for row, why in found.failures.items()}
        broken = rows[is_broken]
        self.images[broken] = found.images[is_broken]
        self.is_broken[broken] = True

    def candidates(self) -> Candidates:
        """Every image inside the ball, and whether it is found there."""
        images = project(self.images, self.originals, self.eps)
        found = proposed(self.network, self.originals, images, self.labels, 0)
        return Candidates(
            images=images,
            is_found=found.is_found,
            lower_bounds=found.lower_bounds,
            steps=self.steps,
            failures=self.failures,
        )

    def _seeds_of(self, rows: Tensor) -> list[int]:
        return [self.seeds[row] for row in rows.tolist()]
