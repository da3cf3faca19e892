"""Who may import whom: the imports of every room, read with ``ast``."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
ROOMS = ("candor", "training", "audit", "handlers", "gateway", "cli")
# What a room may import of ours besides itself; a name covers everything below it.
ALLOWED = {
    "candor": (),
    "training": ("candor",),
    "audit": ("candor",),
    "handlers": ("candor",),
    "gateway": ("candor.contracts",),
    "cli": ROOMS,
}
# The same inside candor.
ALLOWED_INSIDE = {
    "allocator": (),
    "contracts": (),
    "nets": ("contracts",),
    "data": ("contracts",),
    "search": ("nets", "contracts"),
    "robustness": ("search", "nets", "contracts"),
    "explainers": ("nets", "contracts"),
    "artifact": ("nets", "contracts"),
    "onnx_model": ("contracts",),
    "onnx_export": ("onnx_model", "artifact", "contracts"),
    "released": ("nets", "data", "contracts"),
}


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


@pytest.mark.parametrize("room", ROOMS)
def test_room_imports_only_what_its_arrows_allow(room):
    others = [*ROOMS, "tests"]

    def is_allowed(name):
        if name.split(".")[0] not in others:
            return True
        return any(is_below(name, allowed) for allowed in (room, *ALLOWED[room]))

    assert violations(room, is_allowed) == []


def parts_of_candor():
    paths = sorted((REPOSITORY / "candor").iterdir())
    return [path.stem for path in paths if path.suffix == ".py" or (path / "__init__.py").exists()]


def test_every_part_of_the_core_has_its_arrows():
    assert set(parts_of_candor()) - {"__init__"} <= ALLOWED_INSIDE.keys()


@pytest.mark.parametrize("part", sorted(ALLOWED_INSIDE))
def test_part_of_the_core_imports_only_what_its_arrows_allow(part):
    allowed = [f"candor.{name}" for name in (part, *ALLOWED_INSIDE[part])]

    def is_allowed(name):
        return not is_below(name, "candor") or any(is_below(name, other) for other in allowed)

    folder = f"candor/{part}"
    if (REPOSITORY / folder).is_dir():
        assert violations(folder, is_allowed) == []
        return
    path = REPOSITORY / f"{folder}.py"
    source = path.read_text() if path.is_file() else ""
    assert [name for name in imported_names(source, "candor") if not is_allowed(name)] == []


@pytest.mark.parametrize("folder", ["candor/contracts", "gateway"])
def test_no_torch_at_the_door(folder):
    assert list(imports_of(folder)), "nothing was read"
    assert violations(folder, lambda name: not is_below(name, "torch")) == []


def test_contracts_and_onnx_files_load_without_torch():
    modules = sorted(path.stem for path in (REPOSITORY / "candor" / "contracts").glob("*.py"))
    contracts = [f"candor.contracts.{name}" for name in modules if name != "__init__"]
    imports = ", ".join([*contracts, "candor.onnx_model"])
    check = f"import sys, {imports}; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", check], check=True, cwd=REPOSITORY)
