"""Measures 4 to 6: the real service against the engine it is built on.

Everything runs on the shipped CIFAR-10 network with solver `paper`, past the cache, compiled on
both sides; engine and service take turns, so that whatever else the machine does hits both.
"""

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import grpc
import numpy as np
import psutil
import torch
from torch import Tensor, nn

from candor.client.sync import CandorClient
from candor.contracts import api
from candor.contracts.proxies import channel_options
from candor.data.cifar10 import load_cifar10
from candor.models.folder import load_model
from candor.rpc.pb.candor.v1 import candor_pb2, candor_pb2_grpc
from candor.runtime.allocator import keep_freed_memory
from candor.runtime.compiled import compile_network, share_sizes
from candor.runtime.threads import in_shares
from candor.search.batch import plan_goal, run_searches
from candor.stack.archives import MODELS_DIR
from candor.stack.config import StackConfig, shared_search_workers
from candor.stack.supervisor import Stack
from candor.terms import Goal
from tools.bench.inputs import SHAPE
from tools.bench.table import Options, Row
from tools.small_models import SMALL_MODEL

_MODEL = SMALL_MODEL
_CROWD = 32
_STEPS = 100
_LATE_STEPS = 20
_ENDLESS_STEPS = 2000  # of the load in the background, cancelled at the end
# The gateway admits searches without end, which it would refuse by default.
_PATIENT = {"CANDOR_OBJECTIVE_SECONDS": "36000"}
_PREDICTIONS = 200
_CANCELLED = 200
_COMPILED_SECONDS = 1800.0  # the first time
_SETTLE_SECONDS = 1.0
_RELOAD_SECONDS = 30.0  # of a worker that has just begun: its network comes from the cache
_IDLE_SECONDS = 5.0
_CHUNK_SECONDS = 0.4  # the gateway's longest by default
_RHO = 0.1
_MAX_IDLE_SHARE = 0.1  # of one core; checks of readiness go on
_MAX_GROWTH_BYTES = 32 * 2**20


def measure(options: Options) -> list[Row]:
    """Rows of measures 4, 5 and 6."""
    keep_freed_memory()
    torch.set_num_threads(os.cpu_count() or 1)  # as the search workers together
    model = load_model(MODELS_DIR / _MODEL)
    network = compile_network(model.network, (1, *share_sizes(_CROWD, torch.device("cpu"))), SHAPE)
    images = load_cifar10(options.data_dir, "test").images(_drawn(options))
    with tempfile.TemporaryDirectory() as archives:
        config = StackConfig(
            archives_dir=Path(archives) / "built",
            models=(_MODEL,),
            default_model=_MODEL,
            search_workers=shared_search_workers(),
            compiles=True,
        )
        with (
            patch.dict(os.environ, _PATIENT),
            Stack(config) as stack,
            CandorClient(stack.grpc_address) as client,
        ):
            stack.wait_until_compiled(_COMPILED_SECONDS)
            bench = _Bench(stack, client, network, images, options)
            bench.explain_crowd()  # both clocks have seen full batches
            bench.explain(0)
            return [*bench.speed(), *bench.predictions(), *bench.kills(), *bench.cancels()]


def _drawn(options: Options) -> Tensor:
    generator = torch.Generator().manual_seed(options.seed)
    return torch.randperm(10_000, generator=generator)[:_CROWD]


class _Bench:
    """One running service beside the bare network."""

    def __init__(
        self,
        stack: Stack,
        client: CandorClient,
        network: nn.Module,
        images: Tensor,
        options: Options,
    ) -> None:
        self._stack = stack
        self._client = client
        self._network = network
        self._images = images
        self._options = options
        self._targets = torch.arange(_CROWD) % 10
        self._inputs = [_as_tensor(image.numpy()) for image in images]

    def speed(self) -> list[Row]:
        """Measure 4."""
        repeats = self._options.repeats
        crowds = [(_timed(self.explain_crowd), self._raw(_CROWD)) for _ in range(repeats)]
        singles = [(_timed(lambda: self.explain(0)), self._raw(1)) for _ in range(repeats)]
        alone = [_timed(self._explain_late) for _ in range(repeats)]
        with self._load():
            late = [_timed(self._explain_late) for _ in range(repeats)]
        shares = [raw / served for served, raw in crowds]
        lone = [served / raw for served, raw in singles]
        crowd_steps = _CROWD * _STEPS
        slowdown = _median(late) / _median(alone)
        return [
            Row(
                measure=f"4 served: {_CROWD} explanations of {_STEPS} steps at once",
                ours=crowd_steps / _median([served for served, _ in crowds]),
                baseline=crowd_steps / _median([raw for _, raw in crowds]),
                unit="image-steps/s",
                ratio=_median(shares),
                goal=">= 85 % of the engine's throughput",
                is_met=_median(shares) >= 0.85,
                n=repeats,
                detail=_spread(shares),
            ),
            Row(
                measure=f"4 served: a lone explanation of {_STEPS} steps",
                ours=_median([served for served, _ in singles]),
                baseline=_median([raw for _, raw in singles]),
                unit="s",
                ratio=1.0 / _median(lone),
                goal="<= 1.15 x the engine's time",
                is_met=_median(lone) <= 1.15,
                n=repeats,
                detail=f"x {_spread(lone)}",
            ),
            Row(
                measure=f"4 served: {_LATE_STEPS} steps that come late, {_CROWD} searches running",
                ours=_median(late),
                baseline=_median(alone),
                unit="s",
                ratio=1.0 / slowdown,
                goal="<= 2 x its lone time",
                is_met=slowdown <= 2.0,
                n=repeats,
                detail=f"x {slowdown:.2f}; late {_spread(late)} s",
            ),
        ]

    def predictions(self) -> list[Row]:
        """Measure 5."""
        alone = self._predict_seconds()
        with self._load():
            loaded = self._predict_seconds()
        return [
            Row(
                measure=f"5 predict p{percent} with {_CROWD} explanations running",
                ours=1e3 * float(np.percentile(loaded, percent)),
                baseline=1e3 * float(np.percentile(alone, percent)),
                unit="ms",
                ratio=float(np.percentile(alone, percent) / np.percentile(loaded, percent)),
                goal="shown",
                is_met=True,
                n=_PREDICTIONS,
                detail="baseline: no explanation running; one worker each for both",
            )
            for percent in (50, 99)
        ]

    def kills(self) -> list[Row]:
        """Measure 6, first half."""
        repeats = min(3, self._options.repeats)
        restarts, losses = [], []
        for _ in range(repeats):
            self._wait_for_workers()
            restarts.append(_timed(self._explain_after_kill))
            self._wait_for_workers()
            undisturbed = _timed(self.explain_crowd)
            losses.append(_timed(self._explain_crowd_through_kill) - undisturbed)
        allowed = _median(restarts) + max(_CHUNK_SECONDS, self._crowd_step_seconds())
        return [
            Row(
                measure=f"6 kill -9 of a search worker under {_CROWD} explanations: time lost",
                ours=_median(losses),
                baseline=allowed,
                unit="s",
                ratio=allowed / max(_median(losses), 1e-9),
                goal="no request fails; <= one chunk + restart",
                is_met=_median(losses) <= allowed,
                n=repeats,
                detail=f"one of {self._stack.config.search_workers}; lost {_spread(losses)} s; "
                f"restart alone {_spread(restarts)} s",
            )
        ]

    def cancels(self) -> list[Row]:
        """Measure 6, second half."""
        self._wait_for_workers()
        workers = {f"search worker {number}": one for number, one in enumerate(self._workers(), 1)}
        processes = {"gateway": self._gateway(), **workers}
        self._cancel_many()  # allocators take what they will keep
        before = {name: process.memory_info().rss for name, process in processes.items()}
        self._cancel_many()
        growth = {
            name: process.memory_info().rss - before[name] for name, process in processes.items()
        }
        busy = _busy_share(workers.values())
        idle = Row(
            measure=f"6 {_CANCELLED} cancelled requests: search workers busy afterwards",
            ours=busy,
            baseline=None,
            unit="cores",
            ratio=None,
            goal=f"<= {_MAX_IDLE_SHARE:g}, no work left",
            is_met=busy <= _MAX_IDLE_SHARE,
            n=_CANCELLED,
            detail=f"over {_IDLE_SECONDS:g} s",
        )
        return [idle, *(self._growth_row(name, grown) for name, grown in growth.items())]

    def explain(self, place: int, steps: int = _STEPS) -> api.ExplainResponse:
        return self._client.explain(
            api.ExplainRequest(
                image=self._inputs[place],
                targets=(api.ClassRef(index=int(self._targets[place])),),
                rhos=(_RHO,),
                steps=steps,
                solver="paper",
                no_cache=True,
            )
        )

    def explain_crowd(self) -> None:
        """Raises: ServiceError: one of them failed."""
        with ThreadPoolExecutor(_CROWD) as threads:
            answers = list(threads.map(self.explain, range(_CROWD)))
        assert all(one.explanations[0].steps == _STEPS for one in answers)

    def _explain_late(self) -> None:
        self.explain(0, _LATE_STEPS)

    def _explain_after_kill(self) -> None:
        """All of them, or the others would answer."""
        for worker in self._workers():
            worker.kill()
        self.explain(0, 1)

    def _explain_crowd_through_kill(self) -> None:
        with ThreadPoolExecutor(1) as killer:
            killed = killer.submit(self._kill_soon)
            self.explain_crowd()
            killed.result()

    def _kill_soon(self) -> None:
        time.sleep(_SETTLE_SECONDS)
        self._workers()[0].kill()

    def _raw(self, count: int) -> float:
        plan = plan_goal(Goal.EXPLAIN_FOR, self._targets[:count], steps=_STEPS, rho=_RHO)
        return _timed(
            lambda: run_searches(
                self._network,
                self._images[:count],
                plan,
                solver="paper",
                batch_size=_CROWD,
                execute=in_shares,
            )
        )

    def _crowd_step_seconds(self) -> float:
        return self._raw(_CROWD) / _STEPS

    def _predict_seconds(self) -> list[float]:
        request = api.PredictRequest(image=self._inputs[0])
        return [_timed(lambda: self._client.predict(request)) for _ in range(_PREDICTIONS)]

    @contextmanager
    def _load(self) -> Iterator[None]:
        """As many long explanations as fill a batch, running all the while."""
        with self._channel() as channel:
            stub = candor_pb2_grpc.CandorServiceStub(channel)
            futures = [stub.Explain.future(self._endless(place)) for place in range(_CROWD)]
            time.sleep(_SETTLE_SECONDS)
            try:
                yield
                assert not any(future.done() for future in futures), "the load ended too soon"
            finally:
                for future in futures:
                    future.cancel()
        time.sleep(_SETTLE_SECONDS)

    def _endless(self, place: int) -> candor_pb2.ExplainRequest:
        image = self._inputs[place % _CROWD].tensor
        assert image is not None
        return candor_pb2.ExplainRequest(
            image=candor_pb2.Image(tensor=candor_pb2.Tensor(shape=image.shape, data=image.data)),
            targets=[candor_pb2.ClassRef(index=place % 10)],
            rhos=[_RHO],
            steps=_ENDLESS_STEPS,
            solver="paper",
            seed=place,
            no_cache=True,
        )

    def _channel(self) -> grpc.Channel:
        address = self._stack.grpc_address
        return grpc.insecure_channel(address, options=channel_options(address))

    def _cancel_many(self) -> None:
        with self._channel() as channel:
            stub = candor_pb2_grpc.CandorServiceStub(channel)
            futures = [stub.Explain.future(self._endless(place)) for place in range(_CANCELLED)]
            time.sleep(_SETTLE_SECONDS)
            assert not any(future.done() for future in futures), "refused or done too soon"
            for future in futures:
                future.cancel()
        time.sleep(_SETTLE_SECONDS)

    def _workers(self) -> list[psutil.Process]:
        """Those that are there: TorchServe names a dead one until its successor has begun."""
        pids = self._stack.worker_pids(_MODEL, "search")
        return [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]

    def _wait_for_workers(self) -> None:
        deadline = time.monotonic() + self._stack.config.ready_timeout_seconds
        while len(self._workers()) < self._stack.config.search_workers:
            assert time.monotonic() < deadline, "a killed worker did not come back"
            time.sleep(_SETTLE_SECONDS)
        time.sleep(_RELOAD_SECONDS)

    def _gateway(self) -> psutil.Process:
        children = psutil.Process().children(recursive=True)
        return next(child for child in children if child.cmdline()[-2:] == ["-m", "candor.gateway"])

    def _growth_row(self, name: str, grown: int) -> Row:
        return Row(
            measure=f"6 {_CANCELLED} cancelled requests: memory left in the {name}",
            ours=grown / 2**20,
            baseline=None,
            unit="MiB",
            ratio=None,
            goal=f"<= {_MAX_GROWTH_BYTES / 2**20:g} MiB, a second time as after the first",
            is_met=grown <= _MAX_GROWTH_BYTES,
            n=_CANCELLED,
            detail=f"their states hold {_CANCELLED * 48 / 1024:.1f} MiB while they run",
        )


def _as_tensor(image: np.ndarray) -> api.ImageInput:
    data = image.astype("<f4").tobytes()
    return api.ImageInput(tensor=api.TensorInput(shape=image.shape, data=data))


def _timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _busy_share(processes: Collection[psutil.Process]) -> float:
    """Cores the processes kept busy over some seconds."""
    before = sum(sum(process.cpu_times()[:2]) for process in processes)  # user and system
    time.sleep(_IDLE_SECONDS)
    return (sum(sum(process.cpu_times()[:2]) for process in processes) - before) / _IDLE_SECONDS


def _median(values: Sequence[float]) -> float:
    return statistics.median(values)


def _spread(values: Sequence[float]) -> str:
    return f"{min(values):.3g} to {max(values):.3g}"
