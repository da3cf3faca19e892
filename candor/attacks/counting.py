"""How often an attack really asked the network, whatever its budget allowed."""

from torch import Tensor, nn


class CountedNetwork(nn.Module):
    """``network`` and the images that it was evaluated on since the last `take`."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.training = network.training
        self._count = 0

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, V) of images (B, C, H, W)."""
        self._count += len(images)
        logits: Tensor = self.network(images)
        return logits

    def take(self) -> int:
        """Evaluations since the last call."""
        count, self._count = self._count, 0
        return count
