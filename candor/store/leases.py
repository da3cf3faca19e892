"""A lease that a thread renews while its holder computes."""

import logging
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from sqlalchemy.exc import SQLAlchemyError

_RENEWALS_PER_LEASE = 6  # how often a lease is renewed before it would end
_LONGEST_PAUSE_SECONDS = 2.0  # between two renewals
_log = logging.getLogger("candor.store")


class LeaseLost(Exception):
    """The work is no longer this worker's: its lease ran out and another worker has it."""


class RenewedLease:
    """Renews a lease in a thread for as long as the block lasts.

    Args:
        name: of the work, for the log.
        renew: renews the lease; returns whether the work is still wanted, raises `LeaseLost`.
        seconds: silence after which another worker takes the work.

    Attributes:
        is_lost: whether another worker may have it by now.
        is_wanted: False once a renewal has said so.
    """

    def __init__(self, name: str, renew: Callable[[], bool], seconds: float) -> None:
        self._name = name
        self._renew = renew
        self._seconds = seconds
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep, name=f"lease of {name}", daemon=True)
        self.is_lost = False
        self.is_wanted = True

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _keep(self) -> None:
        renewed = time.monotonic()
        pause = min(_LONGEST_PAUSE_SECONDS, self._seconds / _RENEWALS_PER_LEASE)
        while not self._ended.wait(pause):
            try:
                self.is_wanted = self._renew() and self.is_wanted
                renewed = time.monotonic()
            except LeaseLost:
                self.is_lost = True
                return
            except SQLAlchemyError as err:
                _log.warning("%s: lease not renewed: %s", self._name, err)
                if time.monotonic() - renewed > self._seconds:
                    self.is_lost = True
                    return
