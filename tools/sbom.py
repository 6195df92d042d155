"""The bill of materials of an artifact, as an SPDX 2.3 document in JSON.

It says what the package is (name, version, supplier, licence, digests), each file in it with its
digests, and what it needs at run time. The same artifact gives the same document, byte for byte:
the time in it is that of the release, its name comes from the artifact's digest.

``tools/sbom.py ARTIFACT...`` prints the documents. The form is that of the SPDX specification 2.3,
clauses 6 to 11; licences and relations of a package are read from its own control data.
"""

from __future__ import annotations

import argparse
import email.parser
import hashlib
import json
import re
import subprocess
import sys
import tarfile
import uuid
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import artifact_files
import release

LICENSE = "Apache-2.0"
NOTHING = "NOASSERTION"
SUFFIX = ".spdx.json"
DOCUMENT = "SPDXRef-DOCUMENT"
PACKAGE = "SPDXRef-Package"
BILL = "bill-of-materials.json"
_SOURCES = (".tar.gz", ".dsc", ".src.rpm")
_KINDS = (".deb", ".rpm", ".whl", ".goo", *_SOURCES)


@dataclass(frozen=True)
class Description:
    """What a package says of itself; ``purl`` without the qualifiers of its file."""

    name: str
    version: str
    summary: str
    purl: str
    needs: tuple[str, ...] = ()
    """Relations of run time, as the format writes them; of a source: of its build."""
    carries: tuple[dict[str, Any], ...] = field(default=())
    """Components of others inside it (CycloneDX), from a bill that it carries."""


def is_described(artifact: Path) -> bool:
    """Whether a file is an artifact of its own, with a document; a part of a .dsc is not."""
    name = artifact.name
    return name.endswith(_KINDS) and not re.search(r"\.(orig|debian)\.tar\.", name)


def document(artifact: Path) -> dict[str, Any]:
    """The SPDX document of an artifact."""
    content = artifact.read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    about = description(artifact)
    files = [_file(number, one) for number, one in enumerate(_content(artifact))]
    needs = [_needed(number, relation) for number, relation in enumerate(about.needs)]
    carried = [_carried(number, one) for number, one in enumerate(about.carries)]
    identity = uuid.uuid5(uuid.NAMESPACE_URL, f"sha256:{sha256}")
    package = {
        "name": about.name,
        "SPDXID": PACKAGE,
        "versionInfo": about.version,
        "packageFileName": artifact.name,
        "supplier": _supplier(),
        "downloadLocation": NOTHING,
        "filesAnalyzed": bool(files),
        "checksums": [
            {"algorithm": "SHA1", "checksumValue": _sha1(content)},
            {"algorithm": "SHA256", "checksumValue": sha256},
        ],
        "homepage": _homepage(),
        "licenseConcluded": LICENSE,
        "licenseDeclared": LICENSE,
        "copyrightText": _copyright(),
        "summary": about.summary,
        "primaryPackagePurpose": "SOURCE" if _is_source(artifact) else "INSTALL",
        "externalRefs": [_purl(about.purl)],
    }
    if files:
        package["packageVerificationCode"] = {"packageVerificationCodeValue": _code(files)}
        package["licenseInfoFromFiles"] = [NOTHING]
    return {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": DOCUMENT,
        "name": artifact.name,
        "documentNamespace": f"urn:uuid:{identity}",
        "creationInfo": {
            "created": f"{release.release_date():%Y-%m-%dT%H:%M:%SZ}",
            "creators": [_supplier(), f"Tool: {release.SOURCE}-{release.version()}"],
        },
        "packages": [package, *needs, *carried],
        "files": files,
        "relationships": list(_relations(artifact, files, needs, carried)),
    }


def text(artifact: Path) -> str:
    """The document as it is written to a file."""
    return json.dumps(document(artifact), indent=1, ensure_ascii=False) + "\n"


def description(artifact: Path) -> Description:
    """What the artifact says of itself; ValueError for a file of another kind."""
    name = artifact.name
    for suffix, read in (
        (".deb", _of_deb),
        (".src.rpm", _of_rpm),
        (".rpm", _of_rpm),
        (".whl", _of_wheel),
        (".goo", _of_goo),
        (".dsc", _of_dsc),
        (".tar.gz", _of_tarball),
    ):
        if name.endswith(suffix):
            return read(artifact)
    raise ValueError(f"{name}: no artifact that a bill of materials is made for")


def _of_deb(artifact: Path) -> Description:
    (control,) = [
        one.content for one in artifact_files.members(artifact) if one.name == "DEBIAN/control"
    ]
    fields = _fields(control.decode())
    relations = [fields.get(name, "") for name in ("Pre-Depends", "Depends")]
    purl = f"pkg:deb/{fields['Package']}@{fields['Version']}?arch={fields['Architecture']}"
    return Description(
        fields["Package"],
        fields["Version"],
        fields["Description"].split("\n")[0],
        purl,
        tuple(_split(", ".join(filter(None, relations)))),
    )


def _of_dsc(artifact: Path) -> Description:
    fields = _fields(artifact.read_text())
    name, version = fields["Source"], fields["Version"]
    return Description(
        name,
        version,
        "Debian source package of the Compute Engine guest environment",
        f"pkg:deb/{name}@{version}?arch=source",
        tuple(_split(fields.get("Build-Depends", ""))),
    )


def _of_rpm(artifact: Path) -> Description:
    form = (
        "%{NAME}\n%|EPOCH?{%{EPOCH}:}|%{VERSION}-%{RELEASE}\n%{ARCH}\n%{SUMMARY}\n"
        "[%{REQUIRENEVRS}\n]"
    )
    command = ["rpm", "-qp", "--nosignature", "--queryformat", form, str(artifact)]
    answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    name, version, arch, summary, *needs = answer.splitlines()
    arch = "src" if _is_source(artifact) else arch
    return Description(
        name,
        version,
        summary,
        f"pkg:rpm/{name}@{version.rpartition(':')[2]}?arch={arch}",
        tuple(sorted({need for need in needs if not need.startswith("rpmlib(")})),
    )


def _of_wheel(artifact: Path) -> Description:
    with zipfile.ZipFile(artifact) as wheel:
        (metadata,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
        fields = email.parser.Parser().parsestr(wheel.read(metadata).decode())
    needs = (f"python {fields['Requires-Python']}", *fields.get_all("Requires-Dist", ()))
    return _of_python(fields["Name"], fields["Version"], fields["Summary"], needs)


def _of_tarball(artifact: Path) -> Description:
    setup = (release.TOP / "setup.cfg").read_text()
    listed = re.search(r"^install_requires =\n((?:    .+\n)+)", setup, re.MULTILINE)
    floor = re.search(r"^python_requires = (.+)$", setup, re.MULTILINE)
    needs = (f"python {floor[1]}" if floor else "python", *(listed[1].split() if listed else ()))
    return Description(
        release.SOURCE,
        release.version(),
        "source of the Compute Engine guest environment",
        f"pkg:generic/{release.SOURCE}@{release.version()}",
        needs,
    )


def _of_python(name: str, version: str, summary: str, needs: Sequence[str]) -> Description:
    return Description(name, version, summary, f"pkg:pypi/{name}@{version}", tuple(needs))


def _of_goo(artifact: Path) -> Description:
    with tarfile.open(artifact) as archive:
        spec, carried = {}, []
        for entry in archive:
            opened = archive.extractfile(entry) if entry.isfile() else None
            if opened is not None and entry.name.endswith(".pkgspec"):
                spec = json.load(opened)
            elif opened is not None and Path(entry.name).name == BILL:
                carried = json.load(opened)["components"]
    needs = spec.get("PkgDependencies") or {}
    name, version = spec["Name"], spec["Version"]
    return Description(
        name,
        version,
        spec.get("Description", ""),
        f"pkg:generic/{name}@{version.replace('@', '%40')}?arch={spec['Arch']}",
        tuple(f"{need} >= {least}" for need, least in sorted(needs.items())),
        tuple(carried),
    )


def _content(artifact: Path) -> list[artifact_files.Member]:
    if not artifact.name.endswith(".dsc"):
        return artifact_files.installed_files(artifact)
    # The files of a source package lie beside it.
    listed = _fields(artifact.read_text())["Checksums-Sha256"].split("\n")
    found = []
    for line in filter(None, map(str.strip, listed)):
        part = artifact.parent / line.split()[2]
        found.append(artifact_files.Member(part.name, "file", part.read_bytes(), ""))
    return found


def _file(number: int, member: artifact_files.Member) -> dict[str, Any]:
    return {
        "fileName": f"./{member.name}",
        "SPDXID": f"SPDXRef-File-{number}",
        "checksums": [
            {"algorithm": "SHA1", "checksumValue": member.sha1},
            {"algorithm": "SHA256", "checksumValue": member.sha256},
        ],
        "licenseConcluded": NOTHING,
        "licenseInfoInFiles": [NOTHING],
        "copyrightText": NOTHING,
    }


def _needed(number: int, relation: str) -> dict[str, Any]:
    """A package of others, which is named and not looked into."""
    name, _, version = relation.partition(" ")
    if relation.startswith("(") or "|" in relation:
        name, version = relation, ""
    found = _other(f"SPDXRef-Needed-{number}", name, version.strip(" ()"))
    found["comment"] = f"any that satisfies: {relation}"
    return found


def _carried(number: int, component: dict[str, Any]) -> dict[str, Any]:
    found = _other(f"SPDXRef-Carried-{number}", component["name"], component["version"])
    found["externalRefs"] = [_purl(component["purl"])]
    found["checksums"] = [
        {"algorithm": one["alg"].replace("-", ""), "checksumValue": one["content"]}
        for one in component["hashes"]
    ]
    return found


def _other(identity: str, name: str, version: str) -> dict[str, Any]:
    found = {
        "name": name,
        "SPDXID": identity,
        "downloadLocation": NOTHING,
        "filesAnalyzed": False,
        "licenseConcluded": NOTHING,
        "licenseDeclared": NOTHING,
        "copyrightText": NOTHING,
    }
    return {**found, "versionInfo": version} if version else found


def _relations(
    artifact: Path,
    files: Sequence[dict[str, Any]],
    needs: Sequence[dict[str, Any]],
    carried: Sequence[dict[str, Any]],
) -> Iterator[dict[str, str]]:
    yield _relation(DOCUMENT, "DESCRIBES", PACKAGE)
    for one in (*files, *carried):
        yield _relation(PACKAGE, "CONTAINS", one["SPDXID"])
    for one in needs:
        if artifact.name.endswith((".dsc", ".src.rpm")):
            yield _relation(one["SPDXID"], "BUILD_DEPENDENCY_OF", PACKAGE)
        else:
            yield _relation(one["SPDXID"], "RUNTIME_DEPENDENCY_OF", PACKAGE)


def _relation(first: str, kind: str, second: str) -> dict[str, str]:
    return {"spdxElementId": first, "relationshipType": kind, "relatedSpdxElement": second}


def _purl(purl: str) -> dict[str, str]:
    return {
        "referenceCategory": "PACKAGE-MANAGER",
        "referenceType": "purl",
        "referenceLocator": purl,
    }


def _code(files: Sequence[dict[str, Any]]) -> str:
    """The package verification code of SPDX 2.3, clause 7.9."""
    digests = sorted(one["checksums"][0]["checksumValue"] for one in files)
    return _sha1("".join(digests).encode())


def _sha1(content: bytes) -> str:
    return hashlib.sha1(content, usedforsecurity=False).hexdigest()


def _is_source(artifact: Path) -> bool:
    return artifact.name.endswith(_SOURCES)


def _fields(control: str) -> dict[str, str]:
    """The fields of a control file's only paragraph; a continued line keeps its line break."""
    return dict(re.findall(r"^([\w-]+):[ \t]*(.*(?:\n[ \t].*)*)", control, re.MULTILINE))


def _split(relations: str) -> list[str]:
    parts = (" ".join(part.split()) for part in relations.split(","))
    return [part for part in parts if part]


def _supplier() -> str:
    control = (release.TOP / "debian" / "control").read_text()
    return f"Organization: {_fields(control)['Maintainer'].replace('<', '(').replace('>', ')')}"


def _homepage() -> str:
    return _fields((release.TOP / "debian" / "control").read_text())["Homepage"]


def _copyright() -> str:
    text = (release.TOP / "debian" / "copyright").read_text()
    return "Copyright " + "; ".join(re.findall(r"^Copyright: (.+)$", text, re.MULTILINE))


def main() -> int:
    parser = argparse.ArgumentParser(description="print bills of materials (SPDX 2.3, JSON)")
    parser.add_argument("artifacts", nargs="+", type=Path)
    for artifact in parser.parse_args().artifacts:
        sys.stdout.write(text(artifact))
    return 0


if __name__ == "__main__":
    sys.exit(main())
