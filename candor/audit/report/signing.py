"""Ed25519 signatures over the digests of a report's files.

`manifest.json` names every file of the report with its SHA-256; `manifest.sig` is the signature of
exactly its bytes.  The public key travels in the manifest, so a signature proves that nothing
changed since somebody signed; who that was is proved by comparing the key with a known one.
"""

import base64
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)

from candor.audit.errors import AuditError
from candor.audit.ledger import write_atomically
from candor.contracts import strict_json
from candor.contracts.json_text import json_text
from candor.files.reading import GIB, MIB, UnusableFile, inside, read_file
from candor.files.writing import write_file

MANIFEST_FILE = "manifest.json"
SIGNATURE_FILE = "manifest.sig"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What `verify_folder` found.

    Attributes:
        problems: one sentence each; empty where everything is as it was signed.
        key: the signer's public key, base64; None where the manifest cannot be read.
        files: names the signature covers.
    """

    problems: tuple[str, ...]
    key: str | None
    files: tuple[str, ...]

    @property
    def is_genuine(self) -> bool:
        return not self.problems


def default_key_file() -> Path:
    """``$XDG_CONFIG_HOME/candor/audit-key.pem`` or the same below ``~/.config``."""
    config = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(config) / "candor" / "audit-key.pem"


def load_or_create_key(path: Path) -> Ed25519PrivateKey:
    """The private key in ``path``; a new one, readable by its owner only, where there is none.

    Raises:
        AuditError: the file is no unencrypted Ed25519 key in PEM.
    """
    if not path.exists():
        pem = Ed25519PrivateKey.generate().private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        write_file(path, pem, is_private=True)
    try:
        loaded = serialization.load_pem_private_key(read_file(path, MIB), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as err:
        raise AuditError(f"key: {path} is no unencrypted private key in PEM: {err}") from err
    if not isinstance(loaded, Ed25519PrivateKey):
        raise AuditError(f"key: {path} holds another kind of key, allowed Ed25519")
    return loaded


def public_key_text(key: Ed25519PrivateKey) -> str:
    """The public half as base64 of its 32 bytes."""
    return base64.b64encode(key.public_key().public_bytes_raw()).decode()


def sign_folder(folder: Path, names: list[str], key: Ed25519PrivateKey) -> None:
    """Write the manifest of the files ``names`` of ``folder`` and its signature."""
    manifest = {
        "format": "candor-audit-1",
        "public_key": public_key_text(key),
        "files": {name: _digest(folder / name) for name in sorted(names)},
    }
    content = (json_text(manifest, indent=2) + "\n").encode()
    write_atomically(folder / MANIFEST_FILE, content)
    write_atomically(folder / SIGNATURE_FILE, base64.b64encode(key.sign(content)) + b"\n")


def verify_folder(folder: Path, expected_key: str | None = None) -> Verdict:
    """Check signature and files; every difference is named.

    Args:
        expected_key: base64 of the public key the report must be signed with; None for any.
    Raises:
        AuditError: ``folder`` holds no signed report.
    """
    try:
        content = read_file(folder / MANIFEST_FILE, MIB)
        signature = read_file(folder / SIGNATURE_FILE, MIB)
    except FileNotFoundError as err:
        raise AuditError(f"{err.filename}: missing; the folder holds no signed report") from err
    manifest = _parsed(content)
    if manifest is None:
        return Verdict(problems=(f"{MANIFEST_FILE}: not readable",), key=None, files=())
    key, files = str(manifest["public_key"]), dict(manifest["files"])
    problems = []
    if not _is_signed(content, signature, key):
        problems.append(f"{MANIFEST_FILE}: changed since it was signed, or signed by another key")
    if expected_key is not None and key != expected_key:
        problems.append(f"key: signed by {key}, expected {expected_key}")
    for name, digest in sorted(files.items()):
        path = folder / name
        if not path.is_file():
            problems.append(f"{name}: missing")
        elif _digest(path) != digest:
            problems.append(f"{name}: changed since it was signed")
    return Verdict(problems=tuple(problems), key=key, files=tuple(sorted(files)))


def _parsed(content: bytes) -> dict[str, Any] | None:
    try:
        manifest = strict_json.loads(content)
        is_whole = isinstance(manifest["public_key"], str)
        for name, digest in manifest["files"].items():
            inside(Path(), name)  # another name would read outside the folder
            is_whole = is_whole and isinstance(digest, str)
    except (ValueError, KeyError, TypeError, AttributeError, UnusableFile):
        return None
    return dict(manifest) if is_whole else None


def _is_signed(content: bytes, signature: bytes, key: str) -> bool:
    try:
        public = Ed25519PublicKey.from_public_bytes(base64.b64decode(key, validate=True))
        public.verify(base64.b64decode(signature), content)
    except (InvalidSignature, ValueError):
        return False
    return True


def _digest(path: Path) -> str:
    return hashlib.sha256(read_file(path, GIB)).hexdigest()
