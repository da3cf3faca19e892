"""Signatures: what was changed is named, whatever it was."""

import base64
import json
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from candor.audit.errors import AuditError
from candor.audit.report.signing import (
    MANIFEST_FILE,
    SIGNATURE_FILE,
    load_or_create_key,
    public_key_text,
    sign_folder,
    verify_folder,
)

KEY = Ed25519PrivateKey.generate()


@pytest.fixture
def signed(tmp_path: Path) -> Path:
    for name in ("report.json", "ledger.parquet"):
        (tmp_path / name).write_text(name)
    sign_folder(tmp_path, ["report.json", "ledger.parquet"], KEY)
    return tmp_path


def test_untouched_folder_is_genuine(signed: Path) -> None:
    verdict = verify_folder(signed, public_key_text(KEY))
    assert verdict.is_genuine
    assert verdict.files == ("ledger.parquet", "report.json")
    assert verdict.key == public_key_text(KEY)


@pytest.mark.parametrize("name", ["report.json", "ledger.parquet"])
def test_changed_file_is_named(signed: Path, name: str) -> None:
    (signed / name).write_text("better numbers")
    assert verify_folder(signed).problems == (f"{name}: changed since it was signed",)


def test_missing_file_is_named(signed: Path) -> None:
    (signed / "report.json").unlink()
    assert verify_folder(signed).problems == ("report.json: missing",)


def test_new_digest_in_the_manifest_breaks_the_signature(signed: Path) -> None:
    path = signed / MANIFEST_FILE
    manifest = json.loads(path.read_text())
    manifest["files"]["report.json"] = "0" * 64
    path.write_text(json.dumps(manifest))
    problems = verify_folder(signed).problems
    assert len(problems) == 2
    assert MANIFEST_FILE in problems[0]


def test_signature_by_another_key_is_seen_where_the_key_is_known(signed: Path) -> None:
    (signed / "report.json").write_text("better numbers")
    sign_folder(signed, ["report.json", "ledger.parquet"], Ed25519PrivateKey.generate())
    assert verify_folder(signed).is_genuine
    (problem,) = verify_folder(signed, public_key_text(KEY)).problems
    assert problem.startswith("key: signed by ")


@pytest.mark.parametrize("content", [b"", b"not base64!", base64.b64encode(b"0" * 64)])
def test_damaged_signature_is_no_crash(signed: Path, content: bytes) -> None:
    (signed / SIGNATURE_FILE).write_bytes(content)
    assert not verify_folder(signed).is_genuine


@pytest.mark.parametrize("content", ["", "[]", '{"files": {}}', '{"public_key": 1, "files": {}}'])
def test_damaged_manifest_is_no_crash(signed: Path, content: str) -> None:
    (signed / MANIFEST_FILE).write_text(content)
    assert not verify_folder(signed).is_genuine


@pytest.mark.parametrize("name", ["../secret", "/secret", "a/../../secret", "a//b", "c:\\b", ""])
def test_manifest_cannot_name_files_outside(signed: Path, name: str) -> None:
    manifest = {"public_key": public_key_text(KEY), "files": {name: "0" * 64}}
    (signed / MANIFEST_FILE).write_text(json.dumps(manifest))
    assert verify_folder(signed).problems == (f"{MANIFEST_FILE}: not readable",)


def test_folder_without_a_report_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(AuditError, match="holds no signed report"):
        verify_folder(tmp_path)


def test_key_is_made_once_and_kept_from_others(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "audit.pem"
    first, second = load_or_create_key(path), load_or_create_key(path)
    assert public_key_text(first) == public_key_text(second)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_key_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(
        generate_private_key(SECP256R1()).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    with pytest.raises(AuditError, match="allowed Ed25519"):
        load_or_create_key(path)
    path.write_text("hello")
    with pytest.raises(AuditError, match="no unencrypted private key"):
        load_or_create_key(path)
