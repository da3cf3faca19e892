"""The counts of a tree, on one small enough to count by hand."""

import subprocess
from pathlib import Path

import pytest

from tools import house
from tools.house import House

TREE = {
    "candor/__init__.py": "",
    "candor/room/__init__.py": "",
    "candor/room/first.py": (
        "from candor.room import second\n"
        "from candor.room.third import name\n"
        "import candor.other.far\n"
    ),
    "candor/room/second.py": "from . import third\nfrom .third import name\n",
    "candor/room/third.py": (
        'def short():\n    """Two lines of text.\n\n    Not counted.\n    """\n    return 1\n\n\n'
        "def long():\n    import json\n\n    def inner():\n        from os import path\n\n"
        "        return path\n\n    return json, inner\n"
    ),
    "candor/other/__init__.py": "VALUE = 1\n",
    "candor/other/far.py": (
        "class Transport:\n    def call(self, row):\n"
        "        with self._request_log.watch(row), other.watch(row):\n"
        "            return id(row)\n"
    ),
    "candor/cli/commands/long.py": "pass\n" * 121,
    "candor/cli/commands/short.py": "pass\n" * 120,
    "candor/rpc/pb/made_pb2.py": "def made():\n    import json\n",
    "tests/gateway/test_scheduler.py": (
        "import asyncio, time\n\n\nasync def test_all():\n    import json\n\n"
        "    await asyncio.sleep(0)\n    await asyncio.sleep(0.1)\n    time.sleep(1)\n"
    ),
    "tests/gateway/test_other.py": "import time\n\ntime.sleep(1)\n",
    "tools/helper.py": "def help_me():\n    import json\n",
}


@pytest.fixture
def tree() -> House:
    return House(TREE)


def test_rooms_are_folders_with_their_modules_and_arrows(tree: House) -> None:
    assert tree.rooms() == {
        "candor/cli/commands": (2, 0),
        "candor/other": (2, 0),
        "candor/room": (3, 3),  # first to second and third, second to third
    }


def test_the_largest_module_is_found(tree: House) -> None:
    assert tree.largest_module() == (121, "candor/cli/commands/long.py")


def test_imports_inside_functions_count_once_and_everywhere_but_in_generated_code(
    tree: House,
) -> None:
    assert tree.imports_inside_functions() == 4


def test_only_the_request_log_makes_an_envelope(tree: House) -> None:
    assert tree.call_envelopes() == 1


def test_sleeps_count_where_tests_wait_for_the_scheduler(tree: House) -> None:
    assert tree.sleeps() == 2


def test_comparisons_by_id_and_long_commands_count(tree: House) -> None:
    assert (tree.compared_by_id(), tree.long_commands()) == (1, 1)


def test_lines_of_a_function_are_those_of_its_body(tree: House) -> None:
    lines = {one.place.rpartition(" ")[2]: one.line_count for one in tree.functions()}
    assert lines == {"short": 1, "long": 8, "inner": 3, "call": 2}


def git(folder: Path, *arguments: str) -> None:
    names = ("-c", "user.name=Test", "-c", "user.email=test@example.org")
    subprocess.run(["git", "-C", folder, *names, *arguments], check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    for path, text in TREE.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    (tmp_path / "read.me").write_text("not Python\n")
    git(tmp_path, "init")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "first")
    return tmp_path


def test_a_commit_is_read_without_a_checkout(repository: Path) -> None:
    changed = repository / "candor" / "room" / "first.py"
    changed.write_text("")
    assert house.sources_at("HEAD", repository) == TREE
    assert house.sources_here(repository) == {**TREE, "candor/room/first.py": ""}
    assert changed.read_text() == ""


def test_a_new_file_counts_and_an_ignored_or_deleted_one_does_not(repository: Path) -> None:
    (repository / ".gitignore").write_text("ignored/\n")
    (repository / "ignored").mkdir()
    (repository / "ignored" / "module.py").write_text("")
    (repository / "new.py").write_text("# Größe\n")
    (repository / "tools" / "helper.py").unlink()
    found = house.sources_here(repository)
    assert found["new.py"] == "# Größe\n"
    assert {"ignored/module.py", "tools/helper.py"}.isdisjoint(found)


def test_an_unknown_revision_is_an_error(repository: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError, match="ls-tree"):
        house.sources_at("no-such-revision", repository)


def test_two_trees_stand_side_by_side(tree: House) -> None:
    small = House({"candor/a.py": "def f():\n    return 1\n"})
    counts = house.counts_table([small, tree], ["before", "after"])
    rooms = house.rooms_table([small, tree], ["before", "after"])
    assert [column.header for column in counts.columns] == ["count", "before", "after"]
    assert list(rooms.columns[1].cells) == ["1, 0", "", "", ""]
    assert list(rooms.columns[2].cells) == ["", "2, 0", "2, 0", "3, 3"]
