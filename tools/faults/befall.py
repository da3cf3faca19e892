"""The faults by name, and how one of them is injected into a service."""

import logging
from collections.abc import Callable, Mapping

from tools.faults import crowds, processes, storage
from tools.faults.site import Site, wait_until_ready
from tools.reliability import Row

_log = logging.getLogger(__name__)

FAULTS: Mapping[str, Callable[[Site], Row]] = {
    fault.__name__: fault
    for fault in (
        processes.search_worker_killed,
        processes.predict_worker_killed,
        processes.worker_hung,
        processes.gateway_killed,
        processes.gateway_replaced,
        processes.clock_jumped,
        storage.disk_full,
        crowds.callers_leave,
        crowds.overload,
        storage.archive_damaged,
        processes.jvm_killed,
    )
}


def befall(site: Site, name: str) -> Row:
    """The fault, once the service has got over the last one; not held where it never did."""
    try:
        wait_until_ready(site.stack.rest_url)
        return FAULTS[name](site)
    except Exception as err:  # the table shall have the others, too
        _log.exception("%s", name)
        reason = type(err).__name__
        return Row(what=name, tried=1, lost=1, measured=f"ended with {reason}", is_held=False)
