"""Export of the whole store to one file, and import of such a file.

A zip: ``store.json`` states the format, one ``.jsonl`` a table refers to rows by their keys, and
``pictures/ID-original.png``, ``pictures/ID-adversarial.png`` (of candidates) and
``pictures/ID-shown.png`` (of flip images) are what annotators saw.  What is only leased is left
out.  Version 1 had no flip images; it is still read.
"""

import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from typing import Any

from sqlalchemy import inspect, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, undefer

from candor.contracts import strict_json
from candor.contracts.annotations import FlipKind, FlipVerdict, Verdict
from candor.contracts.json_text import json_text
from candor.contracts.names import normalised
from candor.files.reading import GIB, open_file
from candor.files.writing import replacing
from candor.store.engine import Store, StoreError, insert_new
from candor.store.tables import (
    Annotator,
    Assignment,
    Base,
    Candidate,
    CandidateSet,
    FlipAssignment,
    FlipImage,
    FlipSet,
    Lent,
)

_FORMAT = {"format": "candor-store", "version": 2}
_OLD_FORMAT = _FORMAT | {"version": 1}
_PNG_START = b"\x89PNG\r\n\x1a\n"
_MAX_IMAGE_BYTES = 8 * 1024 * 1024
_MAX_FILE_BYTES = 64 * GIB
_MAX_TABLE_BYTES = 1024 * 1024 * 1024  # about a million rows
_SEARCH = ("weights_sha256", "data_sha256", "solver", "steps", "seed")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kept:
    """A table as it stands in the file.

    Attributes:
        key: what makes two of its rows one.
        owners: tables by the column that refers to them; they stand before it in the file.
        words: the values that a column may have.
        pictures: columns that are files of their own, by the end of the file's name.
    """

    table: type[Base]
    key: tuple[str, ...]
    owners: Mapping[str, type[Base]] = field(default_factory=dict)
    words: Mapping[str, type[StrEnum]] = field(default_factory=dict)
    pictures: tuple[str, ...] = ()


_TABLES = (
    _Kept(table=CandidateSet, key=_SEARCH),
    _Kept(
        table=Candidate,
        key=("set_id", "data_index"),
        owners={"set_id": CandidateSet},
        pictures=("original", "adversarial"),
    ),
    _Kept(table=FlipSet, key=(*_SEARCH, "rho", "norm")),
    _Kept(
        table=FlipImage,
        key=("set_id", "data_index"),
        owners={"set_id": FlipSet},
        words={"kind": FlipKind},
        pictures=("shown",),
    ),
    _Kept(table=Annotator, key=("name",)),
    _Kept(
        table=Assignment,
        key=("candidate_id", "annotator_id"),
        owners={"candidate_id": Candidate, "annotator_id": Annotator},
        words={"verdict": Verdict},
    ),
    _Kept(
        table=FlipAssignment,
        key=("image_id", "annotator_id"),
        owners={"image_id": FlipImage, "annotator_id": Annotator},
        words={"verdict": FlipVerdict},
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Transferred:
    """Rows written (export) or new (import); the rest of an import was there already."""

    candidate_sets: int
    candidates: int
    flip_sets: int
    flip_images: int
    annotators: int
    annotations: int
    flip_verdicts: int


def export_store(store: Store, path: Path) -> Transferred:
    """Write one snapshot of the whole store to ``path``, which is replaced once it is whole."""
    with (
        replacing(path) as stream,
        store.reading() as session,
        zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as file,
    ):
        file.writestr("store.json", json_text(_FORMAT))
        counts = [_export_table(session, file, kept) for kept in _TABLES]
    return _transferred(counts)


def import_store(store: Store, path: Path) -> Transferred:
    """Add what a file holds; rows the store already has, by their own keys, stay as they are.

    Raises:
        StoreError: not such a file, or damaged; then nothing was added.
    """
    try:
        with (
            open_file(path, _MAX_FILE_BYTES) as stream,
            zipfile.ZipFile(stream) as file,
            store.writing() as session,
        ):
            _check_size(path, file)
            if strict_json.loads(file.read("store.json")) not in (_OLD_FORMAT, _FORMAT):
                raise StoreError(f"{path}: expected an export of version 1 or 2")
            return _import(session, file)
    except (zipfile.BadZipFile, KeyError, TypeError, ValueError, SQLAlchemyError) as err:
        if isinstance(err, StoreError):
            raise
        raise StoreError(f"{path}: not an export of a store: {err!r}") from err


def _check_size(path: Path, file: zipfile.ZipFile) -> None:
    """By the sizes that the entries state, beyond which zipfile never reads."""
    for entry in file.infolist():
        largest = _MAX_TABLE_BYTES if entry.filename.endswith(".jsonl") else _MAX_IMAGE_BYTES
        if entry.file_size > largest:
            raise StoreError(
                f"{path}: {entry.filename[:80]}: expected at most {largest} bytes, "
                f"got {entry.file_size}"
            )


def _export_table(session: Session, file: zipfile.ZipFile, kept: _Kept) -> int:
    query = select(kept.table).order_by(inspect(kept.table).primary_key[0])
    if issubclass(kept.table, Lent):
        query = query.where(kept.table.verdict.is_not(None))
    deferred = (undefer(getattr(kept.table, f"{picture}_png")) for picture in kept.pictures)
    query = query.options(*deferred)
    lines = []
    for row in session.scalars(query.execution_options(yield_per=200)):
        values = _values(row)
        for picture in kept.pictures:
            content = values.pop(f"{picture}_png")
            file.writestr(f"pictures/{values['id']}-{picture}.png", content)
        lines.append(json_text(values) + "\n")
    file.writestr(_file_name(kept.table), "".join(lines))
    return len(lines)


def _values(row: Any) -> dict[str, Any]:
    return {column.key: getattr(row, column.key) for column in inspect(type(row)).columns}


def _transferred(counts: Iterable[int]) -> Transferred:
    names = [item.name for item in fields(Transferred)]
    return Transferred(**dict(zip(names, counts, strict=True)))


def _import(session: Session, file: zipfile.ZipFile) -> Transferred:
    rows = {kept.table: _Rows(session, kept) for kept in _TABLES}
    for kept in _TABLES:
        for values in _lines(file, kept.table):
            rows[kept.table].add(_ours(session, file, kept, values, rows))
    return _transferred(own.new_count for own in rows.values())


def _ours(
    session: Session,
    file: zipfile.ZipFile,
    kept: _Kept,
    values: dict[str, Any],
    rows: Mapping[type[Base], "_Rows"],
) -> dict[str, Any]:
    """The values of a row of the file as this store has them."""
    pictures = {f"{name}_png": _image(file, values["id"], name) for name in kept.pictures}
    words = {column: kind(values[column]).value for column, kind in kept.words.items()}
    owners = {column: rows[table].ids[values[column]] for column, table in kept.owners.items()}
    ours = values | pictures | words | owners
    if "class_names" in values:
        ours["class_names"] = list(map(normalised, values["class_names"]))
    if "name" in values:
        ours["name"] = normalised(values["name"])
    if issubclass(kept.table, Lent):
        ours["slot"] = _free_slot(session, kept, ours)
    return ours


class _Rows:
    """Rows of one table on their way in.

    Attributes:
        ids: the store's id by the file's.
        new_count: rows that were not there.
    """

    def __init__(self, session: Session, kept: _Kept) -> None:
        self._session = session
        self._table = kept.table
        self._key = kept.key
        self.ids: dict[int, int] = {}
        self.new_count = 0

    def add(self, values: dict[str, Any]) -> None:
        known = {column.key for column in inspect(self._table).columns}
        if values.keys() != known:
            raise StoreError(f"{self._table.__tablename__}: expected {known}, got {sorted(values)}")
        own = {name: value for name, value in values.items() if name != "id"}
        self.new_count += insert_new(self._session, self._table, **own)
        same = [getattr(self._table, name) == values[name] for name in self._key]
        ids = select(inspect(self._table).primary_key[0]).where(*same)
        self.ids[values["id"]] = self._session.scalars(ids).one()


def _free_slot(session: Session, kept: _Kept, values: Mapping[str, Any]) -> int:
    """The lowest free slot; merging two stores may give an image more than k."""
    table: Any = kept.table
    image = kept.key[0]
    taken = set(session.scalars(select(table.slot).where(getattr(table, image) == values[image])))
    return next(slot for slot in range(len(taken) + 1) if slot not in taken)


def _lines(file: zipfile.ZipFile, table: type[Base]) -> Iterator[dict[str, Any]]:
    parse: Callable[[str], dict[str, Any]] = strict_json.loads
    name = _file_name(table)
    is_old = strict_json.loads(file.read("store.json")) == _OLD_FORMAT
    if is_old and name not in file.namelist():
        return iter(())
    return map(parse, file.read(name).decode().splitlines())


def _file_name(table: type[Base]) -> str:
    return f"{table.__tablename__}.jsonl"


def _image(file: zipfile.ZipFile, candidate: int, kind: str) -> bytes:
    content = file.read(f"pictures/{int(candidate)}-{kind}.png")
    if not content.startswith(_PNG_START):
        raise StoreError(f"pictures/{candidate}-{kind}.png: not a PNG")
    return content
