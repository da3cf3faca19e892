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

    Reads ``handler`` of the model configuration: ``threads`` (0 = one per core) and ``model_dir``,
    which defaults to the archive itself.
    """
    options: Mapping[str, Any] = (context.model_yaml_config or {}).get("handler") or {}
    keep_freed_memory()
    torch.set_num_threads(int(options.get("threads", 0)) or os.cpu_count() or 1)
    return load_model(Path(options.get("model_dir") or context.system_properties["model_dir"]))
