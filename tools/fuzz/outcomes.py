"""Results of many hostile inputs, and the images from which these are made."""

import io
import random
from collections import Counter
from dataclasses import dataclass, field
from functools import cache

import numpy as np
from hypothesis import HealthCheck, Phase, settings
from PIL import Image

from tests.gateway.linear_worker import SHAPE


@dataclass(slots=True)
class Outcome:
    """Cases of one surface.

    Attributes:
        statuses: how often each status came.
        wrong: what was wrong with a response, in words; the first few.
    """

    what: str
    tried: int = 0
    lost: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    measured: str = ""

    def note(self, status: str, complaint: str = "") -> None:
        """One case; ``complaint`` says what was wrong with its response."""
        self.tried += 1
        self.statuses[status] += 1
        if complaint:
            self.lost += 1
            self.wrong.append(complaint)
            del self.wrong[10:]


def many(count: int) -> settings:
    """This many examples, however long they take and however odd they are."""
    return settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


@cache
def images() -> tuple[bytes, ...]:
    """Real, small images of every format that is read."""
    noise = np.random.default_rng(11).integers(0, 256, (SHAPE[1], SHAPE[2], 4), dtype=np.uint8)
    rgba = Image.fromarray(noise)
    kinds: tuple[tuple[str, str, dict[str, object]], ...] = (
        ("RGB", "PNG", {}),
        ("RGBA", "PNG", {}),
        ("P", "PNG", {}),
        ("RGB", "JPEG", {}),
        ("CMYK", "JPEG", {}),
        ("RGB", "JPEG", {"progressive": True}),
        ("RGB", "WEBP", {}),
        ("RGBA", "WEBP", {"lossless": True}),
    )
    return tuple(
        _saved(rgba.convert("RGB").convert(mode), kind, options) for mode, kind, options in kinds
    )


def _saved(image: Image.Image, kind: str, options: dict[str, object]) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def mutated(content: bytes, seed: int) -> bytes:
    """A few bytes changed, cut out or doubled; the same for the same seed."""
    chance = random.Random(seed)
    changed = bytearray(content)
    for _ in range(chance.randrange(4)):
        place = chance.randrange(len(changed) + 1)
        length = chance.randrange(1, 9)
        match chance.randrange(3):
            case 0:
                changed[place : place + length] = chance.randbytes(length)
            case 1:
                del changed[place : place + length]
            case _:
                changed[place:place] = changed[max(0, place - length) : place]
    return bytes(changed)
