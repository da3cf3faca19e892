"""The table of explained images: one row for each image, as a Parquet file.

A folder of explained images has the table as `TABLE_FILE` and the PNG files that its rows name.
Confidences are in [0, 1], distances are between the explanation and the image as the network sees
it, on the [0, 1] pixel scale: rho_p = (mean |delta|^p)^(1/p), of which ``rmse`` is p = 2.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from candor.files.reading import UnusableFile
from candor.files.tables import read_table

TABLE_FILE = "explanations.parquet"
_GROUP_ROWS = 65_536  # of the file; fixed, so that the same rows are the same bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplanationRow:
    """One image of the folder and its explanation.

    An image that cannot be read has ``index``, ``image``, the model, what was asked for and
    ``error``; everything that would have been measured is None.

    Attributes:
        index: place of the image in the list, from 0; the order of the table.
        image: path of the file relative to the folder of images, with "/".
        image_sha256: of the file's content; None where it could not be read.
        class_index, class_name, class_confidence: the class that leads before, with its confidence.
        target_index, target_name: the class that the explanation moves towards.
        solver, step_count, seed: of the search.
        steps: steps taken.
        rho: the distance that was asked for, in ``norm``, (0, 1].
        norm: "l1", "l1.5", "l2" or "linf".
        status: a `candor.terms.SearchStatus`, for an explanation "found" or "unresolved".
        confidence_before, confidence_after: of the target.
        after_index, after_name, after_confidence: the class that leads after.
        rho_1, rho_1_5, rmse, rho_inf: how far the explanation is from the image.
        sparsity: share of the pixels of which a channel differs by more than 1/255.
        flips: whether the target leads after.
        radius: RMSE of the smallest perturbation found that changes the prediction; None where it
            was not measured or none was found.
        radius_above: RMSE up to which none was found; None with a radius and where not measured.
        original_file, explanation_file: PNG files of what the network saw, relative to the folder
            of the table, with "/".
        model, model_version, model_digest: the name a client uses, its version, and the digest of
            the weights and all else that decides its answers.
        error: why there is no explanation, one sentence; None where there is one.
    """

    index: int
    image: str
    image_sha256: str | None = None
    class_index: int | None = None
    class_name: str | None = None
    class_confidence: float | None = None
    target_index: int | None = None
    target_name: str | None = None
    solver: str
    step_count: int
    seed: int
    steps: int | None = None
    rho: float
    norm: str
    status: str | None = None
    confidence_before: float | None = None
    confidence_after: float | None = None
    after_index: int | None = None
    after_name: str | None = None
    after_confidence: float | None = None
    rho_1: float | None = None
    rho_1_5: float | None = None
    rmse: float | None = None
    rho_inf: float | None = None
    sparsity: float | None = None
    flips: bool | None = None
    radius: float | None = None
    radius_above: float | None = None
    original_file: str | None = None
    explanation_file: str | None = None
    model: str
    model_version: str
    model_digest: str
    error: str | None = None


def _arrow_type(annotation: Any) -> pa.DataType:
    kinds = {"int": pa.int64(), "float": pa.float64(), "str": pa.string(), "bool": pa.bool_()}
    name = annotation.__name__ if isinstance(annotation, type) else str(annotation)
    return kinds[name.removesuffix(" | None")]


SCHEMA = pa.schema([(field.name, _arrow_type(field.type)) for field in fields(ExplanationRow)])


def write_table(stream: Any, table: pa.Table) -> None:
    """A table of `SCHEMA` into an open file; the same rows give the same bytes."""
    pq.write_table(table, stream, row_group_size=_GROUP_ROWS, compression="zstd")


def table_of(rows: Iterable[ExplanationRow]) -> pa.Table:
    """The rows as a table of `SCHEMA`."""
    return pa.Table.from_pylist([asdict(row) for row in rows], schema=SCHEMA)


def read_rows(path: Path) -> list[ExplanationRow]:
    """The rows of a table; columns that this version does not know are left out.

    Raises:
        UnusableFile: not such a table.
        OSError: it cannot be read.
    """
    try:
        table = read_table(path, columns=SCHEMA.names).cast(SCHEMA)
        return [ExplanationRow(**row) for row in table.to_pylist()]
    except (KeyError, ValueError, pa.ArrowException) as err:
        raise UnusableFile(
            f"{path}: expected a table of explained images, got another file ({err})"
        ) from err
