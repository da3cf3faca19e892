"""The boundary between the core and a network: contiguous images in, finite numbers out.

What follows a gradient takes it from `linearised`: logits first, then the gradient of whatever is
made of them.

Images arrive in any layout of their memory, and some libraries take only contiguous ones.  A logit
or a gradient that is no number would make every comparison false, so that an attack on it would
count as resisted.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from candor.terms import NotFinite

# From a gradient by the logits (B, V) to that by the images (B, C, H, W); to be called once.
Pullback = Callable[[Tensor], Tensor]

# How torch says that a function has a first derivative alone.
_NO_SECOND_DERIVATIVE = ("not implemented", "differentiate twice")
_LOGITS, _GRADIENT = "the outputs of the network", "the gradient of the network"


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
        self.gives_pullbacks = True
        if hasattr(network, "most_threads"):  # of a compiled one, see `candor.runtime.threads`
            self.most_threads = network.most_threads

    def forward(self, images: Tensor, *, with_pullback: bool = False) -> Any:
        """Logits (B, V) of images (B, C, H, W); with the pullback as of `linearised`."""
        if with_pullback:
            return self._linearised(images)
        logits: Tensor = self.network(_Boundary.apply(images))  # type: ignore[no-untyped-call]
        check_finite(logits, _LOGITS)
        return logits

    def _linearised(self, images: Tensor) -> tuple[Tensor, Pullback]:
        logits, pullback = linearised(self.network, images.contiguous())
        check_finite(logits, _LOGITS)

        def checked_pullback(by_logits: Tensor) -> Tensor:
            gradients = pullback(by_logits)
            check_finite(gradients, _GRADIENT)
            return gradients.contiguous()

        return logits, checked_pullback


def checked(network: nn.Module) -> nn.Module:
    """``network`` as `CheckedNetwork`, once."""
    return network if isinstance(network, CheckedNetwork) else CheckedNetwork(network)


def linearised(network: nn.Module, images: Tensor) -> tuple[Tensor, Pullback]:
    """Logits (B, V) without gradient, and what takes a gradient by them back to the images.

    A network with the attribute ``gives_pullbacks`` is called with ``with_pullback``, so that its
    hooks see the evaluation; of any other autograd makes the pullback.

    Args:
        network: in evaluation mode.     images: (B, C, H, W) float32, without gradient.
    """
    if getattr(network, "gives_pullbacks", False):
        logits, pullback = network(images, with_pullback=True)
        return logits, pullback
    with torch.enable_grad():
        inputs = images.detach().requires_grad_()
        outputs: Tensor = network(inputs)
    return outputs.detach(), lambda by_logits: torch.autograd.grad(outputs, inputs, by_logits)[0]


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
    is_finite = values.isfinite()
    if not bool(is_finite.all()):
        is_bad = ~is_finite
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
        check_finite(gradients[0], _GRADIENT)
        return gradients[0].contiguous()
