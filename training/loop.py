"""The training loop: data, schedule, psi, checkpoints, progress."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn.utils import get_total_norm

from candor.contracts.json_text import json_text
from candor.data.images import Batch, Images
from candor.files.writing import write_file
from candor.search.seeds import derived_seed
from candor.terms import NotFinite
from training.averaging import WeightAverage
from training.checkpoint import CHECKPOINT_FILE, load_checkpoint, save_checkpoint
from training.config import TrainConfig
from training.distributed import (
    distributed,
    from_first,
    mean_over_processes,
    padded_to_world,
    rank,
    shard,
    world_size,
)
from training.divergence import Diverged, check_state, check_step
from training.engine import Engine, Precision, runner
from training.optimizer import WeightDecayOn, parameter_groups
from training.origin import Origin
from training.psi import PsiController, PsiMode
from training.regularizers import PenaltyMode, class_balanced_weights
from training.schedule import Schedule, learning_rate
from training.step import StepLoss, step_loss
from training.weight_penalties import limit_spectral_norms

_CHECKPOINT_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What a progress display needs after each step; losses are running means of the epoch.

    `gradient_norm` is the L2 norm of the whole gradient by the weights that the step took.
    """

    step: int
    step_count: int
    epoch: int
    is_epoch_end: bool
    cross_entropy: float
    accuracy: float
    psi: float
    gradient_norm: float
    learning_rate: float


@dataclass(slots=True)
class _EpochSums:
    """Sums over the steps of the running epoch; travels in the checkpoint."""

    images: int = 0
    cross_entropy: float = 0.0
    correct: int = 0
    penalty: float = 0.0
    penalised_steps: int = 0


@dataclass(slots=True)
class TrainState:
    """Everything a resumed run needs; `history` has one entry a finished epoch."""

    step: int = 0
    integral: float = 0.0
    seconds: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)
    sums: _EpochSums = field(default_factory=_EpochSums)


def train(
    network: nn.Module,
    data: Images,
    config: TrainConfig,
    *,
    run_dir: Path,
    origin: Origin | None = None,
    report: Callable[[Progress], None] = lambda progress: None,
    stop_after: int | None = None,
) -> TrainState:
    """Train ``network`` in place; resumes from ``run_dir`` and leaves a checkpoint there.

    With ``config.weight_average`` the network ends with the averaged weights.

    Every step draws from generators seeded by (seed, step), also where images are read in other
    processes, and every epoch is permuted by (seed, epoch), so a run that was killed and resumed
    follows the uninterrupted one.

    Inside a `process_group` of several processes each takes its share of every batch, and the first
    alone reads and writes ``run_dir`` and reports.  A batch that does not divide is filled up with
    images from the start of the epoch's order.

    Args:
        network: on the device to train on; left in training mode, its batch normalisation that of
            all processes where there are several, its layout that of the engine.
        data: training images, in memory or on disk.
        config: the experiment.
        run_dir: existing folder; ``checkpoint.pt`` and ``log.jsonl`` are written there.
        origin: what a resumed run is compared with; default that of ``data`` and drawn weights.
        report: called after every step.
        stop_after: stop (with a checkpoint) once so many steps of the whole run are done.
    Raises:
        ValueError: the checkpoint in ``run_dir`` belongs to another configuration, other images,
            classes or first weights, or the configuration does not allow several processes.
        Diverged: a number of the run is no longer finite; the checkpoint of before stays.
    """
    _check_processes(config)
    if config.precision == Precision.FASTEST:
        raise ValueError("precision: expected 'float32' or 'bfloat16', got one not measured yet")
    if config.penalty_mode == PenaltyMode.FINITE_DIFFERENCE:
        # The difference drowns in the ten bits of TF32, which CUDA convolutions use by default.
        torch.backends.cudnn.allow_tf32 = False
    optimizer = torch.optim.SGD(
        parameter_groups(network, config.weight_decay, WeightDecayOn(config.weight_decay_on)),
        lr=0.0,
        momentum=config.momentum,
    )
    class_weights = _class_weights(network, data, config)
    path = run_dir / CHECKPOINT_FILE
    saved = from_first(load_checkpoint(path) if rank() == 0 else None)
    origin = origin or Origin.of(data, "")
    average = WeightAverage(network, config.weight_average)
    state = _restore(saved, network, optimizer, average, config, origin)
    data = data.on(next(network.parameters()).device)  # crops and flips are computed there too
    called = runner(distributed(network), Engine(config.engine))
    steps_per_epoch = -(-len(data) // config.batch_size)
    step_count = steps_per_epoch * config.epochs
    network.train()
    saved_at = started_at = time.monotonic()
    seconds_before = state.seconds
    last_step = step_count if stop_after is None else min(stop_after, step_count)
    batches = data.training_batches(_plan(len(data), config, range(state.step, last_step)))
    is_between_steps = True
    try:
        while state.step < last_step:
            batch = next(batches)
            is_between_steps = False
            progress = _train_step(
                called, optimizer, data, batch, config, state, step_count, class_weights
            )
            average.update(network)
            is_between_steps = True
            state.seconds = seconds_before + time.monotonic() - started_at
            if state.step % steps_per_epoch == 0:
                _finish_epoch(state, progress, run_dir)
            if rank() > 0:
                continue
            _tell(report, progress)
            if time.monotonic() - saved_at > _CHECKPOINT_SECONDS:
                save_checkpoint(path, _dump(state, network, optimizer, average, config, origin))
                saved_at = time.monotonic()
    except Diverged:
        is_between_steps = False
        raise
    finally:
        # Also after Ctrl-C; inside a step the weights may be half moved, then the last checkpoint
        # stands.
        if is_between_steps and rank() == 0:
            save_checkpoint(path, _dump(state, network, optimizer, average, config, origin))
    network.load_state_dict(average.model_state(network))
    return state


def _train_step(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    data: Images,
    batch: Batch,
    config: TrainConfig,
    state: TrainState,
    step_count: int,
    class_weights: Tensor | None,
) -> Progress:
    steps_per_epoch = step_count // config.epochs
    epoch = state.step // steps_per_epoch
    device = next(network.parameters()).device
    generator = Generator(device=device).manual_seed(derived_seed(config.seed, 1, state.step))
    images = data.augmented(
        batch.stored.to(device), padding=config.crop_padding, generator=generator
    )
    images, labels = shard(images), shard(batch.labels.to(device))
    rate = learning_rate(
        Schedule(config.schedule),
        peak=config.peak_learning_rate,
        progress=state.step / step_count,
    )
    for group in optimizer.param_groups:
        group["lr"] = rate
    is_regularised = config.has_penalty and epoch >= config.penalty_start_epoch
    is_penalised = is_regularised and state.step % config.penalty_interval == 0
    is_half = config.precision == Precision.BFLOAT16
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=is_half)
    with _residual_draws(config, state.step, device), autocast:
        losses = step_loss(
            network,
            images,
            labels,
            config=config,
            class_count=len(data.class_names),
            is_penalised=is_penalised,
            generator=generator,
            class_weights=class_weights,
        )
    cross_entropy, penalty, followed, correct = _means(losses)
    place = f"step {state.step + 1} of {step_count} (epoch {epoch + 1})"
    check_step(place, loss=cross_entropy, penalty=penalty)
    controller = _controller(config, state.integral)
    is_adaptive = config.psi_mode == PsiMode.ADAPTIVE
    if is_regularised and is_adaptive:
        controller = controller.updated(followed)
    psi = controller.psi if is_adaptive else config.psi
    total = losses.cross_entropy
    if losses.added is not None:
        total = total + losses.added
    if losses.penalty is not None:
        total = total + psi * config.penalty_interval * losses.penalty
        state.sums.penalty += penalty
        state.sums.penalised_steps += 1
    optimizer.zero_grad(set_to_none=True)
    total.backward()  # type: ignore[no-untyped-call]  # torch annotates it in part
    gradient_norm = get_total_norm(
        [weight.grad for weight in network.parameters() if weight.grad is not None]
    )
    check_step(place, loss=cross_entropy, psi=psi, gradient_norm=gradient_norm.item())
    optimizer.step()
    if config.spectral_limit > 0.0:
        limit_spectral_norms(network, config.spectral_limit)

    state.step += 1
    state.integral = controller.integral
    state.sums.images += len(batch.labels)
    state.sums.cross_entropy += cross_entropy * len(batch.labels)
    state.sums.correct += correct
    return Progress(
        step=state.step,
        step_count=step_count,
        epoch=epoch,
        is_epoch_end=state.step % steps_per_epoch == 0,
        cross_entropy=state.sums.cross_entropy / state.sums.images,
        accuracy=state.sums.correct / state.sums.images,
        psi=psi,
        gradient_norm=gradient_norm.item(),
        learning_rate=rate,
    )


def _tell(report: Callable[[Progress], None], progress: Progress) -> None:
    """Raises Diverged where what is reported cannot be computed from the network any more."""
    try:
        report(progress)
    except NotFinite as err:
        place = f"step {progress.step} of {progress.step_count}, loss {progress.cross_entropy:g}"
        raise Diverged(f"diverged at {place}: {err}; the checkpoint of before is kept") from err


def _means(losses: StepLoss) -> tuple[float, float, float, int]:
    """Cross-entropy, penalty and what psi follows as means over all processes; correct in all."""
    entropy = losses.cross_entropy
    penalty = entropy.new_zeros(()) if losses.penalty is None else losses.penalty
    values = torch.stack([entropy, penalty, losses.followed, losses.correct.to(entropy.dtype)])
    means: list[float] = mean_over_processes(values).tolist()
    return means[0], means[1], means[2], round(means[3] * world_size())


def _finish_epoch(state: TrainState, progress: Progress, run_dir: Path) -> None:
    entry = {
        "epoch": progress.epoch,
        "cross_entropy": round(progress.cross_entropy, 5),
        "train_accuracy": round(progress.accuracy, 5),
        "psi": round(progress.psi, 3),
        "penalty": state.sums.penalty / max(1, state.sums.penalised_steps),
        "learning_rate": progress.learning_rate,
        "seconds": round(state.seconds, 1),
    }
    state.history.append(entry)
    state.sums = _EpochSums()
    if rank() > 0:
        return
    # Whole, not appended to: a run resumed from before this epoch's end must not log it twice.
    lines = (json_text(epoch_entry) + "\n" for epoch_entry in state.history)
    write_file(run_dir / "log.jsonl", "".join(lines).encode())


def _controller(config: TrainConfig, integral: float) -> PsiController:
    return PsiController(
        psi_min=config.psi_min,
        psi_rate=config.psi_rate,
        clip_better=config.clip_better,
        clip_worse=config.clip_worse,
        loss_target=config.loss_target,
        integral=integral,
    )


def _check_processes(config: TrainConfig) -> None:
    if world_size() == 1:
        return
    expected = {"engine": Engine.EAGER.value}
    if config.has_penalty and config.penalty_mode == PenaltyMode.INNER_GRADIENT:
        expected["penalty_mode"] = PenaltyMode.DOUBLE_BACKWARD.value
    for name, value in expected.items():
        if getattr(config, name) != value:
            raise ValueError(
                f"{name}: expected {value!r}, got {getattr(config, name)!r}, where "
                f"{world_size()} processes share the statistics and gradients of a batch"
            )


def _class_weights(network: nn.Module, data: Images, config: TrainConfig) -> Tensor | None:
    """(V,) on the network's device; None where all classes weigh alike."""
    if config.class_balance == 0.0:
        return None
    counts = data.labels.bincount(minlength=len(data.class_names))
    weights = class_balanced_weights(counts, beta=config.class_balance)
    return weights.to(next(network.parameters()).device)


@contextmanager
def _residual_draws(config: TrainConfig, step: int, device: torch.device) -> Iterator[None]:
    """Seed what drops residual blocks by (seed, step): modules draw from the global generator.

    Each process has draws of its own.  The global generator is put back afterwards.
    """
    if config.residual_drop == "none":
        yield
        return
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(derived_seed(config.seed, 2 + rank(), step))
        yield


def _plan(count: int, config: TrainConfig, steps: range) -> Iterator[tuple[Tensor, int]]:
    """Of each step: the indices (B,) of its images, and the seed of what reading them draws."""
    steps_per_epoch = -(-count // config.batch_size)
    ordered = -1
    for step in steps:
        epoch, position = divmod(step, steps_per_epoch)
        if epoch != ordered:
            order, ordered = _epoch_order(count, config.seed, epoch), epoch
        chosen = order[position * config.batch_size : (position + 1) * config.batch_size]
        chosen = padded_to_world(chosen, order)
        yield chosen, derived_seed(config.seed, 3, step)


def _epoch_order(count: int, seed: int, epoch: int) -> Tensor:
    return torch.randperm(count, generator=Generator().manual_seed(derived_seed(seed, 0, epoch)))


def _dump(
    state: TrainState,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: WeightAverage,
    config: TrainConfig,
    origin: Origin,
) -> dict[str, Any]:
    """What a checkpoint holds.  Raises Diverged where a weight in it is not finite."""
    place = f"step {state.step}"
    check_state(place, {"network": network.state_dict()})
    check_state(place, {"optimizer": optimizer.state_dict()})
    check_state(place, {"average": average.state_dict()})
    return {
        "config": config.as_dict(),
        "origin": origin.as_dict(),
        "network": network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "average": average.state_dict(),
        "step": state.step,
        "integral": state.integral,
        "seconds": state.seconds,
        "history": state.history,
        "sums": {name: getattr(state.sums, name) for name in _EpochSums.__dataclass_fields__},
    }


def _restore(
    saved: dict[str, Any] | None,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: WeightAverage,
    config: TrainConfig,
    origin: Origin,
) -> TrainState:
    if saved is None:
        return TrainState()
    if lacking := sorted({field.name for field in fields(TrainState)} - saved.keys()):
        raise ValueError(f"checkpoint.pt: expected that of a run, got one without {lacking[0]!r}")
    # A run that began before a key existed was run with the key's default.
    defaults = {
        field.name: field.default for field in fields(TrainConfig) if field.default is not MISSING
    }
    now, before = config.as_dict(), defaults | saved["config"]
    changed = sorted(key for key in now if now[key] != before.get(key))
    if changed:
        raise ValueError(
            f"{changed[0]}: got {now[changed[0]]!r}, but the run in this folder was started with "
            f"{before.get(changed[0])!r}; choose another --run-dir or the same value"
        )
    if "origin" in saved:  # checkpoints of earlier versions lack it
        origin.check_same(saved["origin"])
    try:
        network.load_state_dict(saved["network"])
        optimizer.load_state_dict(saved["optimizer"])
        average.load_state_dict(saved.get("average", {}))  # checkpoints of earlier versions lack it
    except (RuntimeError, ValueError) as err:
        raise ValueError(
            "checkpoint.pt: expected the tensors of this network, got those of another; choose "
            "another --run-dir"
        ) from err
    return TrainState(
        step=saved["step"],
        integral=saved["integral"],
        seconds=saved["seconds"],
        history=list(saved["history"]),
        sums=replace(_EpochSums(), **saved["sums"]),
    )
