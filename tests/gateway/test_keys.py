"""The file of bearer keys, `candor keys`, and quotas."""

import hashlib
import os
import stat
import unicodedata
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from candor.cli.main import build_app
from candor.contracts.errors import ErrorCode, ServiceError
from candor.gateway.access.keys import KeyFileError, KeyRing, Scope, add_key, read_keys, revoke_key
from candor.gateway.access.quotas import Quota, Quotas


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys"


def test_key_is_shown_once_and_stored_as_its_hash(file: Path) -> None:
    key = add_key(file, "web", "acme", ["predict", "explain"])
    (entry,) = read_keys(file)
    assert key not in file.read_text()
    assert entry.digest == hashlib.sha256(key.encode()).hexdigest()
    assert entry.identity.scopes == {Scope.PREDICT, Scope.EXPLAIN}
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert len(key) > 40
    assert add_key(file, "other", "acme", ["predict"]) != key


def test_names_of_keys_are_of_any_script_and_have_one_spelling(file: Path) -> None:
    decomposed = "u\u0308nal"
    key = add_key(file, decomposed, "\u732b", ["predict"])
    identity = KeyRing(file).find(key)
    assert identity is not None
    assert (identity.name, identity.tenant) == ("\u00fcnal", "\u732b")
    with pytest.raises(KeyFileError, match="expected a new one"):
        add_key(file, "\u00fcnal", "acme", ["predict"])
    file.write_text(unicodedata.normalize("NFD", file.read_text()))
    assert [entry.identity.name for entry in read_keys(file)] == ["\u00fcnal"]
    revoke_key(file, decomposed)
    assert read_keys(file) == ()
    for name in ("a b", "\u00a0a", "a#b", "", "a\u202eb", "-a", "x" * 65):
        with pytest.raises(KeyFileError, match="^name: expected at most 64 letters"):
            add_key(file, name, "acme", ["predict"])


def test_ring_follows_the_file(file: Path) -> None:
    first = add_key(file, "first", "acme", ["predict"])
    ring = KeyRing(file)
    second = add_key(file, "second", "acme", ["admin"])
    identity = ring.find(second)
    assert identity is not None
    assert (identity.name, identity.tenant) == ("second", "acme")
    revoke_key(file, "first")
    assert ring.find(first) is None
    assert ring.find(second) == identity
    assert ring.find("") is None


def test_ring_keeps_its_keys_when_the_file_breaks(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    key = add_key(file, "web", "acme", ["predict"])
    ring = KeyRing(file)
    file.write_text("web acme predict nonsense\n")
    assert ring.find(key) is not None
    assert "line 1" in caplog.text
    file.unlink()
    assert ring.find(key) is not None


def test_changes_leave_other_lines_alone(file: Path) -> None:
    add_key(file, "web", "acme", ["predict"])
    file.write_text("# of the web team\n" + file.read_text())
    add_key(file, "batch", "acme", ["report"])
    revoke_key(file, "web")
    assert file.read_text().startswith("# of the web team\n")
    assert [entry.identity.name for entry in read_keys(file)] == ["batch"]
    assert os.listdir(file.parent) == ["keys"]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("web acme predict", "got 3"),
        ("we/b acme predict " + "0" * 64, "name"),
        ("web " + "a" * 65 + " predict " + "0" * 64, "tenant"),
        ("web acme predict,fly " + "0" * 64, "predict, explain, report, annotate, admin"),
        ("web acme predict " + "0" * 63, "hash"),
    ],
)
def test_bad_line_is_named_with_what_is_expected(file: Path, line: str, complaint: str) -> None:
    file.write_text(f"# comment\n\n{line}\n")
    with pytest.raises(KeyFileError, match="line 3") as caught:
        read_keys(file)
    assert complaint in str(caught.value)


def test_name_can_have_only_one_key(file: Path) -> None:
    add_key(file, "web", "acme", ["predict"])
    with pytest.raises(KeyFileError, match="revoke it first"):
        add_key(file, "web", "acme", ["admin"])
    with pytest.raises(KeyFileError, match="expected one of web"):
        revoke_key(file, "batch")


def test_commands_create_list_and_revoke(file: Path) -> None:
    runner, app = CliRunner(), build_app()

    def run(*arguments: str) -> Result:
        result = runner.invoke(app, ["keys", *arguments, "--file", str(file)])
        assert result.exit_code == 0, result.output
        return result

    made = run("create", "web", "--tenant", "acme", "--scope", "predict", "--scope", "explain")
    key = made.stdout.strip()
    assert KeyRing(file).find(key) is not None
    shown = run("list").output
    assert "explain, predict" in shown
    assert key not in shown
    run("revoke", "web")
    assert read_keys(file) == ()
    result = runner.invoke(app, ["keys", "revoke", "web", "--file", str(file)])
    assert result.exit_code != 0


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def rejected(quotas: Quotas, tenant: str, *, computes: bool = False) -> float:
    with pytest.raises(ServiceError) as caught:
        quotas.admit(tenant, computes=computes)
    assert caught.value.code is ErrorCode.QUOTA_EXCEEDED
    assert caught.value.violations[0].field == "tenant"
    assert caught.value.retry_seconds is not None
    return caught.value.retry_seconds


def test_rate_lets_a_burst_through_and_then_its_rate() -> None:
    clock = Clock()
    quotas = Quotas(Quota(requests_per_second=2.0, burst=3), {}, clock)
    for _ in range(3):
        quotas.admit("a", computes=False)
    assert rejected(quotas, "a") == pytest.approx(0.5)
    quotas.admit("b", computes=False)
    clock.now += 0.5
    quotas.admit("a", computes=False)
    rejected(quotas, "a")


def test_overdrawn_compute_account_fills_before_more_is_admitted() -> None:
    clock = Clock()
    quotas = Quotas(Quota(compute_seconds_per_minute=6.0), {}, clock)
    quotas.admit("a", computes=True)
    quotas.charge("a", 9.0)
    assert rejected(quotas, "a", computes=True) == pytest.approx(30.0)
    quotas.admit("a", computes=False)
    clock.now += 30.1
    quotas.admit("a", computes=True)


def test_day_and_minute_both_hold_and_a_tenant_may_have_its_own() -> None:
    clock = Clock()
    usual = Quota(compute_seconds_per_minute=60.0, compute_seconds_per_day=100.0)
    quotas = Quotas(usual, {"big": Quota()}, clock)
    for tenant in ("a", "big"):
        quotas.charge(tenant, 101.0)
    clock.now += 120.0
    assert rejected(quotas, "a", computes=True) > 600
    quotas.admit("big", computes=True)


def test_made_up_tenants_do_not_fill_the_memory() -> None:
    quotas = Quotas(Quota(requests_per_second=1.0), {}, Clock())
    for number in range(25_000):
        quotas.admit(f"tenant-{number}", computes=False)
    assert len(quotas._accounts) <= 10_000
