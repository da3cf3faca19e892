"""Every command with every kind of bad file: one line, an exit code, and never a traceback."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from candor.cli.main import build_app

_KINDS = ("missing", "folder", "empty", "garbage", "huge", "pipe", "device", "below_a_file")
_WORDS = {
    "target": "cat",
    "name": "reports/none",
    "tenant": "lab",
    "scope": "predict",
    "classes": "10",
    "address": "127.0.0.1:1",
    "store": "BAD",
    "experiment": "BAD.toml",
}
_MAY_SUCCEED = ("experiments", "guideline", "store", "annotations", "keys")
_FLAGS = {("report-worker",): ["--until-idle"]}


def _commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name in group.commands:
        command = group.commands[name]
        children = getattr(command, "commands", {})
        if not children or command.invoke_without_command:
            yield (*path, name), command
        if children:
            yield from _commands(command, (*path, name))


_ALL = dict(_commands(typer.main.get_command(build_app())))


def _bad(folder: Path, kind: str) -> Path:
    path = folder / "bad.toml"
    match kind:
        case "folder":
            path.mkdir()
        case "empty":
            path.touch()
        case "garbage":
            path.write_bytes(b"\x00\xff{]" * 100)
        case "huge":
            with path.open("wb") as file:
                file.truncate(2**43)
        case "pipe":
            os.mkfifo(path)
        case "device":
            return Path("/dev/zero")
        case "below_a_file":
            path.touch()
            return path / "bad.toml"
    return path


def _arguments(path: tuple[str, ...], command: Any, bad: Path) -> list[str]:
    arguments = [*path, *_FLAGS.get(path, [])]
    for parameter in command.params:
        is_path = "Path" in str(getattr(parameter, "type_descriptor", ""))
        text = str(bad) if is_path else _WORDS.get(parameter.name)
        if text is None or (parameter.name == "name" and not parameter.required):
            continue
        text = str(bad) if text.startswith("BAD") else text
        is_option = parameter.opts[0].startswith("-")
        arguments += [parameter.opts[0], text] if is_option else [text]
    return arguments


@pytest.mark.parametrize("kind", _KINDS)
@pytest.mark.parametrize("path", _ALL, ids=" ".join)
def test_bad_files_end_in_one_line(
    path: tuple[str, ...], kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    if (path, kind) == (("report-worker",), "missing"):
        pytest.skip("all of it is made: it works")
    bad = _bad(tmp_path, kind)
    result = CliRunner().invoke(build_app(), _arguments(path, _ALL[path], bad))
    assert result.exit_code in (0, 1, 2), result.output
    assert isinstance(result.exception, SystemExit | None)
    assert "Traceback" not in result.output
    assert "internal" not in result.output
    if result.exit_code:
        last = result.stderr.splitlines()[-1]
        assert last.startswith(f"candor {' '.join(path)}")
        assert len(last) < 1000
    assert result.exit_code or path[0] in _MAY_SUCCEED


_SINKS = {">/dev/full": "No space left", ">&-": "standard output", "2>&-": ""}


@pytest.mark.parametrize("sink", _SINKS)
def test_output_that_cannot_be_written_is_one_line(sink: str) -> None:
    words = "-m candor.cli guideline output-zeroing --classes 10 --json"
    done = subprocess.run(
        f"{sys.executable} {words} {sink}", shell=True, capture_output=True, text=True, check=False
    )
    assert done.returncode == (0 if sink == "2>&-" else 1)
    assert _SINKS[sink] in done.stderr
    assert len(done.stderr.splitlines()) <= 1


def test_reader_of_the_output_that_went_is_one_line() -> None:
    line = f"{sys.executable} -m candor.cli experiments --json | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) <= 1


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["predict"], "Missing argument"),
        (["nothing"], "No such command 'nothing'"),
        (["serve", "--grpc-port", "70000"], "--grpc-port"),
        (["ara", "--model", "m", "--images", "1"], "--images"),
    ],
)
def test_what_was_typed_wrong_is_one_line(words: list[str], named: str) -> None:
    result = CliRunner().invoke(build_app(), words)
    assert result.exit_code == 2
    assert named in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_equal_ports_are_refused() -> None:
    result = CliRunner().invoke(
        build_app(), ["serve", "--grpc-port", "8600", "--rest-port", "8600"]
    )
    assert result.exit_code == 1
    assert "grpc-port, rest-port: expected two ports, got 8600 twice" in result.stderr
