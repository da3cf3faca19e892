"""A network as two graphs: its logits, and the gradient by its images.

torch's export knows forward passes alone.  The pair is what autograd makes of the network: the
first graph also returns what the second one needs.  Weights are constants of the graphs, under the
names of `weights_of`, so that one copy of them serves every graph.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch._functorch._aot_autograd.utils import make_boxed_func
from torch._functorch.aot_autograd import aot_function
from torch._functorch.partitioners import min_cut_rematerialization_partition
from torch._inductor.decomposition import select_decomp_table
from torch.export import ExportedProgram
from torch.func import functional_call
from torch.fx import GraphModule, Node

from candor.runtime.packaged import named_tensors, weights_of

_FORWARD, _BACKWARD = "forward", "backward"


def graphs_of(network: nn.Module, images: Tensor) -> dict[str, ExportedProgram]:
    """The graphs "forward", "backward" and "logits" of a network for images of one shape.

    "forward" takes the images and returns the logits and what "backward" needs, which takes that
    and the gradient by the logits and returns the gradient by the images.  "logits" is the first
    alone, for who needs no gradient.

    Args:
        network: in evaluation mode, weights without gradient.
        images: (B, C, H, W) float32, in the layout of later images.
    Raises:
        Exception: what torch raises where it cannot make a graph of the network.
    """
    weights = weights_of(network)
    captured = _captured(network, images, list(weights.values()))
    (forward, given), (backward, needed) = captured[_FORWARD], captured[_BACKWARD]
    saved = _with_weights(forward, backward, weights)
    kept = [value for value, is_saved in zip(needed, saved, strict=False) if is_saved]
    arguments = [*kept, *needed[len(saved) :]]
    programs = {
        _FORWARD: _exported(forward, given[len(weights) :]),
        _BACKWARD: _exported(backward, arguments),
    }
    _output(forward).args = (_outputs(forward)[:1],)
    return programs | {"logits": _exported(forward, given[len(weights) :])}


def _captured(
    network: nn.Module, images: Tensor, weights: Sequence[Tensor]
) -> dict[str, tuple[GraphModule, list[Tensor]]]:
    """Both graphs with example inputs; those of the forward graph begin with the weights."""
    captured: dict[str, tuple[GraphModule, list[Tensor]]] = {}

    def keep(name: str) -> Any:
        def compiler(gm: GraphModule, example_inputs: Sequence[Any]) -> Any:
            captured[name] = (gm, list(example_inputs))
            return make_boxed_func(gm.forward)

        return compiler

    names = [name for name, _ in named_tensors(network)]

    def logits_of(tensors: list[Tensor], batch: Tensor) -> Any:
        return functional_call(network, dict(zip(names, tensors, strict=True)), (batch,))

    call = aot_function(
        logits_of,
        fw_compiler=keep(_FORWARD),
        bw_compiler=keep(_BACKWARD),
        partition_fn=min_cut_rematerialization_partition,
        decompositions=select_decomp_table(),
    )
    batch = images.detach().requires_grad_()
    logits = call(list(weights), batch)
    torch.autograd.grad(logits.sum(), batch)
    return captured


def _with_weights(
    forward: GraphModule, backward: GraphModule, weights: Mapping[str, Tensor]
) -> list[bool]:
    """Put the weights into both graphs.

    Returns:
        For each of the first inputs of the backward graph, whether the forward graph returns it;
        the others were weights.
    """
    for node, name in zip(_inputs(forward), weights, strict=False):
        _replace(forward, node, name, weights[name])
    logits, *results = _outputs(forward)
    saved = []
    for result, node in zip(results, _inputs(backward), strict=False):
        is_weight = result.op == "get_attr"
        if is_weight:
            _replace(backward, node, result.target, weights[result.target])
        saved.append(not is_weight)
    kept = [result for result, is_saved in zip(results, saved, strict=True) if is_saved]
    _output(forward).args = ((logits, *kept),)
    _output(backward).args = ((_outputs(backward)[-1],),)  # the weights have no gradient
    return saved


def _replace(graph: GraphModule, node: Node, name: str, weight: Tensor) -> None:
    graph.register_buffer(name, weight)
    with graph.graph.inserting_before(node):
        constant = graph.graph.get_attr(name)
    node.replace_all_uses_with(constant)
    graph.graph.erase_node(node)


def _exported(graph: GraphModule, inputs: Sequence[Tensor]) -> ExportedProgram:
    """The graph as a program, traced anew with real inputs of the same shapes and layouts."""
    graph.graph.eliminate_dead_code()
    for node in graph.graph.nodes:
        node.meta = {}  # of the capture, whose tensors must not meet those of this one
    graph.recompile()
    real = tuple(
        torch.empty_strided(one.shape, one.stride(), dtype=one.dtype, device=one.device).zero_()
        for one in inputs
    )
    with torch.no_grad():
        return torch.export.export(graph, real)


def _inputs(graph: GraphModule) -> list[Node]:
    return [node for node in graph.graph.nodes if node.op == "placeholder"]


def _output(graph: GraphModule) -> Node:
    return graph.graph.output_node()


def _outputs(graph: GraphModule) -> list[Any]:
    return list(_output(graph).args[0])  # type: ignore[arg-type]
