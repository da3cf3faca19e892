"""When and for what a command compiles its network.  Imports candor.search lazily."""

from typing import TYPE_CHECKING, Annotated

import typer

from cli.output import console

if TYPE_CHECKING:
    from torch import nn

    from candor.artifact import LoadedModel

_COMPILE_FROM_STEPS = 50_000  # below, compiling takes longer than it saves
Compiles = Annotated[
    bool | None,
    typer.Option("--compile/--no-compile", help="Default: where it pays, from 50,000 steps."),
]


def compiling_pays(compiles: bool | None, image_steps: int) -> bool:
    """As the user says, or by the work ahead."""
    return image_steps >= _COMPILE_FROM_STEPS if compiles is None else compiles


def compiled_for(loaded: "LoadedModel", batch_size: int) -> "nn.Module":
    """Compiled for full batches and for the last ones; the network itself where that is impossible.

    Another run with as many threads gives the same bits.
    """
    import torch

    from candor.search.compiled import compile_network, share_sizes

    # Of several models in one process torch would quietly leave the later ones as they are.
    torch.compiler.reset()
    console().print("compiling, a minute or two the first time ...")
    expected = loaded.card.input
    shape = (expected.channels, expected.height, expected.width)
    device = next(loaded.network.parameters()).device
    return compile_network(loaded.network, share_sizes(batch_size, device), shape)
