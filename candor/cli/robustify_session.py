"""One fine-tuning of a model for its explanations: measured, trained, measured again, explained."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from candor.audit.ara_session import measure_folder
from candor.cli.client import open_client
from candor.cli.commands.measure import progress_bar
from candor.cli.output import console
from candor.cli.train_screen import training_bar
from candor.contracts import api
from candor.contracts.card import MetricCard, ModelCard
from candor.data.images import Images
from candor.models.folder import read_card, record_metrics
from candor.robustness.ara_files import is_measured, metric_cards, read_ara
from candor.robustness.measure import AraPlan
from candor.terms import FAST_RADIUS_STEPS
from candor.viz.demo import view_of, write_views
from training.robustify import RobustifyOptions, RobustifyPlan, plan_run
from training.run import RunTarget, run_experiment

IMAGES = 200  # of the comparison, where nothing else is asked for


@dataclass(frozen=True, slots=True)
class RobustifyRequest:
    """Options of `candor robustify`; None where the command has a default."""

    model: Path
    data: str
    data_dir: Path | None
    options: RobustifyOptions
    images: int | None
    run_dir: Path | None
    out: Path | None
    name: str | None


@dataclass(frozen=True, slots=True)
class Standing:
    """A model: its accuracy on all test images, and the summary of `candor ara` by `fast`."""

    name: str
    accuracy: MetricCard
    ara: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Robustified:
    """What came out.

    Attributes:
        folder: of the run, with the measurements in ``before`` and ``after`` and the pictures of
            one image in ``explained``.
        model: folder of the new model.
        budget: share of the test images that might be lost.
    """

    folder: Path
    model: Path
    before: Standing
    after: Standing
    budget: float


def run_robustify(request: RobustifyRequest) -> Robustified:
    """All of it; what a stopped run has done is not done again.

    Raises:
        ValueError: an option, the model or the data; the message names what.
        DataMissing, DataDamaged: the images.
    """
    model, options = request.model, request.options
    card = read_card(model)
    name = request.name or f"{card.name}-robust"
    if name == card.name:
        raise ValueError(f"name: expected another one than that of {model}, got {name!r}")
    folder = request.run_dir or Path("runs") / name
    console().print("measuring the model as it is ...")
    plan = plan_run(model, request.data, request.data_dir, options, folder)
    before = _measured(request, plan, model, folder / "before")
    target = RunTarget(
        experiment="robustify",
        run_dir=folder,
        folder=request.out or folder / "model",
        name=name,
        note="",
    )
    trained = _trained(plan, target)
    after = _measured(request, plan, target.folder, folder / "after")
    method = f"candor ara --data {request.data} --images {after['images']} --solver fast"
    record_metrics(target.folder, metric_cards(after, f"{method} --seed {options.seed}"))
    _explain((model, target.folder), plan.test_data, folder)
    return Robustified(
        folder=folder,
        model=target.folder,
        before=Standing(card.name, plan.before, before),
        after=Standing(name, trained.metrics[0], after),
        budget=options.accuracy_budget,
    )


def _trained(plan: RobustifyPlan, target: RunTarget) -> ModelCard:
    with training_bar(plan.config.epochs) as report:
        card = run_experiment(plan.config, plan.training_data, plan.test_data, target, report)
    assert card is not None  # of the only process
    return card


def _measured(
    request: RobustifyRequest, plan: RobustifyPlan, model: Path, out: Path
) -> dict[str, Any]:
    """As `candor ara --solver fast`, once."""
    wanted = AraPlan(solver="fast", steps=FAST_RADIUS_STEPS, seed=request.options.seed)
    count = request.images or min(IMAGES, len(plan.test_data))
    same = {
        "weights_digest": read_card(model).identity,
        "data_digest": plan.test_data.digest(),
        "images": count,
        "seed": wanted.seed,
    }
    if is_measured(out, same):
        return read_ara(out).summary
    with progress_bar(count, wanted.steps) as report:
        return measure_folder(
            model, request.data, request.data_dir, count, wanted, out=out, report=report
        )


def _explain(models: tuple[Path, Path], data: Images, folder: Path) -> None:
    """One image that both get right, why, and what would make it the first one's runner-up."""
    found = [read_ara(folder / part) for part in ("before", "after")]
    is_right = found[0].is_correct & found[1].is_correct
    place = found[0].indices[int(is_right.argmax())]
    image = _sent(data, place)
    views, targets = [], None
    for model in models:
        card = read_card(model)
        with open_client(model, None) as client:
            likely = client.predict(api.PredictRequest(image=image, top_k=2)).predictions
            targets = targets or tuple(api.ClassRef(index=one.index) for one in likely)
            views.append(view_of(client, image, card.name, targets, card.recommended_rho))
    write_views(folder / "explained", views)


def _sent(data: Images, place: int) -> api.ImageInput:
    """A test image as the models see it."""
    pixels = data.images(slice(place, place + 1))[0].numpy()
    tensor = api.TensorInput(shape=pixels.shape, data=pixels.astype("<f4").tobytes())
    return api.ImageInput(tensor=tensor)
