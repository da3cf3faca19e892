"""The folder that a start of the service writes into: short enough for sockets, and with space."""

import os
import shutil
import tempfile
from pathlib import Path

from candor.stack.errors import StackError

_SOCKET_BYTES = 107  # of a whole path on Linux, sun_path without its last zero
_LONGEST_SOCKET = ".ts.sock.65535"  # TorchServe's, one for each worker
_SPACE_BYTES = 1024 * 1024  # for configuration and logs of a start


def run_folder(wanted: Path | None = None) -> Path:
    """``wanted``, made where it is missing, or a new folder in TMPDIR.

    Raises:
        StackError: it cannot be written, has no space, or its path is too long.
    """
    setting = "TMPDIR" if wanted is None else "run-dir"
    try:
        folder = _made(wanted)
    except OSError as err:
        place = wanted or os.environ.get("TMPDIR", tempfile.gettempprefix())
        reason = err.strerror or "cannot be used"
        raise StackError(
            f"{setting}: expected a folder to write into, got {place}: {reason}"
        ) from err
    try:
        _check(folder, setting)
    except StackError:
        if wanted is None:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    return folder


def _made(wanted: Path | None) -> Path:
    if wanted is None:
        return Path(tempfile.mkdtemp(prefix="candor-")).absolute()
    wanted.mkdir(parents=True, exist_ok=True)
    return wanted.absolute()


def _check(folder: Path, setting: str) -> None:
    longest = _SOCKET_BYTES - len(f"/{_LONGEST_SOCKET}")
    length = len(os.fsencode(folder))
    if length > longest:
        raise StackError(
            f"{setting}: expected a folder whose path has at most {longest} bytes, as sockets go "
            f"there, got {length} bytes: {folder}; set TMPDIR to a shorter one, such as /tmp"
        )
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(_SPACE_BYTES))
    except OSError as err:
        raise StackError(f"{setting}: {folder} cannot be written: {err.strerror}") from err
