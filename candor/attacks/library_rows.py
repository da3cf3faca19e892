"""The standard set of AutoAttack on many images at once, each as if it were alone.

The library draws its random numbers for a batch, so an image's way would depend on the others in
it.  Here every image has a generator of its own, with the seed and the order of draws that it has
alone; an image that an attack breaks takes no part in what is left of it.  Each step of the
gradient attacks is the library's own (``attack_single_run``).  Behind `PaddedBatches`, which makes
the logits of an image the same in every batch, the images are those of the library alone, bit for
bit.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from pyautoattack import AutoAttack
from pyautoattack.autopgd_base import APGDAttack
from pyautoattack.fab_pt import FABAttack_PT
from torch import Generator, Tensor, nn

from candor.attacks.counting import CountedNetwork
from candor.attacks.library import library_runner
from candor.attacks.square_rows import square_rows

STANDARD = ("apgd-ce", "apgd-t", "fab-t", "square")
# Images left, their labels and their generators, and which class: their images and (B,) bool.
_Run = Callable[[Tensor, Tensor, Sequence[Generator], int], tuple[Tensor, Tensor]]


@dataclass(frozen=True, slots=True)
class Attacked:
    """What one attack made of a batch.

    Attributes:
        images: (B, C, H, W), the originals where nothing was found.
        is_broken: (B,) bool, the network predicts another class for them.
        steps: (B,) int64, evaluations of each image.
    """

    images: Tensor
    is_broken: Tensor
    steps: Tensor


@torch.no_grad()
def attack_rows(
    name: str,
    network: nn.Module,
    originals: Tensor,
    labels: Tensor,
    eps: float,
    seeds: Sequence[int],
    targets: int,
    queries: int | None = None,
) -> Attacked:
    """One attack of `STANDARD` on images that the network classifies correctly.

    Args:
        network, originals, labels, eps, targets, queries: as of
            `candor.attacks.library.run_library`.
        seeds: one for each image.
    """
    counted = CountedNetwork(network)
    runner = library_runner(counted, eps, seeds[0], None, targets, queries, originals.device)
    if name == "square":
        images, steps = square_rows(runner.square, originals, labels, seeds)
        counted.take()
    else:
        run, ranks = _gradient_attack(runner, name, eps)
        generators = [Generator().manual_seed(seed) for seed in seeds]
        images, steps = _over_targets(run, ranks, counted, originals, labels, generators)
    is_broken = counted(images).argmax(1) != labels
    return Attacked(images, is_broken, steps + 1)


def _gradient_attack(runner: AutoAttack, name: str, eps: float) -> tuple[_Run, Iterable[int]]:
    """How one run is done, and for which ranks of a class, 2 the likeliest beside the label."""
    if name == "apgd-ce":
        runner.apgd.loss = "ce"
        return _apgd_run(runner.apgd), [0]
    if name == "apgd-t":
        targets = runner.apgd_targeted.n_target_classes
        return _apgd_run(runner.apgd_targeted), range(2, targets + 2)
    return _fab_run(runner.fab, eps), range(2, runner.fab.n_target_classes + 2)


def _apgd_run(attack: APGDAttack) -> _Run:
    def run(
        images: Tensor, labels: Tensor, generators: Sequence[Generator], rank: int
    ) -> tuple[Tensor, Tensor]:
        attack.init_hyperparam(images)
        noise = torch.cat([torch.randn(images[:1].shape, generator=each) for each in generators])
        starts = images + attack.eps * attack.normalize(noise.to(images))
        if rank:  # of the library, which asks the network anew for every class
            attack.y_target = attack.model(images).sort(dim=1)[1][:, -rank]
        _, is_right, _, found = attack.attack_single_run(images, labels, x_init=starts)
        return found, ~is_right

    return run


def _fab_run(attack: FABAttack_PT, eps: float) -> _Run:
    def run(
        images: Tensor, labels: Tensor, generators: Sequence[Generator], rank: int
    ) -> tuple[Tensor, Tensor]:
        attack.target_class = rank
        found = attack.attack_single_run(images, labels, is_targeted=True)
        is_wrong = attack.predict(found).argmax(1) != labels
        lengths = ((images - found) ** 2).flatten(1).sum(dim=1).sqrt()
        return found, is_wrong & (lengths <= eps)

    return run


def _over_targets(
    run: _Run,
    ranks: Iterable[int],
    counted: CountedNetwork,
    originals: Tensor,
    labels: Tensor,
    generators: Sequence[Generator],
) -> tuple[Tensor, Tensor]:
    """(B, C, H, W) images and (B,) evaluations; an image leaves with its first success."""
    images, steps = originals.clone(), torch.zeros(len(labels), dtype=torch.int64)
    left = torch.arange(len(labels))
    for rank in ranks:
        own = [generators[row] for row in left.tolist()]
        found, is_found = run(originals[left].clone(), labels[left].clone(), own, rank)
        steps[left] += counted.take() // len(left)
        images[left[is_found]] = found[is_found]
        left = left[~is_found]
        if not len(left):
            break
    return images, steps
