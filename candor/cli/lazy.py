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
from candor.cli.output import flush_output, report_failure
from candor.cli.usage import is_usage, show_usage

_RUNNING = "candor.running"  # in click's meta: the command of a group that runs


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

    def main(self, *args: Any, **options: Any) -> Any:
        """The command line; an error in what was typed is one line and an exit code."""
        if not options.get("standalone_mode", True):
            return super().main(*args, **options)
        options["standalone_mode"] = False
        try:
            code = super().main(*args, **options)
        except typer.Abort:
            code = 1
        except Exception as err:
            code = show_usage(err) if is_usage(err) else report_failure("", err)
        sys.exit(code if isinstance(code, int) else 0)

    def invoke(self, ctx: Any) -> Any:
        """Any command; whatever goes wrong in it is one line and an exit code."""
        try:
            result = super().invoke(ctx)
            flush_output()
        except (Exception, KeyboardInterrupt) as err:
            if isinstance(err, typer.Exit | typer.Abort) or is_usage(err):
                raise
            name = ctx.meta.get(_RUNNING) or ctx.invoked_subcommand or ""
            raise typer.Exit(report_failure(name, err)) from err
        return result

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


class _NamedGroup(TyperGroup):
    """A group of a command's own; it says which of its commands runs."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        finally:
            ctx.meta[_RUNNING] = f"{ctx.info_name} {ctx.invoked_subcommand or ''}".strip()


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
        holder.add_typer(found, name=name, cls=_NamedGroup)
    else:
        holder.command(name)(found)
    return typer.main.get_group(holder).commands[name]
