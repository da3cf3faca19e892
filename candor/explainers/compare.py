"""Compares a method's saliency with adversarial explanations.

A handler calls it: numpy items in, numpy results out.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from candor.contracts.api import Method
from candor.contracts.worker import CompareAnswer, CompareItem, CompareMissing
from candor.explainers.feature_map import NoFeatureMap
from candor.explainers.overlap import TOP_SHARE, cosine, energy_share, rank_correlation
from candor.explainers.saliency import grad_cam, gradient_size, integrated_gradients, lime

Arrays = Mapping[str, NDArray[Any]]
_LIME_SAMPLES = 200  # half an audit's: meanwhile everybody else waits for the worker
_PLAIN_METHODS: Mapping[Method, Callable[[nn.Module, Tensor, Tensor], Tensor]] = {
    Method.GRAD_CAM: grad_cam,
    Method.INTEGRATED_GRADIENTS: integrated_gradients,
    Method.GRADIENT: gradient_size,
}


def compare_item(
    network: nn.Module, item: CompareItem, arrays: Arrays
) -> tuple[CompareAnswer | CompareMissing, dict[str, NDArray[np.float32]]]:
    """The saliency before and after the perturbation, and what is to be said of it.

    Args:
        network: in evaluation mode, not compiled: some methods look inside.
        item, arrays: see `candor.contracts.worker`.
    """
    try:
        return _compared(network, item, arrays)
    except NoFeatureMap as err:
        return CompareMissing(reason=str(err)), {}


def _compared(
    network: nn.Module, item: CompareItem, arrays: Arrays
) -> tuple[CompareAnswer, dict[str, NDArray[np.float32]]]:
    images = _tensors(("image", "perturbed"), arrays, network)
    explanations = _tensors(("explanation", "perturbed_explanation"), arrays, network)
    energies = _array((explanations - images).square().sum(dim=1))
    saliencies = energies
    if item.method is not Method.EXPLANATION:
        saliencies = _array(_saliency(network, item, images))
    before, after = saliencies.astype(np.float64)
    answer = CompareAnswer(
        top_share=TOP_SHARE,
        energy_share=energy_share(energies[0].astype(np.float64), before),
        rank_correlation=rank_correlation(before, after),
        cosine=cosine(before, after),
    )
    return answer, {"saliency": saliencies[0], "perturbed_saliency": saliencies[1]}


def _saliency(network: nn.Module, item: CompareItem, images: Tensor) -> Tensor:
    targets = torch.full((len(images),), item.target, device=images.device)
    if item.method is Method.LIME:
        # The same masks for both, so that only the image differs.
        seeds = [item.seed] * len(images)
        return lime(network, images, targets, samples=_LIME_SAMPLES, seeds=seeds)
    return _PLAIN_METHODS[item.method](network, images, targets)


def _tensors(names: tuple[str, str], arrays: Arrays, network: nn.Module) -> Tensor:
    device = next(network.parameters()).device
    return torch.tensor(np.stack([arrays[name] for name in names]), device=device)


def _array(maps: Tensor) -> NDArray[np.float32]:
    return maps.float().cpu().numpy()
