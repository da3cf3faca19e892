"""Grad-CAM, LIME and gradients, computed by captum, for comparison with explanations.

A saliency is (B, H, W) float32, larger where a pixel counts more for the target class.
"""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from captum._utils.models.model import Model
from captum.attr import LayerGradCam, Lime, Saliency
from skimage.segmentation import slic
from torch import Tensor, nn
from torch.nn import functional

from candor.explainers.budget import Budget, images_per_pass
from candor.explainers.feature_map import last_feature_layer

LIME_SEGMENTS = 40
LIME_SAMPLES = 400
PATH_STEPS = 32  # of integrated gradients
_RIDGE = 1.0  # lime's own default penalty
_LIME_BATCH = 50


def grad_cam(network: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    """Grad-CAM at the last feature map, drawn up to the image's size.  (arXiv 1610.02391)

    Negative evidence is kept: cut off, it would leave most of a small map tied at zero.

    Args:
        network: in evaluation mode.     images: (B, C, H, W) float32.     targets: (B,) int64.
    Raises:
        NoFeatureMap: the network has no feature map, or tokens follow it.
    """
    layer = last_feature_layer(network, images[:1])
    maps = LayerGradCam(network, layer).attribute(images, target=targets)
    return _drawn_up(maps.detach(), images)


def input_gradient(network: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    """Gradient of the target's logit over the pixels, (B, C, H, W), signed."""
    inputs = images.detach().requires_grad_()
    attributions: Tensor = Saliency(network).attribute(inputs, target=targets, abs=False)
    return attributions.detach()


def gradient_size(network: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    """Plain saliency: |gradient| of the logit, the largest of the channels.  (1312.6034)"""
    return input_gradient(network, images, targets).abs().amax(dim=1)


def integrated_gradients(
    network: nn.Module, images: Tensor, targets: Tensor, budget: Budget | None = None
) -> Tensor:
    """Integrated gradients from black, summed over the channels, signed.  (1703.01365)

    The integral is Gauss and Legendre's, of `PATH_STEPS` points.

    Raises:
        Unfinished: as `Budget.spend`.
    """
    budget = budget or Budget()
    nodes, weights = np.polynomial.legendre.leggauss(PATH_STEPS)
    total, first = torch.zeros_like(images), 0
    if len(budget.done):
        first, total = int(budget.done[0]), budget.done[1:].view(images.shape).to(images)
    count = max(1, images_per_pass(images[0]) // len(images))
    for place in range(first, PATH_STEPS, count):
        budget.spend(torch.cat([torch.tensor([float(place)]), total.flatten().cpu()]))
        chosen = slice(place, place + count)
        scales = torch.tensor((nodes[chosen] + 1) / 2).to(images)
        shares = torch.tensor(weights[chosen] / 2).to(images)
        points = (scales[:, None, None, None, None] * images).flatten(0, 1)
        gradients = input_gradient(network, points, targets.repeat(len(scales)))
        parts = gradients.view(len(scales), *images.shape)
        total = total + (shares[:, None, None, None, None] * parts).sum(dim=0)
    return (total * images).sum(dim=1).float()


def lime(
    network: Callable[[Tensor], Tensor],
    images: Tensor,
    targets: Tensor,
    *,
    samples: int,
    seeds: Sequence[int],
) -> Tensor:
    """LIME over SLIC segments with a ridge regression, one image after another.  (1602.04938)

    Args:
        network, images, targets: as in `grad_cam`.
        samples: masked copies of each image.
        seeds: one an image.  captum draws from torch's global generator, which is put back.
    """
    method = Lime(network, interpretable_model=_Ridge())
    saliencies = []
    for image, target, seed in zip(images, targets, seeds, strict=True):
        mask = _segments(image)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            attributions = method.attribute(
                image[None],
                target=int(target),
                feature_mask=mask[None, None].expand(1, len(image), -1, -1),
                n_samples=samples,
                perturbations_per_eval=min(_LIME_BATCH, images_per_pass(image)),
            )
        saliencies.append(attributions[0].mean(dim=0))
    return torch.stack(saliencies).detach()


def _drawn_up(maps: Tensor, images: Tensor) -> Tensor:
    size = (images.shape[2], images.shape[3])
    return functional.interpolate(maps, size, mode="bilinear", align_corners=False)[:, 0]


def _segments(image: Tensor) -> Tensor:
    """(H, W) int64 segment of every pixel, counted from 0."""
    pixels = image.permute(1, 2, 0).cpu().double().numpy()
    labels = slic(pixels, n_segments=LIME_SEGMENTS, start_label=0, channel_axis=2)
    return torch.from_numpy(labels).to(image.device)


class _Ridge(Model):  # type: ignore[misc]
    """Weighted ridge regression in closed form; captum's own needs scikit-learn."""

    def __init__(self) -> None:
        self._coefficients = torch.zeros(0)

    def fit(self, train_data: Iterable[tuple[Tensor, Tensor, Tensor]], **_: object) -> None:
        masks, outputs, weights = next(iter(train_data))
        features, values, weights = masks.double(), outputs.double().flatten(), weights.double()
        share = weights.flatten() / weights.sum()
        centred = features - share @ features
        values = values - share @ values
        weighted = centred * weights.flatten()[:, None]
        normal = centred.T @ weighted + _RIDGE * torch.eye(features.shape[1]).double()
        self._coefficients = torch.linalg.solve(normal, weighted.T @ values).float()

    def representation(self) -> Tensor:
        return self._coefficients[None]

    def __call__(self, masks: Tensor) -> Tensor:
        return masks @ self._coefficients
