"""Messages between the gateway and a worker.

One call carries a list (`wire.pack_list`) of items and returns as many responses in the same order.
Every item and every response is one `wire.pack` message whose ``meta`` is one of the models below;
the response to an item that cannot be read is an `ItemError`, and no other item is affected.  The
calls are::

    predict call   item: PredictItem + array image (C, H, W) float32
                   response: PredictAnswer + array logits (V,) float32
    describe call  item: DescribeItem; response: DescribeAnswer (every worker supports it)
    search call    item: SearchItem + array image (C, H, W) float32, of a search that may change a
                   region alone array mask (H, W) float32 in [0, 1], and for a search that
                   continues exactly the arrays of the last SearchProgress
                   response while it runs: SearchProgress + the changing part of the state, opaque
                   to the gateway except for best (C, H, W) float32, the best image so far
                   response when it ends: SearchEnd + arrays image (C, H, W) float32,
                   logits_before and logits_after (V,) float32
    compare call   item: CompareItem + arrays image, perturbed, explanation and
                   perturbed_explanation (C, H, W) float32, the explanations of the first two
                   response: CompareAnswer + arrays saliency and perturbed_saliency (H, W) float32,
                   or CompareMissing where the model has no such saliency, or while it runs
                   CompareProgress + array partial (N,) float32, which the item that continues it
                   has, too
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from candor import terms
from candor.contracts import limits
from candor.contracts.api import (
    Correlation,
    EngineName,
    Method,
    Precision,
    Probability,
    Rho,
    Seed,
    Steps,
)
from candor.contracts.card import ModelCard
from candor.terms import Goal, Norm, SearchStatus


class _Meta(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class PredictItem(_Meta):
    """Asks for the logits of an image."""

    kind: Literal["predict"] = "predict"


class DescribeItem(_Meta):
    """Asks for the card of the worker's model."""

    kind: Literal["describe"] = "describe"


def _default_steps(validated: dict[str, Any]) -> int:
    """Those of the solver and the goal, which are validated first; any if one was rejected."""
    explains = validated.get("goal") in (Goal.EXPLAIN_FOR, Goal.EXPLAIN_AGAINST)
    return terms.default_steps(validated.get("solver", terms.DEFAULT_SOLVER), explains=explains)


class SearchItem(_Meta):
    """One search, and how far to continue it in this call.

    Attributes:
        goal: what the search looks for.
        target: class index of the label (attack, BTR, confident) or of the explained class.
        rho: how far an explanation may go, (0, 1], measured in ``norm``; the other goals ignore it.
        solver: "paper" or "fast".
        step_count: steps of the whole search, [1, 2000]; default the solver's.
        seed: seed of the search.
        step: steps done so far; 0 starts the search.
        chunk_steps: steps to take in this call; fewer if the search ends first.  0 ends the search
            with its best result so far, verified like every other.
        norm: of an explanation; "l2" for the other goals.
        away_from: class index; an explanation then follows the log-odds of the target against this
            class alone.  None for the other goals.
    """

    kind: Literal["search"] = "search"
    goal: Goal
    target: Annotated[int, Field(ge=0)]
    rho: Rho = 1.0
    solver: str = terms.DEFAULT_SOLVER
    step_count: Steps = Field(default_factory=_default_steps)
    seed: Seed = 0
    step: Annotated[int, Field(ge=0)] = 0
    chunk_steps: Annotated[int, Field(ge=0, le=limits.MAX_STEPS)]
    norm: Norm = Norm.L2
    away_from: Annotated[int, Field(ge=0)] | None = None


COMPARED_ARRAYS = ("image", "perturbed", "explanation", "perturbed_explanation")
PARTIAL = "partial"


class CompareItem(_Meta):
    """Asks for the saliency of an image and of its perturbed copy by one method.

    Attributes:
        method: the saliency method.
        target: index of the class that the saliency belongs to.
        seed: seed of the method's random numbers.
        part: calls that have gone before; 0 starts the saliency.
    """

    kind: Literal["compare"] = "compare"
    method: Method
    target: Annotated[int, Field(ge=0)]
    seed: Seed = 0
    part: Annotated[int, Field(ge=0)] = 0


class PredictAnswer(_Meta):
    """Accompanies the logits."""

    kind: Literal["predict_answer"] = "predict_answer"


class DescribeAnswer(_Meta):
    """The card of the worker's model, and what the worker computes with now.

    Attributes:
        engine: whether the network is compiled.
        precision: of a network that takes the steps of searches; float32 verifies them.
        note: why it is not compiled, in one line; empty where nothing went wrong.
    """

    kind: Literal["describe_answer"] = "describe_answer"
    card: ModelCard
    engine: EngineName = "eager"
    precision: Precision = "float32"
    note: str = ""


class SearchProgress(_Meta):
    """A running search and its best result so far.

    Attributes:
        step: steps done so far.
        best_rmse: RMSE of the best image so far; None before there is one.
        best_confidence: the target's confidence on it; None before there is one.
    """

    kind: Literal["search_progress"] = "search_progress"
    step: int
    best_rmse: float | None
    best_confidence: float | None


class SearchEnd(_Meta):
    """A finished search, verified in float32.

    Attributes:
        status: how the search ended.
        rmse: RMSE of array ``image``; 0 if already wrong.  An explanation is at most at rho in its
            norm, which for "l2" is this.
        lower_bound: largest RMSE visited without reaching the goal; None unless unresolved.
        steps: steps taken.
        solver: "paper" or "fast".
        rho_1, rho_1_5, rho_inf: the same size in the other norms, see `candor.terms.Norm`.
        rmse_inside: RMSE over the pixels whose mask is above 0; None without a mask.
        sparsity: share of the pixels of which a colour changed by more than 1/255.
    """

    kind: Literal["search_end"] = "search_end"
    status: SearchStatus
    rmse: float
    lower_bound: float | None
    steps: int
    solver: str
    rho_1: float = 0.0
    rho_1_5: float = 0.0
    rho_inf: float = 0.0
    rmse_inside: float | None = None
    sparsity: float = 0.0


class CompareAnswer(_Meta):
    """How a saliency compares with the explanation; see `candor.explainers.overlap`.

    Attributes:
        top_share: share of the pixels that forms the salient region.
        energy_share: share of the explanation's squared change inside the salient region.
        rank_correlation: Spearman's, between the saliencies of the image and its perturbed copy.
        cosine: cosine of the angle between them.
    """

    kind: Literal["compare_answer"] = "compare_answer"
    top_share: Probability
    energy_share: Probability
    rank_correlation: Correlation
    cosine: Correlation


class CompareProgress(_Meta):
    """A saliency that takes more calls.

    Attributes:
        part: calls so far.
    """

    kind: Literal["compare_progress"] = "compare_progress"
    part: int


class CompareMissing(_Meta):
    """The model has no such saliency.

    Attributes:
        reason: why, one sentence.
    """

    kind: Literal["compare_missing"] = "compare_missing"
    reason: str


class ItemError(_Meta):
    """An item that could not be computed.

    Attributes:
        field: the array or field that is wrong.
        message: what was expected and what was got.
        is_internal: whether the fault is the worker's.
    """

    kind: Literal["error"] = "error"
    field: str
    message: str
    is_internal: bool = False


Item = Annotated[PredictItem | DescribeItem | SearchItem | CompareItem, Field(discriminator="kind")]
Answer = Annotated[
    PredictAnswer
    | DescribeAnswer
    | SearchProgress
    | SearchEnd
    | CompareAnswer
    | CompareProgress
    | CompareMissing
    | ItemError,
    Field(discriminator="kind"),
]
ITEM_ADAPTER: TypeAdapter[Item] = TypeAdapter(Item)
ANSWER_ADAPTER: TypeAdapter[Answer] = TypeAdapter(Answer)
