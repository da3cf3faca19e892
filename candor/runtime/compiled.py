"""A network compiled for a few fixed batch sizes.

Each new batch size would have to be compiled, so a batch is padded to the next of a few sizes.
"""

import copy
import logging
import time
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from candor.runtime.threads import share_size
from candor.search.network import Pullback

_IN_CPP = {"cpp_wrapper": True}
_TRIALS = 3
_CLEAR_GAIN = 1.3
_LOG = logging.getLogger(__name__)


class FixedBatchNetwork(nn.Module):
    """A network that is evaluated on batches of a few sizes only; others are padded or split.

    Args:
        network: maps (B, C, H, W) to (B, V), each image independent of the others (evaluation
            mode).
        sizes: batch sizes; a larger batch is split into parts of the largest.
        threads_alone: threads of the CPU for a batch of one image.  Other batches have one thread:
            they are shares of a larger batch, see `candor.runtime.threads`.

    Attributes:
        most_threads: threads of the process when this was made.

    Raises:
        ValueError: there is no size, or one below 1.
    """

    def __init__(self, network: nn.Module, sizes: Sequence[int], *, threads_alone: int = 1) -> None:
        super().__init__()
        if not sizes or min(sizes) < 1:
            raise ValueError(f"sizes: expected one or more, each >= 1, got {list(sizes)!r}")
        self.network = network
        self.sizes = tuple(sorted(sizes))
        self.threads_alone = threads_alone
        self.most_threads = torch.get_num_threads()
        self.gives_pullbacks = bool(getattr(network, "gives_pullbacks", False))

    def forward(self, images: Tensor, *, with_pullback: bool = False) -> Any:
        """Logits (B, V); with the pullback as of `candor.search.network.linearised`."""
        split = torch.split(images, self.sizes[-1])
        if with_pullback:
            return self._linearised(split)
        parts = [self._padded(part) for part in split]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _linearised(self, split: Sequence[Tensor]) -> tuple[Tensor, Pullback]:
        counts = [len(part) for part in split]
        batches = [self._batch(part) for part in split]
        pairs = [self.network(batch, with_pullback=True) for batch in batches]
        outputs = [logits[:count] for (logits, _), count in zip(pairs, counts, strict=True)]

        def pullback(by_logits: Tensor) -> Tensor:
            parts = zip(torch.split(by_logits, counts), pairs, batches, strict=True)
            gradients = [back(_filled(part, len(batch))) for part, (_, back), batch in parts]
            kept = [each[:count] for each, count in zip(gradients, counts, strict=True)]
            return kept[0] if len(kept) == 1 else torch.cat(kept)

        return outputs[0] if len(outputs) == 1 else torch.cat(outputs), pullback

    def _batch(self, images: Tensor) -> Tensor:
        """Filled up to one of the sizes, on as many threads as that one has."""
        size = next(size for size in self.sizes if size >= len(images))
        _set_threads(self.threads_alone if size == 1 else 1)
        return _filled(images, size).contiguous(memory_format=torch.channels_last)

    def _padded(self, images: Tensor) -> Tensor:
        count, before = len(images), torch.get_num_threads()
        logits: Tensor = self.network(self._batch(images))
        if not logits.requires_grad:  # otherwise a backward pass follows before the next call
            _set_threads(before)
        # A CUDA graph overwrites its outputs in its next run.
        return logits[:count].clone() if logits.is_cuda else logits[:count]


def _filled(rows: Tensor, size: int) -> Tensor:
    """With rows of zeros at its end, (size, ...)."""
    missing = size - len(rows)
    return torch.cat([rows, rows.new_zeros(missing, *rows.shape[1:])]) if missing else rows


class Bfloat16Network(nn.Module):
    """A network in bfloat16 where torch's autocast considers it safe; float32 in and out.

    For the steps of a search only: what it finds must be verified in float32.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        with torch.autocast(images.device.type, torch.bfloat16):
            logits: Tensor = self.network(images)
        return logits.float()


def has_bfloat16(device: torch.device) -> bool:
    """Whether the device has bfloat16 instructions; without them it is slower than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and bool(torch.cpu._is_avx512_bf16_supported())


def channels_last(network: nn.Module) -> nn.Module:
    """The network itself, its weights now in the layout that convolutions of the CPU like best."""
    # torch's stubs do not know this form of `to`.
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network


def place(network: nn.Module, input_shape: tuple[int, int, int]) -> None:
    """Put a network where and how this process computes with it, and run it once.

    On the GPU where there is one, in channels-last layout unless the network cannot work with it.
    """
    network.to("cuda" if torch.cuda.is_available() else "cpu")
    channels_last(network)
    try:
        _step(network, 1, input_shape)
    except RuntimeError:  # an imported network may rely on the other layout
        network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]


def share_sizes(batch_size: int, device: torch.device) -> tuple[int, int, int]:
    """Sizes to compile for batches up to ``batch_size``: a quarter, a half, all of a share.

    The share is that of one thread of the CPU, or on a GPU the whole batch.  Batches are not always
    full, hence the smaller sizes.
    """
    threads = 1 if device.type == "cuda" else torch.get_num_threads()
    whole = share_size(batch_size, threads)
    return max(1, whole // 4), max(1, whole // 2), whole


def compile_network(
    network: nn.Module,
    sizes: Sequence[int],
    input_shape: tuple[int, int, int],
    *,
    in_bfloat16: bool = False,
) -> nn.Module:
    """A compiled copy of ``network``, warmed for ``sizes``; the original is left alone.

    On the CPU a size runs on one thread, for a batch is shared out over them; only a single image
    gets as many as are faster, one or all, as timed here.  On a GPU the calls are replayed as CUDA
    graphs (torch's mode "reduce-overhead").

    Where there is no compiler a warning is logged and the network comes back as it is: slower,
    never wrong.

    Args:
        network: in evaluation mode, weights without gradient.
        sizes: batch sizes to compile for, see `share_sizes`; each takes about a minute the first
            time, some seconds from torch's cache on disk.
        input_shape: (C, H, W).
        in_bfloat16: see `Bfloat16Network`; default float32.
    """
    device = next(network.parameters()).device
    fast = copy.deepcopy(network)
    if in_bfloat16:
        fast = Bfloat16Network(fast).train(network.training)
    channels_last(fast)
    most_threads = torch.get_num_threads()
    try:
        is_timed = device.type == "cpu" and 1 in sizes
        alone = fastest_threads(fast, input_shape) if is_timed else 1
        _set_threads(most_threads)
        # A step in C++ from end to end leaves Python to the other threads.
        how: dict[str, Any] = (
            {"mode": "reduce-overhead"} if device.type == "cuda" else {"options": _IN_CPP}
        )
        # torch counts what it compiles of one class for all its networks, and after eight leaves
        # the rest uncompiled without an error; so every network has a count of its own.
        how |= {"isolate_recompiles": True, "recompile_limit": 4 * len(sizes)}
        compiled = cast(nn.Module, torch.compile(fast, dynamic=False, **how))
        fixed = FixedBatchNetwork(compiled, sizes, threads_alone=alone).train(network.training)
        for size in sizes:
            _step(fixed, size, input_shape)
            with torch.no_grad():
                fixed(torch.zeros(size, *input_shape, device=device))
    except Exception as err:  # the compiler's failures have no common base
        _LOG.warning("network not compiled, running it as it is: %s", str(err)[:200])
        return network
    finally:
        _set_threads(most_threads)
    return fixed


def fastest_threads(network: nn.Module, input_shape: tuple[int, int, int]) -> int:
    """For one image: a small network waits longer for other threads than it computes.

    Several only where they gain clearly: as soon as anything else runs on one of their cores, every
    layer waits for that thread.
    """
    most = torch.get_num_threads()
    alone, shared = (_step_seconds(network, input_shape, count) for count in (1, most))
    return most if shared * _CLEAR_GAIN < alone else 1


def _step_seconds(network: nn.Module, input_shape: tuple[int, int, int], threads: int) -> float:
    _set_threads(threads)
    _step(network, 1, input_shape)
    seconds = []
    for _ in range(_TRIALS):
        started = time.perf_counter()
        _step(network, 1, input_shape)
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def _step(network: nn.Module, size: int, input_shape: tuple[int, int, int]) -> None:
    device = next(network.parameters()).device
    images = torch.zeros(size, *input_shape, device=device, requires_grad=True)
    torch.autograd.grad(network(images).sum(), images)


def _set_threads(count: int) -> None:
    if torch.get_num_threads() != count:
        torch.set_num_threads(count)
