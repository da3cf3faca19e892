"""The fast gradient sign method in its L2 form."""

from torch import Tensor, nn

from candor.attacks.candidates import Candidates, proposed
from candor.attacks.gradients import score_gradients
from candor.attacks.margin import margin_score
from candor.attacks.projection import project, to_length


def fgsm(network: nn.Module, originals: Tensor, labels: Tensor, eps: float) -> Candidates:
    """One step of length ``eps`` down the margin's gradient.  (arXiv 1412.6572)

    Args:
        network: in evaluation mode; maps (B, C, H, W) to logits (B, V).
        originals: (B, C, H, W) float32 in [0, 1].     labels: (B,) int64.
        eps: L2 on the [0, 1] pixel scale, > 0.
    """
    _, _, gradients = score_gradients(network, originals, margin_score(labels))
    images = project(originals - to_length(gradients, eps), originals, eps)
    return proposed(network, originals, images, labels, 1)
