"""One compiled package of a small network for every test of it: making it takes some seconds."""

import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from torch._inductor import config

from candor.runtime import kept, packaging
from candor.runtime.kept import package_folder
from candor.runtime.packaging import make_package
from tests.runtime.small import small_model

# For two small libraries, what makes many large ones sooner or faster takes longer.
_SOON = {
    "cpp.vec_isa_ok": True,
    "cpp_cache_precompile_headers": False,
    "aot_inductor.compile_wrapper_opt_level": "O0",
}


@pytest.fixture(scope="session")
def _small_kind() -> Iterator[None]:
    """Compiled for one batch size in one precision, of eight libraries two."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kept, "_FULL_BATCH", 1)
        for module in (kept, packaging):
            patch.setattr(module, "step_precision", lambda network: "float32")
        yield


@pytest.fixture(scope="session")
def small_packages(_small_kind: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of packages with that of `small_model`, made by torch's real compiler."""
    packages = tmp_path_factory.mktemp("compiled")
    model = small_model()
    with (
        pytest.MonkeyPatch.context() as patch,
        warnings.catch_warnings(),
        config.patch(_SOON),
    ):
        warnings.simplefilter("ignore")  # of torch's compiler about its own parts
        patch.setenv("TORCHINDUCTOR_CACHE_DIR", str(packages / "torch"))
        make_package(model, package_folder(packages, model))
    return packages
