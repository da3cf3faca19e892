"""`candor explain` of a folder of images."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from typing import Any

import typer

from candor.cli.client import as_request, service_client
from candor.cli.folder_options import check_for_folder
from candor.cli.output import console, print_json
from candor.cli.share_options import do_work
from candor.cli.store_options import answering
from candor.contracts.explanation_jobs import ExplanationOptions
from candor.explained.gallery import write_pages
from candor.explained.job import JobPlace, LocalJob, RemoteJob
from candor.explained.rows import TABLE_FILE
from candor.explained.work import Summary
from candor.runtime.allocator import keep_freed_memory

AUTO = "auto"  # instead of a target: of each image the class that comes second


def explain_folder(ctx: typer.Context) -> None:
    """Explain every image of a folder as the options of the command say.

    Raises:
        ValueError: an option is missing, out of its range or for one image alone.
    """
    given = ctx.params
    check_for_folder(ctx)
    if given["out"] is None:
        raise ValueError("out: expected --out DIR for a folder of images, got none")
    place = JobPlace(
        images=given["image"],
        out=given["out"],
        store=given["store"],
        lease_seconds=given["lease_seconds"],
    )
    keep_freed_memory()
    with answering(given["store"] or str(given["out"])):
        summary = _done(given, place, as_request(ExplanationOptions, _values(given)))
        page = write_pages(place.out)
    if given["as_json"]:
        print_json({**asdict(summary), "table": str(place.out / TABLE_FILE), "page": str(page)})
    else:
        console().print(_sentence(summary), soft_wrap=True)
        console().print(str(page), soft_wrap=True)


def _done(given: Mapping[str, Any], place: JobPlace, options: ExplanationOptions) -> Summary:
    """The job, worked on until nothing is left."""
    if given["ray"] and given["model"] is None:
        raise ValueError("ray: expected --model DIR, which the actors load, got a service")
    client = service_client(given["address"]) if given["model"] is None else nullcontext()
    with client as service:
        job: LocalJob | RemoteJob
        if service is None:
            job = LocalJob(
                place=place, options=options, model=given["model"], compiles=given["compiles"]
            )
        else:
            job = RemoteJob(place=place, options=options, client=service, name=given["name"])
        with job.opened(notify=console().print) as work:
            how = {"ray": given["ray"], "actors": given["actors"], "gpus": given["actor_gpus"]}
            do_work(job, work, **how)
            return work.finish()


def _values(given: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of `ExplanationOptions` that the user gave."""
    values = {
        "target": _target(given["target"] or [], given["target_index"] or []),
        "norm": given["norm"],
        "solver": given["solver"],
        "seed": given["seed"],
        "measure_radius": given["measure_radius"],
        "batch_size": given["batch_size"],
        "rho": _one("rho", given["rho"] or []),
        "steps": given["steps"],
    }
    return {name: value for name, value in values.items() if value is not None}


def _target(names: Sequence[str], indices: Sequence[int]) -> dict[str, int | str] | None:
    """None for the class that comes second."""
    one = _one("target", [*names, *indices])
    if one is None or one == AUTO:
        return None
    return {"name": one} if names else {"index": one}


def _one(field: str, values: Sequence[Any]) -> Any:
    if len(values) > 1:
        raise ValueError(f"{field}: expected at most one for a folder of images, got {len(values)}")
    return values[0] if values else None


def _sentence(summary: Summary) -> str:
    parts = [f"{summary.images} images", f"{summary.flips} flips"]
    if summary.errors:
        parts.append(f"{summary.errors} without an explanation, see their error in {TABLE_FILE}")
    if summary.median_radius is not None:
        parts.append(f"median radius {summary.median_radius:.5f}")
    return ", ".join(parts)
