"""Stores for tests: SQLite files, a private PostgreSQL, and candidates to put into them."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psycopg
import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy.orm import Session

from candor.contracts.annotations import FlipKind
from candor.images.encode import encode_png
from candor.store.candidates import CandidateWriter, NewCandidate, SetKey
from candor.store.engine import MIGRATIONS_DIR, Store
from candor.store.flips import FlipSetKey, FlipWriter, NewFlipImage

CLASS_NAMES = ("cat", "dog", "frog")
KEY = SetKey(weights_sha256="a" * 64, data_sha256="b" * 64, solver="paper", steps=450, seed=0)

FLIP_KEY = FlipSetKey(
    weights_sha256="a" * 64, data_sha256="b" * 64, solver="fast", steps=60, seed=0, rho=0.1,
    norm="l2",
)  # fmt: skip


class Clock:
    """Stands still but for a millisecond a look; tests move it on."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        self.seconds += 0.001
        return self.seconds


class PostgresCluster:
    """A server of our own in a temporary folder, on a socket only; needs no root and no network."""

    def __init__(self, binaries: Path, folder: Path) -> None:
        self._binaries = binaries
        self._folder = folder
        self._database_count = 0
        # The server refuses to run as root.
        self._user = "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name

    def start(self) -> None:
        if os.geteuid() == 0:
            shutil.chown(self._folder, self._user)
        data = str(self._folder / "data")
        self._run("initdb", "-D", data, "-U", "candor", "--auth=trust", "--no-sync", "-E", "UTF8")
        options = f"-c listen_addresses='' -c fsync=off -k {self._folder}"
        log = str(self._folder / "log")
        self._run("pg_ctl", "-D", data, "-l", log, "-o", options, "-w", "start")

    def stop(self) -> None:
        self._run("pg_ctl", "-D", str(self._folder / "data"), "-m", "immediate", "-w", "stop")

    def new_database(self) -> str:
        """URL of an empty one."""
        self._database_count += 1
        name = f"store{self._database_count}"
        address = f"host={self._folder} user=candor dbname=postgres"
        with psycopg.connect(address, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return f"postgresql://candor@/{name}?host={self._folder}"

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._binaries / program), *arguments]
        user = self._user if os.geteuid() == 0 else None
        # Not a pipe: the server would keep it open.
        with (self._folder.parent / f"{self._folder.name}.log").open("wb") as log:
            subprocess.run(
                command, user=user, cwd="/", stdout=log, stderr=log, check=True, timeout=60
            )


@contextmanager
def private_postgres() -> Iterator[PostgresCluster]:
    """Skips, with the reason, where PostgreSQL is not installed."""
    found = shutil.which("initdb")
    binaries = [Path(found).parent] if found else []
    binaries += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    binaries = [folder for folder in binaries if (folder / "initdb").exists()]
    if not binaries:
        pytest.skip("no PostgreSQL; Debian's package is postgresql")
    folder = Path(tempfile.mkdtemp(prefix="candor-pg-"))  # short: socket paths have 107 bytes
    cluster = PostgresCluster(binaries[0], folder)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(folder)
        folder.with_name(f"{folder.name}.log").unlink()


def downgrade(session: Session, revision: str) -> None:
    """The tables as they were before the later migrations."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS_DIR))
    config.attributes["connection"] = session.connection()
    command.downgrade(config, revision)


def fill(store: Store, count: int, *, key: SetKey = KEY) -> CandidateWriter:
    """Candidates 0 ... count - 1 of a set, the last the least changed."""
    writer = CandidateWriter(
        store, key, model="robust", data="cifar10/train", class_names=CLASS_NAMES
    )
    with store.writing() as session:
        writer.add(session, [candidate(index) for index in range(count)], count)
    return writer


def candidate(index: int) -> NewCandidate:
    pixels = np.random.default_rng(index).random((2, 3, 32, 32))
    return NewCandidate(
        data_index=index,
        identifier=f"{index}.png",
        label=index % len(CLASS_NAMES),
        adversarial_class=(index + 1) % len(CLASS_NAMES),
        margin=0.51,
        rmse=0.1 / (1 + index),
        original_png=encode_png(pixels[0]),
        adversarial_png=encode_png(pixels[1]),
        original_sha256="c" * 64,
        adversarial_sha256="d" * 64,
    )


def fill_flips(
    store: Store, kinds: str, *, key: FlipSetKey = FLIP_KEY, model: str = "robust"
) -> FlipWriter:
    """One image for each letter: (e)xplanation, (o)riginal or (t)arget; shown in this order."""
    writer = FlipWriter(store, key, model=model, data="cifar10/test", class_names=CLASS_NAMES)
    letters = {kind.value[0]: kind for kind in FlipKind}
    rows = [flip_image(place, letters[letter]) for place, letter in enumerate(kinds)]
    with store.writing() as session:
        writer.add(session, rows, len(rows))
    return writer


def flip_image(place: int, kind: FlipKind) -> NewFlipImage:
    return NewFlipImage(
        kind=kind.value,
        data_index=place,
        identifier=f"{place}.png",
        label=0,
        target=0 if kind is FlipKind.TARGET else 1,
        rmse=0.1 if kind is FlipKind.EXPLANATION else 0.0,
        place=place,
        shown_png=encode_png(np.random.default_rng(place).random((3, 32, 32))),
        shown_sha256="c" * 64,
    )
