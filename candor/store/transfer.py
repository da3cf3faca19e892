"""Export of the whole store to one file, and import of such a file.

A zip: ``store.json`` states the format, one ``.jsonl`` a table refers to rows by their keys, and
``pictures/ID-original.png`` and ``pictures/ID-adversarial.png`` are what annotators saw.
Candidates that are only leased are left out.
"""

import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import inspect, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, undefer

from candor.contracts import strict_json
from candor.contracts.annotations import Verdict
from candor.contracts.json_text import json_text
from candor.contracts.names import normalised
from candor.files.reading import GIB, open_file
from candor.files.writing import replacing
from candor.store.engine import Store, StoreError, insert_new
from candor.store.tables import Annotator, Assignment, Base, Candidate, CandidateSet

_FORMAT = {"format": "candor-store", "version": 1}
_PNG_START = b"\x89PNG\r\n\x1a\n"
_IMAGES = ("original", "adversarial")
_MAX_IMAGE_BYTES = 8 * 1024 * 1024
_MAX_FILE_BYTES = 64 * GIB
_MAX_TABLE_BYTES = 1024 * 1024 * 1024  # about a million rows
_TABLES: tuple[type[Base], ...] = (CandidateSet, Candidate, Annotator, Assignment)


@dataclass(frozen=True, slots=True, kw_only=True)
class Transferred:
    """Rows written (export) or new (import); the rest of an import was there already."""

    candidate_sets: int
    candidates: int
    annotators: int
    annotations: int


def export_store(store: Store, path: Path) -> Transferred:
    """Write one snapshot of the whole store to ``path``, which is replaced once it is whole."""
    with (
        replacing(path) as stream,
        store.reading() as session,
        zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as file,
    ):
        file.writestr("store.json", json_text(_FORMAT))
        counts = [_export_table(session, file, table) for table in _TABLES]
    return Transferred(
        candidate_sets=counts[0], candidates=counts[1], annotators=counts[2], annotations=counts[3]
    )


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
            if strict_json.loads(file.read("store.json")) != _FORMAT:
                raise StoreError(f"{path}: expected an export of version {_FORMAT['version']}")
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


def _export_table(session: Session, file: zipfile.ZipFile, table: type[Base]) -> int:
    query = select(table).order_by(inspect(table).primary_key[0])
    if table is Assignment:
        query = query.where(Assignment.verdict.is_not(None))
    if table is Candidate:
        query = query.options(undefer(Candidate.original_png), undefer(Candidate.adversarial_png))
    lines = []
    for row in session.scalars(query.execution_options(yield_per=200)):
        values = _values(row)
        for kind in _IMAGES if table is Candidate else ():
            file.writestr(f"pictures/{values['id']}-{kind}.png", values.pop(f"{kind}_png"))
        lines.append(json_text(values) + "\n")
    file.writestr(f"{table.__tablename__}.jsonl", "".join(lines))
    return len(lines)


def _values(row: Any) -> dict[str, Any]:
    return {column.key: getattr(row, column.key) for column in inspect(type(row)).columns}


def _import(session: Session, file: zipfile.ZipFile) -> Transferred:
    sets = _Rows(
        session, CandidateSet, ("weights_sha256", "data_sha256", "solver", "steps", "seed")
    )
    for values in _lines(file, CandidateSet):
        sets.add(values | {"class_names": list(map(normalised, values["class_names"]))})
    candidates = _Rows(session, Candidate, ("set_id", "data_index"))
    for values in _lines(file, Candidate):
        images = {f"{kind}_png": _image(file, values["id"], kind) for kind in _IMAGES}
        candidates.add(values | images | {"set_id": sets.ids[values["set_id"]]})
    annotators = _Rows(session, Annotator, ("name",))
    for values in _lines(file, Annotator):
        annotators.add(values | {"name": normalised(values["name"])})
    annotations = _Rows(session, Assignment, ("candidate_id", "annotator_id"))
    for values in _lines(file, Assignment):
        ours: dict[str, Any] = {
            "candidate_id": candidates.ids[values["candidate_id"]],
            "annotator_id": annotators.ids[values["annotator_id"]],
            "verdict": Verdict(values["verdict"]).value,
        }
        annotations.add(values | ours | {"slot": _free_slot(session, ours["candidate_id"])})
    return Transferred(
        candidate_sets=sets.new_count,
        candidates=candidates.new_count,
        annotators=annotators.new_count,
        annotations=annotations.new_count,
    )


class _Rows:
    """Rows of one table on their way in.

    Attributes:
        ids: the store's id by the file's.
        new_count: rows that were not there.
    """

    def __init__(self, session: Session, table: type[Base], key: tuple[str, ...]) -> None:
        self._session = session
        self._table = table
        self._key = key
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


def _free_slot(session: Session, candidate: int) -> int:
    """The lowest free slot; merging two stores may give a candidate more than k."""
    slots = select(Assignment.slot).where(Assignment.candidate_id == candidate)
    taken = set(session.scalars(slots))
    return next(slot for slot in range(len(taken) + 1) if slot not in taken)


def _lines(file: zipfile.ZipFile, table: type[Base]) -> Iterator[dict[str, Any]]:
    parse: Callable[[str], dict[str, Any]] = strict_json.loads
    return map(parse, file.read(f"{table.__tablename__}.jsonl").decode().splitlines())


def _image(file: zipfile.ZipFile, candidate: int, kind: str) -> bytes:
    content = file.read(f"pictures/{int(candidate)}-{kind}.png")
    if not content.startswith(_PNG_START):
        raise StoreError(f"pictures/{candidate}-{kind}.png: not a PNG")
    return content
