"""Compares a method's saliency with adversarial explanations.

A handler calls it: numpy items in, numpy results out.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from candor.contracts.api import Method
from candor.contracts.worker import (
    PARTIAL,
    CompareAnswer,
    CompareItem,
    CompareMissing,
    CompareProgress,
)
from candor.explainers.budget import CALL_SECONDS, Budget, RecordedLogits, Unfinished
from candor.explainers.feature_map import NoFeatureMap
from candor.explainers.overlap import TOP_SHARE, cosine, energy_share, rank_correlation
from candor.explainers.saliency import grad_cam, gradient_size, integrated_gradients, lime

Arrays = Mapping[str, NDArray[Any]]
_LIME_SAMPLES = 200  # half an audit's: meanwhile everybody else waits for the worker
_PLAIN_METHODS: Mapping[Method, Callable[[nn.Module, Tensor, Tensor], Tensor]] = {
    Method.GRAD_CAM: grad_cam,
    Method.GRADIENT: gradient_size,
}


def compare_item(
    network: nn.Module, item: CompareItem, arrays: Arrays
) -> tuple[CompareAnswer | CompareProgress | CompareMissing, dict[str, NDArray[np.float32]]]:
    """The saliency before and after the perturbation, and what is to be said of it.

    Args:
        network: in evaluation mode, not compiled: some methods look inside.
        item, arrays: see `candor.contracts.worker`.
    """
    try:
        return _compared(network, item, arrays)
    except Unfinished as err:
        return CompareProgress(part=item.part + 1), {PARTIAL: err.done.numpy()}
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
        saliencies = _array(_saliency(network, item, images, _budget(arrays)))
    before, after = saliencies.astype(np.float64)
    answer = CompareAnswer(
        top_share=TOP_SHARE,
        energy_share=energy_share(energies[0].astype(np.float64), before),
        rank_correlation=rank_correlation(before, after),
        cosine=cosine(before, after),
    )
    return answer, {"saliency": saliencies[0], "perturbed_saliency": saliencies[1]}


def _budget(arrays: Arrays) -> Budget:
    done = torch.tensor(arrays[PARTIAL]) if PARTIAL in arrays else torch.zeros(0)
    return Budget(done, time.monotonic() + CALL_SECONDS)


def _saliency(network: nn.Module, item: CompareItem, images: Tensor, budget: Budget) -> Tensor:
    targets = torch.full((len(images),), item.target, device=images.device)
    if item.method is Method.LIME:
        # The same masks for both, so that only the image differs.
        seeds = [item.seed] * len(images)
        recorded = RecordedLogits(network, item.target, budget)
        return lime(recorded, images, targets, samples=_LIME_SAMPLES, seeds=seeds)
    if item.method is Method.INTEGRATED_GRADIENTS:
        return integrated_gradients(network, images, targets, budget)
    return _PLAIN_METHODS[item.method](network, images, targets)


def _tensors(names: tuple[str, str], arrays: Arrays, network: nn.Module) -> Tensor:
    device = next(network.parameters()).device
    return torch.tensor(np.stack([arrays[name] for name in names]), device=device)


def _array(maps: Tensor) -> NDArray[np.float32]:
    return maps.float().cpu().numpy()
