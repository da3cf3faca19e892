"""Archives: whole, rebuilt only when an input changed; a bad model is named before any start."""

import json
import shutil
from pathlib import Path

import pytest

from cli.archives import ArchiveError, archive_names, build_archives


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


def test_an_empty_store_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="no folder with"):
        build_archives(tmp_path, tmp_path / "archives")
