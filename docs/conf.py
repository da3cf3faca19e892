"""The documentation: pages in Markdown, the API reference from the docstrings.

``python -m sphinx -W -n -b html docs out/docs`` builds it.  The build fails on a name in single
backticks that neither the reference nor the code has, on a link to a file that does not exist, and
where `docs/architecture.md` does not show the arrows of ``pyproject.toml``.
"""

import sys
import tomllib
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "docs")]

import build  # noqa: E402 - found by the path set above

project = "Candor"
copyright = "2026, the authors of Candor"
version = release = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"]

extensions = ["myst_parser", "sphinx.ext.apidoc", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = f"Candor {version}"
html_show_sourcelink = False
myst_heading_anchors = 3
nitpicky = True

default_role = "py:obj"  # docstrings write a reference in single backticks
toc_object_entries = False  # thousands of entries on every page
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # else fields of a dataclass are described twice
autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False
autodoc_default_options = {"exclude-members": "model_config, metadata"}

apidoc_modules = [
    {
        "path": REPOSITORY / room,
        "destination": f"api/generated/{room}",
        # Generated code, and a script that only Alembic can run.
        "exclude_patterns": [
            f"{REPOSITORY}/candor/rpc/pb*",
            f"{REPOSITORY}/candor/store/migrations*",
            "*/__main__.py",
        ],
        "automodule_options": {"members", "show-inheritance"},
        "module_first": True,
    }
    for room in build.ROOMS
]
exclude_patterns = ["api/generated/*/modules.rst"]

setup = build.setup
