"""Whatever ends a command is one line and an exit code: Ctrl-C, and a failure inside the model."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from candor.cli.main import build_app

SECONDS = 120.0


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["predict", "IMAGE"], "candor predict: stopped"),
        (["reports", "list"], "candor reports list: stopped"),
        (["reports", "show", "reports/x"], "candor reports show: stopped"),
    ],
    ids=" ".join,
)
def test_ctrl_c_is_one_line(words: list[str], named: str, tmp_path: Path, png: bytes) -> None:
    image = tmp_path / "image.png"
    image.write_bytes(png)
    code = (
        "import signal, threading, os\n"
        "from candor.client import sync\n"
        "def waiting(*_, **__):\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    threading.Event().wait(60)\n"
        "for name in ('predict', 'list_reports', 'get_report'):\n"
        "    setattr(sync.CandorClient, name, waiting)\n"
        "from candor.cli.main import main\n"
        "main()\n"
    )
    arguments = [str(image) if word == "IMAGE" else word for word in words]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 130, done.stderr
    assert done.stderr.splitlines() == [named]


def test_ctrl_c_in_an_audit_says_that_it_goes_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def stopped(*_: object, **__: object) -> None:
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("candor.cli.commands.audit.prepare", stopped)
    words = ["audit", "--model", str(tmp_path), "--out", str(tmp_path / "out")]
    words += ["--key", str(tmp_path / "key.pem")]
    result = CliRunner().invoke(build_app(), words)
    assert result.exit_code == 130
    assert result.stderr.splitlines() == [
        "candor audit: stopped; finished parts are kept, the same command goes on"
    ]


@pytest.mark.parametrize("verbose", ["", "1"])
def test_failure_of_a_model_in_this_process_is_one_line(
    model: Path, tmp_path: Path, png: bytes, verbose: str
) -> None:
    image = tmp_path / "image.png"
    image.write_bytes(png)
    code = (
        "from handlers import envelopes\n"
        "def failing(*_):\n"
        "    raise RuntimeError('secret of the library')\n"
        "envelopes._responses_of = failing\n"
        "from candor.cli.main import main\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "predict", str(image), "--model", str(model)],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
        env=os.environ | {"CANDOR_TRACEBACK": verbose},
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("candor predict: ")
    assert ("secret of the library" in done.stderr) == bool(verbose)
    if not verbose:
        assert len(done.stderr.splitlines()) == 1
