"""Users of both transports for locust; plan.toml says how many there are and what they request.

Run by `python -m tests.load`, which starts the service and names it in the environment.
"""

import io
import json
import os
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from grpc.experimental.gevent import init_gevent
from locust import LoadTestShape, User, between, events
from PIL import Image

from candor.contracts import api, limits
from candor.contracts.errors import ErrorCode, ServiceError
from tests.load.checks import WrongResponse, check_explanation, check_prediction, check_probe
from tests.load.plan import read_plan
from tests.load.transports import GrpcTransport, RestTransport, Transport, read_model

init_gevent()

PLAN = read_plan(Path(os.environ["CANDOR_LOAD_PLAN"]))
GRPC_ADDRESS = os.environ["CANDOR_LOAD_GRPC"]
REST_URL = os.environ["CANDOR_LOAD_REST"]
SAMPLES = Path(os.environ["CANDOR_LOAD_SAMPLES"])
RHOS = (0.02, 0.05, 0.1)
SOLVER = "paper"  # takes every step that is asked for, so that the load is known
STEPS = 20
LONG_STEPS = 1000
REJECTED = (ErrorCode.OVERLOADED,)
MODEL = read_model(REST_URL)
CLASS_COUNT = len(MODEL.classes)

_random = np.random.default_rng(0)
_samples: list[dict[str, object]] = []


class Stages(LoadTestShape):
    """As many users as the plan says."""

    def tick(self) -> tuple[int, float] | None:
        users = PLAN.users_at(self.get_run_time())  # type: ignore[no-untyped-call]
        return None if users is None else (users, float(users))


def new_image() -> np.ndarray:
    """(H, W, 3) uint8 of the model's size, so that no part resizes it; smooth with some noise."""
    coarse = Image.fromarray(_random.uniform(0, 255, (4, 4, 3)).astype(np.uint8))
    size = (MODEL.input.width, MODEL.input.height)
    smooth = np.asarray(coarse.resize(size, Image.Resampling.BICUBIC))
    noise = _random.normal(0, 8, smooth.shape)
    return np.clip(smooth + noise, 0, 255).astype(np.uint8)


def as_input(pixels: np.ndarray) -> api.ImageInput:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return api.ImageInput(encoded=buffer.getvalue())


def bomb() -> api.ImageInput:
    """A few bytes that say they are 40,000 x 40,000 pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return api.ImageInput(encoded=b"\x89PNG\r\n\x1a\n" + chunk)


TOO_LARGE = api.ImageInput(encoded=bytes(limits.MAX_ENCODED_BYTES + 1))


def explain_request(image: api.ImageInput, steps: int = STEPS) -> api.ExplainRequest:
    return api.ExplainRequest(
        image=image,
        targets=(api.ClassRef(index=int(_random.integers(CLASS_COUNT))),),
        rhos=(float(_random.choice(RHOS)),),
        steps=steps,
        solver=SOLVER,
    )


class Visitor(User):
    """Sends one request after another; the mix says how often each kind."""

    abstract = True
    wait_time = between(*PLAN.pause)
    kind = ""
    open_transport: Callable[[], Transport]

    def on_start(self) -> None:
        self.transport: Transport = type(self).open_transport()

    def on_stop(self) -> None:
        self.transport.close()

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Counts what happens inside as one request; its error is recorded and goes no further."""
        started, error = time.perf_counter(), None
        try:
            yield
        except Exception as err:
            error = err
        self._record(name, time.perf_counter() - started, error)

    def _record(self, name: str, seconds: float, error: Exception | None) -> None:
        is_rejected = isinstance(error, ServiceError) and error.code in REJECTED
        sample = {
            "name": name,
            "transport": self.kind,
            "seconds": seconds,
            "outcome": "rejected" if is_rejected else "failed" if error else "ok",
            "error": f"{type(error).__name__}: {error}"[:300] if error else "",
        }
        _samples.append(sample)
        events.request.fire(
            request_type=self.kind,
            name=name,
            response_time=seconds * 1000,
            response_length=0,
            exception=error,
        )

    def predict(self) -> None:
        request = api.PredictRequest(image=as_input(new_image()), top_k=CLASS_COUNT)
        with self.timed("predict"):
            check_prediction(self.transport.predict(request), CLASS_COUNT)

    def explain(self) -> None:
        pixels = new_image()
        request = explain_request(as_input(pixels))
        with self.timed("explain"):
            check_explanation(request, pixels, self.transport.explain(request))

    def probe(self) -> None:
        pixels = new_image()
        request = api.ProbeRequest(image=as_input(pixels), steps=STEPS, solver=SOLVER)
        with self.timed("probe"):
            check_probe(request, pixels, self.transport.probe(request))

    def stream(self) -> None:
        pixels = new_image()
        request = explain_request(as_input(pixels), steps=5 * STEPS)
        started, first, result = time.perf_counter(), 0.0, None
        with self.timed("stream"):
            for event in self.transport.explain_stream(request):
                if event.progress is not None and event.progress.step > 0:
                    first = first or time.perf_counter() - started
                result = event.result or result
            if result is None:
                raise WrongResponse("stream: ended without a result")
            check_explanation(request, pixels, result)
        if first:
            self._record("first progress", first, None)

    def cancel(self) -> None:
        """Closes the stream of a long search at its first message."""
        request = explain_request(as_input(new_image()), steps=LONG_STEPS)
        with self.timed("cancel"):
            events_of_it = self.transport.explain_stream(request)
            next(iter(events_of_it))
            events_of_it.close()  # type: ignore[attr-defined]  # both are generators

    def oversize(self) -> None:
        image = bomb() if _random.random() < 0.5 else TOO_LARGE
        with self.timed("oversize"):
            self._expect_rejection(
                api.PredictRequest(image=image), ErrorCode.INVALID_INPUT, "image"
            )

    def bad(self) -> None:
        image = as_input(new_image())
        garbage = api.PredictRequest(image=api.ImageInput(encoded=b"no image"))
        unknown = api.PredictRequest(image=image, model="unknown")
        beyond = api.ExplainRequest(image=image, targets=(api.ClassRef(index=10_000),))
        cases = (
            (garbage, ErrorCode.INVALID_INPUT, "image"),
            (unknown, ErrorCode.MODEL_NOT_FOUND, ""),
            (beyond, ErrorCode.INVALID_INPUT, "targets"),
        )
        with self.timed("bad"):
            self._expect_rejection(*cases[int(_random.integers(len(cases)))])

    def _expect_rejection(
        self, request: api.PredictRequest | api.ExplainRequest, code: ErrorCode, field: str
    ) -> None:
        try:
            if isinstance(request, api.ExplainRequest):
                self.transport.explain(request)
            else:
                self.transport.predict(request)
        except ServiceError as err:
            if err.code in REJECTED:
                raise
            fields = [violation.field for violation in err.violations]
            if err.code is not code or not any(one.startswith(field) for one in fields or [""]):
                raise WrongResponse(
                    f"expected {code} of {field}, got {err.code} of {fields}"
                ) from err
        else:
            raise WrongResponse(f"expected {code}, got a response")

    tasks = {  # type: ignore[assignment]  # locust declares the list it makes of this
        task: PLAN.mix[task.__name__]
        for task in (predict, explain, probe, stream, cancel, oversize, bad)
    }


class GrpcVisitor(Visitor):
    kind = "gRPC"
    open_transport = staticmethod(lambda: GrpcTransport(GRPC_ADDRESS))


class RestVisitor(Visitor):
    kind = "REST"
    open_transport = staticmethod(lambda: RestTransport(REST_URL))


@events.quitting.add_listener
def write_samples(environment: object, **_: object) -> None:
    SAMPLES.write_text(json.dumps(_samples))
