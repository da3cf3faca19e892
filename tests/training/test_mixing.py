"""CutMix on images of one value each, whose parts can be counted."""

import pytest
import torch
from torch import Generator, nn
from torch.nn import functional

from training.config import TrainConfig
from training.mixing import cut_mix, soft_targets
from training.step import step_loss

SHAPE = (3, 12, 20)


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_the_share_is_that_of_the_pixels_and_labels_are_of_the_larger_part(batch):
    images = torch.arange(batch).float()[:, None, None, None].expand(batch, *SHAPE)
    labels = torch.arange(batch)
    for seed in range(40):
        mixed = cut_mix(images, labels, generator=Generator().manual_seed(seed))
        assert 0.5 <= mixed.share.item() <= 1.0
        for image, own, other in zip(mixed.images, mixed.labels, mixed.others, strict=True):
            assert set(image.unique().tolist()) <= {own.item(), other.item()}
            if own != other:
                share = (image == own).float().mean().item()
                assert share == pytest.approx(mixed.share.item(), abs=1e-6)
    assert torch.equal(images[:, 0, 0, 0], torch.arange(batch).float())


def test_the_part_is_one_rectangle_of_the_drawn_area():
    images = torch.stack([torch.zeros(SHAPE), torch.ones(SHAPE)])
    shares = []
    for seed in range(300):
        mixed = cut_mix(images, torch.tensor([0, 1]), generator=Generator().manual_seed(seed))
        is_cut = mixed.images[0, 0] == 1
        assert torch.equal(is_cut, is_cut.any(1)[:, None] & is_cut.any(0))
        shares.append(mixed.share.item())
    # The smaller part is at most half, often little: it is cut off at the border.
    assert min(shares) < 0.55
    assert max(shares) == 1.0


def test_targets_are_the_shares_of_the_classes():
    images = torch.rand(4, *SHAPE, generator=Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 2, 2])
    mixed = cut_mix(images, labels, generator=Generator().manual_seed(5))
    targets = soft_targets(mixed, 3)
    torch.testing.assert_close(targets.sum(1), torch.ones(4))
    for row, own, other in zip(targets, mixed.labels, mixed.others, strict=True):
        assert row[own].item() == pytest.approx(1.0 if own == other else mixed.share.item())
    assert 0.5 < mixed.share < 1.0


def losses_of(images, labels, **changes):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(images[0].numel(), 3))
    found = step_loss(
        network,
        images,
        labels,
        config=TrainConfig(architecture="cifar-resnet20", epochs=1, **changes),
        class_count=3,
        is_penalised=False,
        generator=Generator().manual_seed(4),
    )
    return network, found


def batch_of(count):
    generator = Generator().manual_seed(count)
    return torch.rand(count, *SHAPE, generator=generator), torch.arange(count) % 3


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_smoothing_gives_every_class_a_part_of_the_label(batch):
    images, labels = batch_of(batch)
    network, found = losses_of(images, labels, label_smoothing=0.3)
    shares = network(images).log_softmax(1)
    own = shares.gather(1, labels[:, None])[:, 0]
    expected = -(0.7 * own + 0.3 * shares.mean(1)).mean()
    torch.testing.assert_close(found.cross_entropy, expected)
    torch.testing.assert_close(found.followed, expected.detach())


def test_a_mixed_batch_is_trained_on_both_labels_by_their_shares():
    images, labels = batch_of(8)
    network, found = losses_of(images, labels, cutmix_share=1.0, label_smoothing=0.1)
    generator = Generator().manual_seed(4)
    torch.rand((), generator=generator)  # whether this batch is mixed
    mixed = cut_mix(images, labels, generator=generator)
    assert 0.5 < mixed.share < 1.0
    logits = network(mixed.images)
    expected = sum(
        share * functional.cross_entropy(logits, of, label_smoothing=0.1)
        for share, of in ((mixed.share, mixed.labels), (1 - mixed.share, mixed.others))
    )
    torch.testing.assert_close(found.cross_entropy, expected)
    assert found.correct == (logits.argmax(1) == mixed.labels).sum()


def test_without_a_share_nothing_is_drawn_or_mixed():
    images, labels = batch_of(8)
    network, found = losses_of(images, labels)
    torch.testing.assert_close(
        found.cross_entropy, functional.cross_entropy(network(images), labels)
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label_smoothing": 1.0}, "label_smoothing: expected"),
        ({"cutmix_share": 1.1}, "cutmix_share: expected"),
        ({"cutmix_share": 0.5, "class_balance": 0.9}, "class_balance: expected 0 where"),
        ({"parseval": -1.0}, "parseval: expected"),
        ({"spectral_limit": -0.1}, "spectral_limit: expected"),
    ],
)
def test_what_is_out_of_range_is_named(changes, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        TrainConfig(architecture="cifar-resnet20", epochs=1, **changes)
