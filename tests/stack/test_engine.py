"""A real service: answers before its model is compiled, then compiled, the next one at once."""

from pathlib import Path

import numpy as np
import pytest

from candor.client.sync import CandorClient
from candor.contracts import api
from candor.images.encode import encode_png
from candor.stack.config import StackConfig
from candor.stack.supervisor import Stack

_COMPILED_SECONDS = 1800.0


def explained(stack: Stack) -> tuple[str, api.Explanation]:
    """One explanation, and what the model's searches run on."""
    image = encode_png(np.random.default_rng(5).random((3, 32, 32), dtype=np.float32))
    request = api.ExplainRequest(
        image=api.ImageInput(encoded=image),
        targets=(api.ClassRef(index=3),),
        rhos=(0.1,),
        solver="paper",
        no_cache=True,
    )
    with CandorClient(stack.grpc_address) as client:
        (found,) = client.explain(request).explanations
        return client.get_model().engine, found


@pytest.mark.slow
def test_a_service_goes_from_eager_to_compiled_and_the_next_start_begins_so(
    one_version: StackConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CANDOR_COMPILE", "auto")
    monkeypatch.setenv("CANDOR_COMPILED_DIR", str(tmp_path))
    with Stack(one_version) as stack:
        engine, eager = explained(stack)
        assert engine == "eager"
        stack.wait_until_compiled(_COMPILED_SECONDS)
        engine, compiled = explained(stack)
        assert engine == "compiled"
    assert compiled.status == eager.status
    assert compiled.rmse <= 0.1
    assert compiled.confidence_after == pytest.approx(eager.confidence_after, abs=0.1)
    with Stack(one_version) as stack:
        stack.wait_until_compiled(10)
        _, again = explained(stack)
    assert again.confidence_after == pytest.approx(compiled.confidence_after, abs=0.01)
