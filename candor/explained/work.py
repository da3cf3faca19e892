"""A job over many images as work that many processes share."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from candor.explained.explainer import Explainer
from candor.explained.images import ImageFile
from candor.explained.plan import ExplanationPlan
from candor.explained.results import Results
from candor.store.blocks import Block, SharedBlocks


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What became of the images of a job.

    Attributes:
        images: all of them.     errors: those without an explanation.
        flips: those whose explanation the network takes for the target.
        found: those of which the target's confidence moved.
        median_radius: RMSE; None unless radii were measured and found for more than half of them.
    """

    images: int
    errors: int
    flips: int
    found: int
    median_radius: float | None


class ExplanationWork:
    """One worker's part in a job.

    Args:
        files: the images of the plan, in its order.
        blocks: of the plan's ``work``.
    """

    def __init__(
        self,
        plan: ExplanationPlan,
        files: Sequence[ImageFile],
        results: Results,
        explainer: Explainer,
        blocks: SharedBlocks,
    ) -> None:
        self._files = files
        self._results = results
        self._explainer = explainer
        self._blocks = blocks
        self.count = len(files)
        blocks.extend(len(files), plan.block_size)
        blocks.reopen(block for block in blocks.done() if not results.has(block))

    def work_one(self) -> bool:
        """Explain one block; False where there is none that nobody works on."""
        return self._blocks.work_one(self._compute)

    def left(self) -> int:
        """Images that are not done."""
        return self._blocks.left()

    def blocks_left(self) -> int:
        """Blocks that are not done."""
        return self._blocks.open_count()

    def finish(self) -> Summary:
        """Write the table; call it when none is left.  Every worker may: all write the same."""
        return summary_of(self._results.finish(self._blocks.all()))

    def _compute(self, block: Block) -> Callable[[object], None]:
        # It may be there: its worker ended between keeping it and saying so.
        if not self._results.has(block):
            entries = self._explainer.explain(self._files[block.start : block.stop])
            self._results.write(block, entries)
        return lambda session: None


def summary_of(table: pa.Table) -> Summary:
    """Of a table of explained images."""
    radii = sorted(
        float("inf") if radius is None else radius
        for radius, above in zip(
            table["radius"].to_pylist(), table["radius_above"].to_pylist(), strict=True
        )
        if radius is not None or above is not None
    )
    median = radii[(len(radii) - 1) // 2] if radii else float("inf")
    return Summary(
        images=len(table),
        errors=len(table) - table["error"].null_count,
        flips=pc.sum(table["flips"]).as_py() or 0,
        found=sum(status == "found" for status in table["status"].to_pylist()),
        median_radius=None if median == float("inf") else median,
    )
