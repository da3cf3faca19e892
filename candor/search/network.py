"""The boundary between the core and a network: contiguous images in, finite numbers out.

Images arrive in any layout of their memory, and some libraries take only contiguous ones.  A logit
or a gradient that is no number would make every comparison false, so that an attack on it would
count as resisted.
"""

from typing import Any

import torch
from torch import Tensor, nn

from candor.terms import NotFinite

# How torch says that a function has a first derivative alone.
_NO_SECOND_DERIVATIVE = ("not implemented", "differentiate twice")


class CheckedNetwork(nn.Module):
    """``network`` behind the boundary: contiguous images, logits and gradients; all of them finite.

    Raises:
        NotFinite: in the forward pass, where a logit is infinite or NaN; in the backward pass,
            where a gradient by the pixels is.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.training = network.training
        if hasattr(network, "most_threads"):  # of a compiled one, see `candor.runtime.threads`
            self.most_threads = network.most_threads

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, V) of images (B, C, H, W)."""
        logits: Tensor = self.network(_Boundary.apply(images))  # type: ignore[no-untyped-call]
        check_finite(logits, "the outputs of the network")
        return logits


def checked(network: nn.Module) -> nn.Module:
    """``network`` as `CheckedNetwork`, once."""
    return network if isinstance(network, CheckedNetwork) else CheckedNetwork(network)


def has_second_derivative(network: nn.Module, images: Tensor) -> bool:
    """Whether torch can differentiate the input gradient once more, as L_adv (Eq. 9) needs it.

    Args:
        network: in evaluation mode; left as it is.     images: (B, C, H, W) float32, not modified.
    """
    before = [(weight, weight.grad) for weight in network.parameters()]
    with torch.enable_grad():
        inputs = images.detach().requires_grad_()
        # The logarithm of a sum is curved, so that a linear network has a second derivative, too.
        score = network(inputs).logsumexp(dim=1).sum()
        (gradients,) = torch.autograd.grad(score, inputs, create_graph=True)
        if not gradients.requires_grad:  # a constant
            return True
        try:
            # Not `grad`: it leaves out the functions whose second derivative is an error.
            gradients.square().sum().backward()  # type: ignore[no-untyped-call]
        except RuntimeError as err:
            if any(words in str(err) for words in _NO_SECOND_DERIVATIVE):
                return False
            raise
        finally:
            for weight, gradient in before:
                weight.grad = gradient
    return True


def check_finite(values: Tensor, name: str) -> None:
    """Raises NotFinite where a value of a batch (B, ...) is infinite or NaN."""
    is_bad = ~values.isfinite()
    if bool(is_bad.any()):
        count = int(is_bad.flatten(1).any(dim=1).sum())
        raise NotFinite(
            f"{name}: expected finite numbers, got {values[is_bad][0].item()} on {count} of "
            f"{len(values)} images"
        )


class _Boundary(torch.autograd.Function):
    """The images themselves, contiguous; their gradients too, and finite."""

    @staticmethod
    def forward(context: Any, images: Tensor) -> Tensor:
        return images.contiguous().view_as(images)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        check_finite(gradients[0], "the gradient of the network")
        return gradients[0].contiguous()
