"""A compiled network in a folder: libraries of graphs and what they are, loaded in milliseconds.

One library is one graph of `candor.runtime.graphs` for one batch size in one precision.  The folder
holds no weights: the libraries read those of the network as it is, in channels-last layout.
"""

import hashlib
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from candor.contracts.api import Precision
from candor.contracts.violations import read_model
from candor.files.reading import MIB, read_file
from candor.runtime.compiled import FixedBatchNetwork
from candor.runtime.native import NativeGraph

FACTS_FILE = "package.json"
_MAX_FACTS_BYTES = MIB
_MAX_LIBRARY_BYTES = 256 * MIB
_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


class Facts(BaseModel):
    """What a package holds.

    Attributes:
        precision: of the network that takes the steps; what they find is verified in float32.
        sizes: batch sizes it was compiled for.
        threads_alone: threads for a batch of one image.
        seconds: how long compiling took.
        libraries: SHA-256 of each file.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    precision: Precision
    sizes: Annotated[tuple[int, ...], Field(min_length=1)]
    threads_alone: Annotated[int, Field(ge=1)]
    seconds: float
    libraries: dict[str, str]


@dataclass(frozen=True, slots=True)
class SearchNetworks:
    """The network that takes the steps of a search and the one that verifies its end in float32."""

    searcher: nn.Module
    verifier: nn.Module


class PackagedNetwork(nn.Module):
    """``network`` evaluated by libraries, for the batch sizes that they were compiled for.

    Args:
        network: whose weights the libraries read.
        forwards: "forward" graphs by batch size, or "logits" graphs where there is no gradient.
        backwards: "backward" graphs by batch size; empty where there is no gradient.
    """

    def __init__(
        self,
        network: nn.Module,
        forwards: Mapping[int, NativeGraph],
        backwards: Mapping[int, NativeGraph],
    ) -> None:
        super().__init__()
        self.network = network
        self.gives_pullbacks = bool(backwards)
        self._forwards = forwards
        self._backwards = backwards

    def forward(self, images: Tensor, *, with_pullback: bool = False) -> Any:
        """Logits (B, V) of images (B, C, H, W) in channels-last layout.

        With the pullback as of `candor.search.network.linearised`.
        """
        size = len(images)
        if with_pullback:
            logits, *saved = self._forwards[size]([images])
            return logits, lambda by_logits: self._backwards[size]([*saved, by_logits])[0]
        if torch.is_grad_enabled() and images.requires_grad:
            return _Differentiable.apply(  # type: ignore[no-untyped-call]
                images, self._forwards[size], self._backwards[size]
            )
        return self._forwards[size]([images])[0]


class _Differentiable(torch.autograd.Function):
    """A pair of graphs as one function that autograd knows."""

    @staticmethod
    def forward(
        context: Any, images: Tensor, forward: NativeGraph, backward: NativeGraph
    ) -> Tensor:
        logits, *saved = forward([images])
        context.save_for_backward(*saved)
        context.graph = backward
        return logits

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        saved = context.saved_tensors
        (images,) = context.graph([*saved, gradients[0].contiguous()])
        return images, None, None


def named_tensors(network: nn.Module) -> list[tuple[str, Tensor]]:
    """Every parameter and buffer by its name in the network."""
    return [*network.named_parameters(), *network.named_buffers()]


def weights_of(network: nn.Module) -> dict[str, Tensor]:
    """The same by their names in graphs, which are equal for the network behind any wrapper."""
    return {f"weight_{index}": one for index, (_, one) in enumerate(named_tensors(network))}


def library_name(precision: Precision, size: int, graph: str) -> str:
    """The file of one graph, see `candor.runtime.graphs.graphs_of`."""
    return f"{precision}-{size}-{graph}.so"


def graph_names(facts_precision: Precision, precision: Precision) -> tuple[str, ...]:
    """The graphs that a package has of one precision: those of steps, or of the verification."""
    return ("forward", "backward") if precision == facts_precision else ("logits",)


def load_package(folder: Path, network: nn.Module) -> tuple[Facts, SearchNetworks]:
    """The networks of a package, for as many threads as torch has now in the calling thread.

    Args:
        network: that the package was made of, in channels-last layout.
    Raises:
        OSError, ValueError, RuntimeError: it is missing, damaged, or of another network.
    """
    for place in (folder.parent, folder):
        _check_owned(place)
    facts = read_model(Facts, read_file(folder / FACTS_FILE, _MAX_FACTS_BYTES))
    for name, digest in facts.libraries.items():
        content = read_file(folder / name, _MAX_LIBRARY_BYTES)
        if hashlib.sha256(content).hexdigest() != digest:
            raise ValueError(f"{folder / name}: expected SHA-256 {digest}, got another")
    return facts, networks_of(folder, facts, network)


def networks_of(folder: Path, facts: Facts, network: nn.Module) -> SearchNetworks:
    """The networks of libraries that were compiled just now, or have been checked.

    Raises:
        OSError, RuntimeError: a library is missing, or of another network.
    """
    verifier = searcher = _network(folder, facts, "float32", network)
    if facts.precision != "float32":
        searcher = _network(folder, facts, facts.precision, network)
    return SearchNetworks(searcher, verifier)


def _check_owned(folder: Path) -> None:
    """Raises: ValueError: others could have put code there."""
    status = folder.stat()
    if status.st_uid not in (0, os.getuid()) or status.st_mode & _WRITABLE_BY_OTHERS:
        raise ValueError(
            f"{folder}: expected a folder of this user or of root that no other may write, got "
            f"mode {stat.filemode(status.st_mode)} of user {status.st_uid}"
        )


def _network(folder: Path, facts: Facts, precision: Precision, network: nn.Module) -> nn.Module:
    weights, device = weights_of(network), next(network.parameters()).device.type
    forward, *backward = graph_names(facts.precision, precision)

    def graphs(name: str) -> dict[int, NativeGraph]:
        copies = torch.get_num_threads()
        return {
            size: NativeGraph(
                folder / library_name(precision, size, name), weights, copies=copies, device=device
            )
            for size in facts.sizes
        }

    packaged = PackagedNetwork(network, graphs(forward), graphs(*backward) if backward else {})
    fixed = FixedBatchNetwork(packaged.eval(), facts.sizes, threads_alone=facts.threads_alone)
    return fixed.eval()
