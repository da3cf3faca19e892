"""The message where a package that a command needs is not installed.  Needs no package itself."""


def missing_package(error: ModuleNotFoundError) -> str:
    """One sentence that names the package and what installs it.

    Raises:
        ModuleNotFoundError: the module that is missing is Candor's own, which is a defect.
    """
    if error.name is None or error.name.partition(".")[0] in ("candor", "training"):
        raise error
    return f"candor: the package {error.name} is missing; pip install 'candor[all]' brings it"
