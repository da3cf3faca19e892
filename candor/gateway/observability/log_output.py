"""Log lines written by a thread of their own.

Whoever reads the output of this process, a pipe or a container's log driver, may stop reading; then
only the log stops, and not the requests.
"""

import logging
import os
import queue
import threading
from contextlib import suppress
from typing import TextIO

_MOST_LINES = 10_000  # that wait; about 3 MB
_LAST_LINES_SECONDS = 2.0


class LogOutput(logging.Handler):
    """Writes formatted records to a stream, and how many were lost while nobody read it.

    Args:
        stream: whose file is written to directly where it has one: a lock of the stream that is
            held for ever would keep the process from ending.
    """

    def __init__(self, stream: TextIO, most_lines: int = _MOST_LINES) -> None:
        super().__init__()
        self._stream = stream
        self._lines: queue.Queue[str | None] = queue.Queue(most_lines)
        self._lost_count = 0
        self._thread = threading.Thread(target=self._write_all, name="candor log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._lines.put_nowait(self.format(record))
        except queue.Full:
            self._lost_count += 1
        except Exception:
            self.handleError(record)

    def close(self) -> None:
        """Writes what waits, unless nobody reads it."""
        super().close()
        with suppress(queue.Full):
            self._lines.put_nowait(None)
            self._thread.join(_LAST_LINES_SECONDS)

    def _write_all(self) -> None:
        while (line := self._lines.get()) is not None:
            lost, self._lost_count = self._lost_count, 0
            with suppress(OSError, ValueError):  # the reader is gone: later lines go nowhere, too
                self._write(f"{line}\n")
                if lost:
                    record = logging.makeLogRecord(
                        {"name": "gateway.log", "levelno": logging.WARNING, "levelname": "WARNING"}
                        | {"msg": "%d lines were lost while nobody read the log", "args": (lost,)}
                    )
                    self._write(f"{self.format(record)}\n")

    def _write(self, text: str) -> None:
        try:
            file = self._stream.fileno()
        except (OSError, AttributeError):  # a stream in memory
            self._stream.write(text)
            return
        content = memoryview(text.encode())
        while content:
            content = content[os.write(file, content) :]
