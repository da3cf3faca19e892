"""A home and a name for child processes of a user who has none that works, as in containers."""

import getpass
import os
from collections.abc import Mapping
from pathlib import Path

_NAME = "candor"


def identity(run_dir: Path) -> Mapping[str, str]:
    """The variables that are missing; libraries look for both when they are imported.

    Args:
        run_dir: takes the place of the home.
    """
    return {**_home(run_dir), **_name()}


def _home(run_dir: Path) -> dict[str, str]:
    try:
        home = Path.home()
    except RuntimeError:  # no HOME and no entry in the list of users
        return {"HOME": str(run_dir)}
    cache = home / ".cache"
    is_usable = os.access(cache if cache.exists() else home, os.W_OK | os.X_OK)
    return {} if is_usable or "XDG_CACHE_HOME" in os.environ else {"HOME": str(run_dir)}


def _name() -> dict[str, str]:
    try:
        getpass.getuser()
    except (KeyError, OSError):  # the latter from Python 3.13 on
        return {"USER": _NAME, "LOGNAME": _NAME}
    return {}
