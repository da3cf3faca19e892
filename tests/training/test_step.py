"""One step's loss with everything the configuration can add to it."""

import pytest
import torch
from torch import Generator, nn
from torch.nn.functional import cross_entropy

from training import step
from training.adversaries import Adversary, l2_adversary, trades_adversary, trades_divergence
from training.config import TrainConfig
from training.step import step_loss

CLASSES, SHAPE = 4, (3, 5, 2)
BATCHES = pytest.mark.parametrize("batch", [1, 3, 8])


def config_of(**changes):
    return TrainConfig(architecture="cifar-resnet20", epochs=1, **changes)


def network_of():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(40, CLASSES)
    ).double()


def batch_of(batch):
    torch.manual_seed(batch)
    return torch.rand(batch, *SHAPE, dtype=torch.float64), torch.arange(batch) % CLASSES


def losses_of(network, images, labels, *, is_penalised=False, class_weights=None, **changes):
    return step_loss(
        network,
        images,
        labels,
        config=config_of(**changes),
        class_count=CLASSES,
        is_penalised=is_penalised,
        generator=Generator().manual_seed(0),
        class_weights=class_weights,
    )


@BATCHES
def test_output_zeroing_is_added_with_its_weight(batch):
    network, (images, labels) = network_of().eval(), batch_of(batch)
    assert losses_of(network, images, labels).added is None
    added = losses_of(network, images, labels, output_zeroing=0.01).added
    torch.testing.assert_close(added, 0.01 * network(images).square().sum(1).mean())


@BATCHES
def test_images_are_trained_on_as_the_adversary_left_them(batch):
    network, (images, labels) = network_of().eval(), batch_of(batch)
    found = losses_of(network, images, labels, adversary="l2", adversary_eps=0.05)
    attacked = l2_adversary(network, images, labels, eps=0.05, step_count=7)
    torch.testing.assert_close(found.cross_entropy, cross_entropy(network(attacked), labels))
    assert found.cross_entropy > cross_entropy(network(images), labels)


def test_half_half_attacks_exactly_half_of_the_batch():
    network, (images, labels) = network_of(), batch_of(8)
    before, seen = images.clone(), []
    network.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach()))
    options = {"adversary": "gaussian", "adversary_eps": 0.1, "adversary_share": 0.5}
    losses_of(network, images, labels, **options)
    changed = (seen[-1] != images).flatten(1).any(1)
    assert changed.sum() == 4
    assert torch.equal(images, before)


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_trades_compares_attacked_images_with_the_clean_ones(share, monkeypatch):
    network, (images, labels) = network_of().eval(), batch_of(8)
    kept = []

    def spied(network, clean, **options):
        attacked = trades_adversary(network, clean, **options)
        kept.append((clean, attacked))
        return attacked

    monkeypatch.setattr(step, "trades_adversary", spied)
    found = losses_of(
        network, images, labels, adversary="trades", adversary_share=share, trades_weight=3.0
    )
    clean, attacked = kept[0]
    assert len(clean) == 8 * share
    torch.testing.assert_close(found.cross_entropy, cross_entropy(network(images), labels))
    divergence = trades_divergence(network(clean), network(attacked))
    torch.testing.assert_close(found.added, 3.0 * divergence)
    assert divergence > 0


@pytest.mark.parametrize("adversary", list(Adversary))
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_statistics_move_once_a_step_unless_attack_passes_may_move_them(adversary, mode):
    network, (images, labels) = network_of().train(), batch_of(8)
    losses_of(network, images, labels, adversary=adversary, attack_norm_mode=mode)
    has_passes = adversary not in (Adversary.NONE, Adversary.GAUSSIAN)
    own = 2 if adversary is Adversary.TRADES else 1
    if mode == "train" and has_passes:
        # TRADES' walk also asks for the clean images once.
        assert network[1].num_batches_tracked == 7 + (3 if adversary is Adversary.TRADES else 1)
    else:
        assert network[1].num_batches_tracked == own
    assert network[1].training


@pytest.mark.parametrize("adversary", list(Adversary))
def test_penalty_and_adversary_go_together(adversary):
    network, (images, labels) = network_of().train(), batch_of(3)
    found = losses_of(network, images, labels, is_penalised=True, adversary=adversary)
    (found.cross_entropy + found.penalty + (found.added or 0.0)).backward()
    assert all(weight.grad is not None for weight in network.parameters())
    assert all(weight.grad.isfinite().all() for weight in network.parameters())


@BATCHES
def test_class_weights_make_a_weighted_mean(batch):
    network, (images, labels) = network_of().eval(), batch_of(batch)
    weights = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)
    found = losses_of(network, images, labels, class_weights=weights).cross_entropy
    each = cross_entropy(network(images), labels, reduction="none")
    torch.testing.assert_close(found, (weights[labels] * each).sum() / weights[labels].sum())


def test_psi_follows_the_images_that_no_adversary_met():
    network, (images, labels) = network_of().eval(), batch_of(8)
    attack = {"adversary": "gaussian", "adversary_eps": 0.1, "adversary_share": 0.5}
    seen = []
    network.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach()))
    clean = losses_of(network, images, labels, psi_follows="clean", **attack)
    is_clean = (seen[-1] == images).flatten(1).all(1)
    assert is_clean.sum() == 4
    expected = cross_entropy(network(images[is_clean]), labels[is_clean])
    torch.testing.assert_close(clean.followed, expected)
    assert not clean.followed.requires_grad
    everything = losses_of(network, images, labels, psi_follows="all", **attack)
    torch.testing.assert_close(everything.followed, everything.cross_entropy)


def test_psi_follows_all_images_of_a_batch_without_a_clean_one():
    network, (images, labels) = network_of().eval(), batch_of(1)
    attack = {"adversary": "gaussian", "adversary_eps": 0.1, "adversary_share": 0.5}
    found = losses_of(network, images, labels, psi_follows="clean", **attack)
    torch.testing.assert_close(found.followed, found.cross_entropy)
