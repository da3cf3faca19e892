"""``python -m tools.locks`` writes the lock file of each image from requirements.lock.

An image holds what its extras in pyproject.toml ask for and what that needs: the gateway's the
extra ``gateway``, the worker's ``all``.  Versions are those of requirements.lock.
"""

import argparse
import sys
import tomllib
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from candor.files.writing import write_file

REPOSITORY = Path(__file__).resolve().parents[1]
LOCK = REPOSITORY / "requirements.lock"
IMAGE_EXTRAS: Mapping[str, str] = {"gateway": "gateway", "worker": "all"}
# The worker image is installed from source, like a developer's environment.
_ALSO: Mapping[str, tuple[str, ...]] = {"gateway": (), "worker": ("setuptools",)}
_PROJECT = "candor"


class LockError(Exception):
    """A lock file cannot be derived; the message names the package."""


def main() -> int:
    """Writes the lock files; with --check only says which are stale, exit code 1 if any."""
    parser = argparse.ArgumentParser(prog="tools.locks", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing")
    is_check = parser.parse_args().check
    stale = stale_files()
    for path in stale:
        if is_check:
            print(f"{path.relative_to(REPOSITORY)} is stale: run make locks", file=sys.stderr)
        else:
            write_file(path, _lock_files()[path].encode())
    return int(is_check and bool(stale))


def stale_files() -> list[Path]:
    """Lock files that are not what requirements.lock and pyproject.toml say now."""
    return [
        path
        for path, text in _lock_files().items()
        if not path.is_file() or path.read_text() != text
    ]


def locked_packages(path: Path = LOCK) -> list[Requirement]:
    """The lines of a lock file: one version of one package each, for some platforms perhaps."""
    lines = path.read_text().splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def extra_requirements(extra: str) -> list[Requirement]:
    """What the project asks for with this extra, other extras that it names resolved.

    Args:
        extra: a name under ``optional-dependencies``; empty for the base install.
    """
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    found = list(map(Requirement, project["dependencies"]))
    waiting = [extra] if extra else []
    while waiting:
        for asked in map(Requirement, project["optional-dependencies"][waiting.pop()]):
            if asked.name == _PROJECT:
                waiting += sorted(asked.extras)
            else:
                found.append(asked)
    return found


def closure(roots: Iterable[Requirement]) -> set[str]:
    """Canonical names of ``roots`` and of everything they need in this environment."""
    found: set[tuple[str, str]] = set()
    waiting = [pair for root in roots for pair in _named(root)]
    while waiting:
        pair = waiting.pop()
        if pair not in found:
            found.add(pair)
            waiting += [needed for asked in _asked(*pair) for needed in _named(asked)]
    return {name for name, _ in found}


@cache
def needs(name: str) -> tuple[str, ...]:
    """Canonical names of what a package asks for in this environment, extras left out."""
    return tuple(str(canonicalize_name(asked.name)) for asked in _asked(name, ""))


def _named(asked: Requirement) -> list[tuple[str, str]]:
    """The package itself and once more for each of its extras that is asked for."""
    return [(str(canonicalize_name(asked.name)), extra) for extra in ("", *sorted(asked.extras))]


@cache
def _asked(name: str, extra: str) -> tuple[Requirement, ...]:
    asked = map(Requirement, requires(name) or ())
    return tuple(one for one in asked if not one.marker or one.marker.evaluate({"extra": extra}))


def _lock_files() -> dict[Path, str]:
    return {
        REPOSITORY / "deploy" / f"requirements-{image}.lock": _lock_text(image, extra)
        for image, extra in IMAGE_EXTRAS.items()
    }


def _lock_text(image: str, extra: str) -> str:
    wanted = closure([*extra_requirements(extra), *map(Requirement, _ALSO[image])])
    locked = [(str(canonicalize_name(package.name)), package) for package in locked_packages()]
    missing = sorted(wanted - {name for name, _ in locked})
    if missing:
        raise LockError(f"requirements.lock: has no {', '.join(missing)}")
    lines = [_line(name, package) for name, package in locked if name in wanted]
    head = f"# Packages of the {image} image; written by `make locks`."
    return "\n".join([head, *lines, ""])


def _line(name: str, package: Requirement) -> str:
    where = f"; {package.marker}" if package.marker else ""
    return f"{name}{package.specifier}{where}"


if __name__ == "__main__":
    sys.exit(main())
