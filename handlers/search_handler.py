"""TorchServe handler of `{model}-search`: the next chunk of every search it is sent.

May import candor and handlers.  TorchServe wants exactly one class in this module.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from candor.artifact import LoadedModel
from candor.contracts.worker import ItemError, SearchItem
from candor.search.chunks import advance_items, check_item
from handlers.envelopes import Task, answer_rows, seal, wrong_kind
from handlers.loading import load_worker_model, search_network


class SearchHandler:
    """Holds the model and nothing of any request: the whole state travels with each item."""

    _model: LoadedModel
    _network: nn.Module

    def initialize(self, context: Any) -> None:
        self._model = load_worker_model(context)
        self._network = search_network(self._model)

    def handle(self, data: Sequence[Mapping[str, Any]], context: Any) -> list[bytes]:
        return answer_rows(data, self._model.card, self._check, self._compute)

    def _check(self, task: Task) -> ItemError | None:
        if not isinstance(task.item, SearchItem):
            return wrong_kind(task.item, "search")
        return check_item(self._model.card, task.item, task.arrays)

    def _compute(self, tasks: Sequence[Task]) -> list[bytes]:
        pairs = [(task.item, task.arrays) for task in tasks if isinstance(task.item, SearchItem)]
        advanced = advance_items(self._network, pairs)
        return [seal(answer, arrays) for answer, arrays in advanced]
