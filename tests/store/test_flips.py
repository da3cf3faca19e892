"""The second question in the store, on SQLite and on PostgreSQL; lending is tested by the first."""

import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from candor.contracts.annotations import FlipKind, FlipTask, FlipVerdict, Verdict
from candor.contracts.errors import ServiceError
from candor.store.annotations import Annotations
from candor.store.engine import Store, open_store
from candor.store.flips import Flips
from candor.store.transfer import export_store, import_store
from tests.store.stores import CLASS_NAMES, FLIP_KEY, Clock, downgrade, fill, fill_flips, flip_image

YES, NO, UNSURE = FlipVerdict


def answer_all(flips: Flips, name: str, verdicts: list[FlipVerdict]) -> list[FlipTask]:
    """Until nothing waits; the tasks in the order they came."""
    tasks, state = [], flips.next(name)
    while state.task is not None:
        tasks.append(state.task)
        state = flips.answer(name, state.task.image, verdicts[len(tasks) - 1])
    return tasks


def test_images_of_all_models_come_in_one_order_that_tells_nothing(store: Store) -> None:
    fill_flips(store, "eo")
    other = replace(FLIP_KEY, weights_sha256="e" * 64)
    fill_flips(store, "te", key=other, model="plain")
    tasks = answer_all(Flips(store), "ada", [YES] * 4)
    assert [task.image for task in tasks] == [1, 3, 2, 4]
    assert [task.target for task in tasks] == [CLASS_NAMES[at] for at in (1, 0, 1, 1)]
    assert tasks[2].shown_png == flip_image(1, FlipKind.ORIGINAL).shown_png
    # All that an annotator or a program in between is told.
    assert set(FlipTask.model_fields) == {"image", "target", "shown_png"}


def test_both_questions_have_their_own_verdicts_and_undo(store: Store) -> None:
    fill(store, 2)
    fill_flips(store, "eo")
    flips = Flips(store, clock=Clock())
    answer_all(flips, "ada", [YES, NO])
    candidate = Annotations(store).next("ada").task
    assert candidate is not None
    Annotations(store).answer("ada", candidate.candidate, Verdict.UNSURE)
    undone = flips.undo("ada")
    assert undone.task is not None
    assert (undone.task.image, undone.answered, undone.waiting) == (2, 1, 1)
    (judged,) = flips.judged_images()
    assert (judged.verdicts, judged.label, judged.target) == ({"ada": YES}, *CLASS_NAMES[:2])
    assert len(Annotations(store).judgements()) == 1
    with pytest.raises(ServiceError, match="image: expected .*got 99"):
        flips.answer("ada", 99, NO)


def test_verdicts_of_the_first_question_survive_the_migration(address: str) -> None:
    old = open_store(address)
    fill(old, 2)
    candidate = Annotations(old).next("ada").task
    assert candidate is not None
    Annotations(old).answer("ada", candidate.candidate, Verdict.CHANGED)
    said = Annotations(old).judgements()
    with old.writing() as session:
        downgrade(session, "0005")
    old.close()
    new = open_store(address)
    assert Annotations(new).judgements() == said
    assert Annotations(new).next("ada").answered == 1
    fill_flips(new, "e")
    assert Flips(new).next("ada").waiting == 1
    new.close()


def test_flips_survive_export_and_import(
    store: Store, new_address: Callable[[], str], tmp_path: Path
) -> None:
    fill_flips(store, "eot")
    flips = Flips(store, annotators_per_image=2)
    answer_all(flips, "ada", [YES, NO, UNSURE])
    path = tmp_path / "all.zip"
    written = export_store(store, path)
    assert (written.flip_sets, written.flip_images, written.flip_verdicts) == (1, 3, 3)
    other = open_store(new_address())
    fill_flips(other, "e", key=replace(FLIP_KEY, rho=0.2))  # so that no row keeps its number
    assert import_store(other, path) == written
    copied = Flips(other).judged_images()
    assert [replace(one, image=0, flip_set=0) for one in copied] == [
        replace(one, image=0, flip_set=0) for one in flips.judged_images()
    ]
    assert [one.key.rho for one in Flips(other).sets()] == [0.2, 0.1]
    other.close()


def test_an_export_of_before_the_second_question_is_read(store: Store, tmp_path: Path) -> None:
    fill(store, 1)
    path, old = tmp_path / "all.zip", tmp_path / "old.zip"
    export_store(store, path)
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(old, "w") as target:
        for name in source.namelist():
            if not name.startswith(("flip_", "store.json")):
                target.writestr(name, source.read(name))
        target.writestr("store.json", json.dumps({"format": "candor-store", "version": 1}))
    empty = open_store(str(tmp_path / "empty.sqlite"))
    assert import_store(empty, old).candidates == 1
    empty.close()
