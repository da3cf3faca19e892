"""The store on SQLite and on PostgreSQL: migrations, loans, verdicts, export and import."""

import json
import threading
import unicodedata
import zipfile
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text

from candor.contracts.annotations import AnnotationState, Verdict
from candor.contracts.errors import ErrorCode, ServiceError
from candor.contracts.reports import CreateReportRequest, ListReportsRequest
from candor.store.annotations import Annotations
from candor.store.engine import Store, StoreError, open_store
from candor.store.job_kinds import REPORTS
from candor.store.jobs import Jobs
from candor.store.tables import Base
from candor.store.transfer import export_store, import_store
from tests.store.stores import (
    CLASS_NAMES,
    KEY,
    Clock,
    candidate,
    downgrade,
    fill,
)

UNCHANGED, UNSURE, CHANGED = Verdict


def number(state: AnnotationState) -> int:
    assert state.task is not None
    return state.task.candidate


# --- opening -----------------------------------------------------------------------------------


def test_names_of_an_older_store_get_one_spelling(address: str) -> None:
    """Ada answered as NFD and as NFC, Zoe as NFD alone; the classes are NFD."""
    ada, zoe = "Ada Gr\u00fcn", "Zo\u00eb"
    old = open_store(address)
    fill(old, 4)
    annotations = Annotations(old, annotators_per_image=3, clock=Clock())
    for name, verdicts in {
        ada: (UNCHANGED, UNCHANGED),
        "twin": (CHANGED, CHANGED, CHANGED),
        zoe: (UNSURE,),
    }.items():
        for verdict in verdicts:
            annotations.answer(name, number(annotations.next(name)), verdict)
    seen = [one for one in annotations.judgements() if one.annotator in (ada, "twin")]
    with old.writing() as session:
        downgrade(session, "0002")
        names = text("UPDATE candidate_sets SET class_names = :names")
        session.execute(names, {"names": json.dumps(["caf\u0065\u0301", "dog", "frog"])})
        for name, spelled in (("twin", ada), (zoe, zoe)):
            session.execute(
                text("UPDATE annotators SET name = :new WHERE name = :old"),
                {"old": name, "new": unicodedata.normalize("NFD", spelled)},
            )
    old.close()
    new = open_store(address)
    found = Annotations(new, annotators_per_image=3).judgements()
    assert Counter(one.annotator for one in found) == {ada: 3, zoe: 1}
    own = {one.candidate: one.verdict for one in found if one.annotator == ada}
    assert own == {one.candidate: CHANGED for one in seen}, "the later verdict stays"
    assert {one.class_name for one in found} <= {"caf\u00e9", "dog", "frog"}
    # Ada's lease and her twin's of the last candidate are one as well.
    assert Annotations(new, annotators_per_image=3).next(ada).answered == 3
    new.close()


def test_report_jobs_of_an_older_store_are_jobs_and_new_ones_come_after(address: str) -> None:
    old = open_store(address)
    made = Jobs(old, REPORTS).create(CreateReportRequest(model="m", idempotency_key="once"))
    with old.writing() as session:
        downgrade(session, "0003")
    old.close()
    new = open_store(address)
    jobs = Jobs(new, REPORTS)
    assert jobs.get(made.name) == made
    later = jobs.create(CreateReportRequest(model="m"))
    assert [job.name for job in jobs.list(ListReportsRequest()).reports] == [later.name, made.name]
    new.close()


def test_migrations_make_the_tables_of_the_models(store: Store) -> None:
    with store.reading() as session:
        context = MigrationContext.configure(session.connection(), opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []


def test_opening_again_keeps_what_is_there(address: str, store: Store) -> None:
    fill(store, 2)
    again = open_store(address)
    assert Annotations(again).next("ada").waiting == 2
    again.close()


def test_many_may_open_an_empty_store_at_once(address: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        for opened in pool.map(open_store, [address] * 4):
            opened.close()


@pytest.mark.parametrize("address", ["mysql://root@localhost/x", "postgresql://[/x", "://"])
def test_address_of_no_store_is_refused(address: str) -> None:
    with pytest.raises(StoreError, match="store: "):
        open_store(address)


def test_refusal_does_not_repeat_the_password() -> None:
    with pytest.raises(StoreError) as caught:
        open_store("postgresql://ada:sesame@127.0.0.1:1/x")
    assert "sesame" not in str(caught.value)


def test_store_of_a_newer_version_is_refused(address: str) -> None:
    store = open_store(address)
    with store.writing() as session:
        session.execute(text("UPDATE alembic_version SET version_num = 'from-tomorrow'"))
    store.close()
    with pytest.raises(StoreError, match=r"of a newer version of Candor: .*from-tomorrow"):
        open_store(address)


def test_sqlite_commits_are_forced_to_disk(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "s.sqlite"))
    with store.writing() as session:
        assert session.execute(text("PRAGMA journal_mode")).scalar() == "wal"
        assert session.execute(text("PRAGMA synchronous")).scalar() == 2  # FULL
        assert session.execute(text("PRAGMA foreign_keys")).scalar() == 1
    store.close()


def test_block_that_raises_leaves_nothing(store: Store) -> None:
    writer = fill(store, 1)

    def change_and_fail() -> None:
        with store.writing() as session:
            session.execute(text("UPDATE candidate_sets SET searched = 77"))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        change_and_fail()
    assert writer.searched() == 1


# --- candidates --------------------------------------------------------------------------------


def test_search_goes_on_where_it_was(store: Store) -> None:
    fill(store, 3)
    again = fill(store, 0)
    assert again.count() == 3
    with store.writing() as session:
        again.add(session, [candidate(2), candidate(3)], 4)
    assert (again.count(), again.searched()) == (4, 4)


def test_least_changed_of_the_newest_model_comes_first(store: Store) -> None:
    fill(store, 3)
    fill(store, 2, key=replace(KEY, weights_sha256="e" * 64))
    search_pool = Annotations(store)
    state = search_pool.next("ada")
    order = []
    while state.task is not None:
        order.append(number(state))
        state = search_pool.answer("ada", number(state), UNSURE)
    assert order == [5, 4, 3, 2, 1]


# --- loans -------------------------------------------------------------------------------------


def test_same_candidate_until_it_is_answered(store: Store) -> None:
    fill(store, 3)
    search_pool = Annotations(store)
    first = search_pool.next("ada")
    assert search_pool.next("ada") == first
    assert first.task is not None
    assert (first.answered, first.waiting, first.task.label) == (0, 3, CLASS_NAMES[2])
    second = search_pool.answer("ada", number(first), UNCHANGED)
    assert (second.answered, second.waiting) == (1, 2)
    assert number(second) != number(first)


@pytest.mark.parametrize("annotators_per_image", [1, 2, 3])
def test_each_image_reaches_so_many_annotators_and_none_twice(
    store: Store, annotators_per_image: int
) -> None:
    fill(store, 8)
    search_pool = Annotations(store, annotators_per_image=annotators_per_image)
    names = ("ada", "bob", "eve")
    seen: Counter[tuple[str, int]] = Counter()
    is_done = threading.Barrier(len(names))

    def judge(name: str) -> None:
        is_done.wait(20)
        state = search_pool.next(name)
        while state.task is not None:
            seen[name, number(state)] += 1
            state = search_pool.answer(name, number(state), UNCHANGED)

    with ThreadPoolExecutor(len(names)) as pool:
        list(pool.map(judge, names))
    assert set(seen.values()) == {1}
    assert Counter(key for _, key in seen) == dict.fromkeys(range(1, 9), annotators_per_image)
    assert len(search_pool.judgements()) == 8 * annotators_per_image


def test_two_at_once_never_get_the_same_image(store: Store) -> None:
    fill(store, 40)
    search_pools = [Annotations(store) for _ in range(4)]
    barrier = threading.Barrier(len(search_pools))

    def borrow(worker: int) -> list[int]:
        lent = []
        for turn in range(10):
            barrier.wait(20)
            lent.append(number(search_pools[worker].next(f"{worker}/{turn}")))
        return lent

    with ThreadPoolExecutor(len(search_pools)) as pool:
        lent = [key for keys in pool.map(borrow, range(len(search_pools))) for key in keys]
    assert sorted(lent) == list(range(1, 41))


def test_loan_that_ran_out_goes_to_another(store: Store) -> None:
    fill(store, 1)
    clock = Clock()
    search_pool = Annotations(store, lease_seconds=60.0, clock=clock)
    lent = number(search_pool.next("ada"))
    clock.seconds += 50
    assert search_pool.next("bob").task is None
    clock.seconds += 20
    assert number(search_pool.next("bob")) == lent
    with pytest.raises(ServiceError, match="gone to other annotators meanwhile") as caught:
        search_pool.answer("ada", lent, CHANGED)
    assert caught.value.code is ErrorCode.INVALID_INPUT
    assert search_pool.answer("bob", lent, UNCHANGED).answered == 1
    assert [one.annotator for one in search_pool.judgements()] == ["bob"]


def test_late_answer_counts_where_no_other_annotator_was_given_the_image(store: Store) -> None:
    fill(store, 1)
    clock = Clock()
    search_pool = Annotations(store, annotators_per_image=2, lease_seconds=60.0, clock=clock)
    lent = number(search_pool.next("bob"))
    search_pool.answer("bob", lent, UNSURE)
    assert number(search_pool.next("ada")) == lent
    clock.seconds += 3600
    search_pool.next("bob")  # forgets the loan without taking the image again
    assert search_pool.answer("ada", lent, CHANGED).answered == 1
    assert [one.annotator for one in search_pool.judgements()] == ["bob", "ada"]


def test_asking_again_keeps_the_loan_alive(store: Store) -> None:
    fill(store, 1)
    clock = Clock()
    search_pool = Annotations(store, lease_seconds=60.0, clock=clock)
    for _ in range(4):
        assert search_pool.next("ada").task is not None
        clock.seconds += 50
    assert search_pool.next("bob").task is None


# --- verdicts ----------------------------------------------------------------------------------


def test_same_answer_again_changes_nothing_and_another_replaces_it(store: Store) -> None:
    fill(store, 2)
    search_pool = Annotations(store)
    lent = number(search_pool.next("ada"))
    first = search_pool.answer("ada", lent, UNCHANGED)
    assert search_pool.answer("ada", lent, UNCHANGED) == first
    search_pool.answer("ada", lent, CHANGED)
    (one,) = search_pool.judgements()
    assert (one.candidate, one.verdict, one.class_name) == (lent, CHANGED, CLASS_NAMES[1])


def test_undo_walks_back_through_the_annotators_own_answers(store: Store) -> None:
    fill(store, 4)
    search_pool = Annotations(store, clock=Clock())
    answered = []
    for _ in range(2):
        answered.append(number(search_pool.next("ada")))
        search_pool.answer("ada", answered[-1], UNCHANGED)
    bobs = number(search_pool.next("bob"))
    search_pool.answer("bob", bobs, CHANGED)
    for expected in reversed(answered):
        assert number(search_pool.undo("ada")) == expected
    state = search_pool.undo("ada")  # nothing left to take back
    assert (number(state), state.answered) == (answered[0], 0)
    assert [(one.annotator, one.candidate) for one in search_pool.judgements()] == [("bob", bobs)]
    # Then the images lent meanwhile, the latest undone first.
    assert number(search_pool.answer("ada", answered[0], UNSURE)) == answered[1]


def test_unknown_candidate_is_refused(store: Store) -> None:
    fill(store, 1)
    with pytest.raises(ServiceError, match="candidate: expected .*got 99"):
        Annotations(store).answer("ada", 99, UNSURE)


def test_names_are_kept_as_they_are(store: Store) -> None:
    fill(store, 1)
    name = "Zoë <b>'; DROP TABLE annotators; --"
    search_pool = Annotations(store)
    search_pool.answer(name, number(search_pool.next(name)), UNSURE)
    assert [one.annotator for one in search_pool.judgements()] == [name]


def test_judged_candidates_of_some_annotators(store: Store) -> None:
    fill(store, 2)
    search_pool = Annotations(store, annotators_per_image=2)
    for name, verdict in (("ada", UNCHANGED), ("bob", CHANGED)):
        search_pool.answer(name, number(search_pool.next(name)), verdict)
    (both,) = search_pool.judged_candidates()
    assert both.verdicts == (UNCHANGED, CHANGED)
    assert both.adversarial_png == candidate(1).adversarial_png
    (adas,) = search_pool.judged_candidates(["ada"])
    assert adas.verdicts == (UNCHANGED,)
    with pytest.raises(ValueError, match="annotator: expected .*got 'eve'"):
        search_pool.judged_candidates(["eve"])


# --- export and import -------------------------------------------------------------------------


def test_everything_survives_export_and_import(
    store: Store, new_address: Callable[[], str], tmp_path: Path
) -> None:
    fill(store, 3)
    search_pool = Annotations(store, annotators_per_image=2)
    for name in ("ada", "bob"):
        search_pool.answer(name, number(search_pool.next(name)), CHANGED)
    path = tmp_path / "all.zip"
    written = export_store(store, path)
    assert (written.candidate_sets, written.candidates) == (1, 3)
    assert (written.annotators, written.annotations) == (2, 2)
    other = open_store(new_address())
    fill(other, 1, key=replace(KEY, seed=5))  # so that no row keeps its number
    assert import_store(other, path) == written
    assert import_store(other, path) == replace(
        written, candidate_sets=0, candidates=0, annotators=0, annotations=0
    )
    copied = Annotations(other).judged_candidates()
    original = search_pool.judged_candidates()
    assert [replace(one, candidate=0) for one in copied] == [
        replace(one, candidate=0) for one in original
    ]
    # Those judged twice are full, the others still wait.
    assert Annotations(other, annotators_per_image=2).next("eve").waiting == 3
    other.close()


def test_import_of_what_is_no_export_adds_nothing(store: Store, tmp_path: Path) -> None:
    fill(store, 2)
    path = tmp_path / "all.zip"
    export_store(store, path)
    damaged = tmp_path / "damaged.zip"
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(damaged, "w") as target:
        for name in source.namelist():
            if name != "pictures/2-original.png":
                target.writestr(name, source.read(name))
    empty = fill(store, 0, key=replace(KEY, seed=9))
    with pytest.raises(StoreError, match="2-original"):
        import_store(store, damaged)
    (tmp_path / "text.zip").write_text("hello")
    with pytest.raises(StoreError, match="not an export"):
        import_store(store, tmp_path / "text.zip")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as other:
        other.writestr("store.json", json.dumps({"format": "candor-store", "version": 3}))
    with pytest.raises(StoreError, match="version 1 or 2"):
        import_store(store, tmp_path / "other.zip")
    assert empty.count() == 0
