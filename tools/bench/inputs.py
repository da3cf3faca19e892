"""Real images and released networks for the measures."""

import tempfile
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

from candor.contracts.api import Precision
from candor.data.cifar10 import load_cifar10
from candor.models.families.released import read_released
from candor.nets.architectures import build_network
from candor.runtime.compiled import place
from candor.runtime.packaged import SearchNetworks, networks_of
from candor.runtime.packaging import compile_libraries
from candor.runtime.threads import share_size
from tools.bench.table import Options

ROBUST = "all"
SHAPE = (3, 32, 32)
SIZES = (1, 8, 32)  # of the batches that the engine is measured with


def released_network(options: Options, name: str) -> nn.Module:
    """One of the authors' ResNet-44, in evaluation mode."""
    released = read_released(Path(options.reference_dir) / f"resnet44-{name}.pt")
    network = build_network(released.spec)
    network.load_state_dict(dict(released.state_dict))
    return network.eval().requires_grad_(False)


@cache
def served_network(options: Options, name: str, precision: Precision) -> SearchNetworks:
    """A released network as a search worker calls it, compiled when it is first asked for.

    Args:
        precision: of the steps.
    """
    network = released_network(options, name)
    place(network, SHAPE)
    sizes = tuple(sorted({share_size(size, torch.get_num_threads()) for size in SIZES}))
    # Once loaded, the libraries need their files no more.
    with tempfile.TemporaryDirectory() as folder:
        facts = compile_libraries(network, SHAPE, precision, sizes, Path(folder))
        return networks_of(Path(folder), facts, network)


def test_images(options: Options, count: int) -> tuple[Tensor, Tensor]:
    """``count`` test images (N, 3, 32, 32) and labels (N,), drawn by the seed."""
    dataset = load_cifar10(options.data_dir, "test")
    generator = torch.Generator().manual_seed(options.seed)
    chosen = torch.randperm(len(dataset), generator=generator)[:count]
    return dataset.images(chosen), dataset.labels[chosen]


@torch.no_grad()
def correct_images(options: Options, network: nn.Module, count: int) -> tuple[Tensor, Tensor]:
    """The first ``count`` of the drawn test images that the network has right.

    Raises:
        ValueError: it has too few right.
    """
    images, labels = test_images(options, 4 * count + 20)
    is_right = torch.cat([network(part).argmax(1) for part in torch.split(images, 50)]) == labels
    if int(is_right.sum()) < count:
        raise ValueError(f"images: {int(is_right.sum())} are right, {count} are needed")
    return images[is_right][:count], labels[is_right][:count]


def other_targets(labels: Tensor, class_count: int, seed: int) -> Tensor:
    """(N,) a class other than the label, drawn by the seed."""
    generator = torch.Generator().manual_seed(seed)
    return (labels + torch.randint(1, class_count, labels.shape, generator=generator)) % class_count
