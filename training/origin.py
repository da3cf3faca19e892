"""What a run began with beside its configuration: a resumed one goes on with nothing else."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from candor.contracts.names import class_difference
from candor.data.images import Images

_REMEDY = "choose another --run-dir, or what the run in this folder was started with"


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Images, classes and first weights of a run.

    Attributes:
        classes: in the order of the labels.
        image_count: training images.
        data_digest: see `Images.digest`.
        start_digest: SHA-256 of the weights it started with; "" where they were drawn.
    """

    classes: tuple[str, ...]
    image_count: int
    data_digest: str
    start_digest: str

    @classmethod
    def of(cls, data: Images, start_digest: str) -> Self:
        return cls(
            classes=data.class_names,
            image_count=len(data),
            data_digest=data.digest(),
            start_digest=start_digest,
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for a checkpoint."""
        return asdict(self) | {"classes": list(self.classes)}

    def check_same(self, before: Mapping[str, Any]) -> None:
        """Raises ValueError unless ``before``, of `as_dict`, is the same; names what differs."""
        _check_classes(self.classes, before["classes"])
        names = {"image_count": "images", "data_digest": "data digest"}
        names["start_digest"] = "start_from: digest of its weights"
        for field, name in names.items():
            now = getattr(self, field)
            if now != before[field]:
                raise ValueError(f"{name}: expected {before[field]!r}, got {now!r}; {_REMEDY}")


def _check_classes(now: tuple[str, ...], before: list[str]) -> None:
    if difference := class_difference(before, now):
        raise ValueError(f"classes: {difference}; {_REMEDY}")
