"""The gallery of an audit: the images that say most of the model, each with its explanation.

Which these are follows from the attacks on all images, so it is known when everything else is
finished.  Then they are explained for their runner-up class, in blocks of the ledger as the rest.
"""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from candor.attacks.margin import other_class
from candor.audit.facts import Facts
from candor.audit.ledger import Block
from candor.audit.plan import AuditPlan, Budget
from candor.audit.records import Row
from candor.audit.report import schema_sections
from candor.audit.sections.comparison import Other, paired_radii
from candor.audit.sections.explanations import explainer
from candor.audit.sections.measures import right_median_radius
from candor.audit.sections.summary import Evidence
from candor.audit.stage import Batch, Stage, Subject
from candor.contracts.json_text import json_text
from candor.contracts.radius import radius_note
from candor.gallery.entries import Entry, Gallery, Guess, outcome
from candor.gallery.pages import FIRST_PAGE, gallery_files
from candor.gallery.shown import radius_words
from candor.images.encode import encode_png, encode_png_toward
from candor.search.result import SearchResult
from candor.terms import Norm

FOLDER = "gallery"
FALLS_FIRST, FALLS_LAST = "falls first", "falls last"
_BLOCK_IMAGES = 4
# Field of a search result by the norm.
_SIZES = {Norm.L2: "rmse", Norm.L1: "rho_1", Norm.L1_5: "rho_1_5", Norm.LINF: "rho_inf"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The images of a gallery.

    Attributes:
        parts: their positions by the title of the part, in the order in which they are shown.
        theirs: attack radius by the model compared with, and whether it is only a lower bound.
    """

    parts: Mapping[str, Sequence[int]]
    theirs: Mapping[int, tuple[float, bool]] = field(default_factory=dict)

    @property
    def positions(self) -> list[int]:
        """Every image once, in the order of the audit."""
        return sorted({position for part in self.parts.values() for position in part})


def is_wanted(plan: AuditPlan) -> bool:
    """Whether an audit has a gallery."""
    return "explanations" in plan.stages and plan.budget.gallery_images > 0


def choose(evidence: Evidence, plan: AuditPlan, other: Other | None) -> Choice:
    """The images whose prediction changes first and last, and those on which two models differ.

    An image that is wrong as it came falls in neither sense; one that no attack resolved falls
    last of all.

    Raises:
        AuditError: see `paired_radii`.
    """
    count = plan.budget.gallery_images
    falling = _in_order_of_fall(evidence)
    middle = (len(falling) + 1) // 2
    parts = {
        FALLS_FIRST: falling[: min(count, middle)],
        FALLS_LAST: falling[max(len(falling) - count, middle) :][::-1],
    }
    if other is None:
        return Choice(parts=parts)
    pairs = paired_radii(evidence, plan, other, "attack")
    gaps = abs(pairs.ours - pairs.theirs)
    # The largest first; of equal ones the first of the audit.
    ranked = sorted(zip((-gaps).tolist(), pairs.positions.tolist(), strict=True))
    parts[f"differs most from {other.name}"] = [at for gap, at in ranked if gap < 0][:count]
    bounds = zip(pairs.theirs.tolist(), pairs.is_theirs_unresolved.tolist(), strict=True)
    theirs = dict(zip(pairs.positions.tolist(), bounds, strict=True))
    return Choice(parts=parts, theirs=theirs)


def blocks(choice: Choice) -> dict[Block, Sequence[int]]:
    """The gallery's blocks and their positions; another choice of images has other blocks."""
    positions = choice.positions
    digest = hashlib.sha256(json_text(positions).encode()).hexdigest()[:12]
    return {
        Block(f"gallery-{digest}", start, min(start + _BLOCK_IMAGES, len(positions))): positions[
            start : start + _BLOCK_IMAGES
        ]
        for start in range(0, len(positions), _BLOCK_IMAGES)
    }


def estimated_steps(plan: AuditPlan) -> int:
    """About how many network evaluations a gallery costs, for the time left."""
    return STAGE.steps(plan.budget) * min(2 * plan.budget.gallery_images, plan.image_count)


def gallery_rows(subject: Subject, batch: Batch, budget: Budget) -> list[Row]:
    """One explanation an image for its runner-up class, at the RMSE that the card recommends."""
    with torch.no_grad():
        logits = subject.network(batch.images)
    targets = other_class(logits, logits.argmax(1))
    explain = explainer(subject, budget.descent_steps, batch.seeds(FOLDER))
    found = explain(batch.images, targets)
    return [_row(batch, found, row, int(target)) for row, target in enumerate(targets)]


STAGE: Stage[Row] = Stage(
    run=gallery_rows,
    limit=lambda budget: None,  # the images are chosen
    steps=lambda budget: 3 * budget.descent_steps,
)


def section(choice: Choice) -> schema_sections.Gallery:
    """What the report says of the gallery."""
    return schema_sections.Gallery(
        page=f"{FOLDER}/{FIRST_PAGE}",
        image_count=len(choice.positions),
        parts=tuple(
            schema_sections.GalleryPart(title=title, image_count=len(positions))
            for title, positions in choice.parts.items()
        ),
    )


def files(
    rows: Sequence[Row], evidence: Evidence, facts: Facts, choice: Choice, other: Other | None
) -> dict[str, bytes]:
    """Name and content of every file of the folder, from the rows of all its blocks."""
    by_position = {row["position"]: row for row in rows}
    order = dict.fromkeys(position for part in choice.parts.values() for position in part)
    entries = _Entries(evidence, facts, choice, other)
    model, median = facts.model, right_median_radius(evidence)
    images = {
        _image_file(position, side): base64.b64decode(by_position[position][side])
        for position in order
        for side in ("original", "explanation")
    }
    shown = gallery_files(
        Gallery(
            title=f"Gallery of {model.name} {model.version}",
            lead=(
                "Images of the audit, each explained for its runner-up class at RMSE "
                f"{facts.rho:.3g}. The radius is that of the smallest perturbation found that "
                "changes the prediction.",
                radius_note(None if median is None else median.value, facts.rho),
            ),
            entries=[entries.of(by_position[position]) for position in order],
            edge=max(model.input_shape[1:]),
            back=("../report.html", "The report"),
        )
    )
    return images | shown


class _Entries:
    """What a gallery shows of a row, with what the audit knows of the image."""

    def __init__(
        self, evidence: Evidence, facts: Facts, choice: Choice, other: Other | None
    ) -> None:
        self._choice, self._classes = choice, facts.model.classes
        self._their_name = "" if other is None else other.name
        radii = evidence.radii("attack")
        bounds = zip(radii.values.tolist(), radii.is_unresolved.tolist(), strict=True)
        self._ours = dict(zip(radii.positions.tolist(), bounds, strict=True))

    def of(self, row: Row) -> Entry:
        """The entry of a row of `gallery_rows`."""
        position, classes = row["position"], self._classes
        radius, is_bound = self._ours[position]
        return Entry(
            name=row["identifier"],
            status=outcome(row["after"] == row["target"], *row["target_shares"]),
            label=classes[row["label"]],
            was=Guess(name=classes[row["before"]], confidence=row["before_share"]),
            now=Guess(name=classes[row["after"]], confidence=row["after_share"]),
            target=classes[row["target"]],
            before=row["target_shares"][0],
            after=row["target_shares"][1],
            distances=row["distances"],
            sparsity=row["sparsity"],
            radius=None if is_bound else radius,
            radius_above=radius if is_bound else None,
            notes=self._notes(position),
            parts=[title for title, part in self._choice.parts.items() if position in part],
            original=_image_file(position, "original"),
            explanation=_image_file(position, "explanation"),
        )

    def _notes(self, position: int) -> list[tuple[str, str]]:
        if position not in self._choice.theirs:
            return []
        radius, is_bound = self._choice.theirs[position]
        words = radius_words(None, radius) if is_bound else radius_words(radius, None)
        return [(f"radius of {self._their_name}", words)]


def _in_order_of_fall(evidence: Evidence) -> list[int]:
    """Positions of the images that are right as they came, the smallest attack radius first."""
    radii = evidence.radii("attack")
    ranked = sorted(
        zip(
            radii.is_unresolved.tolist(),
            radii.values.tolist(),
            radii.positions.tolist(),
            strict=True,
        )
    )
    # An image that is wrong as it came has radius 0, and so has one that no attack was tried on.
    return [position for _, value, position in ranked if value > 0]


def _row(batch: Batch, found: SearchResult, row: int, target: int) -> Row:
    image, end = (images[row].cpu().numpy() for images in (batch.images, found.images))
    shares = torch.stack([found.logits_before[row], found.logits_after[row]]).softmax(dim=1)
    before, after = shares.argmax(dim=1).tolist()
    return {
        "position": batch.positions[row],
        "identifier": batch.identifiers[row],
        "label": int(batch.labels[row]),
        "target": target,
        "target_shares": shares[:, target].tolist(),
        "before": before,
        "before_share": float(shares[0, before]),
        "after": after,
        "after_share": float(shares[1, after]),
        "distances": {str(norm): float(getattr(found, name)[row]) for norm, name in _SIZES.items()},
        "sparsity": float(found.sparsity[row]),
        "original": base64.b64encode(encode_png(image)).decode(),
        "explanation": base64.b64encode(encode_png_toward(end, image)).decode(),
    }


def _image_file(position: int, side: str) -> str:
    return f"images/{position:07d}-{side}.png"
