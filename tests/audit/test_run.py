"""An audit gives the same ledger however it is cut, stopped and shared out."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from torch import Tensor, nn

from candor.audit import registry
from candor.audit.errors import AuditError, AuditStopped, DiskFull, OutOfMemory
from candor.audit.facts import collect, write_facts
from candor.audit.ledger import PARTS_FOLDER, Block, Ledger
from candor.audit.plan import AuditPlan, Shard, image_seed
from candor.audit.report.assemble import merge, write_report
from candor.audit.report.ledger_table import LEDGER_FILE
from candor.audit.report.signing import load_or_create_key, verify_folder
from candor.audit.run import Progress, run_blocks, stoppable
from candor.audit.stage import Subject
from candor.data.images import ImageSet
from candor.runtime.compiled import compile_network
from tests.audit.worker import STAGES
from tests.fixtures.audit import SHAPE, plan_for
from tools.small_disk import fill_up

KEY = Ed25519PrivateKey.generate()
REPOSITORY = Path(__file__).resolve().parents[2]


def _audit(
    folder: Path, plan: AuditPlan, subject: Subject, data: ImageSet, *, shard: str = "0/1"
) -> int:
    ledger = Ledger(folder, plan)
    write_facts(folder, collect(subject.network, subject.card, data))
    return run_blocks(ledger, plan, subject, data, shard=Shard.parse(shard))


def _ledger_bytes(folder: Path) -> bytes:
    write_report(folder, KEY, command="test")
    return (folder / LEDGER_FILE).read_bytes()


@pytest.fixture(scope="module")
def whole(
    subject: Subject, data: ImageSet, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, bytes]:
    """An audit without interruption."""
    folder = tmp_path_factory.mktemp("whole")
    assert _audit(folder, plan_for(data, STAGES, batch_size=2), subject, data) == 0
    return folder, _ledger_bytes(folder)


def test_killed_audit_goes_on_without_losing_or_counting_twice(
    whole: tuple[Path, bytes], folder: Path
) -> None:
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.audit.worker", str(folder), "0/1"]
    parts = folder / PARTS_FOLDER
    total = len(list((whole[0] / PARTS_FOLDER).glob("*.json")))
    seen = 0
    for wanted in (1, total // 2):
        process = subprocess.Popen(command, cwd=REPOSITORY, env=environment)
        try:
            deadline = time.monotonic() + 300
            while len(list(parts.glob("*.json"))) < max(wanted, seen + 1):
                assert process.poll() is None, "ended before it could be killed"
                assert time.monotonic() < deadline
                time.sleep(0.005)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
        seen = len(list(parts.glob("*.json")))
        assert 0 < seen < total
    subprocess.run(command, cwd=REPOSITORY, env=environment, check=True)
    assert len(list(parts.glob("*.json"))) == total
    assert _ledger_bytes(folder) == whole[1]
    rows = pq.read_table(folder / LEDGER_FILE).to_pylist()
    keys = [(row["position"], row["attack"], row["goal"], row["eps_l2"]) for row in rows]
    assert len(set(keys)) == len(keys) == 10 * 2 + 6 * 2 * 2 + 1


class _Stopper:
    """Stops an audit at the given evaluation of its network."""

    def __init__(self, last: int) -> None:
        self.evaluations = 0
        self._last = last

    def __call__(self) -> None:
        self.evaluations += 1
        if self.evaluations == self._last:
            raise AuditStopped


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of torch's compiler about its own parts
def test_compiled_audit_is_the_same_however_it_is_cut(
    subject: Subject, data: ImageSet, tmp_path: Path
) -> None:
    plan = plan_for(data, ("clean", "paper", "fast"), engine="compiled")
    network = subject.network

    def compiled() -> Subject:
        torch.compiler.reset()  # as a process begins
        searcher = compile_network(network, (4, 1), SHAPE)
        assert searcher is not network, "no compiler here"
        return replace(subject, searcher=searcher)

    _audit(tmp_path / "whole", plan, compiled(), data)
    cut = compiled()
    with pytest.raises(AuditStopped), stoppable(cut, _Stopper(150)):
        _audit(tmp_path / "cut", plan, cut, data)
    left = _audit(tmp_path / "cut", plan, compiled(), data, shard="0/2")
    assert left > 0
    _audit(tmp_path / "cut", plan, compiled(), data, shard="1/2")
    ledger = _ledger_bytes(tmp_path / "whole")
    assert _ledger_bytes(tmp_path / "cut") == ledger
    _audit(tmp_path / "eager", plan.model_copy(update={"engine": "eager"}), subject, data)
    _ledger_bytes(tmp_path / "eager")
    _assert_close(tmp_path / "whole", tmp_path / "eager")


def test_shards_merge_into_the_same_ledger(
    whole: tuple[Path, bytes], subject: Subject, data: ImageSet, tmp_path: Path
) -> None:
    plan = plan_for(data, STAGES, batch_size=2)
    count = 3
    folders = [tmp_path / str(index) for index in range(count)]
    for index, shard_folder in enumerate(folders):
        assert _audit(shard_folder, plan, subject, data, shard=f"{index}/{count}") > 0
    with pytest.raises(AuditError, match="parts are missing"):
        write_report(folders[0], KEY, command="test")
    merge(folders, tmp_path / "all")
    assert _ledger_bytes(tmp_path / "all") == whole[1]


def test_batch_size_changes_no_radius(
    whole: tuple[Path, bytes], subject: Subject, data: ImageSet, folder: Path
) -> None:
    _audit(folder, plan_for(data, STAGES, batch_size=8), subject, data)
    _ledger_bytes(folder)
    _assert_close(whole[0], folder)


def _assert_close(*folders: Path) -> None:
    left, right = (pq.read_table(place / LEDGER_FILE).to_pylist() for place in folders)
    for one, other in zip(left, right, strict=True):
        names = ("position", "attack", "goal", "status", "label", "prediction")
        assert all(one[name] == other[name] for name in names)
        if one["radius_rmse"] is not None:
            assert one["radius_rmse"] == pytest.approx(other["radius_rmse"], rel=1e-4)


def test_more_images_leave_the_first_ones_as_they_were(data: ImageSet) -> None:
    few, many = (plan_for(data, STAGES, image_count=count) for count in (5, 20))
    assert many.image_indices(24)[:5] == few.image_indices(24)
    assert image_seed(0, 7, "ddn") != image_seed(0, 8, "ddn") != image_seed(0, 8, "fmn")


def test_folder_of_another_plan_is_refused_by_what_differs(
    whole: tuple[Path, bytes], data: ImageSet
) -> None:
    changed = plan_for(data, STAGES, batch_size=3, seed=1)
    with pytest.raises(AuditError, match="differs in seed, batch_size"):
        Ledger(whole[0], changed)


def test_damaged_part_is_named(whole: tuple[Path, bytes], data: ImageSet, folder: Path) -> None:
    merge([whole[0]], folder)
    plan = plan_for(data, STAGES, batch_size=2)
    block = registry.blocks(plan)[1]
    part = folder / PARTS_FOLDER / block.file_name
    part.write_bytes(part.read_bytes()[:40])
    with pytest.raises(AuditError, match=f"{block.file_name}: damaged"):
        write_report(folder, KEY, command="test")


def test_disagreeing_shards_are_refused(
    whole: tuple[Path, bytes], data: ImageSet, folder: Path
) -> None:
    merge([whole[0]], folder)
    part = (
        folder / PARTS_FOLDER / registry.blocks(plan_for(data, STAGES, batch_size=2))[-1].file_name
    )
    content = json.loads(part.read_text())
    content["rows"][0]["steps"] += 1
    part.write_text(json.dumps(content))
    with pytest.raises(AuditError, match="differs from another"):
        merge([whole[0]], folder)


def test_parts_of_other_classes_or_versions_are_refused(
    whole: tuple[Path, bytes], folder: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(whole[0], other)
    for change, message in (
        ({"versions": {"torch": "1.0"}}, "versions.candor: expected .*, got None"),
        ({"naive": 0.9}, "naive: expected .*, got 0.9"),
    ):
        facts = json.loads((whole[0] / "facts.json").read_bytes())
        (other / "facts.json").write_text(json.dumps(facts | change))
        with pytest.raises(AuditError, match=message):
            merge([whole[0], other], folder)


def test_failing_stage_ends_with_one_readable_reason(
    data: ImageSet, subject: Subject, folder: Path
) -> None:
    class Broken(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            raise RuntimeError("out of\n mind")

    broken = replace(subject, network=Broken())
    plan = plan_for(data, STAGES)
    with pytest.raises(AuditError, match="clean on images 0 to 3: RuntimeError: out of m"):
        run_blocks(Ledger(folder, plan), plan, broken, data)


def test_memory_that_runs_out_is_told_with_the_batch_size(
    data: ImageSet, subject: Subject, folder: Path
) -> None:
    class Greedy(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return torch.empty(1 << 50)  # more than any machine has

    greedy = replace(subject, network=Greedy())
    plan = plan_for(data, STAGES)
    with pytest.raises(OutOfMemory, match="batch_size: expected as many as memory holds, got 4"):
        run_blocks(Ledger(folder, plan), plan, greedy, data)


def test_full_disk_loses_nothing_and_leaves_nothing_half_written(
    whole: tuple[Path, bytes], subject: Subject, data: ImageSet, disk: Path
) -> None:
    plan = plan_for(data, STAGES, batch_size=2)
    folder, ballast, key = disk / "report", disk / "ballast", disk / "key.pem"
    blocks = registry.blocks(plan)

    def fill_later(progress: Progress) -> None:
        if sum(map(ledger.has, blocks)) == 5:
            fill_up(ballast)

    ledger = Ledger(folder, plan)
    write_facts(folder, collect(subject.network, subject.card, data))
    with pytest.raises(DiskFull, match=f"no space left on the disk of {folder}"):
        run_blocks(ledger, plan, subject, data, report=fill_later)
    _assert_whole_files(folder)
    assert sum(map(ledger.has, blocks)) == 5
    with pytest.raises(OSError, match="No space left"):
        load_or_create_key(key)
    ballast.unlink()
    assert run_blocks(ledger, plan, subject, data) == 0
    fill_up(ballast)
    with pytest.raises(DiskFull):
        write_report(folder, KEY, command="test")
    _assert_whole_files(folder)
    with pytest.raises(AuditError, match="holds no signed report"):
        verify_folder(folder)
    ballast.unlink()
    load_or_create_key(key)
    assert _ledger_bytes(folder) == whole[1]
    assert verify_folder(folder).is_genuine


def _assert_whole_files(folder: Path) -> None:
    """No draft, and every part can be read."""
    assert not [path for path in folder.rglob(".*") if not path.name.startswith(".lock")]
    assert all(json.loads(path.read_text()) for path in folder.rglob("*.json"))


def test_stopped_audit_keeps_what_was_finished_and_goes_on(
    whole: tuple[Path, bytes], subject: Subject, data: ImageSet, folder: Path
) -> None:
    plan = plan_for(data, STAGES, batch_size=2)
    stopper = _Stopper(100)
    with pytest.raises(AuditStopped), stoppable(subject, stopper):
        _audit(folder, plan, subject, data)
    assert stopper.evaluations == 100, "stopped later than at the next evaluation"
    assert 0 < len(list((folder / PARTS_FOLDER).glob("*.json"))) < len(registry.blocks(plan))
    assert _audit(folder, plan, subject, data) == 0
    assert _ledger_bytes(folder) == whole[1]


def test_second_process_of_the_same_shard_is_refused(data: ImageSet, folder: Path) -> None:
    ledger = Ledger(folder, plan_for(data, STAGES))
    with (
        ledger.locked(Shard()),
        pytest.raises(AuditError, match="another process"),
        ledger.locked(Shard()),
    ):
        pass


def test_progress_reaches_its_end_with_an_estimate(
    whole: tuple[Path, bytes], subject: Subject, data: ImageSet
) -> None:
    seen: list[Progress] = []
    plan = plan_for(data, STAGES, batch_size=2)
    run_blocks(Ledger(whole[0], plan), plan, subject, data, report=seen.append)
    (last,) = seen
    assert last.done == last.total > 0
    assert last.attack_ara is not None
    assert last.attack_ara > 0


@pytest.mark.parametrize("text", ["1/1", "-1/2", "a/2", "3", "/", "2/1"])
def test_bad_shard_names_the_form(text: str) -> None:
    with pytest.raises(ValueError, match="shard: expected"):
        Shard.parse(text)


def test_blocks_cover_every_image_of_a_stage_once(data: ImageSet) -> None:
    plan = plan_for(data, tuple(registry.STAGES), batch_size=3)
    for name, stage in registry.STAGES.items():
        limit = stage.limit(plan.budget)
        own = [block for block in registry.blocks(plan) if block.stage == name]
        covered = [position for block in own for position in range(block.start, block.stop)]
        assert covered == list(range(10 if limit is None else min(10, limit)))
    assert Block("a", 0, 2).file_name != Block("a", 2, 4).file_name
