"""Explanations by a running service, several images at once."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self, TypeVar

from candor.client.sync import CandorClient
from candor.contracts import api
from candor.contracts.errors import ErrorCode, ServiceError
from candor.explained.explainer import Explained, failed, row_of
from candor.explained.images import ImageFile, UnreadableImage, encoded_file
from candor.explained.plan import ExplanationPlan, PlanError

_REQUESTS = 8  # at once; the service puts them into one batch
_OF_ONE_IMAGE = (ErrorCode.INVALID_INPUT, ErrorCode.SEARCH_FAILED)
_AnswerT = TypeVar("_AnswerT", api.PredictResponse, api.ExplainResponse, api.ProbeResponse)


class RemoteExplainer:
    """Explains by requests to a service; an `Explainer` and a context manager.

    Args:
        name: of the service's model; empty for its default.
    """

    def __init__(self, client: CandorClient, plan: ExplanationPlan, name: str) -> None:
        self._client = client
        self._plan = plan
        self._name = name
        self._threads = ThreadPoolExecutor(_REQUESTS, thread_name_prefix="requests")

    def explain(self, files: Sequence[ImageFile]) -> list[Explained]:
        return list(self._threads.map(self._explain, files))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._threads.shutdown(cancel_futures=True)

    def _explain(self, file: ImageFile) -> Explained:
        try:
            content, digest = encoded_file(file)
        except UnreadableImage as err:
            return failed(self._plan, file, err)
        try:
            return self._entry(file, digest, api.ImageInput(encoded=content))
        except ServiceError as err:
            if err.code not in _OF_ONE_IMAGE:  # another image would fare no better
                raise
            return failed(self._plan, file, UnreadableImage(err.message, digest))

    def _entry(self, file: ImageFile, digest: str, image: api.ImageInput) -> Explained:
        plan = self._plan
        request = api.ExplainRequest(
            model=self._name,
            image=image,
            targets=(api.ClassRef(index=self._target(image)),),
            rhos=(plan.rho,),
            norm=plan.norm,
            solver=plan.solver,
            steps=plan.steps,
            seed=plan.seed,
            allow_partial=False,
        )
        response = self._planned(self._client.explain(request))
        (explanation,) = response.explanations
        row = row_of(
            plan,
            file,
            image_sha256=digest,
            **_measured(explanation),
            **self._radius(image, explanation.predicted_before.index),
        )
        return Explained(
            row=row, original_png=response.input_png, explanation_png=explanation.image_png
        )

    def _target(self, image: api.ImageInput) -> int:
        if self._plan.target_index is not None:
            return self._plan.target_index
        request = api.PredictRequest(model=self._name, image=image, top_k=2)
        return self._planned(self._client.predict(request)).predictions[1].index

    def _radius(self, image: api.ImageInput, label: int) -> dict[str, float | None]:
        plan = self._plan
        if plan.radius_steps is None:
            return {}
        request = api.ProbeRequest(
            model=self._name,
            image=image,
            label=api.ClassRef(index=label),
            goals=(api.ProbeGoal.ATTACK,),
            solver=plan.solver,
            steps=plan.radius_steps,
            seed=plan.seed,
            allow_partial=False,
        )
        (found,) = self._planned(self._client.probe(request)).results
        return {"radius": found.radius, "radius_above": found.lower_bound}

    def _planned(self, answer: _AnswerT) -> _AnswerT:
        """Raises: PlanError: another version answers, a canary or one that was deployed since."""
        model, plan = answer.model, self._plan
        if model.weights_digest != plan.model_digest:
            raise PlanError(
                f"name: expected answers of {plan.model} {plan.model_version}, with which the job "
                f"began, got one of {model.version}; name a version as NAME@VERSION"
            )
        return answer


def _measured(explanation: api.Explanation) -> dict[str, Any]:
    """The measured fields of a row."""
    before, after = explanation.predicted_before, explanation.predicted_after
    return {
        "class_index": before.index,
        "class_name": before.name,
        "class_confidence": before.confidence,
        "target_index": explanation.target.index,
        "target_name": explanation.target.name,
        "steps": explanation.steps,
        "status": str(explanation.status),
        "confidence_before": explanation.confidence_before,
        "confidence_after": explanation.confidence_after,
        "after_index": after.index,
        "after_name": after.name,
        "after_confidence": after.confidence,
        "rho_1": explanation.rho_1,
        "rho_1_5": explanation.rho_1_5,
        "rmse": explanation.rmse,
        "rho_inf": explanation.rho_inf,
        "sparsity": explanation.sparsity,
        "flips": explanation.flips,
    }
