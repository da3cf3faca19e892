"""What explains images: the same for a model in this process and for a service."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from candor.explained.images import ImageFile, UnreadableImage
from candor.explained.plan import ExplanationPlan
from candor.explained.rows import ExplanationRow


@dataclass(frozen=True, slots=True, kw_only=True)
class Explained:
    """One image's row, without the names of its files, and their contents.

    Attributes:
        original_png, explanation_png: None where there is no explanation.
    """

    row: ExplanationRow
    original_png: bytes | None = None
    explanation_png: bytes | None = None


class Explainer(Protocol):
    """Explains the images of one plan."""

    def explain(self, files: Sequence[ImageFile]) -> Sequence[Explained]:
        """One entry for each file, in order; a file that is no image has a row with an error.

        Raises:
            Exception: whatever keeps every image from being explained.
        """


def failed(plan: ExplanationPlan, file: ImageFile, err: UnreadableImage) -> Explained:
    """The entry of an image that has no explanation."""
    return Explained(row=row_of(plan, file, image_sha256=err.sha256, error=str(err)))


def row_of(plan: ExplanationPlan, file: ImageFile, **measured: object) -> ExplanationRow:
    """The row of a file: what was asked for and what was measured."""
    asked = {
        "solver": plan.solver,
        "step_count": plan.steps,
        "seed": plan.seed,
        "rho": plan.rho,
        "norm": str(plan.norm),
        "model": plan.model,
        "model_version": plan.model_version,
        "model_digest": plan.model_digest,
    }
    fields = asked | {"index": file.index, "image": file.name} | measured
    return ExplanationRow(**fields)  # type: ignore[arg-type]
