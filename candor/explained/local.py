"""Explanations by a model in this process, a batch of images at a time."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from candor.explained.explainer import Explained, failed, row_of
from candor.explained.images import ImageFile, UnreadableImage, levels_of_file
from candor.explained.plan import ExplanationPlan
from candor.images.encode import encode_png, encode_png_toward
from candor.images.pixels import Levels, to_pixels
from candor.images.view import InputView
from candor.models.folder import ArtifactError, LoadedModel, load_model
from candor.runtime.compiled import place
from candor.runtime.preparation import compiled_for
from candor.runtime.threads import in_shares
from candor.search.batch import SearchPlan, plan_goal, run_searches
from candor.search.network import checked
from candor.search.result import SearchResult
from candor.terms import Goal, NotFinite, SearchStatus

_SIZES = ("rho_1", "rho_1_5", "rmse", "rho_inf", "sparsity")


@dataclass(frozen=True, slots=True)
class _Seen:
    """A file that was read: what the network sees of it, (C, H, W) uint8, and its SHA-256."""

    file: ImageFile
    levels: Levels
    sha256: str


class LocalExplainer:
    """Explains with the searches of `candor.search`; an `Explainer`.

    The model is loaded, and compiled where the plan says so, when the first block needs it.

    Args:
        folder: of the model.
        notify: takes a line for the user before a long wait.
        check: called before every evaluation of the network; what it raises ends the work.
    """

    def __init__(
        self,
        folder: Path,
        plan: ExplanationPlan,
        *,
        notify: Callable[[str], None] = lambda notice: None,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self._folder = folder
        self._plan = plan
        self._notify = notify
        self._check = check

    def explain(self, files: Sequence[ImageFile]) -> list[Explained]:
        read = [self._read(file) for file in files]
        seen = [one for one in read if isinstance(one, _Seen)]
        explained = self._explain_seen(seen) if seen else iter(())
        return [next(explained) if isinstance(one, _Seen) else one for one in read]

    @cached_property
    def _loaded(self) -> LoadedModel:
        """Raises: ArtifactError: no model, or another one than the plan's."""
        loaded = load_model(self._folder)
        if loaded.card.identity != self._plan.model_digest:
            raise ArtifactError(f"{self._folder}: is no longer the model that the job began with")
        place(loaded.network, loaded.card.input.shape)
        loaded.network.register_forward_pre_hook(lambda module, inputs: self._check())
        return loaded

    @cached_property
    def _searcher(self) -> nn.Module | None:
        """The compiled network; where there is no compiler, the network itself."""
        if self._plan.engine != "compiled":
            return None
        batch_size = min(self._plan.block_size, len(self._plan.images))
        compiled = compiled_for(self._loaded, batch_size, notify=self._notify)
        if compiled is self._loaded.network:
            return None
        compiled.register_forward_pre_hook(lambda module, inputs: self._check())
        return compiled

    def _read(self, file: ImageFile) -> _Seen | Explained:
        try:
            return _Seen(file, *levels_of_file(file, InputView.of(self._loaded.card)))
        except UnreadableImage as err:
            return failed(self._plan, file, err)

    def _explain_seen(self, seen: Sequence[_Seen]) -> Iterator[Explained]:
        """Together; where the network's answers are not finite one by one, to find whose."""
        try:
            return iter(self._entries(seen))
        except NotFinite as err:
            if len(seen) == 1:
                return iter([failed(self._plan, seen[0].file, _unusable(err, seen[0]))])
        return (entry for one in seen for entry in self._explain_seen([one]))

    def _entries(self, seen: Sequence[_Seen]) -> list[Explained]:
        network = self._loaded.network
        device = next(network.parameters()).device
        images = torch.from_numpy(np.stack([to_pixels(one.levels) for one in seen])).to(device)
        with torch.no_grad():
            before = checked(network)(images).double().softmax(dim=1)
        order = before.argsort(dim=1, descending=True, stable=True)
        targets = order[:, 1].clone()
        if self._plan.target_index is not None:
            targets[:] = self._plan.target_index
        found = self._search(images, self._explanations(targets))
        batch = _Batch(images, before, order[:, 0], targets, found, self._radii(images, order))
        return [self._entry(one, batch, at) for at, one in enumerate(seen)]

    def _explanations(self, targets: Tensor) -> SearchPlan:
        plan = self._plan
        return plan_goal(Goal.EXPLAIN_FOR, targets, steps=plan.steps, rho=plan.rho, norm=plan.norm)

    def _radii(self, images: Tensor, order: Tensor) -> SearchResult | None:
        """Of the class that leads; None where they are not asked for."""
        steps = self._plan.radius_steps
        if steps is None:
            return None
        return self._search(images, plan_goal(Goal.ATTACK, order[:, 0], steps=steps))

    def _search(self, images: Tensor, plan: SearchPlan) -> SearchResult:
        plan = replace(plan, seeds=torch.full_like(plan.seeds, self._plan.seed))
        return run_searches(
            self._loaded.network,
            images,
            plan,
            solver=self._plan.solver,
            batch_size=self._plan.block_size,
            searcher=self._searcher,
            execute=in_shares,
        )

    def _entry(self, one: _Seen, batch: "_Batch", at: int) -> Explained:
        original, image = batch.images[at].cpu().numpy(), batch.found.images[at].cpu().numpy()
        row = row_of(
            self._plan,
            one.file,
            image_sha256=one.sha256,
            **batch.measured(at, self._loaded.card.classes),
        )
        return Explained(
            row=row,
            original_png=encode_png(original),
            explanation_png=encode_png_toward(image, original),
        )


@dataclass(frozen=True, slots=True)
class _Batch:
    """What was found of a batch: ``before`` (B, V) confidences, ``leading``, ``targets`` (B,)."""

    images: Tensor
    before: Tensor
    leading: Tensor
    targets: Tensor
    found: SearchResult
    radii: SearchResult | None

    def measured(self, at: int, classes: Sequence[str]) -> dict[str, Any]:
        """The measured fields of a row."""
        leading, target = int(self.leading[at]), int(self.targets[at])
        before, after = self.before[at], self.found.logits_after[at].double().softmax(0)
        now = int(after.argmax())
        return {
            "class_index": leading,
            "class_name": classes[leading],
            "class_confidence": float(before[leading]),
            "target_index": target,
            "target_name": classes[target],
            "steps": int(self.found.steps[at]),
            "status": str(self.found.statuses[at]),
            "confidence_before": float(before[target]),
            "confidence_after": float(after[target]),
            "after_index": now,
            "after_name": classes[now],
            "after_confidence": float(after[now]),
            "flips": now == target,
            **self._sizes(at),
            **self._radius(at),
        }

    def _sizes(self, at: int) -> dict[str, float]:
        return {name: float(getattr(self.found, name)[at]) for name in _SIZES}

    def _radius(self, at: int) -> dict[str, float | None]:
        if self.radii is None:
            return {}
        is_found = self.radii.statuses[at] is SearchStatus.FOUND
        field, values = (
            ("radius", self.radii.rmse) if is_found else ("radius_above", self.radii.lower_bounds)
        )
        return {field: float(values[at])}


def _unusable(err: NotFinite, one: _Seen) -> UnreadableImage:
    return UnreadableImage(str(err), one.sha256)
