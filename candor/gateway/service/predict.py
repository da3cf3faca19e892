"""Predict: the strongest classes of one image."""

from typing import Any

from candor.contracts import api
from candor.gateway.service import responses, validation
from candor.gateway.service.admission import AdmittedRequest
from candor.gateway.service.shadow import AnsweredRequest, Shadows


async def respond(payload: Any, admitted: AdmittedRequest, shadows: Shadows) -> api.PredictResponse:
    """Raises: ServiceError: INVALID_INPUT, or that of the worker."""
    model = admitted.model
    checked = await validation.check(
        api.PredictRequest, payload, model.details, model.preprocessing
    )
    logits = await model.logits(checked.image)
    response = api.PredictResponse(
        predictions=responses.strongest(logits, model.details, checked.request.top_k),
        model=model.details.model,
        request_id=admitted.context.request_id,
    )
    shadows.after_prediction(AnsweredRequest.of(admitted, checked.arrays), logits)
    return response
