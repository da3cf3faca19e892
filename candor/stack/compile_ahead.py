"""Compiles a model before a service starts, so that its search workers begin compiled.

Imports torch: seconds, which only this is worth.
"""

import time
from pathlib import Path

import torch

from candor.models.folder import load_model
from candor.runtime.compiled import place
from candor.runtime.compiler import run_compiler
from candor.runtime.kept import compiling_lock, package_folder, packages_dir
from candor.stack.errors import ArchiveError
from handlers.loading import thread_share

_LOOK_SECONDS = 1.0


def compile_ahead(folder: Path, search_workers: int) -> None:
    """The package of a model folder for this machine, where it is not there yet.

    Waits while another process compiles.

    Args:
        search_workers: of the service, which share the cores.
    Raises:
        ArchiveError: the model cannot be compiled, or the package not be kept.
    """
    threads = thread_share(search_workers)
    torch.set_num_threads(threads)
    model = load_model(folder)
    place(model.network, model.card.input.shape)
    package = package_folder(packages_dir(), model)
    failure, is_done = None, False
    try:
        while not is_done:
            with compiling_lock(package.parent) as lock:
                if lock is not None:
                    failure = run_compiler(folder, package, threads=threads, lock=lock, niceness=0)
                    is_done = True
            time.sleep(0 if is_done else _LOOK_SECONDS)
    except OSError as err:
        raise ArchiveError(f"compiled: {err.filename}: {err.strerror}") from err
    if failure is not None:
        raise ArchiveError(f"{folder}: cannot be compiled: {failure.message}")
