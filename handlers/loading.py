"""How a worker process gets its model.  Imports torch, candor.artifact and candor.allocator."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from candor.allocator import keep_freed_memory
from candor.artifact import LoadedModel, load_model


def load_worker_model(context: Any) -> LoadedModel:
    """Prepare this process and load its model.

    Reads ``handler`` of the model configuration: ``threads`` (0 = OMP_NUM_THREADS, else one per
    core) and ``model_dir``, which defaults to the archive itself.  The model goes to the GPU where
    this process sees one.
    """
    options: Mapping[str, Any] = (context.model_yaml_config or {}).get("handler") or {}
    keep_freed_memory()
    torch.set_num_threads(int(options.get("threads", 0)) or _core_count())
    model = load_model(Path(options.get("model_dir") or context.system_properties["model_dir"]))
    model.network.to("cuda" if torch.cuda.is_available() else "cpu")
    return model


def _core_count() -> int:
    """A container's share of the cores is only known to whoever set it; it says so by variable."""
    return int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)
