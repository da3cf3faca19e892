"""Active learning from end to end: train, candidates, answers, export, retrain, compare."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from candor.cli.main import build_app
from candor.data.cifar10 import CLASS_NAMES
from candor.models.folder import read_card
from tests.gateway.servers import opened

TRAIN_IMAGES, TEST_IMAGES = 40, 20
COLOURS = np.random.default_rng(0).integers(40, 216, (len(CLASS_NAMES), 3))


def run(*arguments: object) -> Result:
    return CliRunner().invoke(build_app(), [str(argument) for argument in arguments])


def answer_of(*arguments: object) -> Any:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def image(generator: np.random.Generator, label: int) -> bytes:
    noise = generator.normal(0.0, 12.0, (32, 32, 3))
    buffer = io.BytesIO()
    pixels = np.clip(COLOURS[label] + noise, 0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CIFAR-10's layout, one colour a class: learnt in a few steps."""
    root = tmp_path_factory.mktemp("data")
    folder = root / "cifar10" / "plain_text"
    folder.mkdir(parents=True)
    generator = np.random.default_rng(1)
    for split, count in (("train", TRAIN_IMAGES), ("test", TEST_IMAGES)):
        labels = [index % len(CLASS_NAMES) for index in range(count)]
        rows = [
            {"bytes": image(generator, label), "path": f"{index}.png"}
            for index, label in enumerate(labels)
        ]
        table = pa.table({"img": rows, "label": pa.array(labels, pa.int64())})
        pq.write_table(table, folder / f"{split}-00000-of-00001.parquet")
    return root


class Loop:
    """The commands of one loop, all in one folder."""

    def __init__(self, folder: Path, data_root: Path) -> None:
        self.folder = folder
        self.store = folder / "store.sqlite"
        self.extra = folder / "annotations.parquet"
        self._data = ("--data-dir", data_root)

    def train(self, name: str, *options: object, epochs: int = 1) -> tuple[object, ...]:
        small = (f"epochs={epochs}", "batch_size=20", "psi_mode=fixed", "peak_learning_rate=0.05")
        settings = [f"--set={setting}" for setting in small]
        run_dir = self.folder / name
        return (
            *("train", "cifar10-resnet20", *settings, "--run-dir", run_dir, *self._data),
            *("--name", name, *options),
        )

    def model_and_data(self) -> tuple[object, ...]:
        return ("--model", self.folder / "base" / "model", *self._data)

    def candidates(self, images: int) -> tuple[object, ...]:
        return (
            *("candidates", *self.model_and_data()),
            *("--images", images, "--steps", 60, "--store", self.store),
        )

    def compare(self) -> tuple[object, ...]:
        names = ("base", "annotated", "control")
        models = [item for name in names for item in (f"--{name}", self.folder / name / "model")]
        options = ("--images", 10, "--steps", 8, "--out", self.folder / "out")
        return ("active-report", *models, *self._data, *options)


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory, data_root: Path) -> Loop:
    """With the first network trained and its candidates in the store."""
    started = Loop(tmp_path_factory.mktemp("loop"), data_root)
    card = answer_of(*started.train("base", epochs=6))
    assert (card["recipe"]["extra_digest"], card["recipe"]["data_images"]) == ("", TRAIN_IMAGES)
    return started


def judge(rest: httpx.Client, annotator: str, verdict_of: Any) -> int:
    """Answers until nothing waits; how many."""
    state = rest.post("/v1/annotations:next", json={"annotator": annotator}).json()
    while state["task"] is not None:
        number = state["task"]["candidate"]
        fields = {"annotator": annotator, "candidate": number, "verdict": verdict_of(number)}
        state = rest.post("/v1/annotations:answer", json=fields).json()
    return int(state["answered"])


def test_whole_loop_on_a_small_run(loop: Loop) -> None:
    found = answer_of(*loop.candidates(8))
    assert found["candidates"] == found["new"] > 0
    assert answer_of(*loop.candidates(8))["new"] == 0
    more = answer_of(*loop.candidates(16))
    assert more["candidates"] == found["candidates"] + more["new"] >= 4

    def verdict_of_ada(number: int) -> str:
        return "changed" if number % 3 == 0 else "unchanged"

    def verdict_of_bob(number: int) -> str:
        return "unsure" if number == 1 else verdict_of_ada(number)

    for servers in opened(store_url=str(loop.store), annotators_per_image=2):
        assert judge(servers.rest, "ada", verdict_of_ada) == more["candidates"]
        assert judge(servers.rest, "bob", verdict_of_bob) == more["candidates"]
    report = answer_of("annotations", "report", "--store", loop.store)
    assert report["overall"]["image_count"] == more["candidates"]
    assert report["overall"]["percent"] == pytest.approx(100 - 100 / more["candidates"])
    assert report["kappa_name"] == "cohen"
    assert [one["candidate"] for one in report["disagreements"]] == [1]
    shown = run("annotations", "report", "--store", loop.store)
    assert "candidate 1" in shown.stderr

    numbers = range(1, more["candidates"] + 1)
    unchanged = [n for n in numbers if verdict_of_bob(n) == verdict_of_ada(n) == "unchanged"]
    export = ("annotations", "export", "--out", loop.extra, "--store", loop.store)
    exported = answer_of(*export)
    assert exported == {"unchanged": len(unchanged), "judged": more["candidates"]}
    assert pq.read_table(loop.extra).column("verdict").to_pylist() == ["unchanged"] * len(unchanged)

    for name, options in (("annotated", ()), ("control", ("--control", "random"))):
        card = answer_of(*loop.train(name, "--extra", loop.extra, *options))
        assert len(card["recipe"]["extra_digest"]) == 64
        assert card["recipe"]["data_images"] == TRAIN_IMAGES + len(unchanged)
    without = run(*loop.train("annotated"))
    assert without.exit_code == 1
    assert "extra_digest: got ''" in " ".join(without.stderr.split())

    compared = answer_of(*loop.compare())
    assert compared == json.loads((loop.folder / "out" / "active-report.json").read_text())
    assert compared["images"] == 10
    assert len({model["weights_digest"] for model in compared["models"].values()}) == 3
    pairs = [(pair["a"], pair["b"]) for pair in compared["differences"]]
    assert pairs == [("annotated", "base"), ("control", "base"), ("annotated", "control")]
    for pair in compared["differences"]:
        for measure in ("accuracy", "attack_ara", "btr_ara"):
            values = [compared["models"][pair[side]][measure]["value"] for side in "ab"]
            difference = pair[measure]
            assert difference["value"] == pytest.approx(values[0] - values[1], abs=1e-9)
            assert difference["low"] <= difference["value"] <= difference["high"]
            assert 0 < difference["p_value"] <= 1
    # Measured once: the second report rests on the same files.
    written = (loop.folder / "out" / "base" / "radii.parquet").stat().st_mtime_ns
    assert answer_of(*loop.compare()) == compared
    assert (loop.folder / "out" / "base" / "radii.parquet").stat().st_mtime_ns == written

    # Not of these images: measured again.
    summary = loop.folder / "out" / "base" / "ara.json"
    summary.write_text(json.dumps(json.loads(summary.read_text()) | {"data_digest": "0" * 64}))
    assert answer_of(*loop.compare())["data_digest"] == compared["data_digest"]
    assert (loop.folder / "out" / "base" / "radii.parquet").stat().st_mtime_ns > written

    copy = loop.folder / "all.zip"
    counts = answer_of("store", "export", "--out", copy, "--store", loop.store)
    assert counts["annotations"] == 2 * more["candidates"]
    other = loop.folder / "other.sqlite"
    assert answer_of("store", "import", copy, "--store", other) == counts
    assert answer_of(*export[:3], loop.folder / "again.parquet", "--store", other) == exported


def test_what_people_say_of_explanations_reaches_the_card(loop: Loop) -> None:
    model, store = loop.folder / "base" / "model", ("--store", loop.folder / "flips.sqlite")
    asking = ("annotations", "ask", *loop.model_and_data(), "--images", 20, "--steps", 4, *store)
    asked = answer_of(*asking)
    assert asked["explanations"] > 0 < asked["catch_trials"]
    assert answer_of(*asking) == asked
    flips = ("annotations", "flips", *store)
    assert "expected explanations judged" in run(*flips, "--model", model).stderr
    for servers in opened(store_url=str(loop.folder / "flips.sqlite")):
        state = servers.rest.post("/v1/flips:next", json={"annotator": "ada"}).json()
        while (task := state["task"]) is not None:
            # Ada sees the colour of the class she is asked about, or does not.
            pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(task["shown_png"]))))
            colour = np.abs(COLOURS - pixels.mean((0, 1))).sum(1).argmin()
            verdict = "yes" if CLASS_NAMES[colour] == task["target"] else "no"
            fields = {"annotator": "ada", "image": task["image"], "verdict": verdict}
            state = servers.rest.post("/v1/flips:answer", json=fields).json()
    report = answer_of(*flips, "--model", model)
    assert report["annotators"][0]["expected_count"] == asked["catch_trials"]
    (rate,) = report["rates"]
    assert rate["judged_count"] == asked["explanations"]
    (metric,) = [one for one in read_card(model).metrics if one.name == "human_flip_rate"]
    assert (metric.value, metric.data) == (rate["rate"]["value"], "cifar10/test")
    wrong = run(*flips, "--model", model, "--set", 7)
    assert "set: expected one set of this model (1), got 7" in " ".join(wrong.stderr.split())
    out = loop.folder / "flips.parquet"
    export = ("annotations", "export", "--question", "flips", "--out", out, *store)
    assert answer_of(*export) == {
        "explanations": asked["explanations"],
        "catch_trials": asked["catch_trials"],
    }
    agreed = answer_of("annotations", "report", "--question", "flips", *store)
    assert agreed["image_count"] == asked["explanations"]


def test_candidates_of_more_images_than_there_are_name_the_range(loop: Loop) -> None:
    refused = run(*loop.candidates(TRAIN_IMAGES + 1))
    assert refused.exit_code == 1
    assert (
        f"images: expected a number in [1, {TRAIN_IMAGES}], got {TRAIN_IMAGES + 1}"
        in refused.stderr
    )


def test_control_needs_extra(loop: Loop) -> None:
    refused = run(*loop.train("alone", "--control", "random"))
    assert refused.exit_code == 1
    assert "--control: expected only with --extra, got random" in " ".join(refused.stderr.split())


def test_export_of_nothing_is_reported(tmp_path: Path) -> None:
    store = tmp_path / "store.sqlite"
    refused = run("annotations", "export", "--out", tmp_path / "x.parquet", "--store", store)
    assert refused.exit_code == 1
    assert "got none unchanged of 0 judged" in refused.stderr
    assert not (tmp_path / "x.parquet").exists()


@pytest.mark.parametrize("command", [("annotations", "report"), ("serve",)])
def test_bad_store_is_one_line(command: tuple[str, ...]) -> None:
    refused = run(*command, "--store", "mysql://somewhere/x")
    assert refused.exit_code == 1
    assert "expected a path, sqlite:///PATH or postgresql://" in " ".join(refused.stderr.split())
