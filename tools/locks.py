"""``python -m tools.locks`` writes the lock file of each image from requirements.lock.

The gateway's holds what its modules import and what that needs; the worker's everything but the
development tools.  Versions are those of requirements.lock.
"""

import argparse
import ast
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from importlib.metadata import packages_distributions, requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).resolve().parents[1]
LOCK = REPOSITORY / "requirements.lock"
_OURS = ("candor",)
_GATEWAY_SOURCES = (
    "candor/gateway",
    "candor/images",
    "candor/contracts",
    "candor/rpc",
    "candor/store",
    "candor/terms.py",
    "candor/tracing.py",
)
# The worker image is installed from source, like a developer's environment.
_BUILD_TOOLS = ("setuptools",)
# SQLAlchemy loads its driver by the URL of the store, PyJWT its cryptography by the algorithm: no
# import names them.
_LOADED_BY_NAME = ("cryptography", "psycopg", "psycopg-binary")


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
            path.write_text(_lock_files()[path])
    return int(is_check and bool(stale))


def stale_files() -> list[Path]:
    """Lock files that are not what requirements.lock and the imports say now."""
    return [
        path
        for path, text in _lock_files().items()
        if not path.is_file() or path.read_text() != text
    ]


def locked_versions() -> dict[str, str]:
    """Every package of requirements.lock: canonical name to version, in the file's order."""
    lines = (line for line in LOCK.read_text().splitlines() if line and not line.startswith("#"))
    pairs = (line.split("==") for line in lines)
    return {str(canonicalize_name(name)): version for name, version in pairs}


def closure(roots: Iterable[str]) -> set[str]:
    """Canonical names of ``roots`` and of everything they need in this environment."""
    found: set[str] = set()
    waiting = [str(canonicalize_name(root)) for root in roots]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += needs(name)
    return found


@cache
def needs(name: str) -> tuple[str, ...]:
    """Canonical names of what a package asks for in this environment, extras left out."""
    asked = map(Requirement, requires(name) or ())
    return tuple(
        str(canonicalize_name(requirement.name))
        for requirement in asked
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""})
    )


def _lock_files() -> dict[Path, str]:
    folder = REPOSITORY / "deploy"
    return {
        folder / "requirements-gateway.lock": _lock_text("gateway", _gateway_roots()),
        folder / "requirements-worker.lock": _lock_text("worker", _worker_roots()),
    }


def _lock_text(image: str, roots: Iterable[str]) -> str:
    wanted = closure(roots)
    versions = locked_versions()
    missing = sorted(wanted - versions.keys())
    if missing:
        raise LockError(f"requirements.lock: has no {', '.join(missing)}")
    lines = [f"{name}=={version}" for name, version in versions.items() if name in wanted]
    head = f"# Packages of the {image} image; written by `make locks`."
    return "\n".join([head, *lines, ""])


def _gateway_roots() -> set[str]:
    """The distributions that the gateway's modules import."""
    modules = {name for path in _gateway_files() for name in _imported(path)}
    distributions = _distributions()
    outside = modules - set(sys.stdlib_module_names) - set(_OURS)
    return {dist for name in outside for dist in distributions[name]} | set(_LOADED_BY_NAME)


@cache
def _distributions() -> Mapping[str, Sequence[str]]:
    """What the environment installs each module from; read once, it takes a second."""
    return packages_distributions()


def _gateway_files() -> Iterator[Path]:
    for source in _GATEWAY_SOURCES:
        path = REPOSITORY / source
        yield from sorted(path.rglob("*.py")) if path.is_dir() else [path]


def _imported(path: Path) -> Iterator[str]:
    """Top-level names a module imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def _worker_roots() -> set[str]:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    named = {Requirement(line).name for line in project["dependencies"]}
    return named | {*_BUILD_TOOLS, *_LOADED_BY_NAME}


if __name__ == "__main__":
    sys.exit(main())
