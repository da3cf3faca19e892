"""Which networks a worker searches with: those of torch at once, compiled ones when there are any.

A thread looks for the package of the model, has it compiled where nobody does so yet, and puts the
compiled networks in the place of the others.  Who reads ``SearchEngine.now`` once for a whole chunk
never sees a change in the middle of it.
"""

import logging
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from candor.contracts.api import EngineName, Precision
from candor.models.folder import LoadedModel
from candor.runtime.compiler import run_compiler
from candor.runtime.kept import compiling_lock, package_folder
from candor.runtime.packaged import FACTS_FILE, SearchNetworks, load_package

_LOOK_SECONDS = 1.0  # between two looks for a package that another process makes
_FIRST_RETRY_SECONDS, _LAST_RETRY_SECONDS = 60.0, 3600.0  # after a compiler was killed
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Running:
    """What searches run on now.

    Attributes:
        note: why it is not compiled, in one line; empty where nothing went wrong.
    """

    networks: SearchNetworks
    engine: EngineName = "eager"
    precision: Precision = "float32"
    note: str = ""


class SearchEngine:
    """The networks of one model in one worker.

    Args:
        model: as `candor.runtime.compiled.place` leaves it.
        model_dir: its folder, for the process that compiles.
        packages: see `candor.runtime.kept`.
        sleep: waits so many seconds.

    Attributes:
        now: what searches run on; replaced as a whole.
    """

    def __init__(
        self,
        model: LoadedModel,
        model_dir: Path,
        packages: Path,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.now = Running(SearchNetworks(model.network, model.network))
        self._model = model
        self._model_dir = model_dir
        self._packages = packages
        self._folder = package_folder(packages, model)
        self._sleep = sleep
        self._threads = torch.get_num_threads()
        self._retry_seconds = _FIRST_RETRY_SECONDS
        self._has_discarded = False

    def start(self) -> None:
        """Take the package where there is one; otherwise wait for it in a thread."""
        if not self._take():
            name = f"engine of {self._model.card.name}"
            threading.Thread(target=self._wait, name=name, daemon=True).start()

    def _wait(self) -> None:
        torch.set_num_threads(self._threads)  # the package is for as many
        try:
            while not self._take():
                pause = self._compile()
                if pause is None:
                    return
                self._sleep(pause)
        except Exception as err:  # whatever it is, searches go on as they are
            self._note(err)

    def _compile(self) -> float | None:
        """One look for the lock, and one compiler where it is free.

        Returns:
            Seconds until the next look; None where a compiler would only fail again.
        """
        with compiling_lock(self._packages) as lock:
            if lock is None:
                return _LOOK_SECONDS
            if self._is_there():  # since the last look, from who had the lock
                return 0.0
            failure = run_compiler(self._model_dir, self._folder, threads=self._threads, lock=lock)
        if failure is None:
            return 0.0
        self._note(failure.message)
        if not failure.may_pass:
            return None
        # Without the lock, so that other models do not wait as long.
        pause, self._retry_seconds = self._retry_seconds, 2 * self._retry_seconds
        return min(pause, _LAST_RETRY_SECONDS)

    def _is_there(self) -> bool:
        return (self._folder / FACTS_FILE).exists()

    def _take(self) -> bool:
        """Search with the package from the next chunk on; False where there is none to use.

        Raises:
            OSError, ValueError, RuntimeError: a second one could not be used either.
        """
        if not self._is_there():
            return False
        try:
            facts, networks = load_package(self._folder, self._model.network)
        except (OSError, ValueError, RuntimeError) as err:
            self._note(err)
            if self._has_discarded:
                raise
            self._has_discarded = True
            with suppress(OSError):
                (self._folder / FACTS_FILE).unlink()  # another takes its place
            return False
        with suppress(OSError):  # says that it is used; a folder of an image is read-only
            os.utime(self._folder / FACTS_FILE)
        self.now = Running(networks, "compiled", facts.precision)
        _LOG.info("%s: searches run compiled, in %s", self._model.card.name, facts.precision)
        return True

    def _note(self, reason: object) -> None:
        text = " ".join(str(reason).split()) or type(reason).__name__
        _LOG.warning("%s: searches stay uncompiled: %s", self._model.card.name, text)
        self.now = Running(self.now.networks, note=text)
