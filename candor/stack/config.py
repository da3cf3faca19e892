"""What the local service is started with, and which models it then serves."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from candor.contracts.names import normalised, split_name
from candor.contracts.secrets import Secret
from candor.gateway.sockets import loopback
from candor.stack.archives import ARCHIVES_DIR, DEFAULT_MODEL, MODELS_DIR
from candor.stack.errors import StackError

REPORTS_DIR = Path("runs/reports")


@dataclass(frozen=True, slots=True, kw_only=True)
class StackConfig:
    """Where the models are and which ports the gateway opens.

    Attributes:
        host: of the gateway, as its setting of this name.
        grpc_port, rest_port: of the gateway; 0 picks a free one.
        default_model: the model of a request that names none, with all its versions or, as
            NAME@VERSION, with that version first; None = `DEFAULT_MODEL`, or the first by name
            where the store does not have it.
        models: the only ones to serve, all their versions; all, where the store has none of them.
        store_url: of candidates, annotations and report jobs; None = as CANDOR_STORE_URL says, or
            none.
        reports_dir: folder of finished reports.
        has_report_worker: computes the report jobs of ``store_url`` beside the gateway.
        shows_gateway_log: on this process's output instead of a file.
        search_workers: of each model, sharing the cores; see `shared_search_workers`.
        compiles: search workers have their network compiled behind, and search with it once it is
            there; the environment's CANDOR_COMPILE goes before it.
    """

    models_dir: Path = MODELS_DIR
    archives_dir: Path = ARCHIVES_DIR
    host: str = field(default_factory=loopback)
    grpc_port: int = 0
    rest_port: int = 0
    default_model: str | None = None
    models: tuple[str, ...] = ()
    store_url: Secret | None = None
    reports_dir: Path = REPORTS_DIR
    has_report_worker: bool = False
    shows_gateway_log: bool = False
    search_workers: int = 1
    compiles: bool = False
    ready_timeout_seconds: float = 120.0


def shared_search_workers() -> int:
    """Two where there are cores for both: while one waits for its states, the other computes."""
    return min(2, os.cpu_count() or 1)


def served_models(names: tuple[str, ...], config: StackConfig) -> tuple[str, ...]:
    """The models to serve of the store's ``names``, the default first.

    Raises:
        StackError: the default model is not among them.
    """
    wanted = [name for name in names if _is_one_of(name, config.models)] or list(names)
    default = config.default_model
    if default is None:
        has_default = any(_is_one_of(name, (DEFAULT_MODEL,)) for name in wanted)
        default = DEFAULT_MODEL if has_default else split_name(wanted[0])[0]
    first = [name for name in wanted if _is_one_of(name, (default,))]
    if not first:
        raise StackError(f"default model: expected one of {', '.join(names)}, got {default!r}")
    return (*first, *(name for name in wanted if name not in first))


def _is_one_of(name: str, models: Sequence[str]) -> bool:
    """Whether the whole name is listed, or that of the model it is a version of."""
    wanted = {str(normalised(one)) for one in models}
    return name in wanted or split_name(name)[0] in wanted
