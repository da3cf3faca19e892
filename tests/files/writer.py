"""A process that writes a model folder and is killed at its N-th write, sync or rename."""

import os
import signal
import sys
from pathlib import Path
from typing import Any

from candor.files import writing

_left = int(sys.argv[1])


def _counted(call: Any) -> Any:
    def counted(*arguments: Any, **options: Any) -> Any:
        global _left
        _left -= 1
        if _left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*arguments, **options)

    return counted


def main() -> None:
    folder, way = Path(sys.argv[2]), sys.argv[3]
    for name in ("fsync", "link", "unlink", "replace", "rename", "open", "mkdir", "fdopen"):
        setattr(os, name, _counted(getattr(os, name)))
    writing._exchange = _counted(writing._exchange)
    contents = {name: b"new" * 100_000 for name in ("weights", "card")}
    if way == "folder":
        writing.write_folder(folder, contents)
    elif way == "files":
        writing.write_files(folder, contents)
    else:
        writing.write_file(folder / "card", contents["card"])


main()
