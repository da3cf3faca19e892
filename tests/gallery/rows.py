"""Five thousand rows of explained images, as a job over a folder leaves them."""

from pathlib import Path

import numpy as np

from candor.explained.rows import TABLE_FILE, ExplanationRow, table_of, write_table
from candor.files.writing import write_files
from candor.images.encode import encode_png

COUNT = 5000
IMAGES = 40  # files; the rows share them
CLASSES = ("cat", "dog", "<img src=x onerror=hacked()>", "\"quoted\" & 'so'", "חתול", "frog")
NAMES = (
    "a/</script><script>hacked()</script>.png",
    "a/\u202egnp.exe",  # a letter that turns what follows around
    "קטן/תמונה.png",
    "b/'\"&<b>bold</b>.jpg",
    f"{'long' * 60}.png",
)
_ASKED = {
    "solver": "fast",
    "step_count": 8,
    "seed": 0,
    "rho": 0.05,
    "norm": "l1.5",
    "model": "tiny",
    "model_version": "1",
    "model_digest": "d" * 64,
}


def row_of(index: int) -> ExplanationRow:
    """Every tenth image could not be read; every third explanation leads to its target."""
    name = NAMES[index] if index < len(NAMES) else f"c/image {index}.png"
    if index % 10 == 9:
        return ExplanationRow(
            index=index, image=name, error="expected a PNG, got <i>text</i>", **_ASKED
        )
    was, target = index % len(CLASSES), (index + 1) % len(CLASSES)
    after, flips = target if index % 3 == 0 else was, index % 3 == 0
    share = (index * 7919 % 1000) / 1000
    files = (f"images/{index % IMAGES}-{side}.png" for side in ("original", "explanation"))
    return ExplanationRow(
        index=index,
        image=name,
        class_index=was,
        class_name=CLASSES[was],
        class_confidence=0.5 + share / 2,
        target_index=target,
        target_name=CLASSES[target],
        steps=8,
        status="found",
        confidence_before=share / 2,
        confidence_after=share,
        after_index=after,
        after_name=CLASSES[after],
        after_confidence=max(share, 0.5),
        rho_1=0.01,
        rho_1_5=0.05,
        rmse=0.08,
        rho_inf=0.5,
        sparsity=0.25,
        flips=flips,
        radius=None if index % 7 == 0 else (index * 31 % 997) / 1e4,
        radius_above=0.2 if index % 7 == 0 else None,
        original_file=next(files),
        explanation_file=next(files),
        **_ASKED,
    )


def fill(folder: Path) -> list[ExplanationRow]:
    """Write the table and its images of 8 x 8 pixels."""
    rows = [row_of(index) for index in range(COUNT)]
    generator = np.random.default_rng(3)
    names = sorted(
        {name for row in rows for name in (row.original_file, row.explanation_file) if name}
    )
    write_files(folder, {name: encode_png(generator.random((3, 8, 8))) for name in names})
    with (folder / TABLE_FILE).open("wb") as stream:
        write_table(stream, table_of(rows))
    return rows
