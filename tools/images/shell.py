"""Commands of other programs, and what this machine needs for the check."""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
OUT = REPOSITORY / "out" / "images"
_NEEDED = ("buildah", "crun", "debootstrap", "ip", "nsenter", "unshare")
_TAIL_LINES = 15


class ImagesError(Exception):
    """The check cannot go on; the message says which step failed and how."""


def require_tools() -> None:
    """Raises: ImagesError: the user or a program is missing; Debian's packages bring them all."""
    missing = [name for name in _NEEDED if shutil.which(name) is None]
    if missing:
        raise ImagesError(
            f"needs {', '.join(missing)}; on Debian: "
            "apt-get install buildah crun debootstrap iproute2 util-linux"
        )
    if os.geteuid() != 0:
        raise ImagesError("needs root: it makes file systems and networks")


def run(
    command: Sequence[str | Path],
    *,
    environment: Mapping[str, str] | None = None,
    seconds: float = 1200.0,
) -> str:
    """What the command prints.

    Raises:
        ImagesError: it fails; the message has its last lines.
    """
    words = list(map(str, command))
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, env=environment, cwd=REPOSITORY, timeout=seconds
        )
    except subprocess.TimeoutExpired as err:
        raise ImagesError(f"{words[0]}: not finished in {seconds:g} seconds") from err
    if done.returncode != 0:
        lines = (done.stdout + done.stderr).splitlines()[-_TAIL_LINES:]
        raise ImagesError("\n  ".join([f"{' '.join(words)[:200]} failed:", *lines]))
    return done.stdout
