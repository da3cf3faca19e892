"""Bearer keys: a file of ``name tenant scopes hash``, one key per line.

A key is 32 random bytes.  256 random bits cannot be guessed, so the plain SHA-256 in the file does
not reveal it; a slow, salted hash is for passwords, which people choose, and would cost every
request what it costs an attacker.
"""

import hashlib
import hmac
import logging
import re
import secrets
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from candor.contracts.names import checked_key_name, normalised
from candor.files.reading import MIB, read_text
from candor.files.writing import write_file

PREFIX = "candor_"  # lets secret scanners find a leaked key
_RANDOM_BYTES = 32
_MAX_BYTES = MIB
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
    """A key file cannot be read or changed; the message names file, line and what is expected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """The client, as its key or token identifies it.

    Attributes:
        name: that of the key, or the subject of the token.
        tenant: shares the workers with other tenants and has quotas.
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
        identity = self.identity
        scopes = ",".join(scope for scope in Scope if scope in identity.scopes)
        return f"{identity.name} {identity.tenant} {scopes} {self.digest}"


def digest_of(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def new_key() -> str:
    return PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)


def make_entry(name: str, tenant: str, scopes: Collection[str], digest: str) -> KeyEntry:
    """Raises: KeyFileError: a part is not valid."""
    name, tenant = _checked("name", name), _checked("tenant", tenant)
    unknown = sorted(set(scopes) - set(Scope))
    if unknown or not scopes:
        got = ",".join(scopes)
        raise KeyFileError(f"scopes: expected some of {', '.join(Scope)}, got {got[:80]!r}")
    if not _HASH.fullmatch(digest):
        raise KeyFileError(f"hash: expected a SHA-256, 64 hex digits, got {digest[:80]!r}")
    granted = frozenset(Scope(scope) for scope in scopes)
    return KeyEntry(Identity(name=name, tenant=tenant, scopes=granted), digest)


def _checked(field: str, value: str) -> str:
    try:
        return checked_key_name(value)
    except ValueError as err:
        raise KeyFileError(f"{field}: {err}") from err


def read_keys(path: Path) -> tuple[KeyEntry, ...]:
    """Raises: KeyFileError: no such file, or a line is wrong."""
    try:
        lines = _lines(path)
    except (OSError, ValueError) as err:
        strerror = getattr(err, "strerror", None)
        raise KeyFileError(f"{path}: {strerror}" if strerror else str(err)) from err
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
            raise KeyFileError(
                f"{path}, line {number}: name: expected once, got {fields[0]!r} twice"
            )
        entries[entry.identity.name] = entry
    return tuple(entries.values())


def _lines(path: Path) -> list[str]:
    """Raises: OSError, ValueError: it cannot be read, or is no text."""
    return str(normalised(read_text(path, _MAX_BYTES))).splitlines()


def _entry_of(fields: list[str]) -> KeyEntry:
    if len(fields) != 4:
        raise KeyFileError(f"expected 4 words, name tenant scopes hash, got {len(fields)}")
    name, tenant, scopes, digest = fields
    return make_entry(name, tenant, scopes.split(","), digest)


def add_key(path: Path, name: str, tenant: str, scopes: Collection[str]) -> str:
    """Adds a new key to the file, which is created if needed; only the result holds the key itself.

    Raises:
        KeyFileError: the name is taken, or a part is not valid.
    """
    name, lines = _checked("name", name), [_HEADING]
    if path.exists():
        if name in {entry.identity.name for entry in read_keys(path)}:
            raise KeyFileError(
                f"{path}: name: expected a new one, got {name!r}, which has a key; revoke it first"
            )
        lines = _lines(path)
    key = new_key()
    _write(path, [*lines, make_entry(name, tenant, scopes, digest_of(key)).line()])
    return key


def revoke_key(path: Path, name: str) -> None:
    """Raises: KeyFileError: no key has that name."""
    names, name = [entry.identity.name for entry in read_keys(path)], str(normalised(name))
    if name not in names:
        known = ", ".join(names) or "none"
        raise KeyFileError(f"{path}: name: expected one of {known}, got {name!r}")
    lines = _lines(path)
    _write(path, [line for line in lines if line.split()[:1] != [name]])


def _write(path: Path, lines: Iterable[str]) -> None:
    """Replaces the file in one step, because a gateway may read it at any moment."""
    content = "".join(f"{line}\n" for line in lines)
    write_file(path, content.encode(), is_private=True)


class KeyRing:
    """The keys of one file, read again when it changes.

    Raises:
        KeyFileError: on construction; a file that becomes unreadable later changes no keys.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._entries = read_keys(path)
        self._seen = self._stamp()

    def find(self, key: str) -> Identity | None:
        """The identity of a key.  Compares with every key, so that the duration reveals nothing."""
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
            _log.error("keys were not changed: %s", err)

    def _stamp(self) -> tuple[int, ...]:
        """Changes with the file; Kubernetes swaps a link, so the inode counts too."""
        try:
            status = self._path.stat()
        except OSError:
            return ()
        return (status.st_ino, status.st_mtime_ns, status.st_size)
