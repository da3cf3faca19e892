"""Who may import whom: the imports of every room, read with ``ast``."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


def imported_names(source, package):
    """Dotted names a module imports, wherever the statement stands; relative ones resolved."""
    names = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: 1 - node.level or None] if node.level else []
            base = ".".join([*parents, *filter(None, [node.module])])
            names += [f"{base}.{alias.name}" for alias in node.names]
    return names


def is_below(name, allowed):
    return name == allowed or name.startswith(allowed + ".")


def imports_of(folder):
    for path in sorted((REPOSITORY / folder).rglob("*.py")):
        place = path.relative_to(REPOSITORY)
        for name in imported_names(path.read_text(), ".".join(place.parent.parts)):
            yield place, name


def violations(folder, is_allowed):
    return [f"{place}: {name}" for place, name in imports_of(folder) if not is_allowed(name)]


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("import a.b, c as d", ["a.b", "c"]),
        ("from a.b import c, d", ["a.b.c", "a.b.d"]),
        ("def f():\n    from a import b", ["a.b"]),
        ("if x:\n    import a", ["a"]),
        ("from . import b", ["room.part.b"]),
        ("from .b import c", ["room.part.b.c"]),
        ("from ..b import c", ["room.b.c"]),
    ],
)
def test_every_form_of_import_is_seen(source, names):
    assert imported_names(source, "room.part") == names


@pytest.mark.parametrize(
    "folder", ["candor/contracts", "candor/rpc", "candor/client", "candor/gateway"]
)
def test_no_torch_at_the_door(folder):
    assert list(imports_of(folder)), "nothing was read"
    assert violations(folder, lambda name: not is_below(name, "torch")) == []


def test_contracts_and_onnx_files_load_without_torch():
    modules = sorted(path.stem for path in (REPOSITORY / "candor" / "contracts").glob("*.py"))
    contracts = [f"candor.contracts.{name}" for name in modules if name != "__init__"]
    imports = ", ".join([*contracts, "candor.models.onnx.session"])
    check = f"import sys, {imports}; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", check], check=True, cwd=REPOSITORY)
