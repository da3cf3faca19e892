"""The file of events that TensorBoard reads.

PyTorch's writer has a thread of its own, which a full disk ends with a stack trace on the screen.
"""

import os
import socket
import time
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.summary.writer.record_writer import RecordWriter

_VERSION = "brain.Event:2"


class EventFile:
    """A new file of events in ``folder``, which is made where it is missing.

    Args:
        first_step: of the events; what other files of the folder have from it on is outdated.
    Raises:
        OSError: it cannot be written, here and in every method.
    """

    def __init__(self, folder: Path, first_step: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        started = f"{time.time():017.6f}.{socket.gethostname()}.{os.getpid()}"
        # Without a buffer: what was not written is not tried again when the file is closed.
        self._file = (folder / f"events.out.tfevents.{started}").open("xb", buffering=0)
        self._records = RecordWriter(self._file)
        try:
            self._write(file_version=_VERSION)
            self._write(step=first_step, session_log=SessionLog(status=SessionLog.START))
        except OSError:
            self.close()
            raise

    def add(self, summary: Any, step: int) -> None:
        """A summary of `torch.utils.tensorboard.summary`."""
        self._write(step=step, summary=summary)

    def close(self) -> None:
        self._file.close()

    def _write(self, **fields: Any) -> None:
        self._records.write(Event(wall_time=time.time(), **fields).SerializeToString())
