"""The table of commands, and what is loaded for help."""

import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from candor.cli.main import CandorGroup, build_app


@pytest.mark.parametrize("arguments", [["--help"], ["predict", "--help"], ["serve", "--help"]])
def test_help_is_shown_without_loading_torch(arguments: list[str]) -> None:
    code = (
        "import sys; from candor.cli.main import build_app; "
        f"build_app()({arguments!r}, standalone_mode=False); sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "Usage: " in done.stdout


def test_a_command_whose_package_is_not_installed_names_it() -> None:
    code = (
        "import sys; sys.modules['grpc'] = None; from candor.cli.main import build_app; "
        "build_app()(['predict', '--help'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr == (
        "candor: the package grpc is missing; pip install 'candor[all]' brings it\n"
    )


@pytest.mark.parametrize("name", CandorGroup.table)
def test_the_table_says_of_a_command_what_its_own_help_begins_with(name: str) -> None:
    command = typer.main.get_command(build_app()).commands[name]
    assert command.name == name
    assert command.help.partition("\n\n")[0].replace("\n", " ") == CandorGroup.table[name].help


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["serve", "--grpc-port", "0"], "--grpc-port: expected 1 or more, got '0'"),
        (["serve", "--rest-port", "70000"], "--rest-port: expected 65535 or less, got '70000'"),
        (["serve", "--rest-port", "1.5"], "--rest-port: expected a whole number, got '1.5'"),
        (["explain", "/none", "--rho", "x"], "--rho: expected a number, got 'x'"),
    ],
)
def test_usage_is_worded_as_every_other_error(words: list[str], said: str) -> None:
    result = CliRunner().invoke(build_app(), words)
    assert result.exit_code == 2
    assert said in result.output
    assert "Input should" not in result.output
    assert result.output.count("\n") == 1
