"""The real service: both transports agree, a killed worker costs no answer, nothing is left."""

import io
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest
from PIL import Image

from candor import terms
from candor.client.sync import CandorClient
from candor.contracts import api
from candor.contracts.errors import ErrorCode, ServiceError
from candor.stack.archives import build_archives
from candor.stack.config import StackConfig
from candor.stack.errors import StackError
from candor.stack.supervisor import Stack

_TARGETS = (api.ClassRef(name="cat"), api.ClassRef(index=5))
_SERVE = "import typer; from candor.cli.commands.serve import serve; typer.run(serve)"


def post(
    stack: Stack, verb: str, request: api.PredictRequest | api.ExplainRequest | api.ProbeRequest
) -> httpx.Response:
    body = request.model_dump(mode="json", exclude_none=True)
    return httpx.post(f"{stack.rest_url}/v1/{verb}", json=body, timeout=120)


def assert_same(left: object, right: object, *, tolerance: float = 0.0) -> None:
    """Equal answers but for the request id and the images; numbers within ``tolerance``."""
    if isinstance(left, dict):
        assert isinstance(right, dict)
        assert left.keys() == right.keys()
        for key in left.keys() - {"request_id", "image_png", "input_png"}:
            assert_same(left[key], right[key], tolerance=tolerance)
    elif isinstance(left, (list, tuple)):
        assert len(left) == len(right)
        for one, other in zip(left, right, strict=True):
            assert_same(one, other, tolerance=tolerance)
    elif isinstance(left, float):
        assert left == pytest.approx(right, abs=tolerance, rel=0)
    else:
        assert left == right


def test_predict_is_the_same_through_both_transports(
    stack: Stack, client: CandorClient, images: list[api.ImageInput]
) -> None:
    request = api.PredictRequest(image=images[0])
    answer = client.predict(request)
    assert len(answer.predictions) == 5
    # The readiness probe may share a batch with either; another batch size rounds differently.
    posted = post(stack, "predict", request).json()
    assert_same(answer.model_dump(mode="json"), posted, tolerance=1e-6)


def test_explain_is_the_same_through_both_transports(
    stack: Stack, client: CandorClient, images: list[api.ImageInput]
) -> None:
    request = api.ExplainRequest(
        image=images[0], targets=_TARGETS, rhos=(0.05, 0.1), steps=20, no_cache=True
    )
    answer = client.explain(request)
    assert [(item.target.index, item.rho) for item in answer.explanations] == [
        (3, 0.05), (3, 0.1), (5, 0.05), (5, 0.1),
    ]  # fmt: skip
    for item in answer.explanations:
        assert item.rmse <= item.rho
        assert item.confidence_after > item.confidence_before
    assert_same(answer.model_dump(mode="json"), post(stack, "explain", request).json())


def test_region_norm_and_contrast_reach_the_workers(
    stack: Stack, client: CandorClient, images: list[api.ImageInput]
) -> None:
    box = api.Box(x=4, y=8, width=12, height=10)
    request = api.ExplainRequest(
        image=images[0],
        targets=_TARGETS[:1],
        rhos=(0.05,),
        steps=20,
        no_cache=True,
        region=api.Region(box=box, outside=True),
        norm=terms.Norm.L1_5,
        away_from=api.ClassRef(name="dog"),
    )
    answer = client.explain(request)
    (item,) = answer.explanations
    before, after = map(pixels, (answer.input_png, item.image_png))
    assert (before[8:18, 4:16] == after[8:18, 4:16]).all()
    assert (before != after).mean() > 0.1
    assert 0 < item.rho_1 < item.rho_1_5 <= 0.05 < item.rho_inf
    assert item.rmse_inside is not None
    assert item.rmse < item.rmse_inside
    assert_same(answer.model_dump(mode="json"), post(stack, "explain", request).json())


def pixels(png: bytes) -> np.ndarray:
    """(H, W, C) uint8."""
    with Image.open(io.BytesIO(png)) as image:
        return np.asarray(image)


def test_probe_is_the_same_through_both_transports(
    stack: Stack, client: CandorClient, images: list[api.ImageInput]
) -> None:
    # `paper` takes all steps of both goals, so that they always share their batches: a radius that
    # `fast` ends early leaves a batch of one, which rounds differently.
    request = api.ProbeRequest(image=images[1], steps=20, solver="paper", no_cache=True)
    answer = client.probe(request)
    assert [result.goal for result in answer.results] == list(api.ProbeGoal)
    assert_same(answer.model_dump(mode="json"), post(stack, "probe", request).json())


def test_bad_input_names_the_field_through_both_transports(
    stack: Stack, client: CandorClient, images: list[api.ImageInput]
) -> None:
    request = api.ExplainRequest(image=images[0], targets=(api.ClassRef(index=10),))
    with pytest.raises(ServiceError) as caught:
        client.explain(request)
    assert caught.value.code is ErrorCode.INVALID_INPUT
    response = post(stack, "explain", request)
    assert response.status_code == 400
    assert "targets" in response.text
    garbage = api.PredictRequest(image=api.ImageInput(encoded=b"no image"))
    assert post(stack, "predict", garbage).status_code == 400


def _long_request(image: api.ImageInput) -> api.ExplainRequest:
    """An explanation that takes long enough to be disturbed."""
    return api.ExplainRequest(
        image=image,
        targets=_TARGETS[:1],
        rhos=(0.1,),
        steps=120,
        solver="paper",
        no_cache=True,
    )


def test_two_search_workers_share_the_searches_and_one_may_die(
    one_version: StackConfig, images: list[api.ImageInput]
) -> None:
    requests = [_long_request(image) for image in images[:4]]
    with (
        Stack(replace(one_version, search_workers=2)) as stack,
        CandorClient(stack.grpc_address) as client,
        ThreadPoolExecutor(len(requests)) as threads,
    ):
        workers = stack.worker_pids(stack.models[0], "search")
        assert len(set(workers)) == 2
        before = [psutil.Process(pid).cpu_times().user for pid in workers]
        undisturbed = list(threads.map(client.explain, requests))
        after = [psutil.Process(pid).cpu_times().user for pid in workers]
        spent = [end - begin for begin, end in zip(before, after, strict=True)]
        assert min(spent) > 0.2 * max(spent), f"seconds of each: {spent}"
        running = [threads.submit(client.explain, request) for request in requests]
        time.sleep(0.4)
        assert not any(future.done() for future in running), "too quick to be disturbed"
        os.kill(workers[0], signal.SIGKILL)
        answers = [future.result() for future in running]
    for answer, expected in zip(answers, undisturbed, strict=True):
        assert_same(
            answer.model_dump(mode="json"), expected.model_dump(mode="json"), tolerance=1e-3
        )


def test_killing_the_search_worker_costs_no_answer(
    stack: Stack, client: CandorClient, images: list[api.ImageInput]
) -> None:
    requests = [_long_request(image) for image in images]
    worker = stack.search_worker_pid(stack.models[0])
    with ThreadPoolExecutor(len(requests)) as threads:
        undisturbed = list(threads.map(client.explain, requests))
        running = [threads.submit(client.explain, request) for request in requests]
        time.sleep(0.4)
        assert not any(future.done() for future in running), "too quick to be disturbed"
        os.kill(worker, signal.SIGKILL)
        answers = [future.result() for future in running]
    assert stack.search_worker_pid(stack.models[0]) != worker
    for answer, expected in zip(answers, undisturbed, strict=True):
        # Batched with others a search rounds differently in float32.
        assert_same(
            answer.model_dump(mode="json"), expected.model_dump(mode="json"), tolerance=1e-3
        )


def test_torchserve_counts_are_there_to_scrape(stack: Stack, client: CandorClient) -> None:
    assert "ts_inference_requests_total" in httpx.get(stack.torchserve_metrics_url).text


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def start_serve(
    config: StackConfig, temporary: Path, **variables: str
) -> tuple[subprocess.Popen[str], list[psutil.Process]]:
    """`candor serve` once ready, and every process below it."""
    ports = ["--grpc-port", str(free_port()), "--rest-port", str(free_port())]
    command = [sys.executable, "-c", _SERVE, *ports, "--models-dir", str(config.models_dir)]
    command += ["--archives-dir", str(config.archives_dir)]
    environment = {**os.environ, "TMPDIR": str(temporary), **variables}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    for line in process.stdout:
        if "Ctrl-C" in line:
            break
    return process, psutil.Process(process.pid).children(recursive=True)


@pytest.mark.parametrize(
    ("number", "compiling"),
    [
        (signal.SIGTERM, "off"),
        (signal.SIGINT, "auto"),
        pytest.param(signal.SIGKILL, "auto", marks=pytest.mark.slow),  # as much as the one above
    ],
)
def test_serve_leaves_nothing_behind(
    one_version: StackConfig,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    number: signal.Signals,
    compiling: str,
) -> None:
    packages = tmp_path_factory.mktemp("compiled")
    variables = {"CANDOR_COMPILE": compiling, "CANDOR_COMPILED_DIR": str(packages)}
    process, below = start_serve(one_version, tmp_path, **variables)
    assert len(below) >= 4, "the JVM, two workers and the gateway"
    compilers = [one for one in below if "candor.runtime.compiler" in " ".join(one.cmdline())]
    assert len(compilers) == (compiling == "auto"), "ready before it has ended"
    while not all(compiler.nice() == 19 for compiler in compilers):
        time.sleep(0.05)  # its first act
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    _, alive = psutil.wait_procs(below, timeout=20)
    assert not alive
    if number is not signal.SIGKILL:
        assert process.returncode == 0
        assert "Finishing" in output
        assert not list(tmp_path.iterdir())


def test_a_second_start_reuses_the_archives(stack: Stack, stack_config: StackConfig) -> None:
    folder = stack_config.archives_dir
    stamps = _stamps(folder)
    assert build_archives(stack_config.models_dir, folder) == stack.models
    assert _stamps(folder) == stamps


def _stamps(folder: Path) -> dict[str, float]:
    return {str(path): path.stat().st_mtime for path in folder.rglob("*") if path.is_file()}


def test_a_taken_port_is_named(stack_config: StackConfig) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = int(listener.getsockname()[1])
        config = StackConfig(models_dir=stack_config.models_dir, grpc_port=port)
        with pytest.raises(StackError, match=f"gRPC port {port}.*--grpc-port"), Stack(config):
            pass
