"""FGSM, PGD and DDN against foolbox's own on a small network."""

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from candor.attacks.ddn import ddn
from candor.attacks.fgsm import fgsm
from candor.attacks.pgd import STEP_SHARE, pgd
from candor.terms import Goal
from tests.fixtures.audit import CLASSES, grey_images, small_network

with warnings.catch_warnings():
    # It imports from a namespace of scipy that is about to go.
    warnings.simplefilter("ignore", DeprecationWarning)
    import foolbox

EPS = 0.07
STEPS = 20


@pytest.fixture(scope="module")
def binary() -> nn.Module:
    """Two classes: there the margin, ours, and the cross-entropy, theirs, point the same way."""
    head = nn.Linear(len(CLASSES), 2, bias=False)
    with torch.no_grad():
        head.weight.copy_(torch.eye(2, len(CLASSES)))
    return nn.Sequential(small_network(), head).eval().requires_grad_(False)


def labelled(network: nn.Module, count: int = 12) -> tuple[Tensor, Tensor]:
    images = grey_images(count)
    return images, network(images).argmax(1)


def theirs(network: nn.Module, attack: Any, images: Tensor, labels: Tensor, eps: float | None):  # type: ignore[no-untyped-def]
    """Images within ``eps`` (None: the smallest found) and whether each succeeded."""
    model = foolbox.PyTorchModel(network, bounds=(0, 1), device="cpu")
    _, attacked, is_found = attack(model, images, labels, epsilons=eps)
    return attacked, is_found


def test_fgsm_is_foolbox_s(binary: nn.Module) -> None:
    images, labels = labelled(binary)
    ours = fgsm(binary, images, labels, EPS)
    attack = foolbox.attacks.L2FastGradientAttack()
    attacked, is_found = theirs(binary, attack, images, labels, EPS)
    torch.testing.assert_close(ours.images, attacked, rtol=0, atol=1e-5)
    assert ours.is_found.tolist() == is_found.tolist()
    assert 0 < int(is_found.sum()) < len(images), "shows nothing where all or none succeed"


def test_pgd_is_foolbox_s_until_it_succeeds(binary: nn.Module) -> None:
    images, labels = labelled(binary)
    ours = pgd(binary, images, labels, EPS, steps=STEPS)
    attack = foolbox.attacks.L2ProjectedGradientDescentAttack(
        rel_stepsize=STEP_SHARE / STEPS, steps=STEPS, random_start=False
    )
    attacked, is_found = theirs(binary, attack, images, labels, EPS)
    assert ours.is_found.tolist() == is_found.tolist()
    missed = ~is_found
    assert 0 < int(missed.sum()) < len(images), "shows nothing where all or none succeed"
    torch.testing.assert_close(ours.images[missed], attacked[missed], rtol=0, atol=1e-4)


def test_ddn_finds_what_foolbox_s_finds() -> None:
    network = small_network()
    images, labels = labelled(network)
    ours = ddn(network, images, labels, Goal.ATTACK, 100)
    attacked, is_found = theirs(network, foolbox.attacks.DDNAttack(steps=100), images, labels, None)
    assert bool(is_found.all())
    assert bool(ours.is_found.all())
    ratios = _distances(ours.images, images) / _distances(attacked, images)
    assert float(ratios.max()) < 1.05
    assert float(ratios.median()) < 1.01


def _distances(attacked: Tensor, images: Tensor) -> Tensor:
    return (attacked - images).flatten(1).norm(dim=1)
