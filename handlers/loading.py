"""How a worker process gets its model."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from candor.models.folder import LoadedModel, load_model
from candor.runtime.allocator import keep_freed_memory
from candor.runtime.compiled import place
from candor.runtime.engine import SearchEngine
from candor.runtime.kept import packages_dir

COMPILE_VARIABLE = "CANDOR_COMPILE"
COMPILE_CHOICES = ("auto", "off")


def load_worker_model(context: Any) -> LoadedModel:
    """Prepare this process and load its model.

    Reads ``handler`` of the model configuration: ``threads`` (0 = this search worker's share of
    OMP_NUM_THREADS, else of the cores; CANDOR_SEARCH_WORKERS says how many share them) and
    ``model_dir``, which defaults to the archive itself.  The model goes to the GPU where this
    process sees one.
    """
    keep_freed_memory()
    torch.set_num_threads(int(_options(context).get("threads", 0)) or _own_share())
    model = load_model(_model_dir(context))
    place(model.network, model.card.input.shape)
    return model


def search_engine(model: LoadedModel, context: Any) -> SearchEngine:
    """What the searches of this worker run on, from now on.

    The variable CANDOR_COMPILE decides.  "auto" takes the compiled network that an earlier start
    left, and otherwise searches uncompiled until another process has compiled it.  "off", the
    default, takes the network as it is for good.

    Raises:
        ValueError: the variable has another value.
    """
    choice = os.environ.get(COMPILE_VARIABLE, "off")
    if choice not in COMPILE_CHOICES:
        raise ValueError(f"{COMPILE_VARIABLE}: expected one of {COMPILE_CHOICES}, got {choice!r}")
    engine = SearchEngine(model, _model_dir(context), packages_dir())
    if choice == "auto":
        engine.start()
    return engine


def _options(context: Any) -> Mapping[str, Any]:
    return (context.model_yaml_config or {}).get("handler") or {}


def _model_dir(context: Any) -> Path:
    return Path(_options(context).get("model_dir") or context.system_properties["model_dir"])


def thread_share(search_workers: int) -> int:
    """Threads of one of them; a container's share of the cores is known from variables alone."""
    cores = int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)
    return max(1, cores // search_workers)


def _own_share() -> int:
    return thread_share(int(os.environ.get("CANDOR_SEARCH_WORKERS") or 1))
