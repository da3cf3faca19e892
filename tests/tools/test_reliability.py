"""The tables of RELIABILITY.md: a section is replaced and nothing around it."""

import dataclasses
from pathlib import Path

import pytest

from tools.bench.machine import cores
from tools.reliability import RELIABILITY, Row, write_section

ROW = Row(what="explain", tried=1200, lost=0, measured="p95 1.2 s (at most 30)", is_held=True)


@pytest.fixture
def page(tmp_path: Path) -> Path:
    path = tmp_path / "page.md"
    path.write_text(RELIABILITY.read_text())
    return path


@pytest.mark.parametrize("name", ["load", "fuzz", "faults"])
def test_a_section_is_replaced_and_nothing_else(page: Path, name: str) -> None:
    before = page.read_text()
    write_section(name, [ROW, ROW], "make it", page)
    write_section(name, [ROW], "make it", page)
    after = page.read_text()
    assert cores() in after
    assert after.count("| explain | 1,200 | 0 | p95 1.2 s (at most 30) | yes |") == 1
    begin, end = f"<!-- {name} -->", f"<!-- end {name} -->"
    assert after.partition(begin)[0] == before.partition(begin)[0]
    assert after.partition(end)[2] == before.partition(end)[2]


def test_an_unknown_section_and_a_broken_cell_are_rejected(page: Path) -> None:
    before = page.read_text()
    with pytest.raises(ValueError, match="got 'weather'"):
        write_section("weather", [ROW], "make it", page)
    with pytest.raises(ValueError, match="cell: expected"):
        write_section("load", [dataclasses.replace(ROW, what="a|b")], "make it", page)
    assert page.read_text() == before
