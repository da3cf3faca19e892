"""What a model sees of an image: the one way from an opened file to the levels of an input."""

from dataclasses import dataclass
from typing import Self

from PIL import Image

from candor.contracts.card import DEFAULT_PREPROCESSING, ModelCard, Preprocessing
from candor.images.geometry import Size, prepare
from candor.images.pixels import MODES, Levels, levels_of


@dataclass(frozen=True, slots=True)
class InputView:
    """How an opened image becomes an input; service, data sets and imports all use it.

    Attributes:
        channels: 1 (grey) or 3 (RGB).
        size: of the input.
        rule: of resize and crop; normalisation and the order of channels are the network's.
    """

    channels: int
    size: Size
    rule: Preprocessing = DEFAULT_PREPROCESSING

    @classmethod
    def of(cls, card: ModelCard) -> Self:
        """The view of a model."""
        return cls(
            card.input.channels, Size(card.input.height, card.input.width), card.preprocessing
        )

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an input."""
        return self.channels, self.size.height, self.size.width

    def keeps(self, shape: tuple[int, int, int]) -> bool:
        """Whether images of this shape (C, H, W) stay as they are."""
        height, width = self.size
        if self.rule.resize in ("cover", "crop-first"):
            is_whole = self.rule.crop == 1.0
        else:
            is_whole = self.rule.edge in ((height, width), (min(height, width),))
        return is_whole and shape == self.shape

    def levels(self, image: Image.Image) -> Levels:
        """Levels (C, H, W) of an image as `candor.images.decode.open_image` returns it."""
        return levels_of(prepare(image.convert(MODES[self.channels]), self.rule, self.size))
