"""The gallery of a folder of explained images, from its table."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from candor.explained.rows import TABLE_FILE, ExplanationRow, read_rows
from candor.files.reading import MIB, open_file
from candor.gallery.entries import Entry, Gallery, Guess, outcome
from candor.gallery.pages import write_gallery

_MAX_IMAGE_BYTES = 64 * MIB


def write_pages(folder: Path) -> Path:
    """Make the gallery beside the table and the images that it names.

    Returns:
        The first page.
    Raises:
        UnusableFile: the folder has no table of explained images.
        OSError: it cannot be read or written.
    """
    rows = read_rows(folder / TABLE_FILE)
    gallery = Gallery(
        title="Explained images",
        lead=_lead(rows),
        entries=[entry_of(row) for row in rows],
        edge=_edge(folder, rows),
    )
    return write_gallery(folder, gallery)


def entry_of(row: ExplanationRow) -> Entry:
    """What the gallery shows of a row."""
    return Entry(
        name=row.image,
        status=_status(row),
        error=row.error,
        was=_guess(row.class_name, row.class_confidence),
        now=_guess(row.after_name, row.after_confidence),
        target=row.target_name,
        before=row.confidence_before,
        after=row.confidence_after,
        rho=None if row.error else row.rho,
        norm=row.norm,
        distances={
            "l2": row.rmse,
            "l1": row.rho_1,
            "l1.5": row.rho_1_5,
            "linf": row.rho_inf,
        },
        sparsity=row.sparsity,
        radius=row.radius,
        radius_above=row.radius_above,
        original=row.original_file,
        explanation=row.explanation_file,
    )


def _status(row: ExplanationRow) -> str:
    if row.error is not None:
        return "not explained"
    return outcome(bool(row.flips), row.confidence_before or 0.0, row.confidence_after or 0.0)


def _guess(name: str | None, confidence: float | None) -> Guess | None:
    return None if name is None or confidence is None else Guess(name=name, confidence=confidence)


def _lead(rows: Sequence[ExplanationRow]) -> tuple[str, ...]:
    failed = sum(row.error is not None for row in rows)
    models = sorted({f"{row.model} {row.model_version}" for row in rows})
    counted = f"{len(rows):,} images, explained by {', '.join(models)}."
    return (counted, f"{failed:,} could not be explained.") if failed else (counted,)


def _edge(folder: Path, rows: Sequence[ExplanationRow]) -> int:
    """Longer side of the first image; all are what one network saw."""
    name = next((row.original_file for row in rows if row.original_file), None)
    if name is None:
        return 0
    with open_file(folder / name, _MAX_IMAGE_BYTES) as stream, Image.open(stream) as image:
        return max(image.size)
