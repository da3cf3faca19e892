"""Training adversaries on tiny networks: lengths, directions and what must not move.  (III-G)"""

import math

import pytest
import torch
from torch import Generator, nn

from training.adversaries import (
    NormMode,
    gaussian_noise,
    l2_adversary,
    l2_min_adversary,
    l2_min_step,
    norm_mode,
    pgd_adversary,
    random_part,
    trades_adversary,
    trades_divergence,
)

BATCHES = pytest.mark.parametrize("batch", [1, 3, 8])
CLASSES, SHAPE, EPS = 4, (3, 5, 2), 0.02


def linear():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(30, CLASSES)).double()


def normed():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(40, CLASSES)
    ).double()


def grey(batch):
    """Images far from 0 and 1, so that nothing is clipped."""
    torch.manual_seed(batch)
    return 0.4 + 0.2 * torch.rand(batch, *SHAPE, dtype=torch.float64)


def rmse(delta):
    return delta.square().mean((1, 2, 3)).sqrt()


def losses_of(network, images, labels):
    return nn.functional.cross_entropy(network(images), labels, reduction="none")


def walk(network, images, labels, kind, **changes):
    options = {"eps": EPS, "step_count": 5}
    if kind in (pgd_adversary, trades_adversary):
        options |= {"step_size": 0.01, "generator": Generator().manual_seed(1)}
    arguments = (network, images) if kind is trades_adversary else (network, images, labels)
    return kind(*arguments, **options | changes)


ALL = pytest.mark.parametrize(
    "kind", [l2_adversary, l2_min_adversary, pgd_adversary, trades_adversary]
)


@BATCHES
@ALL
def test_every_adversary_leaves_its_arguments_and_the_weights_alone(kind, batch):
    network, images, labels = linear(), grey(batch), torch.arange(batch) % CLASSES
    before = images.clone()
    attacked = walk(network, images, labels, kind)
    assert torch.equal(images, before)
    assert not attacked.requires_grad
    assert not images.requires_grad
    assert all(weight.grad is None for weight in network.parameters())
    assert (attacked.shape, attacked.dtype) == (images.shape, images.dtype)


@ALL
def test_every_adversary_stays_within_the_pixel_range(kind):
    images = (torch.rand(8, *SHAPE, dtype=torch.float64) > 0.5).double()
    attacked = walk(linear(), images, torch.arange(8) % CLASSES, kind, eps=0.3)
    assert attacked.min() >= 0
    assert attacked.max() <= 1
    assert (rmse(attacked - images) <= 0.3 + 1e-12).all()
    assert (rmse(attacked - images) > 0).any()


@BATCHES
def test_l2_step_is_along_the_gradient_with_its_part_of_eps(batch):
    network, images = linear(), grey(batch)
    labels = torch.arange(batch) % CLASSES
    inputs = images.clone().requires_grad_()
    (gradients,) = torch.autograd.grad(losses_of(network, inputs, labels).sum(), inputs)
    delta = l2_adversary(network, images, labels, eps=EPS, step_count=1) - images
    torch.testing.assert_close(rmse(delta), torch.full((batch,), EPS, dtype=torch.float64))
    cosine = nn.functional.cosine_similarity(delta.flatten(1), gradients.flatten(1))
    torch.testing.assert_close(cosine, torch.ones(batch, dtype=torch.float64))


@pytest.mark.parametrize("step_count", [1, 2, 7])
def test_l2_steps_raise_the_loss_and_walk_eps_in_all(step_count):
    """With two classes a linear network's gradient never turns, so the steps add up."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(30, 2)).double()
    images, labels = grey(8), torch.arange(8) % 2
    attacked = l2_adversary(network, images, labels, eps=EPS, step_count=step_count)
    torch.testing.assert_close(rmse(attacked - images), torch.full((8,), EPS).double())
    assert (losses_of(network, attacked, labels) > losses_of(network, images, labels)).all()


def test_image_without_a_gradient_stays_where_it_is():
    network = linear()
    nn.init.zeros_(network[1].weight)
    images, labels = grey(3), torch.zeros(3, dtype=torch.int64)
    assert torch.equal(l2_adversary(network, images, labels, eps=EPS), images)


def test_saturated_network_is_still_followed_in_single_precision():
    """Its gradients are near the smallest number there is; their squares would be 0."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(30, 2))
    with torch.no_grad():
        network[1].weight.copy_(torch.tensor([[1.0], [-1.0]]).expand(2, 30))
        network[1].bias.copy_(torch.tensor([20.0, -20.0]))
    images = grey(2).float()
    attacked = l2_adversary(network, images, torch.tensor([1, 1]), eps=EPS)
    torch.testing.assert_close(rmse(attacked - images), torch.full((2,), EPS))
    tiny = nn.Sequential(nn.Flatten(), nn.Linear(30, 2))
    with torch.no_grad():
        tiny[1].weight.copy_(torch.tensor([[1e-30], [-1e-30]]).expand(2, 30))
    attacked = l2_adversary(tiny, images, torch.tensor([1, 1]), eps=EPS)
    torch.testing.assert_close(rmse(attacked - images), torch.full((2,), EPS))


@pytest.mark.parametrize("step_count", [1, 2, 7])
def test_steps_of_the_minimal_adversary_shrink_linearly_and_sum_to_one(step_count):
    steps = [l2_min_step(index, step_count) for index in range(step_count)]
    assert sum(steps) == pytest.approx(1)
    assert steps[0] == pytest.approx(2 / (step_count + 1))
    assert steps[-1] == pytest.approx(2 / (step_count * (step_count + 1)))
    assert all(a > b for a, b in zip(steps, steps[1:], strict=False))


def boundary_at(distance):
    """One image and a network of two classes that errs once the image is ``distance`` brighter.

    Its gradient is the same for every pixel, so a perturbation is one number, its RMSE.
    """
    network = nn.Sequential(nn.Flatten(), nn.Linear(30, 2)).double()
    with torch.no_grad():
        network[1].weight.copy_(torch.tensor([[-1.0], [1.0]]).expand(2, 30))
        network[1].bias.copy_(torch.tensor([30 * (0.5 + distance), -30 * (0.5 + distance)]))
    return network, torch.full((1, *SHAPE), 0.5, dtype=torch.float64), torch.tensor([0])


def test_minimal_adversary_takes_all_of_eps_while_the_network_is_right():
    network, images, labels = boundary_at(0.5)
    attacked = l2_min_adversary(network, images, labels, eps=0.1)
    torch.testing.assert_close(attacked, images + 0.1)


def test_minimal_adversary_steps_back_once_the_network_is_wrong():
    network, images, labels = boundary_at(0.031)
    # Steps of 0.07, 0.06, ... 0.01: up to 0.07, which is wrong, back to 0.01, up to 0.06, back to
    # 0.02, up to 0.05, back to 0.03, up to 0.04.
    attacked = l2_min_adversary(network, images, labels, eps=0.28)
    torch.testing.assert_close(attacked, images + 0.04)


def test_minimal_adversary_steps_back_past_the_image_as_the_equation_says():
    network, images, labels = boundary_at(0.005)
    # Two steps, 0.02 and 0.01: wrong after the first.
    one = l2_min_adversary(network, images, labels, eps=0.03, step_count=2)
    torch.testing.assert_close(one, images + 0.01)
    # The first step is clipped to 0.001, so a step back of 0.01 passes the image.
    bright = images + 0.499
    network, _, _ = boundary_at(0.4995)
    passed = l2_min_adversary(network, bright, labels, eps=0.03, step_count=2)
    torch.testing.assert_close(passed, bright + 0.001 - 0.01)


def test_minimal_adversary_leaves_what_is_wrong_from_the_start():
    network, images, labels = boundary_at(-0.1)
    assert torch.equal(l2_min_adversary(network, images, labels, eps=0.1), images)


def test_minimal_adversary_treats_each_image_alone():
    network, image, _ = boundary_at(0.031)
    images, labels = image.expand(3, *SHAPE) - 0.0, torch.tensor([0, 1, 0])
    whole = l2_min_adversary(network, images, labels, eps=0.28)
    for place in range(3):
        rows = slice(place, place + 1)
        alone = l2_min_adversary(network, images[rows], labels[rows], eps=0.28)
        torch.testing.assert_close(whole[rows], alone)


@BATCHES
def test_noise_has_its_standard_deviation_everywhere_and_its_seed(batch):
    images = torch.full((batch, 3, 50, 40), 0.5, dtype=torch.float64)
    noise = gaussian_noise(images, eps=0.05, generator=Generator().manual_seed(2)) - images
    assert noise.flatten(1).std(1).tolist() == pytest.approx([0.05] * batch, rel=0.05)
    assert abs(noise.mean().item()) < 0.003
    again = gaussian_noise(images, eps=0.05, generator=Generator().manual_seed(2)) - images
    assert torch.equal(noise, again)


@BATCHES
@pytest.mark.parametrize("kind", [pgd_adversary, trades_adversary])
def test_projected_walks_end_in_the_ball_and_raise_their_loss(kind, batch):
    network, images = linear(), grey(batch)
    with torch.no_grad():
        labels = network(images).argmax(1)
    attacked = walk(network, images, labels, kind, step_count=10)
    assert (rmse(attacked - images) <= EPS * (1 + 1e-9)).all()
    assert (rmse(attacked - images) > 0.99 * EPS).all()
    before, after = losses_of(network, images, labels), losses_of(network, attacked, labels)
    assert (after > before).all() or kind is trades_adversary
    divergence = trades_divergence(network(images), network(attacked))
    assert divergence > 1e-6


def test_projected_ascent_starts_at_random():
    network, images, labels = linear(), grey(3), torch.tensor([0, 1, 2])
    starts = [
        walk(network, images, labels, pgd_adversary, step_count=0,
             generator=Generator().manual_seed(seed))
        for seed in (1, 1, 2)
    ]  # fmt: skip
    assert torch.equal(starts[0], starts[1])
    assert not torch.allclose(starts[0], starts[2])
    assert (rmse(starts[0] - images) <= EPS).all()


@BATCHES
def test_divergence_is_that_of_the_definition(batch):
    torch.manual_seed(batch)
    clean, attacked = torch.randn(2, batch, CLASSES, dtype=torch.float64)
    p, q = clean.softmax(1), attacked.softmax(1)
    expected = (p * (p / q).log()).sum(1).mean()
    torch.testing.assert_close(trades_divergence(clean, attacked), expected)
    assert trades_divergence(clean, clean).abs() < 1e-12


@BATCHES
@pytest.mark.parametrize(("share", "of_three"), [(0.0, 0), (0.5, 2), (1.0, 3)])
def test_random_part_has_its_share_and_no_place_twice(batch, share, of_three):
    part = random_part(batch, share=share, generator=Generator().manual_seed(0))
    assert len(part) == (of_three if batch == 3 else math.floor(share * batch + 0.5))
    assert len(set(part.tolist()) & set(range(batch))) == len(part)


def test_random_part_is_another_one_in_every_draw():
    generator = Generator().manual_seed(0)
    parts = {tuple(sorted(random_part(8, share=0.5, generator=generator).tolist()))
             for _ in range(20)}  # fmt: skip
    assert len(parts) > 10


def test_statistics_move_in_training_mode_and_rest_in_evaluation_mode():
    images, labels = grey(8), torch.arange(8) % CLASSES
    for mode, moves in ((NormMode.EVAL, False), (NormMode.TRAIN, True)):
        network = normed().train()
        before = {name: value.clone() for name, value in network.named_buffers()}
        with norm_mode(network, mode):
            l2_min_adversary(network, images, labels, eps=EPS)
        same = all(torch.equal(value, before[name]) for name, value in network.named_buffers())
        assert same is not moves
        assert all(layer.training for layer in network.modules())


@pytest.mark.parametrize("mode", list(NormMode))
def test_each_layer_gets_its_own_mode_back_even_after_an_error(mode):
    network = nn.Sequential(nn.BatchNorm2d(3), nn.Dropout(), nn.BatchNorm2d(3)).train()
    network[2].eval()
    seen = []

    def attack():
        with norm_mode(network, mode):
            seen.extend(layer.training for layer in network)
            raise RuntimeError("attack")

    with pytest.raises(RuntimeError, match="attack"):
        attack()
    assert seen == [mode == "train", True, mode == "train"]
    assert [layer.training for layer in network] == [True, True, False]
