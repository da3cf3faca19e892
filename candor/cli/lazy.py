"""A group of commands whose modules are loaded only when one of their commands is used.

A command may then import what it needs at the top of its module, torch too, while the group's help
still appears at once.
"""

import sys
from collections import UserDict
from collections.abc import Mapping
from importlib import import_module
from typing import Any, ClassVar, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup

from candor.cli.missing import missing_package


class Entry(NamedTuple):
    """Where a command is and its line in the group's help.

    Attributes:
        target: ``module:name`` of a function, or of a `typer.Typer` with commands of its own.
        help: the first line of the command's own help.
    """

    target: str
    help: str


class LazyGroup(TyperGroup):
    """Subclasses give the ``table``; everything else is a group of typer."""

    table: ClassVar[Mapping[str, Entry]] = {}

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = _Commands({name: entry.target for name, entry in self.table.items()})

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """The group's help from the table alone; no command is loaded for it."""
        lines: dict[str, Any] = {
            name: TyperCommand(name, help=entry.help) for name, entry in self.table.items()
        }
        listing = TyperGroup(
            name=self.name,
            commands=lines,
            params=self.params,
            help=self.help,
            rich_markup_mode=self.rich_markup_mode,
        )
        listing.format_help(ctx, formatter)


class _Commands(UserDict[str, Any]):
    """Commands by name, each loaded when it is first used."""

    def __init__(self, targets: Mapping[str, str]) -> None:
        super().__init__(targets)
        self._loaded: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._loaded:
            self._loaded[name] = _load(name, super().__getitem__(name))
        return self._loaded[name]


def _load(name: str, target: str) -> Any:
    module, _, attribute = target.partition(":")
    try:
        found = getattr(import_module(module), attribute)
    except ModuleNotFoundError as error:  # an install of some parts only
        sys.exit(missing_package(error))
    holder = typer.Typer(pretty_exceptions_show_locals=False)
    if isinstance(found, typer.Typer):
        holder.add_typer(found, name=name)
    else:
        holder.command(name)(found)
    return typer.main.get_group(holder).commands[name]
