"""The ledger: one file a finished block of work, written whole or not at all.

A block is a stage and a range of images, the atom of an audit: whichever process, shard or restart
computes it gets the same rows.  Its file appears under its final name only when it is complete and
on the disk, so a kill at any moment loses at most the block that was running, and a file's name
keeps any block from being counted twice.
"""

import fcntl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from candor.audit.errors import AuditBusy, AuditError, DiskFull
from candor.audit.plan import PLAN_FILE, AuditPlan, Frozen, Shard, differences
from candor.audit.records import AttackRecord, Row
from candor.contracts import strict_json, violations
from candor.contracts.json_text import json_text
from candor.files.reading import MIB, read_file
from candor.files.writing import is_full, write_file, write_folder

PARTS_FOLDER = "parts"
_MAX_PART_BYTES = 512 * MIB
FrozenT = TypeVar("FrozenT", bound=Frozen)


@dataclass(frozen=True, slots=True, order=True)
class Block:
    """Positions ``start`` to ``stop`` of one stage."""

    stage: str
    start: int
    stop: int

    @property
    def file_name(self) -> str:
        return f"{self.stage}-{self.start:07d}-{self.stop:07d}.json"


class Ledger:
    """The parts of one audit in ``folder``, which is made if needed.

    Raises:
        AuditError: the folder holds an audit by another plan; the message names what differs.
        DiskFull: no space for it.
    """

    def __init__(self, folder: Path, plan: AuditPlan) -> None:
        self._parts = folder / PARTS_FOLDER
        self._folder = folder
        self._digest = plan.digest
        with _reported_where_full(folder):
            self._parts.mkdir(parents=True, exist_ok=True)
        _settle_plan(folder, plan)

    def has(self, block: Block) -> bool:
        """Whether the block is finished."""
        return (self._parts / block.file_name).is_file()

    def write(
        self, block: Block, entries: Sequence[AttackRecord] | Sequence[Row], seconds: float
    ) -> None:
        """Keep a finished block; returns once it would survive a power cut.

        Raises:
            DiskFull: it was not kept.
        """
        rows = [entry.to_row() if isinstance(entry, AttackRecord) else entry for entry in entries]
        content = {"plan": self._digest, "seconds": seconds, "rows": rows}
        write_atomically(
            self._parts / block.file_name,
            json_text(content, is_compact=True).encode(),
        )

    def rows(self, block: Block) -> list[Row]:
        """Rows of a finished block, in the order they were written.

        Raises:
            AuditError: the part is missing, damaged or of another plan.
        """
        rows: list[Row] = self._read(block)["rows"]
        return rows

    def records(self, block: Block) -> list[AttackRecord]:
        """Records of a finished block of an attack, in the order they were written.

        Raises:
            AuditError: as of `rows`.
        """
        try:
            return [AttackRecord.from_row(row) for row in self.rows(block)]
        except (KeyError, ValueError, TypeError) as err:
            raise self._damaged(block) from err

    def seconds(self, block: Block) -> float:
        """Time the finished block took."""
        return float(self._read(block)["seconds"])

    def _read(self, block: Block) -> Mapping[str, Any]:
        path = self._parts / block.file_name
        try:
            content = strict_json.loads(read_file(path, _MAX_PART_BYTES))
            digest = content["plan"]
        except FileNotFoundError as err:
            raise AuditError(f"{path}: missing; this part of the audit has not run") from err
        except (ValueError, KeyError, TypeError) as err:
            raise self._damaged(block) from err
        if digest != self._digest:
            raise AuditError(f"{path}: belongs to plan {digest}, this audit is {self._digest}")
        return dict(content)

    def _damaged(self, block: Block) -> AuditError:
        path = self._parts / block.file_name
        return AuditError(f"{path}: damaged; delete it and run the audit again")

    @contextmanager
    def locked(self, shard: Shard) -> Iterator[None]:
        """Hold the shard: a second process that wants the same share is rejected.

        The lock is the kernel's and ends with the process, however it ends.

        Raises:
            AuditBusy: another process has it.
            DiskFull: no space for the file that is locked.
        """
        path = self._folder / f".lock-{shard.index}-of-{shard.count}"
        with _reported_where_full(self._folder):
            stream = path.open("w")
        with stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as err:
                raise AuditBusy(f"{self._folder}: another process runs this audit") from err
            yield


def read_plan(folder: Path) -> AuditPlan:
    """Plan of the audit in ``folder``.

    Raises:
        AuditError: there is none, or it is damaged.
    """
    return read_model(folder / PLAN_FILE, AuditPlan, where_missing="the folder holds no audit")


def read_model(path: Path, kind: type[FrozenT], *, where_missing: str) -> FrozenT:
    """What `write_model` wrote.

    Raises:
        AuditError: the file is missing, and what ``where_missing`` says of that, or damaged.
    """
    try:
        return violations.read_model(kind, read_file(path, _MAX_PART_BYTES))
    except FileNotFoundError as err:
        raise AuditError(f"{path}: missing; {where_missing}") from err
    except strict_json.JsonError as err:
        raise AuditError(f"{path}: damaged ({err}); delete it and run the audit again") from err


def write_model(path: Path, model: Frozen) -> None:
    """As JSON for people, atomically."""
    write_atomically(path, (json_text(model.model_dump(mode="json"), indent=2) + "\n").encode())


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file that is either wholly there or not, and stays after a power cut.

    Raises:
        DiskFull: nothing was written, and a file that was there before is as it was.
    """
    with _reported_where_full(path.parent):
        write_file(path, content)


def write_folder_atomically(folder: Path, contents: Mapping[str, bytes]) -> None:
    """The folder has these files alone, by name; it changes in one step where it can.

    Raises:
        DiskFull: it was not written.
    """
    with _reported_where_full(folder.parent):
        write_folder(folder, contents, keeps_others=False)


@contextmanager
def _reported_where_full(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as err:
        if not is_full(err):
            raise
        raise DiskFull(f"out: no space left on the disk of {folder}") from err


def _settle_plan(folder: Path, plan: AuditPlan) -> None:
    path = folder / PLAN_FILE
    if not path.exists():
        write_model(path, plan)
    old = read_plan(folder)
    if old.digest != plan.digest:
        names = ", ".join(differences(old, plan))
        raise AuditError(
            f"out: {folder} holds an audit by another plan (differs in {names}); "
            "name another folder, or repeat the command that began it"
        )
