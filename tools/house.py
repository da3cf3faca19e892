"""``python -m tools.house`` counts what docs/architecture.md promises of the tree.

Counted are the folder as it lies here or, with --at REV, a commit; --against REV sets a commit
beside it.  A room is a folder of modules; an arrow is an import of one of its modules by another of
the same room.  Generated code is left out everywhere, and tests and tools too but for the imports
inside functions, which are those of the whole project.
"""

import argparse
import ast
import re
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from rich.console import Console
from rich.table import Table

REPOSITORY = Path(__file__).resolve().parents[1]
MAX_COMMAND_LINES = 120
_GENERATED = re.compile(r"(^|/)pb/")
_BESIDE = ("build", "docs", "out", "tests", "tools")
_COMMAND = re.compile(r"^cli/|^candor/cli/(commands/)?[a-z_]+\.py$")
# The names that these tests and the request log have, or had in earlier trees.
_WAITING_TESTS = re.compile(r"^tests/.*(schedul|dispatch|outage|estimates|desk|search_pool)")
_REQUEST_LOG = re.compile(r"observer|request_log")

Sources = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Function:
    """``line_count``: of its body, without the docstring."""

    place: str
    line_count: int


@dataclass(frozen=True)
class House:
    """One tree.

    Args:
        sources: path below the root, with slashes, to text, for every Python file.
    """

    sources: Sources

    @cached_property
    def trees(self) -> Mapping[str, ast.Module]:
        """Syntax trees of all that is written by hand, tests and tools too."""
        return {
            path: ast.parse(text)
            for path, text in self.sources.items()
            if not _GENERATED.search(path) and "generated" not in text.partition("\n")[0].lower()
        }

    @cached_property
    def product(self) -> Mapping[str, ast.Module]:
        """Without tests and tools."""
        return {
            path: tree for path, tree in self.trees.items() if path.partition("/")[0] not in _BESIDE
        }

    def rooms(self) -> Mapping[str, tuple[int, int]]:
        """By folder: modules, and arrows between them."""
        modules = Counter(_room(path) for path in self.product if not _is_empty(path, self.sources))
        arrows = Counter(_room(importer) for importer, _ in self._arrows())
        return {room: (count, arrows[room]) for room, count in sorted(modules.items())}

    def largest_module(self) -> tuple[int, str]:
        """Lines and path."""
        return max((len(self.sources[path].splitlines()), path) for path in self.product)

    def imports_inside_functions(self) -> int:
        """Of the whole project, its tests too; each statement counts once."""
        return sum(len(_inner_imports(tree)) for tree in self.trees.values())

    def call_envelopes(self) -> int:
        """Places that open the request log's ``watch`` around a call."""
        return sum(_is_envelope(node) for tree in self.product.values() for node in ast.walk(tree))

    def sleeps(self) -> int:
        """In the tests of scheduling and of the search pool; ``sleep(0)`` only yields."""
        tests = (tree for path, tree in self.trees.items() if _WAITING_TESTS.search(path))
        return sum(_is_sleep(node) for tree in tests for node in ast.walk(tree))

    def compared_by_id(self) -> int:
        """Calls of the builtin ``id``."""
        return sum(
            isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "id"
            for tree in self.product.values()
            for node in ast.walk(tree)
        )

    def long_commands(self) -> int:
        """Files of the command line with more than `MAX_COMMAND_LINES` lines."""
        return sum(
            bool(_COMMAND.match(path)) and len(self.sources[path].splitlines()) > MAX_COMMAND_LINES
            for path in self.product
        )

    def functions(self) -> list[Function]:
        return [
            Function(f"{path}: {node.name}", _body_lines(node))
            for path, tree in self.product.items()
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        ]

    def _arrows(self) -> Iterator[tuple[str, str]]:
        """Pairs of modules of one room, importer first, each once."""
        written = (path for path in self.product if not _is_empty(path, self.sources))
        names = {_module(path): path for path in written}
        for path, tree in self.product.items():
            targets = {names[name] for name in _imported(tree, path) if name in names}
            yield from ((path, one) for one in targets if one != path and _room(one) == _room(path))


def main() -> int:
    """Prints the counts of one tree or of two; exit code 2 where git knows no such revision."""
    parser = argparse.ArgumentParser(prog="tools.house", description=__doc__)
    parser.add_argument("--at", metavar="REV", help="count this commit, not the folder")
    parser.add_argument("--against", metavar="REV", help="count this commit too, as the one before")
    arguments = parser.parse_args()
    try:
        after = House(sources_at(arguments.at) if arguments.at else sources_here())
        before = House(sources_at(arguments.against)) if arguments.against else None
    except subprocess.CalledProcessError as err:
        print(f"house: {err.stderr.decode().strip()}", file=sys.stderr)
        return 2
    console = Console(width=120)
    titles = ["after"] if before is None else ["before", "after"]
    houses = [after] if before is None else [before, after]
    console.print(counts_table(houses, titles))
    console.print(rooms_table(houses, titles))
    return 0


def sources_here(folder: Path = REPOSITORY) -> Sources:
    """The Python files of the folder that git does not ignore."""
    listed = _git(folder, "ls-files", "-z", "--cached", "--others", "--exclude-standard", "*.py")
    paths = [path for path in listed.decode().split("\0") if path]
    return {path: (folder / path).read_text() for path in paths if (folder / path).is_file()}


def sources_at(revision: str, folder: Path = REPOSITORY) -> Sources:
    """The Python files of a commit; nothing is checked out.

    Raises:
        subprocess.CalledProcessError: git knows no such revision.
    """
    listed = _git(folder, "ls-tree", "-r", "-z", "--name-only", revision)
    paths = [path for path in listed.decode().split("\0") if path.endswith(".py")]
    wanted = "".join(f"{revision}:{path}\n" for path in paths).encode()
    answer = _git(folder, "cat-file", "--batch", given=wanted)
    return dict(zip(paths, _batched(answer), strict=True))


def counts_table(houses: Sequence[House], titles: Sequence[str]) -> Table:
    table = Table("count", *titles)
    rows = [_counts(house) for house in houses]
    for name in rows[0]:
        table.add_row(name, *(row[name] for row in rows))
    return table


def rooms_table(houses: Sequence[House], titles: Sequence[str]) -> Table:
    """Modules and arrows by room; the room is the folder in its own tree."""
    table = Table("room", *(f"{title}: modules, arrows" for title in titles))
    rooms = [house.rooms() for house in houses]
    for room in sorted(set().union(*rooms)):
        found = (counts.get(room) for counts in rooms)
        table.add_row(room, *("" if pair is None else f"{pair[0]}, {pair[1]}" for pair in found))
    return table


def _counts(house: House) -> dict[str, str]:
    rooms, functions = house.rooms(), house.functions()
    fullest = max(rooms, key=lambda room: rooms[room])
    line_count, largest = house.largest_module()
    longest = max(functions, key=lambda function: function.line_count)
    median = statistics.median(function.line_count for function in functions)
    modules, arrows = rooms[fullest]
    return {
        "modules": str(sum(count for count, _ in rooms.values())),
        "rooms": str(len(rooms)),
        "fullest room": f"{fullest}: {modules} modules, {arrows} arrows",
        "largest module": f"{line_count} lines: {largest}",
        "imports inside functions": str(house.imports_inside_functions()),
        "call envelopes": str(house.call_envelopes()),
        "sleeps in tests of scheduling and search pool": str(house.sleeps()),
        "calls of id()": str(house.compared_by_id()),
        f"command files over {MAX_COMMAND_LINES} lines": str(house.long_commands()),
        "functions": str(len(functions)),
        "median function": f"{median:g} lines",
        "longest function": f"{longest.line_count} lines: {longest.place}",
    }


def _git(folder: Path, *arguments: str, given: bytes | None = None) -> bytes:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, input=given, capture_output=True, check=True).stdout


def _batched(answer: bytes) -> Iterator[str]:
    """Texts of ``git cat-file --batch``: a header that ends with the size, the bytes, a newline."""
    while answer:
        header, _, rest = answer.partition(b"\n")
        size = int(header.split()[-1])
        yield rest[:size].decode()
        answer = rest[size + 1 :]


def _room(path: str) -> str:
    return str(PurePosixPath(path).parent)


def _module(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def _is_empty(path: str, sources: Sources) -> bool:
    return path.endswith("__init__.py") and not sources[path].strip()


def _imported(tree: ast.Module, path: str) -> Iterator[str]:
    """Dotted names that a module imports, and what it takes from them, as names too."""
    package = path.split("/")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*parents, *filter(None, [node.module])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _inner_imports(tree: ast.Module) -> set[int]:
    """Lines of import statements inside functions, those of inner functions once."""
    functions = (node for node in ast.walk(tree) if _is_function(node))
    return {
        node.lineno
        for function in functions
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom)
    }


def _is_function(node: ast.AST) -> bool:
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)


def _is_envelope(node: ast.AST) -> bool:
    if not isinstance(node, ast.With | ast.AsyncWith):
        return False
    return any(
        isinstance(called := item.context_expr, ast.Call)
        and isinstance(called.func, ast.Attribute)
        and called.func.attr == "watch"
        and bool(_REQUEST_LOG.search(ast.unparse(called.func.value)))
        for item in node.items
    )


def _is_sleep(node: ast.AST) -> bool:
    if not isinstance(node, ast.Call) or not node.args:
        return False
    name = node.func.attr if isinstance(node.func, ast.Attribute) else ast.unparse(node.func)
    return name == "sleep" and ast.unparse(node.args[0]) != "0"


def _body_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    body: Iterable[ast.stmt] = node.body[1:] if ast.get_docstring(node) else node.body
    lines = [(statement.lineno, statement.end_lineno or statement.lineno) for statement in body]
    return lines[-1][1] - lines[0][0] + 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
