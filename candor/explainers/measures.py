"""How good an explanation is as a counterfactual, from forward passes alone.

x is an image, c its explanation for class t, y the class that the network gives x.  How large the
change is says `candor.search`; what follows judges where it leads.
"""

import torch
from torch import Tensor, nn

from candor.explainers.budget import images_per_pass

TRANSITION_STEPS = 50


@torch.no_grad()
def transition_score(
    network: nn.Module, image: Tensor, explanation: Tensor, *, target: int, label: int
) -> float:
    """COUT: how fast the target rises and the label falls as c replaces x.  (arXiv 2203.15064)

    The pixels of c are put into x in 50 steps, those that changed most first (by the sum over the
    channels; of equals the one further up and left).  The score is the area under the target's
    confidence minus the area under the label's, both over the share of pixels, by trapezoids: 1
    where the first pixels already decide for t, -1 where none ever moves the network from y.

    Args:
        network: in evaluation mode, from (B, C, H, W) to logits (B, V).
        image, explanation: (C, H, W) float32 in [0, 1].
        target, label: t and y, indices of different classes.
    Returns:
        The score, [-1, 1].
    """
    confidences = []
    for mixed in torch.split(_transition(image, explanation), images_per_pass(image)):
        confidences.append(network(mixed).double().softmax(dim=1)[:, [target, label]])
    rise, fall = torch.trapezoid(torch.cat(confidences), dim=0) / TRANSITION_STEPS
    return float(rise - fall)


def _transition(image: Tensor, explanation: Tensor) -> Tensor:
    """x, 49 mixtures, c: (51, C, H, W)."""
    changes = (explanation.double() - image).abs().sum(dim=0).flatten()
    ranks = torch.empty_like(changes, dtype=torch.int64)
    ranks[changes.argsort(descending=True, stable=True)] = torch.arange(
        len(changes), device=changes.device
    )
    steps = torch.arange(TRANSITION_STEPS + 1, device=changes.device)
    inserted = (len(changes) * steps / TRANSITION_STEPS).round()
    is_new = ranks.view(1, 1, *image.shape[1:]) < inserted.view(-1, 1, 1, 1)
    return torch.where(is_new, explanation, image)


@torch.no_grad()
def says(network: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    """(B,) bool: the network gives the image the class of ``targets`` (B,).

    Of the explained network this is the validity of explanations (B, C, H, W); of a network that
    was trained independently it is the oracle score (arXiv 2111.00177).
    """
    found: Tensor = network(images).argmax(dim=1) == targets
    return found


def nearest_distances(features: Tensor, others: Tensor) -> Tensor:
    """(N,) Euclidean distance of each row of ``features`` (N, F) to the nearest of (M, F)."""
    return torch.cdist(features.double(), others.double()).amin(dim=1)


def share_up_to(value: float, distances: Tensor) -> float:
    """The percentile of ``value`` among ``distances`` (M,), as the share that is not larger."""
    return float((distances <= value).double().mean())
