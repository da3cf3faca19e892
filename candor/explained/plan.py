"""What a job over many images does, fixed before it starts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from candor.contracts.api import Rho, Seed, Steps
from candor.contracts.json_text import json_text
from candor.contracts.strict_json import JsonError
from candor.contracts.violations import read_model
from candor.files.reading import GIB, read_file
from candor.files.writing import write_once
from candor.terms import Norm

PLAN_FILE = "plan.json"
_MAX_BYTES = GIB
Engine = Literal["eager", "compiled", "service"]


class PlanError(ValueError):
    """The folder of results holds another job, or what it holds is damaged, or a model changed."""


class ExplanationPlan(BaseModel):
    """Everything the results follow from; two jobs with equal plans give equal rows.

    Attributes:
        work: names this job among all that share a store; the only field that equal jobs differ in.
        model, model_version, model_digest: see `candor.explained.rows.ExplanationRow`.
        images: names of the images, in order.
        target_index: the class to explain; None for the runner-up of each image.
        rho, norm: how far an explanation may go.
        solver, steps, seed: of every search; each search has the same seed, as a request of its
            own would have.
        radius_steps: of the search for the radius; None where it is not measured.
        block_size: images that are computed and kept together.
        engine: what computes: this process with the network as it is or compiled, or a service.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False
    )

    work: str
    model: str
    model_version: str
    model_digest: str
    images: tuple[str, ...]
    target_index: Annotated[int, Field(ge=0)] | None
    rho: Rho
    norm: Norm
    solver: str
    steps: Steps
    seed: Seed
    radius_steps: Steps | None
    block_size: Annotated[int, Field(ge=1)]
    engine: Engine


def settle_plan(folder: Path, plan: ExplanationPlan) -> ExplanationPlan:
    """The plan of the job in ``folder``: the one it was begun with, or ``plan``, which begins it.

    Of several processes that begin at the same moment one decides.

    Raises:
        PlanError: the folder holds a job by another plan; the message names what differs.
        OSError: it cannot be written.
    """
    text = json_text(plan.model_dump(mode="json"), indent=2) + "\n"
    write_once(folder / PLAN_FILE, text.encode())
    begun = read_plan(folder)
    if differing := _differences(begun, plan):
        raise PlanError(
            f"out: {folder} holds a job that differs in {', '.join(differing)}; "
            "name another folder, or repeat the command that began it"
        )
    return begun


def read_plan(folder: Path) -> ExplanationPlan:
    """The plan of the job in ``folder``.

    Raises:
        PlanError: there is none, or it is damaged.
    """
    path = folder / PLAN_FILE
    try:
        return read_model(ExplanationPlan, read_file(path, _MAX_BYTES))
    except FileNotFoundError as err:
        raise PlanError(f"{path}: missing; the folder holds no job over images") from err
    except JsonError as err:
        raise PlanError(f"{path}: damaged ({err}); delete the folder and begin again") from err


def _differences(one: ExplanationPlan, other: ExplanationPlan) -> Sequence[str]:
    names = (name for name in ExplanationPlan.model_fields if name != "work")
    return [name for name in names if getattr(one, name) != getattr(other, name)]
