"""The input-gradient penalty against networks whose gradient is known.  (Eq. 9)"""

import pytest
import torch
from torch import Generator, nn
from torch.autograd import gradcheck, gradgradcheck

from training.config import TrainConfig
from training.regularizers import Pairing, input_gradient_penalty, output_weights
from training.step import step_loss

BATCHES = pytest.mark.parametrize("batch", [1, 3, 8])
CLASSES, SHAPE = 4, (3, 5, 2)


def config_of(**changes):
    return TrainConfig(architecture="cifar-resnet20", epochs=1, **changes)


def linear():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(30, CLASSES)).double()


def batch_of(batch):
    torch.manual_seed(batch)
    images = torch.rand(batch, *SHAPE, dtype=torch.float64)
    return images, torch.randint(CLASSES, (batch,))


def penalty_of(network, images, labels, seed=0, **changes):
    losses = step_loss(
        network,
        images,
        labels,
        config=config_of(**changes),
        is_penalised=True,
        generator=Generator().manual_seed(seed),
    )
    return losses.penalty


@BATCHES
@pytest.mark.parametrize("power", [1.0, 2.0, 3.0])
def test_penalty_of_the_true_class_is_that_of_its_weights(batch, power):
    network = linear()
    images, labels = batch_of(batch)
    penalty = penalty_of(network, images, labels, power=power, true_class_share=1.0, pairing="none")
    expected = network[1].weight[labels].abs().pow(power).mean()
    torch.testing.assert_close(penalty, expected)


@BATCHES
@pytest.mark.parametrize(("pairing", "sign"), [("difference", -1), ("sum", 1)])
def test_tandem_penalises_true_class_and_strongest_other_together(batch, pairing, sign):
    network = linear()
    images, labels = batch_of(batch)
    logits = network(images)
    rivals = torch.tensor(
        [
            max((k for k in range(CLASSES) if k != label), key=lambda k: row[k].item())
            for row, label in zip(logits, labels.tolist(), strict=True)
        ]
    )
    weight = network[1].weight
    expected = (weight[labels] + sign * weight[rivals]).square().mean()
    penalty = penalty_of(network, images, labels, true_class_share=1.0, pairing=pairing)
    torch.testing.assert_close(penalty, expected)


def test_without_true_class_share_classes_are_drawn_uniformly():
    network = linear()
    images, labels = batch_of(1)
    with torch.no_grad():  # gradients 1, 2, 3, 4: the penalty tells which class was drawn
        network[1].weight.copy_(torch.arange(1.0, 5.0)[:, None].expand(CLASSES, 30))
    options = {"power": 1.0, "true_class_share": 0.0}
    drawn = [penalty_of(network, images, labels, seed, **options).item() for seed in range(400)]
    values, counts = torch.tensor(drawn).unique(return_counts=True)
    assert values.tolist() == pytest.approx([1, 2, 3, 4])
    assert counts.min() > 65  # 100 expected, standard deviation 8.7


def test_true_class_share_is_the_probability_of_the_true_class():
    count = 4000
    generator = Generator().manual_seed(0)
    labels = torch.zeros(count, dtype=torch.int64)
    weights = output_weights(
        torch.zeros(count, 2),
        labels,
        classes=torch.ones_like(labels),
        shares=torch.rand(count, generator=generator),
        true_class_share=0.2,
        pairing=Pairing.NONE,
    )
    assert weights[:, 0].mean().item() == pytest.approx(0.2, abs=0.02)
    assert (weights.sum(1) == 1).all()


@BATCHES
@pytest.mark.parametrize("pairing", list(Pairing))
def test_share_of_zero_takes_the_draw_and_of_one_never_does(batch, pairing):
    logits = torch.randn(batch, CLASSES)
    labels = torch.randint(CLASSES, (batch,))
    classes = (labels + 1) % CLASSES
    options = {"classes": classes, "pairing": pairing}
    never = output_weights(
        logits, labels, shares=torch.zeros(batch), true_class_share=0.0, **options
    )
    assert torch.equal(never, nn.functional.one_hot(classes, CLASSES).float())
    always = output_weights(
        logits, labels, shares=torch.full((batch,), 0.999999), true_class_share=1.0, **options
    )
    assert (always.gather(1, labels[:, None]) == 1).all()
    total = {Pairing.NONE: 1, Pairing.DIFFERENCE: 0, Pairing.SUM: 2}[pairing]
    assert (always.sum(1) == total).all()


def test_weights_carry_no_gradient():
    logits = torch.randn(3, CLASSES, requires_grad=True)
    weights = output_weights(
        logits,
        torch.tensor([0, 1, 2]),
        classes=torch.tensor([3, 3, 3]),
        shares=torch.zeros(3),
        true_class_share=1.0,
        pairing=Pairing.DIFFERENCE,
    )
    assert not weights.requires_grad


def test_gradients_inside_the_dead_zone_go_unpunished():
    gradients = torch.tensor([0.5, -0.5, 2.0, -3.0]).view(1, 1, 2, 2)
    assert input_gradient_penalty(gradients, power=2.0, dead_zone=0.0) == 13.5 / 4
    assert input_gradient_penalty(gradients, power=2.0, dead_zone=1.0) == (1 + 4) / 4
    assert input_gradient_penalty(gradients, power=1.0, dead_zone=3.0) == 0


def test_penalty_is_the_mean_over_images_and_inputs():
    gradients = torch.randn(8, 3, 5, 2)
    whole = input_gradient_penalty(gradients, power=2.0, dead_zone=0.0)
    each = [input_gradient_penalty(row[None], power=2.0, dead_zone=0.0) for row in gradients]
    torch.testing.assert_close(whole, torch.stack(each).mean())


@BATCHES
def test_penalty_differentiates_twice_by_the_weights(batch):
    images, labels = batch_of(batch)
    torch.manual_seed(1)
    first = torch.randn(3, 30, dtype=torch.float64, requires_grad=True)
    second = torch.randn(CLASSES, 3, dtype=torch.float64, requires_grad=True)

    class Smooth(nn.Module):
        def forward(self, inputs):
            return torch.tanh(inputs.flatten(1) @ self.first.T) @ self.second.T

    def penalty(first, second):
        network = Smooth()
        network.first, network.second = first, second
        return penalty_of(network, images, labels, true_class_share=0.5)

    assert gradcheck(penalty, (first, second))
    assert gradgradcheck(penalty, (first, second))


@BATCHES
def test_step_counts_its_hits_and_leaves_the_images_alone(batch):
    network = linear()
    images, labels = batch_of(batch)
    before = images.clone()
    losses = step_loss(
        network, images, labels, config=config_of(), is_penalised=False, generator=Generator()
    )
    logits = network(images)
    assert losses.penalty is None
    assert losses.correct == (logits.argmax(1) == labels).sum()
    torch.testing.assert_close(
        losses.cross_entropy, -logits.log_softmax(1)[range(batch), labels].mean()
    )
    penalty_of(network, images, labels)
    assert torch.equal(images, before)
    assert not images.requires_grad
