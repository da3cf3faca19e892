"""How a lack of memory shows, which is no failure of an attack."""

import torch


def is_out_of_memory(error: Exception) -> bool:
    """Whether ``error`` says that memory ran out."""
    # On the CPU torch has no class of its own for it.
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )
