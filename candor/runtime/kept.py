"""Where compiled networks are kept, under which name, and who may compile now.

The folder belongs to this user alone, for what is in it is run.  It holds one folder for each
package (`candor.runtime.packaged`), complete as soon as it is there, and the lock of the one
process that compiles.
"""

import fcntl
import hashlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from candor.contracts.api import Precision
from candor.contracts.json_text import json_text
from candor.models.folder import LoadedModel
from candor.runtime.compiled import has_bfloat16, share_sizes
from candor.runtime.processor import this_processor

PACKAGES_VARIABLE = "CANDOR_COMPILED_DIR"
_FULL_BATCH = 32  # searches in a chunk, the gateway's default
_KEY_DIGITS = 16
# Of a card, what no compiled code follows from.
_DESCRIPTIVE = {"description", "metrics", "recipe", "recommended_rho", "classes"}


def packages_dir() -> Path:
    """CANDOR_COMPILED_DIR, or a folder in the user's cache."""
    given = os.environ.get(PACKAGES_VARIABLE)
    # Not `Path.home()`, which fails for a user without a home.
    cache = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    return Path(given) if given else cache / "candor" / "compiled"


def step_precision(network: nn.Module) -> Precision:
    """In which the compiled steps of searches are taken on this machine."""
    return "bfloat16" if has_bfloat16(next(network.parameters()).device) else "float32"


def compiled_sizes(network: nn.Module) -> tuple[int, ...]:
    """Batch sizes to compile for, with as many threads as torch has now in the calling thread."""
    return tuple(sorted({1, *share_sizes(_FULL_BATCH, next(network.parameters()).device)}))


def package_folder(packages: Path, model: LoadedModel) -> Path:
    """Where the package of ``model`` is for this machine, this code and torch's threads now.

    Its name ends with a digest of everything that compiled code follows from: processor and
    instruction sets, torch, our own code, the model, precision, batch sizes and threads.
    """
    digest = hashlib.sha256(json_text(_facts(model)).encode()).hexdigest()
    return packages / f"{model.card.name}-{model.card.version}-{digest[:_KEY_DIGITS]}"


@contextmanager
def compiling_lock(packages: Path) -> Iterator[int | None]:
    """A descriptor of the lock, held until it is closed here and in processes that inherited it.

    None where another process compiles.

    Raises:
        OSError: the folder cannot be written.
    """
    packages.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (packages / "compiling.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
        else:
            yield lock.fileno()


def _facts(model: LoadedModel) -> dict[str, Any]:
    network = model.network
    device = next(network.parameters()).device
    return {
        "processor": asdict(this_processor()),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "torch": torch.__version__,
        "candor": version("candor"),
        "code": _code_digest(network),
        "model": model.card.model_dump(mode="json", exclude=_DESCRIPTIVE),
        "precision": step_precision(network),
        "sizes": compiled_sizes(network),
        "threads": torch.get_num_threads(),
    }


def _code_digest(network: nn.Module) -> str:
    """Of the source of the network's own modules and of what compiles them."""
    kinds = {type(module) for module in network.modules()}
    modules = {sys.modules.get(kind.__module__) for kind in kinds}
    files = {getattr(module, "__file__", None) for module in modules}
    ours = Path(__file__).parent.glob("*.py")
    digest = hashlib.sha256()
    for path in sorted({*(Path(file) for file in files if file), *ours}):
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
