"""Archives: whole, rebuilt only when an input changed; a bad model is named before any start."""

import errno
import json
import shutil
import unicodedata
from pathlib import Path
from typing import Literal

import pytest

from candor.files import writing
from candor.stack.archives import archive_names, build_archives, model_folder
from candor.stack.config import StackConfig, served_models
from candor.stack.errors import ArchiveError, StackError
from tests.stack.versions import add_version

Form = Literal["NFC", "NFD"]


@pytest.fixture
def models_dir(tiny_models_dir: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_models_dir, tmp_path / "models"))


@pytest.fixture
def archives_dir(tmp_path: Path) -> Path:
    return tmp_path / "archives"


def stamps(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_each_archive_holds_all_a_worker_needs(models_dir: Path, archives_dir: Path) -> None:
    models = build_archives(models_dir, archives_dir)
    assert archive_names(models) == ("tiny-predict", "tiny-search")
    for name in archive_names(models):
        folder = archives_dir / name
        manifest = json.loads((folder / "MAR-INF" / "MANIFEST.json").read_text())
        assert manifest["model"]["modelName"] == name
        for file in (manifest["model"]["handler"], manifest["model"]["configFile"]):
            assert (folder / file).is_file()
        assert (folder / "weights.safetensors").is_file()
        assert (folder / "card.json").is_file()
    assert sorted(path.name for path in archives_dir.iterdir()) == ["tiny-predict", "tiny-search"]


def test_unchanged_inputs_are_left_alone_and_changed_ones_rebuilt(
    models_dir: Path, archives_dir: Path
) -> None:
    build_archives(models_dir, archives_dir)
    first = stamps(archives_dir)
    build_archives(models_dir, archives_dir)
    assert stamps(archives_dir) == first
    card = models_dir / "tiny" / "card.json"
    card.write_text(card.read_text().replace("Untrained", "Still untrained"))
    build_archives(models_dir, archives_dir)
    assert stamps(archives_dir) != first
    assert "Still" in (archives_dir / "tiny-search" / "card.json").read_text()


def test_an_archive_damaged_since_is_rebuilt(models_dir: Path, archives_dir: Path) -> None:
    build_archives(models_dir, archives_dir)
    weights = archives_dir / "tiny-search" / "weights.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-4] + b"evil")
    (archives_dir / "tiny-predict" / "card.json").unlink()
    untouched = (archives_dir / "tiny-predict" / "weights.safetensors").read_bytes()
    build_archives(models_dir, archives_dir)
    assert weights.read_bytes() == whole == untouched
    assert (archives_dir / "tiny-predict" / "card.json").is_file()


def test_a_damaged_model_is_named(models_dir: Path, archives_dir: Path) -> None:
    build_archives(models_dir, archives_dir)
    weights = models_dir / "tiny" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"evil")
    with pytest.raises(ArchiveError, match=r"tiny: cannot be loaded: .*SHA-256"):
        build_archives(models_dir, archives_dir)


@pytest.mark.parametrize("name", ["weights.safetensors", "card.json"])
def test_a_missing_file_is_named(models_dir: Path, archives_dir: Path, name: str) -> None:
    (models_dir / "tiny" / name).unlink()
    with pytest.raises(ArchiveError, match=rf"tiny: .*{name}"):
        build_archives(models_dir, archives_dir)


def test_a_folder_of_another_name_is_refused(models_dir: Path, archives_dir: Path) -> None:
    (models_dir / "tiny").rename(models_dir / "other")
    with pytest.raises(ArchiveError, match="other: its card is of 'tiny'"):
        build_archives(models_dir, archives_dir)


# --- several versions --------------------------------------------------------------------------


@pytest.fixture
def versions_dir(tiny_models_dir: Path, tmp_path: Path) -> Path:
    """``tiny`` in three versions, so that their numbers and their letters sort differently."""
    folder = tmp_path / "versions"
    for version in ("1.10", "1.9", "1.0"):
        add_version(tiny_models_dir, folder, version)
    return folder


def test_each_version_is_a_model_of_its_own_the_oldest_first(
    versions_dir: Path, archives_dir: Path
) -> None:
    names = build_archives(versions_dir, archives_dir)
    assert names == ("tiny@1.0", "tiny@1.9", "tiny@1.10")
    assert archive_names(names[:1]) == ("tiny_1.0-predict", "tiny_1.0-search")
    for name, version in zip(names, ("1.0", "1.9", "1.10"), strict=True):
        for archive in archive_names((name,)):
            manifest = json.loads((archives_dir / archive / "MAR-INF/MANIFEST.json").read_text())
            assert manifest["model"]["modelName"] == archive
            assert manifest["model"]["modelVersion"] == version
        card = json.loads((model_folder(versions_dir, name) / "card.json").read_text())
        assert card["version"] == version
    assert {path.name for path in archives_dir.iterdir()} == set(archive_names(names))


def test_versions_and_models_of_one_version_live_side_by_side(
    versions_dir: Path, models_dir: Path, archives_dir: Path
) -> None:
    (versions_dir / "tiny").rename(models_dir / "tiny-two")
    for card in models_dir.glob("tiny-two/*/card.json"):
        card.write_text(card.read_text().replace('"name": "tiny"', '"name": "tiny-two"'))
    names = build_archives(models_dir, archives_dir)
    assert names == ("tiny", "tiny-two@1.0", "tiny-two@1.9", "tiny-two@1.10")
    assert model_folder(models_dir, "tiny") == models_dir / "tiny"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("tiny/1.9", "tiny/2", r"tiny@2: its card is of version 1\.9"),
        (
            "tiny/1.9",
            "tiny/new",
            r"tiny: expected a version of up to three numbers, like 1\.2, got 'new'",
        ),
        ("tiny/1.9", "tiny/1.9.0.1", r"tiny: expected a version .*got '1\.9\.0\.1'"),
        ("tiny", "other", r"other@1\.0: its card is of 'tiny'"),
        ("tiny/1.9/card.json", "tiny/card.json", "tiny: expected a model or folders of versions"),
    ],
)
def test_a_folder_named_unlike_its_card_is_refused(
    versions_dir: Path, archives_dir: Path, old: str, new: str, message: str
) -> None:
    (versions_dir / old).rename(versions_dir / new)
    with pytest.raises(ArchiveError, match=message):
        build_archives(versions_dir, archives_dir)


@pytest.mark.parametrize(
    ("default", "models", "served"),
    [
        (None, (), ("a", "b@1", "b@2")),
        ("b", (), ("b@1", "b@2", "a")),
        ("b@2", (), ("b@2", "a", "b@1")),
        (None, ("b",), ("b@1", "b@2")),
        (None, ("b@2",), ("b@2",)),
        (None, ("unknown",), ("a", "b@1", "b@2")),
    ],
)
def test_the_default_model_comes_first_with_its_versions(
    default: str | None, models: tuple[str, ...], served: tuple[str, ...]
) -> None:
    config = StackConfig(default_model=default, models=models)
    assert served_models(("a", "b@1", "b@2"), config) == served


def test_a_default_model_there_is_not_is_named() -> None:
    with pytest.raises(StackError, match="default model: expected one of b@1.*, got 'b@3'"):
        served_models(("b@1",), StackConfig(default_model="b@3"))


def _named(models_dir: Path, folder: str, name: str) -> Path:
    """The untrained model under another name, in a folder of that or another spelling."""
    copy = Path(shutil.copytree(models_dir / "tiny", models_dir / folder))
    card = copy / "card.json"
    content = json.loads(card.read_text()) | {"name": name}
    card.write_text(json.dumps(content))
    return copy


@pytest.mark.parametrize(("of_folder", "of_card"), [("NFC", "NFD"), ("NFD", "NFC"), ("NFD", "NFD")])
def test_a_model_of_another_script_is_served_whatever_its_spelling(
    models_dir: Path,
    archives_dir: Path,
    of_folder: Literal["NFC", "NFD"],
    of_card: Literal["NFC", "NFD"],
) -> None:
    name = "gr\u00fcn-\u732b"
    spelled = [unicodedata.normalize(form, name) for form in (of_folder, of_card)]
    folder = _named(models_dir, *spelled)
    assert build_archives(models_dir, archives_dir) == (name, "tiny")
    assert all(one.isascii() for one in archive_names((name,)))
    assert {path.name for path in archives_dir.iterdir()} == set(archive_names((name, "tiny")))
    for spelling in ("NFC", "NFD"):
        wanted = unicodedata.normalize(spelling, name)
        assert model_folder(models_dir, wanted) == folder
        assert served_models((name, "tiny"), StackConfig(models=(wanted,))) == (name,)
        assert served_models((name, "tiny"), StackConfig(default_model=wanted))[0] == name


def test_two_folders_of_one_name_are_an_error(models_dir: Path, archives_dir: Path) -> None:
    for form in ("NFC", "NFD"):
        _named(models_dir, unicodedata.normalize(form, "gr\u00fcn"), "gr\u00fcn")
    with pytest.raises(ArchiveError, match="expected one folder for gr\u00fcn, got two spellings"):
        build_archives(models_dir, archives_dir)


@pytest.mark.parametrize("can_exchange", [True, False], ids=["exchanged", "no exchange"])
def test_an_archive_is_replaced_whole_and_leaves_nothing_behind(
    models_dir: Path, archives_dir: Path, can_exchange: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_archives(models_dir, archives_dir)
    (archives_dir / "tiny-search" / "stale.txt").write_text("of an older version")
    card = models_dir / "tiny" / "card.json"
    card.write_text(card.read_text().replace("Untrained", "Still untrained"))
    seen: list[bool] = []
    exchange = writing._exchange

    def watched(one: Path, other: Path) -> None:
        """Until here the old archive is whole."""
        seen.append("Still" not in (other / "card.json").read_text())
        if not can_exchange:
            raise OSError(errno.EINVAL, "no exchange here")
        exchange(one, other)

    monkeypatch.setattr(writing, "_exchange", watched)
    build_archives(models_dir, archives_dir)
    assert seen == [True, True]
    assert "Still" in (archives_dir / "tiny-search" / "card.json").read_text()
    assert (archives_dir / "tiny-search" / "stale.txt").exists() is not can_exchange
    assert sorted(path.name for path in archives_dir.iterdir()) == ["tiny-predict", "tiny-search"]
    first = stamps(archives_dir)
    build_archives(models_dir, archives_dir)
    assert stamps(archives_dir) == first


def test_an_empty_store_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="no folder with"):
        build_archives(tmp_path, tmp_path / "archives")
