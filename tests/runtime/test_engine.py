"""Searches begin with the network as it is and go on compiled; no end of a compiler harms them."""

import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from candor.contracts.worker import SearchEnd, SearchItem, SearchProgress
from candor.models.folder import load_model
from candor.runtime import kept
from candor.runtime.chunks import Arrays, advance_items
from candor.runtime.compiled import channels_last
from candor.runtime.engine import Running, SearchEngine
from candor.runtime.kept import compiling_lock, package_folder
from candor.runtime.packaged import FACTS_FILE, load_package
from candor.runtime.processor import this_processor
from candor.terms import Goal
from tests.runtime.small import SHAPE, small_model

_GIVE_UP_SECONDS = 600.0  # a compiler at the lowest priority waits for everything else


def until(is_true: Callable[[], object]) -> None:
    give_up = time.monotonic() + _GIVE_UP_SECONDS
    while not is_true():
        assert time.monotonic() < give_up
        time.sleep(0.02)


def chunk(running: Running, item: SearchItem, arrays: Arrays) -> tuple[object, Arrays]:
    """One chunk as a worker computes it."""
    ((answer, changed),) = advance_items(
        running.networks.verifier, [(item, arrays)], searcher=running.networks.searcher
    )
    return answer, {**arrays, **changed}


def explained(first: Running, second: Running) -> tuple[SearchEnd, Arrays]:
    """One explanation in two chunks."""
    image = np.random.default_rng(3).uniform(0.3, 0.7, SHAPE).astype(np.float32)
    item = SearchItem(
        goal=Goal.EXPLAIN_FOR, target=2, rho=0.1, step_count=8, chunk_steps=4, solver="fast"
    )
    progress, arrays = chunk(first, item, {"image": image})
    assert isinstance(progress, SearchProgress)
    end, arrays = chunk(second, item.model_copy(update={"step": progress.step}), arrays)
    assert isinstance(end, SearchEnd)
    return end, arrays


def test_a_package_is_swapped_in_between_two_chunks(small_packages: Path, tmp_path: Path) -> None:
    model = small_model()
    looked = threading.Event()

    def sleep(seconds: float) -> None:
        looked.set()
        time.sleep(0.01)

    with compiling_lock(tmp_path):  # another process compiles
        engine = SearchEngine(model, tmp_path, tmp_path, sleep)
        engine.start()
        before = engine.now
        assert (before.engine, before.precision) == ("eager", "float32")
        assert looked.wait(_GIVE_UP_SECONDS)
        source = package_folder(small_packages, model)
        shutil.copytree(source, tmp_path / ".draft")
        (tmp_path / ".draft").rename(tmp_path / source.name)
        until(lambda: engine.now.engine == "compiled")
    after = engine.now
    assert after.networks.searcher is not before.networks.searcher
    eager, arrays = explained(before, before)
    swapped, changed = explained(before, after)
    assert swapped.status == eager.status
    assert swapped.rmse == pytest.approx(eager.rmse, abs=1e-4)
    np.testing.assert_allclose(changed["image"], arrays["image"], atol=1e-3)
    np.testing.assert_allclose(changed["logits_after"], arrays["logits_after"], atol=1e-2)


def test_the_next_start_begins_compiled(small_packages: Path, tmp_path: Path) -> None:
    engine = SearchEngine(small_model(), tmp_path, small_packages)
    threads = threading.active_count()
    engine.start()
    assert engine.now.engine == "compiled"
    assert threading.active_count() == threads, "nothing is left to wait for"


def test_compiled_gradients_are_those_of_the_network(small_packages: Path) -> None:
    model = small_model()
    facts, networks = load_package(package_folder(small_packages, model), model.network)
    assert facts.sizes == (1,)
    images = torch.rand(3, *SHAPE)
    results = []
    for network in (model.network, networks.searcher):
        batch = images.clone().requires_grad_()
        logits = network(batch)
        results.append((logits.detach(), *torch.autograd.grad(logits[:, 1].sum(), batch)))
    torch.testing.assert_close(*results)
    with torch.no_grad():
        torch.testing.assert_close(networks.verifier(images), results[0][0])


def test_a_killed_compiler_leaves_the_worker_searching(
    tiny_models_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = load_model(tiny_models_dir / "tiny")
    channels_last(model.network)
    pauses: list[float] = []
    paused = threading.Event()
    goes_on = threading.Event()

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        paused.set()
        goes_on.wait(_GIVE_UP_SECONDS)
        raise RuntimeError("the end of this test")  # and of its engine's thread

    engine = SearchEngine(model, tiny_models_dir / "tiny", tmp_path, sleep)
    engine.start()
    until(compilers)
    (compiler,) = compilers()
    compiler.kill()
    assert paused.wait(_GIVE_UP_SECONDS)
    assert engine.now.engine == "eager"
    assert engine.now.note == "the compiler was ended by SIGKILL"
    assert "searches stay uncompiled: the compiler was ended by SIGKILL" in caplog.text
    assert pauses == [60.0], "another try, later"
    with compiling_lock(tmp_path) as lock:
        assert lock is not None, "meanwhile another worker may compile"
    item = SearchItem(goal=Goal.BTR, target=0, step_count=2, chunk_steps=1)
    answer, _ = chunk(engine.now, item, {"image": np.full((3, 32, 32), 0.5, np.float32)})
    assert isinstance(answer, SearchProgress)
    goes_on.set()
    until(lambda: engine.now.note == "the end of this test")


def compilers() -> list[psutil.Process]:
    """Those that this process started."""
    return [
        child
        for child in psutil.Process().children()
        if "candor.runtime.compiler" in " ".join(child.cmdline())
    ]


def test_a_network_that_cannot_be_compiled_is_tried_once(tmp_path: Path) -> None:
    pauses: list[float] = []
    engine = SearchEngine(small_model(), tmp_path / "no such model", tmp_path, pauses.append)
    engine.start()
    until(lambda: engine.now.note)
    assert "no such model" in engine.now.note
    assert "\n" not in engine.now.note
    assert engine.now.engine == "eager"
    assert pauses == []


def test_a_damaged_package_is_not_used(small_packages: Path, tmp_path: Path) -> None:
    model = small_model()
    source = package_folder(small_packages, model)
    copied = tmp_path / source.name
    shutil.copytree(source, copied)
    library = next(copied.glob("*.so"))
    library.write_bytes(library.read_bytes()[:-1])
    with compiling_lock(tmp_path):
        engine = SearchEngine(model, tmp_path, tmp_path)
        engine.start()
        assert engine.now.engine == "eager"
        assert "expected SHA-256" in engine.now.note
        assert not (copied / FACTS_FILE).exists(), "another one may take its place"


@pytest.mark.parametrize("place", ["package", "packages"])
def test_code_that_others_may_have_written_is_not_run(
    place: str, small_packages: Path, tmp_path: Path
) -> None:
    model = small_model()
    source = package_folder(small_packages, model)
    packages = tmp_path / "compiled"
    packages.mkdir(mode=0o700)
    shutil.copytree(source, packages / source.name)
    load_package(packages / source.name, model.network)
    (packages if place == "packages" else packages / source.name).chmod(0o777)
    with pytest.raises(ValueError, match="expected a folder of this user or of root"):
        load_package(packages / source.name, model.network)


def test_a_package_of_another_network_is_not_used(small_packages: Path) -> None:
    model = small_model()
    with pytest.raises(RuntimeError, match="expected weights of the model"):
        load_package(package_folder(small_packages, model), torch.nn.Linear(2, 2))


def test_one_process_compiles_at_a_time_and_its_end_frees_the_lock(tmp_path: Path) -> None:
    waiting = [sys.executable, "-c", "import sys; sys.stdin.read()"]
    with compiling_lock(tmp_path) as lock:
        assert lock is not None
        with compiling_lock(tmp_path) as second:
            assert second is None
        holder = subprocess.Popen(waiting, stdin=subprocess.PIPE, pass_fds=(lock,))
    try:
        with compiling_lock(tmp_path) as second:
            assert second is None, "its parent has closed it, the process has not"
    finally:
        holder.kill()
        holder.wait()
        assert holder.stdin is not None
        holder.stdin.close()
    with compiling_lock(tmp_path) as freed:
        assert freed is not None


@pytest.mark.parametrize("what", ["instructions", "processor", "torch", "candor", "weights"])
def test_the_key_changes_with_all_that_code_follows_from(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, packages = small_model(), Path("packages")
    before = package_folder(packages, model)
    assert package_folder(packages, model) == before
    here = this_processor()
    if what == "instructions":
        less = type(here)(here.name, here.instruction_sets[1:], here.capability)
        monkeypatch.setattr(kept, "this_processor", lambda: less)
    elif what == "processor":
        other = type(here)("another", here.instruction_sets, here.capability)
        monkeypatch.setattr(kept, "this_processor", lambda: other)
    elif what == "torch":
        monkeypatch.setattr(torch, "__version__", "2.99.0")
    elif what == "candor":
        monkeypatch.setattr(kept, "version", lambda package: "99")
    else:
        model = small_model(seed=2)
    after = package_folder(packages, model)
    assert after != before
    assert after.name.startswith("small-1.0-")


def test_the_key_changes_with_precision_and_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    model, packages = small_model(), Path("packages")
    folders = {package_folder(packages, model)}
    monkeypatch.setattr(kept, "step_precision", lambda network: "other")
    folders.add(package_folder(packages, model))
    monkeypatch.setattr(kept, "compiled_sizes", lambda network: (1, 2))
    folders.add(package_folder(packages, model))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    folders.add(package_folder(packages, model))
    assert len(folders) == 4
