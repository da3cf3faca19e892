"""Options of commands whose work many processes can share, and how it is done."""

from typing import TYPE_CHECKING, Annotated

import typer

from candor.cli.progress import images_bar
from candor.jobs.shared_work import SharedWork, work_until_done

if TYPE_CHECKING:
    from candor.jobs.ray_pool import Job

_PANEL = "Many processes"
Ray = Annotated[
    str,
    typer.Option(
        "--ray",
        metavar="ADDRESS",
        help="Work on this Ray cluster, or with a Ray of its own: local.  Needs the extra ray.",
        rich_help_panel=_PANEL,
    ),
]
Actors = Annotated[int, typer.Option(min=1, help="Ray's, at most.", rich_help_panel=_PANEL)]
ActorGpus = Annotated[
    float, typer.Option(min=0.0, help="Of each of Ray's actors.", rich_help_panel=_PANEL)
]
LeaseSeconds = Annotated[
    float,
    typer.Option(
        min=1.0,
        help="Silence after which another process takes one's images.",
        rich_help_panel=_PANEL,
    ),
]


def do_work(job: "Job", work: SharedWork, *, ray: str, actors: int, gpus: float) -> None:
    """Everything that is left, in this process or on a Ray cluster, with a bar.

    Args:
        work: this process's part of ``job``.
        ray: address of the cluster; empty for this process.
    """
    with images_bar(work.count) as report:
        if not ray:
            work_until_done(work, report)
            return
        from candor.jobs.ray_pool import work_on_ray  # a package of its own extra

        work_on_ray(job, work, address=ray, actors=actors, gpus=gpus, report=report)
