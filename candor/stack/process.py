"""Processes in groups of their own, which end together and with the one that started them."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from candor.stack.archives import REPOSITORY
from candor.stack.errors import StackError

_LOG_TAIL_LINES = 25
_FRAME = re.compile(r"^(?:\S+ \w+ MODEL_LOG )?(?:Traceback \(most|\s+\S)")
_EXEC_DYING_WITH_PARENT = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # 1: PR_SET_PDEATHSIG of linux/prctl.h
os.execv(sys.argv[1], sys.argv[1:])
"""


@dataclass(slots=True)
class Process:
    """A process in its own group, with the log it writes; None where it writes to the terminal."""

    name: str
    popen: subprocess.Popen[bytes]
    log: Path | None
    started: float = field(default_factory=time.monotonic)

    @property
    def has_ended(self) -> bool:
        return self.popen.poll() is not None

    @property
    def age_seconds(self) -> float:
        return time.monotonic() - self.started

    def check(self) -> None:
        """Raises: StackError: it is no longer running."""
        if self.has_ended:
            raise StackError(f"{self.name} {self._how_it_ended()}.{self.log_tail()}")

    def _how_it_ended(self) -> str:
        code = self.popen.returncode
        if code == -signal.SIGKILL:
            return "was killed, as the system does where memory is short"
        return f"ended with code {code}"

    def log_tail(self) -> str:
        """The last lines of its log; of an error in it, what it was and not where."""
        if self.log is None or not self.log.exists():
            return ""
        lines = _without_frames(self.log.read_text(errors="replace").splitlines())
        lines = lines[-_LOG_TAIL_LINES:]
        return "".join(f"\n  {line}" for line in ("Its last lines:", *lines))

    def stop(self, timeout_seconds: float) -> None:
        """Terminate it, wait, then kill what is left of its group."""
        try:
            self.popen.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.popen.wait(timeout_seconds)
        finally:
            self.kill_group()

    def kill_group(self) -> None:
        """End the processes that it started and left behind, too."""
        with suppress(ProcessLookupError):  # the usual case: no process is left
            os.killpg(self.popen.pid, signal.SIGKILL)
        self.popen.wait()


def spawn(
    name: str, command: Sequence[str], environment: Mapping[str, str], *, log: Path | None
) -> Process:
    """In its own session, so that Ctrl-C reaches only us and its group can be ended as one."""
    with ExitStack() as opened:
        output: IO[bytes] | None = opened.enter_context(log.open("wb")) if log else None
        popen = subprocess.Popen(
            _dying_with_us(command),
            env=environment,
            cwd=REPOSITORY,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT if output else None,
            start_new_session=True,
        )
    return Process(name, popen, log)


def _without_frames(lines: Sequence[str]) -> list[str]:
    """Without the frames of tracebacks, of Python and of Java; a worker's line has a prefix."""
    return [line for line in lines if not _FRAME.search(line)]


def _dying_with_us(command: Sequence[str]) -> list[str]:
    """On Linux: the command gets SIGTERM when this process is killed before it could clean up."""
    if not sys.platform.startswith("linux"):
        return list(command)
    return [sys.executable, "-I", "-S", "-c", _EXEC_DYING_WITH_PARENT, *command]
