"""`make bench-gpu`: the engine on one GPU, compiled into CUDA graphs, batches up to 512."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from candor.models.folder import load_model
from candor.runtime.compiled import compile_network
from candor.stack.archives import MODELS_DIR
from tools.bench.baseline import plain_network
from tools.bench.engine import Case, rows_of
from tools.bench.machine import BFLOAT16, description, precisions
from tools.bench.table import Row, parser, show
from tools.small_models import SMALL_MODEL

_SIZES = (1, 8, 32, 128, 512)


def measure(
    network: nn.Module,
    shape: tuple[int, int, int],
    sizes: Sequence[int],
    repeats: int,
    *,
    name: str,
    seed: int = 0,
    steps: int = 10,
    compiles: bool = True,
) -> list[Row]:
    """`tools.bench.engine` on the device of the network; random images, which cost as others do.

    Args:
        network: in evaluation mode, float32.
        shape: (C, H, W).
        compiles: False to try the command where compiling takes too long.
    """
    device = next(network.parameters()).device
    plain = plain_network(network)
    rows = []
    for precision in precisions(device):
        in_bfloat16 = precision == BFLOAT16
        engine = network
        if compiles:
            engine = compile_network(network, sizes, shape, in_bfloat16=in_bfloat16)
        for size in sizes:
            images, targets = _drawn(size, shape, seed, device)
            case = Case(name, precision if compiles else "eager", plain, engine, images, targets)
            rows += rows_of(case, repeats, steps=steps)
    return rows


def _drawn(
    count: int, shape: tuple[int, int, int], seed: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(count, *shape, generator=generator)
    return images.to(device), torch.zeros(count, dtype=torch.int64, device=device)


def main(given: Sequence[str] | None = None) -> None:
    command = parser("make bench-gpu", __doc__)
    command.add_argument("--device", default="cuda")
    command.add_argument("--sizes", type=int, nargs="+", default=_SIZES)
    command.add_argument("--steps", type=int, default=10)
    command.add_argument("--model", default=SMALL_MODEL, help="folder below model_store")
    command.add_argument("--eager", action="store_true", help="not compiled, to try the command")
    arguments = command.parse_args(given)
    device = torch.device(arguments.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        command.error(f"--device: expected a GPU that torch sees, got {arguments.device}")
    loaded = load_model(MODELS_DIR / arguments.model)
    print(description(device))
    rows = measure(
        loaded.network.to(device),
        loaded.card.input.shape,
        arguments.sizes,
        arguments.repeats,
        name=arguments.model,
        seed=arguments.seed,
        steps=arguments.steps,
        compiles=not arguments.eager,
    )
    show(rows, arguments)


if __name__ == "__main__":
    main()
