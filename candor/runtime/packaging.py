"""Makes the package of a model: every graph compiled, compared, and put in its place.

Imports torch's compiler, which takes seconds; for the process of `candor.runtime.compiler`.
"""

import copy
import hashlib
import os
import shutil
import time
import zipfile
from pathlib import Path

import torch
from torch import nn
from torch._inductor import aoti_compile_and_package
from torch.export import ExportedProgram

from candor.contracts.api import Precision
from candor.files.writing import write_file
from candor.models.folder import LoadedModel, load_model
from candor.runtime.comparison import compare
from candor.runtime.compiled import Bfloat16Network, fastest_threads, place
from candor.runtime.graphs import graphs_of
from candor.runtime.kept import compiled_sizes, step_precision
from candor.runtime.packaged import FACTS_FILE, Facts, graph_names, library_name, load_package
from candor.runtime.threads import on_threads

_DRAFT = ".draft"
_KEPT_SECONDS = 30 * 86400.0  # since a package was loaded last


def package_of_folder(model_dir: Path, folder: Path, threads: int) -> None:
    """The package of a model folder for so many threads, see `make_package`."""
    torch.set_num_threads(threads)
    model = load_model(model_dir)
    place(model.network, model.card.input.shape)
    make_package(model, folder)


def make_package(model: LoadedModel, folder: Path) -> None:
    """The package of a model for torch's threads now, in ``folder``, where it is not there yet.

    The caller holds `candor.runtime.kept.compiling_lock`.  What an earlier process had compiled
    before it was killed is used.

    Args:
        model: as `candor.runtime.compiled.place` leaves it.
        folder: see `candor.runtime.kept.package_folder`.
    Raises:
        ValueError: the compiled network differs from the network as it is.
        Exception: what torch raises where it cannot compile the network.
    """
    if (folder / FACTS_FILE).exists():
        return
    draft = folder.with_name(f".{folder.name}{_DRAFT}")
    _remove_unused(folder.parent, draft)
    draft.mkdir(mode=0o700, exist_ok=True)
    started = time.monotonic()
    network = model.network
    try:
        facts = compile_libraries(
            network,
            model.card.input.shape,
            step_precision(network),
            compiled_sizes(network),
            draft,
        )
        facts = facts.model_copy(update={"seconds": round(time.monotonic() - started, 1)})
        write_file(draft / FACTS_FILE, facts.model_dump_json(indent=1).encode())
        _check(model, draft, facts)
    except Exception:  # a kill leaves the draft for the next process, a fault would be met again
        shutil.rmtree(draft)
        raise
    shutil.rmtree(folder, ignore_errors=True)  # a damaged one
    os.rename(draft, folder)


def _remove_unused(packages: Path, draft: Path) -> None:
    """Drafts of other packages, whose processes were killed, and packages unused for long."""
    oldest = time.time() - _KEPT_SECONDS
    files = packages.glob(f"*/{FACTS_FILE}")
    unused = [file.parent for file in files if file.stat().st_mtime < oldest]
    for folder in (*unused, *packages.glob(f".*{_DRAFT}")):
        if folder != draft:
            shutil.rmtree(folder, ignore_errors=True)


def compile_libraries(
    network: nn.Module,
    shape: tuple[int, int, int],
    precision: Precision,
    sizes: tuple[int, ...],
    folder: Path,
) -> Facts:
    """Every library of a package into ``folder``, about a minute a size.

    Args:
        network: as `candor.runtime.compiled.place` leaves it.     shape: (C, H, W).
        precision: of the steps.     sizes: of the batches.
    """
    device = next(network.parameters()).device
    alone = fastest_threads(network, shape) if device.type == "cpu" else 1
    precisions: list[Precision] = [precision, "float32"]
    for one in dict.fromkeys(precisions):
        for size in sizes:
            with on_threads(alone if size == 1 else 1):
                _compile_size(network, folder, (size, *shape), one, graph_names(precision, one))
    libraries = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.so")
    }
    return Facts(
        precision=precision, sizes=sizes, threads_alone=alone, seconds=0.0, libraries=libraries
    )


def _compile_size(
    network: nn.Module,
    draft: Path,
    shape: tuple[int, int, int, int],
    precision: Precision,
    names: tuple[str, ...],
) -> None:
    """The libraries of one batch size that are not there yet."""
    files = {name: draft / library_name(precision, shape[0], name) for name in names}
    if all(file.exists() for file in files.values()):
        return
    images = torch.zeros(shape, device=next(network.parameters()).device)
    images = images.contiguous(memory_format=torch.channels_last)
    programs = graphs_of(_in_precision(network, precision), images)
    for name, file in files.items():
        _compile(programs[name], file)


def _compile(program: ExportedProgram, file: Path) -> None:
    """The library of a graph without its weights."""
    archive = file.with_suffix(".pt2")
    options = {
        "compile_threads": 1,
        "aot_inductor.package_constants_in_so": False,
        "aot_inductor.embed_kernel_binary": torch.cuda.is_available(),
    }
    aoti_compile_and_package(program, package_path=str(archive), inductor_configs=options)
    with zipfile.ZipFile(archive) as files:
        (library,) = (name for name in files.namelist() if name.endswith(".so"))
        write_file(file, files.read(library))
    archive.unlink()


def _check(model: LoadedModel, draft: Path, facts: Facts) -> None:
    _, networks = load_package(draft, model.network)
    uncompiled = _in_precision(model.network, facts.precision)
    compare(networks, model.network, uncompiled, facts.sizes, model.card.input.shape)


def _in_precision(network: nn.Module, precision: Precision) -> nn.Module:
    if precision == "float32":
        return network
    return Bfloat16Network(copy.deepcopy(network)).eval()
