"""`candor worker` and `candor archives`, up to the moment where the JVM takes over."""

import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from candor.cli.main import build_app


class Became(BaseException):
    """Stands for the process that takes this one's place."""


@pytest.fixture
def became(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[str], dict[str, str]]]:
    calls: list[tuple[str, list[str], dict[str, str]]] = []

    def execve(path: str, command: list[str], environment: dict[str, str]) -> None:
        calls.append((path, command, environment))
        raise Became

    monkeypatch.setattr(os, "execve", execve)
    return calls


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("0.0.0.0", "http://0.0.0.0:8082"),
        # TorchServe's own reading of an address ends at the first colon.
        ("::", "http://ipv6-0000-0000-0000-0000-0000-0000-0000-0000:8082"),
        ("[::1]", "http://ipv6-0000-0000-0000-0000-0000-0000-0000-0001:8082"),
    ],
)
def test_the_worker_becomes_the_jvm_and_shows_only_its_metrics(
    tiny_models_dir: Path,
    tmp_path: Path,
    became: list[tuple[str, list[str], dict[str, str]]],
    host: str,
    expected: str,
) -> None:
    folders = ["--models-dir", str(tiny_models_dir), "--archives-dir", str(tmp_path / "archives")]
    run_dir = tmp_path / "run"
    options = ["--run-dir", str(run_dir), "--metrics-host", host]
    with pytest.raises(Became):
        CliRunner().invoke(build_app(), ["worker", *folders, *options])
    ((path, command, environment),) = became
    assert Path(path).name == "java"
    assert command[0] == path
    assert environment["TMPDIR"] == str(run_dir)
    lines = (run_dir / "config.properties").read_text().splitlines()
    settings = dict(line.split("=", 1) for line in lines if not line.startswith("#"))
    assert settings["metrics_address"] == expected
    for name in ("inference_address", "management_address"):
        assert settings[name].startswith("http://127.0.0.1:")
    for name in ("grpc_inference_address", "grpc_management_address"):
        assert settings[name] == "127.0.0.1"
    assert settings["grpc_inference_port"] == "7070"
    assert settings["load_models"] == "tiny-predict,tiny-search"


def test_archives_are_built_and_named(tiny_models_dir: Path, tmp_path: Path) -> None:
    folders = ["--models-dir", str(tiny_models_dir), "--archives-dir", str(tmp_path)]
    result = CliRunner().invoke(build_app(), ["archives", *folders])
    assert result.output == "tiny\n"
    assert {path.name for path in tmp_path.iterdir()} == {"tiny-predict", "tiny-search"}


@pytest.mark.parametrize("command", ["archives", "worker"])
def test_a_store_without_models_is_reported(command: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(build_app(), [command, "--models-dir", str(tmp_path)])
    assert result.exit_code == 1
    assert "has no folder with" in " ".join(result.output.split())
