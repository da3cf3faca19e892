"""Names: of models as they are served, of classes and of people.

A model with one version in its folder is served as ``NAME``, each version of a model with several
as ``NAME@VERSION``.  Names of models, classes and people are of any script; those of models have no
capital letters, because some file systems do not tell them apart.  Two spellings of one text are
one name: every name is normalised (NFC) where it enters.  What cannot carry other scripts gets a
name of ASCII by `runtime_name`.
"""

import difflib
import hashlib
import re
import unicodedata
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

VERSION_PATTERN = r"^[0-9]+(\.[0-9]+){0,2}$"
MAX_TENANT_CHARS = 64
_MAX_MODEL_CHARS = 63
_TENANT_DIGITS = 16

_JOINERS = "\u200c\u200d"  # some scripts cannot be written without them
_INDEX = re.compile(r"#([0-9]{1,9})")  # ASCII only: other digits are names
_LISTED, _NEAR, _NEAR_RATIO = 20, 5, 0.6
_MAX_COMPARED = 100  # characters of an unknown name
_MAX_FILE_CHARS = 60
# Letters of other scripts that look like Latin ones.
_LOOKALIKES = str.maketrans(
    "\u0430\u0441\u0435\u043e\u0440\u0445\u0443\u0456\u0458\u0455\u0501\u04bb\u051b\u051d\u043a\u043c\u0442\u0432\u043d"
    "\u03b1\u03bd\u03bf\u03c1\u03c4\u03c5\u03c7\u03b9\u03ba",
    "aceopxyijsdhqwkmtbhavoptuxik",
)


class UnknownClass(ValueError):
    """No class, or more than one, has that name; the text lists near ones."""


def normalised(text: Any) -> Any:
    """The one spelling (NFC) of a text; whatever is no text as it is."""
    return unicodedata.normalize("NFC", text) if isinstance(text, str) else text


def checked_name(text: str) -> str:
    """The one spelling of a name of a class or a person.

    Raises:
        ValueError: empty, or a character that no reader sees: control characters, directions of
            writing, ends of lines; a joiner that joins nothing.
    """
    name = str(normalised(text))
    for place, char in enumerate(name):
        if not _is_permitted(name, place):
            raise ValueError(
                f"expected one line of visible characters, got {described(char)} at place {place}"
            )
    if not name.strip():
        raise ValueError("expected at least one visible character, got none")
    return name


def checked_model_name(text: str) -> str:
    """The one spelling of a model's name, without a version.

    Raises:
        ValueError: longer than 63 characters, a capital letter, or anything else than letters,
            digits and marks of any script, joiners that join, and '-' after the first character.
    """
    name = str(normalised(text))
    if _is_word(name, "-") and len(name) <= _MAX_MODEL_CHARS and name == name.lower():
        return name
    raise ValueError(
        f"expected at most {_MAX_MODEL_CHARS} small letters, digits and '-', the first no '-', "
        f"got {_shown(name)}"
    )


def checked_served_name(text: str) -> str:
    """The one spelling of NAME or NAME@VERSION.

    Raises:
        ValueError: NAME is none, see `checked_model_name`, or VERSION has another form.
    """
    name, version = split_name(text)
    if "@" in text and not re.fullmatch(VERSION_PATTERN, version):
        raise ValueError(f"expected NAME or NAME@VERSION, like a@1.2, got {_shown(text)}")
    checked = checked_model_name(name)
    return versioned(checked, version) if version else checked


def tenant_name(text: str) -> str:
    """The name of a tenant or of a token's subject, at most 64 visible characters.

    Different texts have different names: one that is longer or has other characters ends in
    ``~`` and digits of its SHA-256.
    """
    name = str(normalised(text))
    visible = "".join(one for place, one in enumerate(name) if _is_permitted(name, place))
    if name == visible and len(name) <= MAX_TENANT_CHARS and "~" not in name:
        return name
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:_TENANT_DIGITS]
    return f"{visible[: MAX_TENANT_CHARS - 1 - _TENANT_DIGITS]}~{digest}"


def checked_key_name(text: str) -> str:
    """The one spelling of the name or the tenant of a bearer key.

    Raises:
        ValueError: longer than 64 characters, or anything else than letters, digits and marks of
            any script, joiners that join, and '.', '_' and '-' after the first character.
    """
    name = str(normalised(text))
    if _is_word(name, "._-") and len(name) <= MAX_TENANT_CHARS:
        return name
    raise ValueError(
        f"expected at most {MAX_TENANT_CHARS} letters, digits, '.', '_', '-', got {_shown(name)}"
    )


def _is_word(name: str, signs: str) -> bool:
    """Whether a name has letters, digits and marks alone, and ``signs`` after the first."""
    return unicodedata.category(name[:1] or " ")[0] in "LN" and all(
        (char in signs + _JOINERS or unicodedata.category(char)[0] in "LMN")
        and _is_permitted(name, place)
        for place, char in enumerate(name)
    )


def _is_permitted(name: str, place: int) -> bool:
    char = name[place]
    if char not in _JOINERS:
        return unicodedata.category(char)[0] != "C" and unicodedata.category(char) not in (
            "Zl",
            "Zp",
        )
    beside = name[place - 1 : place] + name[place + 1 : place + 2]
    return len(beside) == 2 and not any(one.isascii() or one in _JOINERS for one in beside)


def described(text: str) -> str:
    """The code points of a text, for messages about names that look alike."""
    return " ".join(f"U+{ord(char):04X}" for char in text[:_MAX_COMPARED])


def class_difference(expected: Sequence[str], got: Sequence[str]) -> str | None:
    """The first class in which two lists differ, in words; None where they are the same."""
    for index, (own, other) in enumerate(zip_longest(expected, got)):
        if own != other:
            names = ("none" if name is None else repr(name) for name in (own, other))
            return "class {}: expected {}, got {}".format(index, *names)
    return None


def class_index(text: str, classes: Sequence[str]) -> int:
    """Index of the class that a text names.

    A name goes first; where no class has it, ``#10`` is the class of index 10.  Digits alone are a
    name like any other.

    Args:
        classes: normalised names in the order of their indices.
    Raises:
        UnknownClass: no class, or several classes, have this name.
    """
    name = normalised(text)
    found = [index for index, known in enumerate(classes) if known == name]
    if len(found) == 1:
        return found[0]
    if found:
        indices = ", ".join(f"#{index}" for index in found[:_LISTED])
        raise UnknownClass(f"expected one of {indices}, which share the name, got {_shown(name)}")
    written = _INDEX.fullmatch(name)
    if written is None:
        raise UnknownClass(_unknown(name, classes))
    if int(written[1]) >= len(classes):
        raise UnknownClass(f"expected an index of #0 to #{len(classes) - 1}, got {name}")
    return int(written[1])


def _unknown(name: str, classes: Sequence[str]) -> str:
    listed = ", ".join(classes[:_LISTED]) + (", ..." if len(classes) > _LISTED else "")
    parts = [f"expected one of {listed}, got {_shown(name)}"]
    near = near_names(name, classes)
    if near:
        parts.append(f"near: {', '.join(_beside(one, name) for one in near)}")
    if name.isascii() and name.isdigit():
        parts.append(f"an index is written #{name[:9]}")
    return "; ".join(parts)


def _shown(name: str) -> str:
    short = name if len(name) <= _MAX_COMPARED else f"{name[:_MAX_COMPARED]}..."
    return repr(short) if short.isascii() else f"{short!r} ({described(short)})"


def _beside(known: str, name: str) -> str:
    """A near name; with its code points where the two can look alike."""
    return known if known.isascii() and name.isascii() else f"{known} ({described(known)})"


def near_names(name: str, names: Sequence[str]) -> list[str]:
    """At most five of ``names`` that look or read like ``name``, the nearest first."""
    by_look: dict[str, list[str]] = {}
    for known in dict.fromkeys(names):
        by_look.setdefault(_look(known), []).append(known)
    looks = difflib.get_close_matches(_look(name), by_look, _NEAR, _NEAR_RATIO)
    return [known for look in looks for known in by_look[look]][:_NEAR]


def _look(name: str) -> str:
    """What a reader sees of a name: no case, no joiners, no marks, and Latin for its doubles."""
    folded = unicodedata.normalize("NFKD", name[:_MAX_COMPARED]).casefold()
    visible = (one for one in folded if unicodedata.category(one) not in ("Mn", "Cf"))
    return "".join(visible).translate(_LOOKALIKES).strip()


def file_part(name: str) -> str:
    """A name as a part of a file's name: letters, digits and marks of any script, '-' and '_'."""
    kept = (
        one if one in f"-_{_JOINERS}" or unicodedata.category(one)[0] in "LMN" else "_"
        for one in name[:_MAX_FILE_CHARS]
    )
    return "".join(kept)


def split_name(served: str) -> tuple[str, str]:
    """Name and version, normalised; the version is empty if ``served`` names none."""
    name, _, version = str(normalised(served)).partition("@")
    return name, version


def versioned(name: str, version: str) -> str:
    """The name under which one version is served."""
    return f"{name}@{version}"


def version_order(version: str) -> tuple[int, ...]:
    """The key that sorts versions by their numbers: 1.9 before 1.10."""
    return tuple(int(number) for number in version.split("."))


def runtime_name(served: str, role: str) -> str:
    """The runtime's name for a worker of this model: ASCII, valid in a URL and as a folder.

    TorchServe knows no other letters, so a name with any is replaced by 32 digits of its SHA-256.
    It is unique, because no model's name contains an underscore.
    """
    name, version = split_name(served)
    ascii_name = name if name.isascii() else f"u__{hashlib.sha256(name.encode()).hexdigest()[:32]}"
    return f"{ascii_name}{'_' if version else ''}{version}-{role}"
