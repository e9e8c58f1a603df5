"""The software bill of materials of a release, in CycloneDX 1.6 (https://cyclonedx.org/docs/1.6/json/)."""

import json
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from rattler import RepoDataRecord

from construct.solve import sha256_of
from recipe.libraries import Library
from recipe.metadata import pypi_name
from recipe.pins import Pin


def render_sbom(
    name: str,
    release: str,
    moment: datetime,
    records: Sequence[RepoDataRecord],
    pins: Mapping[str, Pin],
    libraries: Sequence[Library] = (),
) -> str:
    """Return the SBOM's text: each conda package with its sha256, its licence, its dependencies and its wheel.

    `libraries` are those inside the package `python`, which is their parent. The same release gives the same text,
    including the serial number.
    """
    known = {record.name.normalized: reference(record) for record in records}
    document = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, ' '.join([name, release, *known.values()]))}",
        "version": 1,
        "metadata": {
            "timestamp": moment.isoformat(),
            "component": {"type": "application", "bom-ref": "release", "name": name, "version": release},
        },
        "components": [
            component(record, pins.get(pypi_name(record.name.normalized)))
            | ({"components": [inner(one) for one in libraries]} if record.name.normalized == "python" else {})
            for record in records
        ],
        "dependencies": [
            {"ref": "release", "dependsOn": sorted(known.values())},
            *(
                {
                    "ref": reference(record),
                    "dependsOn": sorted(
                        {
                            known[dependency.split()[0]]
                            for dependency in record.depends
                            if dependency.split()[0] in known
                        }
                    ),
                }
                for record in records
            ),
        ],
    }
    # As short as can be: the installer holds it as it is.
    return json.dumps(document, separators=(",", ":")) + "\n"


def reference(record: RepoDataRecord) -> str:
    """Return the package's purl: https://github.com/package-url/purl-spec/blob/main/types-doc/conda-definition.md"""
    return f"pkg:conda/{record.name.normalized}@{record.version}?build={record.build}&subdir={record.subdir}&type=conda"


def component(record: RepoDataRecord, pin: Pin | None) -> dict[str, Any]:
    """Return the entry of one package, which names the wheel it is made from as its ancestor."""
    found: dict[str, Any] = {
        "type": "library",
        "bom-ref": reference(record),
        "name": record.name.normalized,
        "version": str(record.version),
        "purl": reference(record),
        "hashes": [{"alg": "SHA-256", "content": sha256_of(record)}],
    }
    if record.license:
        found["licenses"] = [{"license": {"name": record.license}}]
    if pin:
        name = pypi_name(record.name.normalized)
        found["pedigree"] = {
            "ancestors": [
                {
                    "type": "library",
                    "name": name,
                    "version": pin.version,
                    "purl": f"pkg:pypi/{name}@{pin.version}",
                }
            ]
        }
    return found


def inner(library: Library) -> dict[str, Any]:
    """Return the entry of a library that is part of another component."""
    found: dict[str, Any] = {"type": "library", "name": library.name}
    if library.version:
        found["version"] = library.version
    if library.license:
        found["licenses"] = [{"license": {"id": library.license}}]
    return found
