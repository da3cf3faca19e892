"""How a worker process gets its model."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from candor.models.folder import LoadedModel, load_model
from candor.runtime.allocator import keep_freed_memory
from candor.runtime.compiled import compile_network, has_bfloat16, keep_compiled, share_sizes

COMPILE_VARIABLE = "CANDOR_COMPILE"
COMPILE_CHOICES = ("auto", "off")
_FULL_BATCH = 32  # searches in a chunk, the gateway's default
_CACHE_DIR = (
    Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "candor" / "compiled"
)


def load_worker_model(context: Any) -> LoadedModel:
    """Prepare this process and load its model.

    Reads ``handler`` of the model configuration: ``threads`` (0 = this search worker's share of
    OMP_NUM_THREADS, else of the cores; CANDOR_SEARCH_WORKERS says how many share them) and
    ``model_dir``, which defaults to the archive itself.  The model goes to the GPU where this
    process sees one.
    """
    options: Mapping[str, Any] = (context.model_yaml_config or {}).get("handler") or {}
    keep_freed_memory()
    torch.set_num_threads(int(options.get("threads", 0)) or _thread_share())
    model = load_model(Path(options.get("model_dir") or context.system_properties["model_dir"]))
    model.network.to("cuda" if torch.cuda.is_available() else "cpu")
    return model


@dataclass(frozen=True, slots=True)
class SearchNetworks:
    """The network that takes the steps of a search and the one that verifies its end in float32.

    Both have been run once, so that the first search does not wait for them.
    """

    searcher: nn.Module
    verifier: nn.Module


def search_networks(model: LoadedModel) -> SearchNetworks:
    """The networks that searches run on.

    The variable CANDOR_COMPILE decides.  "auto" compiles for a few batch sizes, which takes minutes
    the first time and seconds from the cache of this user; where that fails the networks stay
    uncompiled.  The searcher is in bfloat16 where the machine computes in it.  "off", the default,
    takes the network as it is.

    Raises:
        ValueError: the variable has another value.
    """
    choice = os.environ.get(COMPILE_VARIABLE, "off")
    if choice not in COMPILE_CHOICES:
        raise ValueError(f"{COMPILE_VARIABLE}: expected one of {COMPILE_CHOICES}, got {choice!r}")
    if choice == "off":
        return SearchNetworks(model.network, model.network)
    expected = model.card.input
    shape = (expected.channels, expected.height, expected.width)
    device = next(model.network.parameters()).device
    sizes = (1, *share_sizes(_FULL_BATCH, device))
    with keep_compiled(_CACHE_DIR):
        verifier = searcher = compile_network(model.network, sizes, shape)
        if has_bfloat16(device):
            searcher = compile_network(model.network, sizes, shape, in_bfloat16=True)
    return SearchNetworks(searcher, verifier)


def _thread_share() -> int:
    """Threads of this process; a container's share of the cores is known from variables alone."""
    cores = int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)
    return max(1, cores // int(os.environ.get("CANDOR_SEARCH_WORKERS") or 1))
