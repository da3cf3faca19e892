"""Writes the stubs under `candor/rpc/pb/` from `proto/`.

``python -m tools.generate_pb`` writes them, ``--check`` fails when they no longer match.
"""

import re
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROTO_DIR = ROOT / "proto"
STUB_DIR = ROOT / "candor" / "rpc" / "pb"
# protoc names modules after the proto path; inside our package that path has a prefix.
_STUB_IMPORT = re.compile(r"^from (candor\.v1|openinference|torchserve) import", flags=re.MULTILINE)


class StubError(RuntimeError):
    """protoc refused a file."""


def generate(target: Path) -> None:
    """All stubs of `proto/`, with type stubs, importable as ``candor.rpc.pb...``."""
    from grpc_tools import protoc  # a development dependency: absent from the served image

    protos = sorted(str(path) for path in PROTO_DIR.rglob("*.proto"))
    outputs = [f"--{kind}_out={target}" for kind in ("python", "pyi", "grpc_python")]
    if protoc.main(["protoc", f"--proto_path={PROTO_DIR}", *outputs, *protos]) != 0:
        raise StubError("protoc failed; its message stands above")
    for path in _stubs(target):
        path.write_text(_STUB_IMPORT.sub(r"from candor.rpc.pb.\1 import", path.read_text()))
    for folder in [target, *(path for path in target.rglob("*") if path.is_dir())]:
        (folder / "__init__.py").touch()


def _contents(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in _stubs(folder)}


def _stubs(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*.py*") if path.suffix in (".py", ".pyi")]


def stale_files(stubs: Path = STUB_DIR) -> list[str]:
    """Committed stubs that differ from what `proto/` gives now."""
    with tempfile.TemporaryDirectory() as scratch:
        generate(Path(scratch))
        fresh, committed = _contents(Path(scratch)), _contents(stubs)
    return sorted(name for name in fresh | committed if fresh.get(name) != committed.get(name))


def main(arguments: list[str]) -> int:
    if "--check" not in arguments:
        generate(STUB_DIR)
        return 0
    stale = stale_files()
    if stale:
        print(f"stubs differ from proto/: {', '.join(stale)}; run python -m tools.generate_pb")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
