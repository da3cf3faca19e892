"""What a gallery shows of one explained image."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Guess:
    """The class that leads for an image, and its confidence in [0, 1]."""

    name: str
    confidence: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One image and its explanation; what is None is not shown.

    Attributes:
        name: of the image, as people know it.
        status: in words, which visitors filter by.
        error: why there is no explanation; None where there is one.
        label: the true class, where it is known.
        was, now: what the network says of the image and of its explanation.
        target: the class that the explanation moves towards.
        before, after: confidence of the target, [0, 1].
        rho, norm: the distance asked for, and the norm it is measured in ("l2").
        distances: rho_p by the name of its norm, as `rho` on the [0, 1] pixel scale.
        sparsity: share of the pixels of which a channel differs by more than 1/255.
        radius: RMSE of the smallest perturbation that changes the prediction.
        radius_above: RMSE up to which none was found; None with a radius.
        notes: further facts, each a term and its value.
        parts: of the gallery in which the entry is, where it has several.
        original, explanation: image files relative to the page, with "/".
    """

    name: str
    status: str
    error: str | None = None
    label: str | None = None
    was: Guess | None = None
    now: Guess | None = None
    target: str | None = None
    before: float | None = None
    after: float | None = None
    rho: float | None = None
    norm: str | None = None
    distances: Mapping[str, float | None] = field(default_factory=dict)
    sparsity: float | None = None
    radius: float | None = None
    radius_above: float | None = None
    notes: Sequence[tuple[str, str]] = ()
    parts: Sequence[str] = ()
    original: str | None = None
    explanation: str | None = None


def outcome(flips: bool, before: float, after: float) -> str:
    """The status of an explanation: whether it is the target now, or only likelier to be.

    Args:
        flips: whether the target leads after.
        before, after: confidence of the target.
    """
    if flips:
        return "is now the target"
    return "target is likelier" if after > before else "target is not likelier"


@dataclass(frozen=True, slots=True, kw_only=True)
class Gallery:
    """Entries in the order in which they are listed, and what stands above them.

    Attributes:
        lead: sentences below the title.
        edge: longer side of the images in pixels; small ones are magnified in whole pixels.
        back: address and text of a link to where the gallery belongs; None for none.
    """

    title: str
    entries: Sequence[Entry]
    lead: Sequence[str] = ()
    edge: int = 0
    back: tuple[str, str] | None = None
