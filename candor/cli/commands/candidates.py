"""The command `candor candidates`."""

from pathlib import Path
from typing import Annotated

import typer

from candor import terms
from candor.annotation.collect import Collection, CollectionJob
from candor.cli.options import DataDir, DataName
from candor.cli.output import AsJson, console, print_json
from candor.cli.share_options import ActorGpus, Actors, LeaseSeconds, Ray, do_work
from candor.cli.store_options import DEFAULT_STORE, StoreAddress, answering
from candor.contracts import limits
from candor.runtime.allocator import keep_freed_memory
from candor.store.blocks import DEFAULT_LEASE_SECONDS


def candidates(
    model: Annotated[Path, typer.Option(help="Model folder: weights and card.")],
    data: DataName = "cifar10",
    data_dir: DataDir = None,
    images: Annotated[int, typer.Option(min=1, help="Training images, drawn by the seed.")] = 1000,
    store: StoreAddress = DEFAULT_STORE,
    seed: Annotated[int, typer.Option(min=0, max=limits.MAX_SEED)] = 0,
    solver: Annotated[str, typer.Option(help=f"One of {terms.SOLVERS}.")] = terms.DEFAULT_SOLVER,
    steps: Annotated[
        int | None, typer.Option(min=1, max=limits.MAX_STEPS, help="Default: the solver's.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1)] = 64,
    ray: Ray = "",
    actors: Actors = 1,
    actor_gpus: ActorGpus = 0.0,
    lease_seconds: LeaseSeconds = DEFAULT_LEASE_SECONDS,
    as_json: AsJson = False,
) -> None:
    """Overly confident adversarial images of training data, into the store for annotators.

    The same command goes on where a stopped one left off; with more --images it searches the rest.
    Several processes with the same command and store share the images.
    """
    keep_freed_memory()
    steps = terms.default_steps(solver, explains=False) if steps is None else steps
    job = CollectionJob(
        model=model,
        data=data,
        data_dir=data_dir,
        collection=Collection(
            image_count=images, solver=solver, steps=steps, seed=seed, batch_size=batch_size
        ),
        store=store,
        lease_seconds=lease_seconds,
    )
    with answering(store), job.opened() as work:
        do_work(job, work, ray=ray, actors=actors, gpus=actor_gpus)
        summary = work.summary()
    if as_json:
        print_json(summary)
    else:
        console().print(
            f"{summary['candidates']} candidates ({summary['new']} new) "
            f"of {summary['images']} images of {data}/train"
        )
