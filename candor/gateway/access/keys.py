"""Bearer keys: a file of ``name tenant scopes hash``, one key a line.

A key is 32 random bytes.  Nobody can guess 256 bits, so its plain SHA-256 tells whoever reads the
file nothing; a slow, salted hash is for passwords, which people choose, and would cost every
request what it costs a guesser.
"""

import hashlib
import hmac
import logging
import os
import re
import secrets
import tempfile
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from candor.gateway.access.request_context import MAX_TENANT_CHARS

PREFIX = "candor_"  # lets scanners of secrets find a key that leaked
_RANDOM_BYTES = 32
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_HASH = re.compile(r"[0-9a-f]{64}")
_HEADING = "# name tenant scopes hash"
_log = logging.getLogger("gateway.keys")


class Scope(StrEnum):
    """What a key may be used for; ``admin`` includes all others."""

    PREDICT = "predict"
    EXPLAIN = "explain"
    REPORT = "report"
    ANNOTATE = "annotate"
    ADMIN = "admin"


class KeyFileError(ValueError):
    """A key file cannot be read or changed; the message names file, line and what is allowed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who asks, as a key or a token says it.

    Attributes:
        name: of the key, or the token's subject.
        tenant: who shares the workers and has quotas.
    """

    name: str
    tenant: str
    scopes: frozenset[Scope]

    def may(self, scope: Scope) -> bool:
        return scope in self.scopes or Scope.ADMIN in self.scopes


@dataclass(frozen=True, slots=True)
class KeyEntry:
    """One line of the file; ``digest`` is the SHA-256 of the key, hex."""

    identity: Identity
    digest: str

    def line(self) -> str:
        who = self.identity
        scopes = ",".join(scope for scope in Scope if scope in who.scopes)
        return f"{who.name} {who.tenant} {scopes} {self.digest}"


def digest_of(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def new_key() -> str:
    return PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)


def make_entry(name: str, tenant: str, scopes: Collection[str], digest: str) -> KeyEntry:
    """Raises: KeyFileError: a part is not what it may be."""
    for field, value in (("name", name), ("tenant", tenant)):
        if not _NAME.fullmatch(value) or len(value) > MAX_TENANT_CHARS:
            raise KeyFileError(
                f"{field}: got {value[:80]!r}, allowed letters, digits, '.', '_', '-', "
                f"at most {MAX_TENANT_CHARS}"
            )
    unknown = sorted(set(scopes) - set(Scope))
    if unknown or not scopes:
        got = ",".join(scopes)
        raise KeyFileError(f"scopes: got {got[:80]!r}, allowed some of {', '.join(Scope)}")
    if not _HASH.fullmatch(digest):
        raise KeyFileError(f"hash: got {digest[:80]!r}, allowed a SHA-256, 64 hex digits")
    granted = frozenset(Scope(scope) for scope in scopes)
    return KeyEntry(Identity(name=name, tenant=tenant, scopes=granted), digest)


def read_keys(path: Path) -> tuple[KeyEntry, ...]:
    """Raises: KeyFileError: no such file, or a line is wrong."""
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as err:
        raise KeyFileError(f"{path}: {err}") from err
    entries: dict[str, KeyEntry] = {}
    for number, line in enumerate(lines, start=1):
        fields = line.partition("#")[0].split()
        if not fields:
            continue
        try:
            entry = _entry_of(fields)
        except KeyFileError as err:
            raise KeyFileError(f"{path}, line {number}: {err}") from err
        if entry.identity.name in entries:
            raise KeyFileError(f"{path}, line {number}: name: got {fields[0]!r} twice")
        entries[entry.identity.name] = entry
    return tuple(entries.values())


def _entry_of(fields: list[str]) -> KeyEntry:
    if len(fields) != 4:
        raise KeyFileError(f"got {len(fields)} words, allowed 4: name tenant scopes hash")
    name, tenant, scopes, digest = fields
    return make_entry(name, tenant, scopes.split(","), digest)


def add_key(path: Path, name: str, tenant: str, scopes: Collection[str]) -> str:
    """Adds a new key to the file, which is made if needed; the key is told this once.

    Raises:
        KeyFileError: the name is taken, or a part is not what it may be.
    """
    lines = [_HEADING]
    if path.exists():
        if name in {entry.identity.name for entry in read_keys(path)}:
            raise KeyFileError(f"{path}: name: got {name!r}, which has a key; revoke it first")
        lines = path.read_text().splitlines()
    key = new_key()
    _write(path, [*lines, make_entry(name, tenant, scopes, digest_of(key)).line()])
    return key


def revoke_key(path: Path, name: str) -> None:
    """Raises: KeyFileError: nobody has that name."""
    names = [entry.identity.name for entry in read_keys(path)]
    if name not in names:
        known = ", ".join(names) or "none"
        raise KeyFileError(f"{path}: name: got {name!r}, known {known}")
    lines = path.read_text().splitlines()
    _write(path, [line for line in lines if line.split()[:1] != [name]])


def _write(path: Path, lines: Iterable[str]) -> None:
    """Whole or not at all: a gateway may read at any moment."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, partial = tempfile.mkstemp(dir=path.parent)  # readable by its owner alone
    with os.fdopen(descriptor, "w") as file:
        file.writelines(f"{line}\n" for line in lines)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


class KeyRing:
    """The keys of one file, read again when it changes.

    Raises:
        KeyFileError: on making it; a file that cannot be read later leaves the keys as they were.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._entries = read_keys(path)
        self._seen = self._stamp()

    def find(self, key: str) -> Identity | None:
        """Whose key this is.  Compares with every one, so that the time taken tells nothing."""
        self._refresh()
        digest = digest_of(key)
        found = None
        for entry in self._entries:
            if hmac.compare_digest(digest, entry.digest):
                found = entry.identity
        return found

    def _refresh(self) -> None:
        stamp = self._stamp()
        if stamp == self._seen:
            return
        self._seen = stamp
        try:
            self._entries = read_keys(self._path)
        except KeyFileError as err:
            _log.error("keys stay as they were: %s", err)

    def _stamp(self) -> tuple[int, ...]:
        """Changes with the file; Kubernetes swaps a link, so the inode counts too."""
        try:
            status = self._path.stat()
        except OSError:
            return ()
        return (status.st_ino, status.st_mtime_ns, status.st_size)
