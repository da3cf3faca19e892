"""Training by several processes as if by one: `torchrun` starts them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Generator, Tensor, nn
from torch.nn.parallel import DistributedDataParallel


@contextmanager
def process_group() -> Iterator[None]:
    """Join the processes `torchrun` started; nothing where it did not start this one.

    gloo on CPU; NCCL with CUDA, each process of a machine on its own device.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        yield
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def world_size() -> int:
    """Number of processes that train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Place of this process among them; 0 writes files and talks."""
    return dist.get_rank() if dist.is_initialized() else 0


def shard(values: Tensor, dim: int = 0) -> Tensor:
    """This process' equal share of what all of them hold."""
    return values.chunk(world_size(), dim)[rank()]


def padded_to_world(chosen: Tensor, order: Tensor) -> Tensor:
    """``chosen`` with the first of ``order`` behind it, until every process gets as many."""
    missing = -len(chosen) % world_size()
    return torch.cat([chosen, order[:missing]])


def from_first(value: Any) -> Any:
    """What the first process holds, in all of them."""
    if world_size() == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0)
    return values[0]


def own_generator(generator: Generator) -> Generator:
    """For draws that must differ between processes; one process alone keeps the common one."""
    if world_size() == 1:
        return generator
    device = generator.device
    seed = torch.randint(2**31, (), generator=generator, device=device)
    return Generator(device).manual_seed(int(seed) + rank())


def mean_over_processes(values: Tensor) -> Tensor:
    """No gradient."""
    if world_size() == 1:
        return values.detach()
    total = values.detach().clone()
    dist.all_reduce(total)
    return total / world_size()


def largest_over_processes(value: Tensor) -> Tensor:
    """No gradient."""
    if world_size() == 1:
        return value
    largest = value.detach().clone()
    dist.all_reduce(largest, dist.ReduceOp.MAX)
    return largest


def distributed(network: nn.Module) -> nn.Module:
    """What to call in place of ``network``; its backward leaves the mean gradient everywhere.

    Changes ``network`` so that batch normalisation sees the global batch; alone it is returned as
    it is.
    """
    if world_size() == 1:
        return network
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.BatchNorm2d:
                setattr(parent, name, GlobalBatchNorm2d.of(child))
    # Statistics are equal already, and copying them would spoil a graph that waits for backward.
    return DistributedDataParallel(network, forward_sync_buffers=False)


class GlobalBatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation by the statistics of all processes' images, equally many in each.

    Unlike `torch.nn.SyncBatchNorm` it runs on CPU and differentiates twice, as L_adv asks for.
    """

    @classmethod
    def of(cls, norm: nn.BatchNorm2d) -> "GlobalBatchNorm2d":
        """The same layer, with the same parameters and buffers, not copies."""
        made = cls(norm.num_features, norm.eps, norm.momentum, device="meta")
        made.weight, made.bias = norm.weight, norm.bias
        for name, buffer in norm.named_buffers():
            setattr(made, name, buffer)
        return made.train(norm.training)

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        mean = _global_mean(input.mean(dim=(0, 2, 3)))
        centred = input - mean[:, None, None]
        variance = _global_mean(centred.square().mean(dim=(0, 2, 3)))
        self._move_statistics(mean.detach(), variance.detach(), input.numel() // len(mean))
        scale = (variance + self.eps).rsqrt() * self.weight
        return centred * scale[:, None, None] + self.bias[:, None, None]

    def _move_statistics(self, mean: Tensor, variance: Tensor, count: int) -> None:
        total = count * world_size()
        momentum = self.momentum
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert momentum is not None
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(variance * (total / (total - 1)), momentum)
        self.num_batches_tracked += 1


class _SumOverProcesses(torch.autograd.Function):
    """Each process' result depends on every one's input, so the gradients are summed too."""

    @staticmethod
    def forward(context: Any, values: Tensor) -> Tensor:
        total = values.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        total: Tensor = _SumOverProcesses.apply(gradients[0])  # type: ignore[no-untyped-call]
        return total


def _global_mean(values: Tensor) -> Tensor:
    total: Tensor = _SumOverProcesses.apply(values)  # type: ignore[no-untyped-call]
    return total / world_size()
