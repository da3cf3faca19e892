"""No command that takes a store shows its password."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from candor.cli.main import build_app

SECRET = "hunter2"
URLS = (
    f"mysql://ada:{SECRET}@db/x?password={SECRET}",
    f"postgresql://ada:{SECRET}@127.0.0.1:1/x",
    f"postgresql://ada:{SECRET}@127.0.0.1:port/x",
)


def commands_with_store(group: Any, path: tuple[str, ...] = ()) -> Iterator[list[str]]:
    """The words of every command that has an option for the store, its arguments filled in."""
    for name in list(group.commands):
        command = group.commands[name]
        if hasattr(command, "commands"):
            yield from commands_with_store(command, (*path, name))
        elif any(one.name == "store" for one in command.params):
            yield [*path, name, *required_values(command)]


def required_values(command: Any) -> Iterator[str]:
    for one in command.params:
        if one.required:
            yield from ["/none"] if one.param_type_name == "argument" else [one.opts[0], "/none"]


COMMANDS = list(commands_with_store(typer.main.get_group(build_app())))


def test_the_commands_with_a_store_are_found() -> None:
    found = {" ".join(words).split(" /")[0].split(" --")[0] for words in COMMANDS}
    assert found >= {"serve", "report-worker", "candidates", "annotations report", "store export"}


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: " ".join(words[:2]))
@pytest.mark.parametrize("is_typed", [True, False], ids=["option", "variable"])
def test_store_that_cannot_be_opened_is_named_without_its_password(
    words: list[str], is_typed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for url in URLS[:1] if words[0] == "serve" else URLS:
        given = ["--store", url] if is_typed else []
        variables = {} if is_typed else {"CANDOR_STORE_URL": url}
        result = CliRunner().invoke(build_app(), [*words, *given], env=variables)
        assert result.exit_code != 0
        assert SECRET not in result.output
        assert result.exception is None or isinstance(result.exception, SystemExit)
        assert ("list of processes" in " ".join(result.output.split())) == is_typed


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: " ".join(words[:2]))
def test_help_shows_no_value_of_the_environment(
    words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CANDOR_STORE_URL", URLS[0])
    assert SECRET not in CliRunner().invoke(build_app(), [*words, "--help"]).output


@pytest.mark.parametrize(
    "words",
    [
        ["serve", URLS[1]],
        [URLS[1]],
        ["serve", "--grpc-port", URLS[1]],
        ["explain", "--rho", URLS[1]],
    ],
)
def test_usage_shows_no_secret(words: list[str]) -> None:
    result = CliRunner().invoke(build_app(), words)
    assert result.exit_code == 2
    assert "***" in result.output
    assert SECRET not in result.output
