"""A base from Debian's packages, and both images from their Dockerfiles on top of it.

The base stands in for the Python image that the Dockerfiles name.  Packages come from where pip and
apt of this machine take theirs: pip outside fetches the wheels, and the base's pip takes no others.
"""

import json
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.images.shell import OUT, REPOSITORY, ImagesError, run

IMAGES = ("gateway", "worker")
WHEELS, BASE = OUT / "wheels", OUT / "base"
_SUITE = "bookworm"  # its Python is 3.11, like that of the base the Dockerfiles name
_BASE = "localhost/candor-base"
_BASE_PACKAGES = "python3,python3-venv,ca-certificates"
_PIP_SETTINGS = "[global]\nno-index = true\nfind-links = /wheels\n"
_PIP = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")


@dataclass(frozen=True, slots=True)
class Image:
    """A built image whose files can be read.

    Attributes:
        root: its file system; only for reading.
        config: entrypoint, command, environment, working directory, user and check of health, as
            in Docker's format.
    """

    name: str
    root: Path
    config: dict[str, Any]

    @property
    def megabytes(self) -> float:
        return megabytes(self.root)

    @property
    def torch_folders(self) -> list[str]:
        return torch_folders(self.root)


class Builder:
    """Buildah with a store of its own."""

    def __init__(self) -> None:
        self._buildah = ["buildah", "--root", str(OUT / "storage"), "--runroot", str(OUT / "run")]
        self._buildah += ["--storage-driver", self._driver()]

    def base_digest(self) -> str:
        """Of the local base, which is made where there is none yet."""
        images = json.loads(self._run("images", "--json"))
        names = [name for image in images for name in image.get("names") or ()]
        if f"{_BASE}:latest" not in names:
            self._make_base()
        found = json.loads(self._run("inspect", "--type", "image", _BASE))
        return str(found["FromImageDigest"])

    def build(self, name: str, base_digest: str) -> Image:
        """The image of ``deploy/Dockerfile.NAME``; steps whose inputs are the same are kept."""
        tag = f"localhost/candor-{name}"
        arguments = {"BASE": _BASE, "BASE_DIGEST": base_digest, "VERSION": "images-check"}
        given = [word for item in arguments.items() for word in ("--build-arg", "=".join(item))]
        how = ["--isolation", "chroot", "--layers", "--pull-never", "--format", "docker"]
        wheels = ["--volume", f"{WHEELS}:/wheels:ro"]
        file = ["-f", str(REPOSITORY / "deploy" / f"Dockerfile.{name}")]
        self._run("build", *how, *wheels, *given, *file, "-t", tag, str(REPOSITORY))
        config = json.loads(self._run("inspect", "--type", "image", tag))["Docker"]["config"]
        container = self._run("from", "--pull-never", tag).strip()
        return Image(name, Path(self._run("mount", container).strip()), config)

    def close(self) -> None:
        """Unmounts what was mounted; the images stay for the next time."""
        self._run("umount", "--all")
        self._run("rm", "--all")

    def _make_base(self) -> None:
        shutil.rmtree(BASE, ignore_errors=True)  # of a run that was ended
        options = ["--variant=minbase", f"--include={_BASE_PACKAGES}"]
        run(["debootstrap", *options, _SUITE, BASE, _apt_source()])
        container = self._run("from", "scratch").strip()
        self._run("copy", container, str(BASE), "/")
        mounted = Path(self._run("mount", container).strip())
        (mounted / "usr" / "local" / "bin" / "python").symlink_to("/usr/bin/python3")
        (mounted / "etc" / "pip.conf").write_text(_PIP_SETTINGS)
        self._run("commit", "--rm", container, _BASE)

    def _driver(self) -> str:
        """Overlay where the kernel allows it here, else copies."""
        trial = [*self._buildah, "--storage-driver", "overlay", "images"]
        works = subprocess.run(trial, capture_output=True).returncode == 0
        return "overlay" if works else "vfs"

    def _run(self, *arguments: str) -> str:
        return run([*self._buildah, *arguments])


def fetch_wheels() -> None:
    """Every locked package of both images into `WHEELS`, by pip as this machine has it.

    Raises:
        ImagesError: a wheel for the base's Python cannot be had.
    """
    WHEELS.mkdir(parents=True, exist_ok=True)
    locks = [f"deploy/requirements-{name}.lock" for name in IMAGES]
    named = [word for lock in locks for word in ("-r", lock)]
    python = [] if platform.python_version().startswith("3.11.") else ["--python-version", "3.11"]
    only = ["--no-deps", "--only-binary", ":all:", *python]
    run([*_PIP, "download", *only, "--find-links", WHEELS, "-d", WHEELS, *named])


def install_client() -> tuple[Path, Path]:
    """The wheel of this project alone, and an environment with it and what it needs."""
    folder, environment = OUT / "wheel", OUT / "client"
    for old in folder.glob("*.whl"):
        old.unlink()
    how = ("--no-deps", "--no-build-isolation", "--wheel-dir", folder)
    run([*_PIP, "wheel", *how, REPOSITORY])
    (wheel,) = folder.glob("candor-*.whl")
    run([sys.executable, "-m", "venv", "--clear", environment])
    offline: list[str | Path] = ["--no-index", "--find-links", WHEELS, wheel]
    run([environment / "bin" / "python", *_PIP[1:], "install", *offline])
    return wheel, environment


def torch_folders(root: Path) -> list[str]:
    """Every installed torch below, wherever its environment lies."""
    return [str(path.relative_to(root)) for path in root.rglob("site-packages/torch")]


def megabytes(folder: Path) -> float:
    """Of all files below it, without following links."""
    return float(run(["du", "-sx", "--block-size=1000", folder]).split()[0]) / 1000


def _apt_source() -> str:
    """Where apt of this machine gets the suite from."""
    listed = run(["apt-get", "indextargets", "--format", "$(CODENAME) $(REPO_URI)"])
    for line in listed.splitlines():
        suite, _, address = line.partition(" ")
        if suite == _SUITE:
            return address
    raise ImagesError(f"apt has no source of Debian {_SUITE} here")
