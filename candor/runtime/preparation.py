"""When and for what a command compiles its network."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from candor.cli.output import console

if TYPE_CHECKING:
    from torch import nn

    from candor.models.folder import LoadedModel

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

    from candor.runtime.compiled import compile_network, share_sizes

    # Of several models in one process torch would quietly leave the later ones as they are.
    torch.compiler.reset()
    console().print("compiling, a minute or two the first time ...")
    expected = loaded.card.input
    shape = (expected.channels, expected.height, expected.width)
    _, half, whole = share_sizes(batch_size, next(loaded.network.parameters()).device)
    # Never a single image: its number of threads is timed, and with it go the last bits.
    sizes = sorted({max(2, half), max(2, whole)})
    with _stoppable():
        return compile_network(loaded.network, sizes, shape)


@contextmanager
def _stoppable() -> Iterator[None]:
    """SIGTERM stops a compilation as Ctrl-C does, and neither leaves a compiler running.

    Left to itself torch waits for its compilers when it ends, and they look once a minute whether
    it is still there.

    Raises:
        KeyboardInterrupt: after whatever the signal did before.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are none of its business
        return
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.getsignal(number) for number in numbers}

    def stop(number: int, frame: FrameType | None) -> None:
        handler = before[signal.Signals(number)]
        _end_compilers()  # first, for an interrupted `subprocess.run` orphans what it began
        if callable(handler):
            handler(number, frame)
        raise KeyboardInterrupt

    for number in numbers:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end_compilers() -> None:
    """Every process below this one; torch's pool of workers is forgotten, not waited for."""
    import psutil
    from torch._inductor import async_compile

    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            process.kill()
    async_compile.after_fork()
