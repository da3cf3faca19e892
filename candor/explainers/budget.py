"""Saliencies that take hundreds of passes through a network, in calls of about a second.

Between its calls other work has its turns, and no call takes as long as a worker that hangs.  What
earlier calls computed travels with the next one, so the result is that of a single long call.
"""

import math
import time
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

CALL_SECONDS = 1.0
_PASS_VALUES = 1_250_000  # of the images of one pass: 8 of 224 x 224, 400 of 32 x 32


class Unfinished(Exception):
    """The time of this call is over.

    Attributes:
        done: (N,) float32, for the next call.
    """

    def __init__(self, done: Tensor) -> None:
        super().__init__("unfinished")
        self.done = done


@dataclass(slots=True)
class Budget:
    """What earlier calls of a saliency computed, and until when this one may.

    Attributes:
        done: (N,) float32, in a form of the method's own; empty in the first call.
        ends_at: in the time of `time.monotonic`.
    """

    done: Tensor = field(default_factory=lambda: torch.zeros(0))
    ends_at: float = math.inf
    _is_used: bool = False

    def spend(self, done: Tensor) -> None:
        """Before every pass; each call has one at least.

        Raises:
            Unfinished: the time is over; ``done`` is what there is by now.
        """
        if self._is_used and time.monotonic() > self.ends_at:
            raise Unfinished(done)
        self._is_used = True


def images_per_pass(image: Tensor) -> int:
    """How many images of this size (C, H, W) one pass takes."""
    return max(1, _PASS_VALUES // image.numel())


class RecordedLogits:
    """Stands in for a network whose logits of one class earlier calls have partly computed.

    Args:
        network: from (B, C, H, W) to (B, V).
        target: index of the class.
    """

    def __init__(self, network: nn.Module, target: int, budget: Budget) -> None:
        self._network = network
        self._target = target
        self._budget = budget
        self._known = budget.done
        self._place = 0

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """(B, target + 1), where only the last column counts; as `Budget.spend`."""
        end = self._place + len(images)
        if end > len(self._known):
            self._budget.spend(self._known)
            logits = self._network(images)[:, self._target].float().cpu()
            self._known = torch.cat([self._known[: self._place], logits])
        found = self._known[self._place : end, None].to(images.device)
        self._place = end
        return found.expand(-1, self._target + 1)
