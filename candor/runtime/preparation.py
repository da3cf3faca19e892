"""When and for what a long computation compiles its network."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

import psutil
import torch
from torch import nn

from candor.models.folder import LoadedModel
from candor.runtime.compiled import compile_network, share_sizes

_COMPILE_FROM_STEPS = 50_000  # below, compiling takes longer than it saves
_NOTICE = "compiling, a minute or two the first time ..."


def compiling_pays(compiles: bool | None, image_steps: int) -> bool:
    """Whether to compile: as ``compiles`` says, or where it is None by the image-steps ahead."""
    return image_steps >= _COMPILE_FROM_STEPS if compiles is None else compiles


def compiled_for(
    loaded: LoadedModel,
    batch_size: int,
    *,
    notify: Callable[[str], None] = lambda notice: None,
) -> nn.Module:
    """The network compiled for full batches and for the last ones.

    Another run with as many threads gives the same bits.

    Args:
        batch_size: images in a full batch, >= 1.
        notify: called with a line for the user before the wait.
    Returns:
        A compiled copy; the network itself where it cannot be compiled.
    """
    # Of several models in one process torch would quietly leave the later ones as they are.
    torch.compiler.reset()
    notify(_NOTICE)
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

    Without this torch waits at its end for its compilers, which check once a minute whether their
    parent still runs.

    Raises:
        KeyboardInterrupt: after what the signal did before.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set signal handlers
        return
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.getsignal(number) for number in numbers}

    def stop(number: int, frame: FrameType | None) -> None:
        handler = before[signal.Signals(number)]
        _end_compilers()  # first: an interrupted `subprocess.run` leaves its children running
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
    """End every process below this one; torch's pool of workers is forgotten, not waited for."""
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            process.kill()
    # Imported here: it loads the whole compiler, which is there already when this is called.
    from torch._inductor import async_compile

    async_compile.after_fork()  # type: ignore[no-untyped-call]
