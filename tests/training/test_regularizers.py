"""The input-gradient penalty against networks whose gradient is known.  (Eq. 9)"""

import pytest
import torch
from torch import Generator, nn
from torch.autograd import gradcheck, gradgradcheck

from training.config import TrainConfig
from training.regularizers import (
    Pairing,
    class_balanced_weights,
    draw_classes,
    input_gradient_penalty,
    output_weights,
    output_zeroing_penalty,
    output_zeroing_weight,
    stacked_output_weights,
)
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
        class_count=CLASSES,
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
        network,
        images,
        labels,
        config=config_of(),
        class_count=CLASSES,
        is_penalised=False,
        generator=Generator(),
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


@BATCHES
@pytest.mark.parametrize("power", [0.0, 1.0, 2.0, 3.0, 4.0, 5.0])
@pytest.mark.parametrize("cross_power", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("dead_zone", [0.0, 0.5])
def test_family_of_penalties_is_that_of_the_definition(batch, power, cross_power, dead_zone):
    torch.manual_seed(batch)
    gradients = torch.randn(batch, *SHAPE, dtype=torch.float64)
    expected = 0.0
    for row in gradients:
        left = [max(abs(value) - dead_zone, 0.0) for value in row.flatten().tolist()]
        expected += sum(sum(left) ** cross_power * value**power for value in left) / len(left)
    penalty = input_gradient_penalty(
        gradients, power=power, cross_power=cross_power, dead_zone=dead_zone
    )
    assert penalty.item() == pytest.approx(expected / batch)


def test_power_one_and_cross_power_one_are_the_same_but_for_the_scale():
    gradients = torch.randn(3, *SHAPE, dtype=torch.float64)
    plain = input_gradient_penalty(gradients, power=1.0)
    crossed = input_gradient_penalty(gradients, power=0.0, cross_power=1.0)
    torch.testing.assert_close(crossed, 30 * plain)


@pytest.mark.parametrize("power", [0.0, 1.0, 2.0, 3.0, 5.0])
@pytest.mark.parametrize("cross_power", [0.0, 1.0, 2.0])
def test_family_of_penalties_differentiates_twice(power, cross_power):
    if power == cross_power == 0.0:
        return
    torch.manual_seed(0)
    gradients = torch.randn(2, 1, 2, 3, dtype=torch.float64, requires_grad=True)

    def penalty(gradients):
        return input_gradient_penalty(
            gradients, power=power, cross_power=cross_power, dead_zone=0.01
        )

    assert gradcheck(penalty, gradients)
    assert gradgradcheck(penalty, gradients)


@pytest.mark.parametrize("power", [0.0, 1.0, 2.0])
def test_derivative_is_finite_where_every_gradient_is_zero(power):
    gradients = torch.zeros(2, 1, 2, 3, requires_grad=True)
    penalty = input_gradient_penalty(gradients, power=power, cross_power=1.0)
    penalty.backward()
    assert gradients.grad.isfinite().all()


@BATCHES
@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_no_class_is_drawn_twice_for_an_image(batch, count):
    classes = draw_classes(
        batch, class_count=4, outputs_per_image=count, generator=Generator().manual_seed(0)
    )
    assert classes.shape == (count, batch)
    assert all(len(set(column)) == count for column in classes.T.tolist())
    assert 0 <= classes.min() <= classes.max() < 4


@pytest.mark.parametrize("count", [1, 2, 3])
def test_every_class_is_drawn_as_often(count):
    classes = draw_classes(
        4000, class_count=4, outputs_per_image=count, generator=Generator().manual_seed(0)
    )
    for row in classes:
        assert row.bincount(minlength=4).min() > 900  # 1000 expected, standard deviation 27


@BATCHES
@pytest.mark.parametrize("share", [0.0, 1.0])
def test_drawing_all_outputs_is_exact(batch, share):
    """K = V: the mean over all classes, whatever the draw, the true one drawn on purpose or not."""
    network = linear()
    images, labels = batch_of(batch)
    expected = network[1].weight.square().mean()
    options = {"outputs_per_image": CLASSES, "true_class_share": share, "pairing": "none"}
    for seed in range(3):
        torch.testing.assert_close(penalty_of(network, images, labels, seed, **options), expected)


def test_more_outputs_than_classes_are_all_of_them():
    network = linear()
    images, labels = batch_of(3)
    penalty = penalty_of(network, images, labels, outputs_per_image=9, true_class_share=0.0)
    torch.testing.assert_close(penalty, network[1].weight.square().mean())


@BATCHES
@pytest.mark.parametrize("pairing", list(Pairing))
def test_true_class_drawn_on_purpose_comes_once_and_displaces_another(batch, pairing):
    torch.manual_seed(batch)
    logits, labels = torch.randn(batch, CLASSES), torch.randint(CLASSES, (batch,))
    classes = draw_classes(
        batch, class_count=CLASSES, outputs_per_image=3, generator=Generator().manual_seed(batch)
    )
    weights = stacked_output_weights(
        logits,
        labels,
        classes=classes,
        shares=torch.zeros(batch),
        true_class_share=0.5,
        pairing=pairing,
    )
    assert weights.shape == (3, batch, CLASSES)
    assert (weights[0].gather(1, labels[:, None]) == 1).all()
    others = weights[1:]
    assert (others.sum(2) == 1).all()
    assert (others.gather(2, labels[None, :, None].expand(2, -1, 1)) == 0).all()
    assert not (others[0] == others[1]).all(1).any()


def test_one_output_an_image_draws_what_it_always_drew():
    """Runs that were started before K existed go on with the same numbers."""
    network = linear()
    images, labels = batch_of(8)
    generator = Generator().manual_seed(5)
    classes = torch.randint(CLASSES, (8,), generator=generator)
    shares = torch.rand(8, generator=generator)
    weights = output_weights(
        network(images),
        labels,
        classes=classes,
        shares=shares,
        true_class_share=0.2,
        pairing=Pairing.DIFFERENCE,
    )
    expected = (weights @ network[1].weight).square().mean()
    torch.testing.assert_close(penalty_of(network, images, labels, 5), expected)


@BATCHES
def test_output_zeroing_is_the_sum_of_squared_logits(batch):
    torch.manual_seed(batch)
    logits = torch.randn(batch, CLASSES, dtype=torch.float64, requires_grad=True)
    expected = sum(value**2 for row in logits.tolist() for value in row) / batch
    assert output_zeroing_penalty(logits).item() == pytest.approx(expected)
    assert gradcheck(output_zeroing_penalty, logits)
    assert gradgradcheck(output_zeroing_penalty, logits)


@pytest.mark.parametrize(("classes", "printed"), [(10, 0.01), (1000, 6e-5), (80, 1e-3)])
def test_guideline_of_output_zeroing_is_the_one_the_paper_prints(classes, printed):
    weight = output_zeroing_weight(classes, confidence=0.8)
    assert float(f"{weight:.0e}") == printed


@pytest.mark.parametrize(("classes", "confidence"), [(2, 0.9), (10, 0.8), (1000, 0.3)])
def test_guideline_balances_the_two_forces(classes, confidence):
    """Eq. 14's middle line, with a logit whose softmax is the confidence."""
    weight = output_zeroing_weight(classes, confidence=confidence)
    logit = torch.tensor(0.0, dtype=torch.float64)
    logits = torch.zeros(classes, dtype=torch.float64)
    low, high = 0.0, 50.0
    for _ in range(80):  # bisection: the logit is not taken from the formula under test
        logit = (low + high) / 2
        logits[0] = logit
        low, high = (logit, high) if logits.softmax(0)[0] < confidence else (low, logit)
    force = weight * 2 * logit
    assert 1 - confidence == pytest.approx(force + (classes - 1) * (1 - confidence) * force)


@pytest.mark.parametrize(
    ("classes", "confidence", "field"),
    [(1, 0.8, "class_count"), (10, 0.1, "confidence"), (10, 1.0, "confidence"),
     (10, float("nan"), "confidence")],
)  # fmt: skip
def test_guideline_outside_its_range_is_refused(classes, confidence, field):
    with pytest.raises(ValueError, match=f"^{field}: got .*allowed"):
        output_zeroing_weight(classes, confidence=confidence)


COUNTS = torch.tensor([5000, 50, 500])


def test_class_weights_follow_the_effective_number_of_samples():
    found = class_balanced_weights(COUNTS, beta=0.99)
    raw = [(1 - 0.99) / (1 - 0.99**count) for count in COUNTS.tolist()]
    expected = [3 * weight / sum(raw) for weight in raw]
    assert found.tolist() == pytest.approx(expected, rel=1e-5)


def test_class_weights_run_from_equal_to_inverse_shares():
    assert class_balanced_weights(COUNTS, beta=0.0).tolist() == [1.0, 1.0, 1.0]
    inverse = class_balanced_weights(COUNTS, beta=1.0)
    torch.testing.assert_close(inverse * COUNTS, (inverse * COUNTS)[:1].expand(3))
    assert inverse.sum().item() == pytest.approx(3)
    torch.testing.assert_close(class_balanced_weights(COUNTS, beta=1 - 1e-12), inverse)


@pytest.mark.parametrize("beta", [-0.1, 1.1, float("nan")])
def test_class_balance_out_of_range_is_refused(beta):
    with pytest.raises(ValueError, match="^beta: got"):
        class_balanced_weights(COUNTS, beta=beta)


def test_class_without_images_is_refused():
    with pytest.raises(ValueError, match="^counts: got"):
        class_balanced_weights(torch.tensor([1, 0]), beta=0.5)
