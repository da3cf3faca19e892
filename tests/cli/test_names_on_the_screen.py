"""Names that look like markup or like emoji stay as they are on the screen."""

import pytest
from rich.table import Table

from candor.cli.output import console, report_failure

NAMES = ("[b]cat[/b]", "[/x]", ":cat:", "[red]", "a\\[b")


@pytest.mark.parametrize("name", NAMES)
def test_names_are_no_markup(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    table = Table("class", title=f"of {name}")
    table.add_row(name)
    console().print(table)
    console().print(name)
    report_failure("predict", ValueError(name))
    said = capsys.readouterr().err
    assert said.count(name) == 4
