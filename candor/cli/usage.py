"""Errors in what was typed, as one line of our words."""

from typing import Any

from pydantic import ValidationError

from candor.cli.output import console
from candor.contracts.secrets import without_secrets
from candor.contracts.violations import sentence


def is_usage(err: BaseException) -> bool:
    """Whether a command line was typed wrongly, rather than a command failed."""
    return hasattr(err, "format_message")


def show_usage(err: Any) -> int:
    """An error in what was typed, as one line; of a group without a command its help."""
    if type(err).__name__ == "NoArgsIsHelpError":
        err.show()
        return int(err.exit_code)
    path = err.ctx.command_path if getattr(err, "ctx", None) else "candor"
    text = " ".join(_usage_text(err).split()).rstrip(".")
    line = without_secrets(f"{path}: {text}; {path} --help lists what is expected")
    console().print(line, style="red", markup=False, soft_wrap=True)
    return int(err.exit_code)


def _usage_text(err: Any) -> str:
    """Typer's words; not those of pydantic, which typer reads values with."""
    if not isinstance(err.__cause__, ValidationError):
        return str(err.format_message())
    option = err.param.opts[-1] if getattr(err, "param", None) else "value"
    return sentence(err.__cause__, option)
