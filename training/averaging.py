"""Moving average of the weights, which becomes the model.  (arXiv 1803.05407, 2010.01279)"""

from typing import Any

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


class WeightAverage:
    """Exponential moving average of a network's weights and buffers.

    After step n every tensor of the average is  d a + (1 - d) w,  with a the average before and w
    the network's.  The statistics of batch normalisation are averaged alike, so that they stay
    those of the averaged weights, near enough; after the first step the average is the network.

    Args:
        network: on its device; the average is a copy there.
        decay: d in [0, 1); 0 keeps no average at all.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self._average: AveragedModel | None = None
        if decay > 0.0:
            moved: Any = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
            self._average = AveragedModel(network, multi_avg_fn=moved, use_buffers=True)

    def update(self, network: nn.Module) -> None:
        """Take a step's weights in."""
        if self._average is not None:
            self._average.update_parameters(network)

    def state_dict(self) -> dict[str, Any]:
        """Of a checkpoint; empty without an average."""
        return {} if self._average is None else self._average.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises RuntimeError where ``state`` is that of another network."""
        if self._average is not None:
            self._average.load_state_dict(state)

    def model_state(self, network: nn.Module) -> dict[str, Tensor]:
        """The tensors of the model: the average, or those of ``network`` where there is none."""
        kept = network if self._average is None else self._average.module
        return dict(kept.state_dict())
