"""What the documentation's build checks beside Sphinx's own references."""

import importlib
import pkgutil
import re
import sys
from pathlib import Path
from typing import Any

import arrows
from docutils.nodes import Element, TextElement
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.domains.python import PythonDomain
from sphinx.environment import BuildEnvironment
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util import logging
from sphinx.util.nodes import find_pending_xref_condition, make_refnode

ROOMS = ("candor", "training", "handlers")
_UNDESCRIBED = (".pb.", ".migrations", "__main__")
_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_FILE = re.compile(r"[\w.]+\.(json|jsonl|parquet|pt|sig|safetensors|toml|html|pdf)")
# Values, commands and fields of protocols that docstrings show in single backticks.
_WORDS = {
    *("paper", "fast"),  # solvers
    *("clean", "panel", "smoothing", "clever", "explanations", "calibration"),  # stages of an audit
    *("progress", "result", "error"),  # events of a stream
    *(
        "iss",
        "aud",
        "optional",
        "other",
        "torchrun",
    ),  # claims, a keyword of proto, a label, a command
    *("shutdown", "server_close", "add_secure_port"),  # methods of libraries
}
# Services of the proto and variables of the environment.
_FOREIGN = ("candor.v1.", "inference.", "CANDOR_", "ATEN_", "OMP_", "ONEDNN_", "OTEL_")
_CODE = re.compile(r"(``.*?``|`[^`]*`)", re.DOTALL)
_LINK_OUT = re.compile(r"\[([^\]]*)\]\((\.\./[^)#\s]+)(#[^)\s]*)?\)")
_log = logging.getLogger(__name__)


def setup(app: Sphinx) -> None:
    """Sphinx calls this once."""
    _import_all()
    app.connect("builder-inited", _check_arrows)
    app.connect("source-read", _without_links_out)
    app.connect("autodoc-process-docstring", _with_plain_bars)
    app.add_post_transform(_TypesAsText)
    app.connect("missing-reference", _resolve)


def _import_all() -> None:
    # Before autodoc does: it imports with TYPE_CHECKING set, which not every library survives.
    for room in map(importlib.import_module, ROOMS):
        for found in pkgutil.walk_packages(room.__path__, f"{room.__name__}."):
            if not any(part in found.name for part in _UNDESCRIBED):
                importlib.import_module(found.name)


def _check_arrows(app: Sphinx) -> None:
    if arrows.is_stale():
        _log.warning("docs/architecture.md shows other arrows: run python docs/arrows.py")
    for problem in arrows.against_diagram():
        _log.warning("diagram of docs/architecture.md: %s", problem)


def _without_links_out(app: Sphinx, name: str, source: list[str]) -> None:
    """Links to files of the repository that are no pages: they must exist, and become text."""
    folder = Path(app.env.doc2path(name)).parent

    def text(link: re.Match[str]) -> str:
        path = (folder / link[2]).resolve()
        if not path.exists():
            _log.warning("link to %s, which does not exist", link[2], location=name)
        return link[0] if path.is_relative_to(app.srcdir) else link[1]

    source[0] = _LINK_OUT.sub(text, source[0])


def _with_plain_bars(
    app: Sphinx, what: str, name: str, value: Any, options: Any, lines: list[str]
) -> None:
    """Docstrings write |delta| for a length; reStructuredText would take it for a substitution."""
    text = _CODE.split("\n".join(lines))
    text[::2] = [prose.replace("|", "\\|") for prose in text[::2]]
    lines[:] = "".join(text).split("\n")


class _TypesAsText(SphinxPostTransform):
    """Types in signatures that the reference does not describe are text, without a slow search.

    They come from the annotations, which mypy checks.
    """

    default_priority = 5  # before Sphinx resolves references

    def run(self, **kwargs: Any) -> None:
        described = self.env.domains.python_domain.objects
        for node in list(self.document.findall(addnodes.pending_xref)):
            is_type = node.get("refdomain") == "py" and node["reftype"] != "obj"
            if is_type and node["reftarget"] not in described:
                shown = find_pending_xref_condition(node, "resolved")
                node.replace_self(node.children if shown is None else shown.children)


def _resolve(
    app: Sphinx, env: BuildEnvironment, node: Element, content: TextElement
) -> Element | None:
    """A reference that Sphinx did not resolve: a link, text, or None, which fails the build.

    What is no name at all, such as a command, is text.  Any other name must exist in the code, seen
    from the module that mentions it.
    """
    target = node["reftarget"]
    if node.get("refdomain") != "py":
        return None
    if not _is_name(target):
        return content
    found = _find(target, node.get("py:module"), node.get("py:class"))
    described = _described(env.domains.python_domain, target, found)
    if described is None:
        return None if found is _NOTHING else content
    entry = env.domains.python_domain.objects[described]
    return make_refnode(
        app.builder, node["refdoc"], entry.docname, entry.node_id, content, described
    )


_NOTHING = object()


def _is_name(target: str) -> bool:
    """Not a command, a path, a file, a foreign name, a prefix such as candor_ or a listed word."""
    is_path = _NAME.fullmatch(target) and not _FILE.fullmatch(target)
    is_foreign = target.startswith(_FOREIGN)
    return bool(is_path) and not is_foreign and target not in _WORDS and not target.endswith("_")


def _find(target: str, module: str | None, owner: str | None) -> Any:
    """What ``target`` names in the code, seen from its module; `_NOTHING` where that is nothing."""
    scopes = [f"{module}.{owner}.", f"{module}.", "", "builtins."]
    for path in (scope + target for scope in scopes):
        names = path.split(".")
        lengths = range(len(names), 0, -1)
        known = next((n for n in lengths if ".".join(names[:n]) in sys.modules), 0)
        if known:
            value = _walk(sys.modules[".".join(names[:known])], names[known:])
            if value is not _NOTHING:
                return value
    return _NOTHING


def _walk(value: Any, names: list[str]) -> Any:
    for name in names:
        if hasattr(value, name):
            value = getattr(value, name)
        elif any(name in vars(kind).get("__annotations__", {}) for kind in _bases(value)):
            value = None  # a field without default
        else:
            return _NOTHING
    return value


def _bases(value: Any) -> tuple[type, ...]:
    return value.__mro__ if isinstance(value, type) else ()


def _described(domain: PythonDomain, target: str, found: Any) -> str | None:
    """The full name under which the reference describes it, in another module if need be."""
    name = f"{getattr(found, '__module__', '')}.{getattr(found, '__qualname__', '')}"
    if name in domain.objects:
        return name
    elsewhere = [full for full in domain.objects if full.endswith(f".{target}")]
    return min(elsewhere, default=None) if found is _NOTHING else None
