"""Schemathesis through the REST API: valid and invalid requests of every operation."""

import base64
import contextlib
import json
import warnings
from functools import cache
from typing import Any

import requests
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode, openapi
from schemathesis.core.result import Ok

from tools.fuzz.outcomes import Outcome, images, many, mutated
from tools.fuzz.target import Target

_MAX_STEPS = 20  # more would only be slower
_TIMEOUT_SECONDS = 30
_MAX_ERROR_BYTES = 100_000


def direct_session() -> requests.Session:
    """A session that goes through no proxy of the environment: the target is on this machine."""
    session = requests.Session()
    session.trust_env = False
    return session


def fuzz(target: Target, case_count: int) -> Outcome:
    """About ``case_count`` requests, shared out over the operations of the description."""
    outcome = Outcome("OpenAPI through REST (schemathesis)")
    strategies = _strategies(target.rest_url)
    with direct_session() as session:
        for strategy in strategies:
            _run(strategy, session, target, outcome, case_count // len(strategies) + 1)
    return outcome


def _without_unicode_patterns(node: Any) -> Any:
    """Schemathesis makes texts with Python's expressions, which have no classes of Unicode."""
    if isinstance(node, list):
        return [_without_unicode_patterns(entry) for entry in node]
    if not isinstance(node, dict):
        return node
    return {
        key: _without_unicode_patterns(value)
        for key, value in node.items()
        if not (key == "pattern" and isinstance(value, str) and "\\p{" in value)
    }


@cache
def _strategies(rest_url: str) -> tuple[Any, ...]:
    """Valid and, where there is a body to break, invalid requests; then the valid count double."""
    with direct_session() as session:
        described = session.get(f"{rest_url}/openapi.json", timeout=_TIMEOUT_SECONDS).json()
    schema = openapi.from_dict(_without_unicode_patterns(described))
    strategies = []
    for found in schema.get_all_operations():
        if not isinstance(found, Ok):
            raise found.err()
        operation = found.ok()
        valid = operation.as_strategy(generation_mode=GenerationMode.POSITIVE)
        strategies.append(valid)
        if operation.method == "post":
            invalid = operation.as_strategy(generation_mode=GenerationMode.NEGATIVE)
            strategies += [invalid, valid]
    return tuple(strategies)


def _run(
    strategy: Any, session: requests.Session, target: Target, outcome: Outcome, count: int
) -> None:
    @many(count)
    @given(case=strategy, seed=st.integers(0, 2**32))
    def call_it(case: Any, seed: int) -> None:
        _make_real(case, seed)
        where = f"{case.method} {case.path}"
        try:
            response = case.call(
                base_url=target.rest_url, session=session, timeout=_TIMEOUT_SECONDS
            )
        except requests.RequestException as err:
            outcome.note("none", f"{where}: {err!r}"[:300])
            return
        outcome.note(str(response.status_code), _complaint(where, response))

    # An operation may have one input only.
    with warnings.catch_warnings(), contextlib.suppress(Unsatisfiable):
        warnings.simplefilter("ignore")  # what schemathesis says of its own inputs
        call_it()


def _make_real(case: Any, seed: int) -> None:
    """Mostly a real image, else nothing behind the decoder would be reached; few steps."""
    body = case.body
    if not isinstance(body, dict):
        return
    if "image" in body and seed % 4:
        encoded = mutated(images()[seed % len(images())], seed if seed % 3 == 0 else 0)
        content = base64.b64encode(encoded).decode()
        body["image"] = {"encoded": content} if case.media_type == "application/json" else encoded
    if isinstance(body.get("steps"), int):
        body["steps"] = min(body["steps"], _MAX_STEPS)
    if case.path_parameters and seed % 2:
        case.path_parameters.update(
            {key: "linear" for key in case.path_parameters if key in ("model", "name")}
        )


def _complaint(where: str, response: Any) -> str:
    """What is wrong with a response: a fault of the service, or an error that does not say why."""
    status = response.status_code
    if status >= 500 and status != 504:
        return f"{where}: {status} {response.text[:200]}"
    if "x-request-id" not in response.headers:
        return f"{where}: no request id"
    if status < 400 or status == 405:
        return ""
    if len(response.content) > _MAX_ERROR_BYTES or "Traceback" in response.text:
        return f"{where}: {status} of {len(response.content)} bytes"
    try:
        has_error = "error" in json.loads(response.content)
    except ValueError:
        has_error = False
    return "" if has_error else f"{where}: {status} without an error body: {response.text[:100]}"
