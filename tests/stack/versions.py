"""Model stores with several versions of one model."""

import shutil
from pathlib import Path
from typing import Any

# Of the session's service: the twin has the same weights and is shown half of the images, too.
ROUTES: dict[str, dict[str, Any]] = {
    "tiny": {"primary": "1.0", "shadow": "1.1", "shadow_share": 0.5}
}


def add_version(models_dir: Path, target: Path, version: str, name: str = "tiny") -> None:
    """The model ``name`` of ``models_dir`` once more, as this version below ``target``."""
    folder = target / name / version
    shutil.copytree(models_dir / name, folder)
    card = folder / "card.json"
    text = card.read_text()
    assert '"version": "1.0"' in text
    card.write_text(text.replace('"version": "1.0"', f'"version": "{version}"'))
