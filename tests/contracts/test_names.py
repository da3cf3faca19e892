"""Names of classes and people: one spelling, any script, and nothing guessed from a text."""

import re
import unicodedata

import pytest
from pydantic import ValidationError

from candor.contracts.annotations import AnnotatorRequest
from candor.contracts.api import ClassRef
from candor.contracts.names import (
    UnknownClass,
    checked_model_name,
    checked_name,
    checked_served_name,
    class_index,
    file_part,
    near_names,
    runtime_name,
    split_name,
    tenant_name,
)

NUMBERED = ("0", "1", "10", "11", "2", "3", "4", "5", "6", "7", "8", "9")  # as folders sort


def test_a_name_goes_before_an_index() -> None:
    assert class_index("10", NUMBERED) == 2
    assert class_index("#10", NUMBERED) == 10
    assert class_index("#1", ("#1", "a")) == 0


@pytest.mark.parametrize("text", ["3", "#3", "03", "+3", "٣", "３", "#٣", "#-1", "# 1", "1_0", "³"])
def test_digits_are_names_and_only_a_number_sign_makes_an_index(text: str) -> None:
    classes = ("cat", "dog", "owl", "bee")
    if text == "#3":
        assert class_index(text, classes) == 3
        return
    with pytest.raises(UnknownClass, match="expected one of cat, dog, owl, bee"):
        class_index(text, classes)
    assert class_index(text, (*classes, text)) == 4


def test_unknown_digits_say_how_an_index_is_written() -> None:
    with pytest.raises(UnknownClass, match="an index is written #3"):
        class_index("3", ("cat", "dog"))
    with pytest.raises(UnknownClass, match="expected an index of #0 to #1, got #2"):
        class_index("#2", ("cat", "dog"))


def test_two_classes_of_one_name_are_told_apart_by_index() -> None:
    with pytest.raises(UnknownClass, match="#0, #2, which share the name, got 'crane'"):
        class_index("crane", ("crane", "dog", "crane"))


def test_spellings_of_one_text_are_one_name() -> None:
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    assert class_index(decomposed, ("tea", composed)) == 1
    assert ClassRef(name=decomposed).name == composed
    assert AnnotatorRequest(annotator=decomposed) == AnnotatorRequest(annotator=composed)
    long = unicodedata.normalize("NFD", "\u00e9" * 60)
    assert AnnotatorRequest(annotator=long).annotator == "\u00e9" * 60


@pytest.mark.parametrize(
    ("text", "near"),
    [("Dog", "dog"), ("dgo", "dog"), ("do\u200dg", "dog"), ("d\u043eg", "dog"), ("dög", "dog")],
    ids=["case", "typing error", "joiner", "Cyrillic o", "accent"],
)
def test_an_unknown_name_lists_near_ones(text: str, near: str) -> None:
    assert near_names(text, ("cat", "dog", "ship")) == [near]
    with pytest.raises(UnknownClass, match=f"; near: {near}"):
        class_index(text, ("cat", "dog", "ship"))


def test_names_that_look_alike_are_shown_with_their_code_points() -> None:
    with pytest.raises(UnknownClass) as caught:
        class_index("\u0441\u0430t", ("cat", "dog"))
    assert "U+0441 U+0430 U+0074" in str(caught.value)
    assert "near: cat (U+0063 U+0061 U+0074)" in str(caught.value)


JOINED = {
    "Persian": "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
    "Sinhala": "\u0dc1\u0dca\u200d\u0dbb\u0dd3",
    "family of emoji": "\U0001f469\u200d\U0001f52c",
    "Hindi": "\u0915\u094d\u200d\u0937",
}


@pytest.mark.parametrize("name", JOINED.values(), ids=JOINED.keys())
def test_joiners_are_permitted_where_they_join(name: str) -> None:
    assert checked_name(name) == name
    assert AnnotatorRequest(annotator=name).annotator == name
    assert class_index(name, ("cat", name)) == 1


HIDDEN = {
    "bidi override": "a\u202eb", "isolate": "a\u2066b", "mark": "a\u200eb", "tab": "a\tb",
    "line": "a\nb", "NUL": "a\0b", "escape": "a\x1b[2Jb", "separator": "a\u2028b",
    "zero width": "a\u200bb", "byte order mark": "\ufeffab", "soft hyphen": "a\u00adb",
    "surrogate": "a\udc80b", "joiner at the end": "ab\u200d", "joiner of Latin": "a\u200db",
    "joiners in a row": "\u0915\u094d\u200d\u200d\u0937", "nothing": "", "blank": "\u3000",
}  # fmt: skip


@pytest.mark.parametrize("name", HIDDEN.values(), ids=HIDDEN.keys())
def test_what_no_reader_sees_is_rejected(name: str) -> None:
    with pytest.raises(ValueError, match="^expected (one line of|at least one) visible character"):
        checked_name(name)
    with pytest.raises(ValidationError):
        AnnotatorRequest(annotator=name)


@pytest.mark.parametrize("index", [True, "1", 1.0, "#1", -1])
def test_an_index_is_an_integer_and_nothing_that_looks_like_one(index: object) -> None:
    with pytest.raises(ValidationError):
        ClassRef.model_validate({"index": index})


def test_files_keep_the_letters_of_every_script() -> None:
    assert file_part("a/b c") == "a_b_c"
    assert file_part("..") == "__"
    assert file_part("\u0915\u093f") != file_part("\u0915\u093e")


MODEL_NAMES = {
    "Latin": "grün-2", "Cyrillic": "кошка", "Chinese": "猫识别", "Hindi": JOINED["Hindi"],
    "Persian": JOINED["Persian"], "Arabic digits": "٣", "Hangul": "고양이", "longest": "猫" * 63,
}  # fmt: skip


@pytest.mark.parametrize("name", MODEL_NAMES.values(), ids=MODEL_NAMES.keys())
def test_models_have_names_of_any_script_and_one_spelling(name: str) -> None:
    decomposed = unicodedata.normalize("NFD", name)
    assert checked_model_name(decomposed) == name
    assert checked_served_name(f"{decomposed}@1.2") == f"{name}@1.2"
    assert split_name(f"{decomposed}@1.2") == (name, "1.2")
    assert runtime_name(decomposed, "search") == runtime_name(name, "search")


def test_the_runtime_has_a_name_of_its_own_letters_for_every_model() -> None:
    served = [*MODEL_NAMES.values(), "grün", "grun", "u", "u-1", "tiny"]
    names = {runtime_name(one, "search") for one in [*served, *(f"{one}@1.2" for one in served)]}
    assert len(names) == 2 * len(served)
    assert all(re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,100}", name) for name in names)
    assert runtime_name("tiny", "search") == "tiny-search"
    assert runtime_name("tiny@1.2", "predict") == "tiny_1.2-predict"


@pytest.mark.parametrize(
    "name",
    ["", "-a", "Tiny", "GRÜN", "a_b", "a b", "a/b", "a.b", "..", "a@1", "a@", "\u0301a", "😀",
     "a\u200db", "a\u202eb", "a\0b", "a%20b", "a" * 64, "猫" * 64],
)  # fmt: skip
def test_what_cannot_be_a_models_name_is_rejected(name: str) -> None:
    with pytest.raises(ValueError, match="^expected at most 63 small letters, digits and '-'"):
        checked_model_name(name)
    if name != "a@1":
        with pytest.raises(ValueError, match="^expected "):
            checked_served_name(name)


TENANTS = [
    "", "acme", "a b", "ab", "\u00fcnal", "nal", "\u732b", "\u72d7", "x" * 64, "x" * 65, "x" * 66,
    "a\tb", "a\nb", "a~b", "\ud800", "spiffe://example.org/" + "a" * 60, "\u0430cme",
]  # fmt: skip


def test_tenants_of_different_names_stay_different() -> None:
    names = [tenant_name(text) for text in TENANTS]
    assert len(set(names)) == len(TENANTS)
    assert names[:7] == TENANTS[:7]
    assert all(len(name) <= 64 and name.isprintable() for name in names)
    decomposed = unicodedata.normalize("NFD", "\u00fcnal")
    assert tenant_name(decomposed) == "\u00fcnal"
    assert tenant_name(tenant_name("x" * 65)) != tenant_name("x" * 65), "nobody can claim it"
