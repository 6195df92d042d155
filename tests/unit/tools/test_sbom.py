"""Bills of materials: what they say of a package, and their form."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
import sbom


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    path = tmp_path / "example-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(zipfile.ZipInfo("example/__init__.py"), b"a = 1\n")
        metadata = (
            "Metadata-Version: 2.1\nName: example\nVersion: 1.0\nSummary: an example\n"
            "Requires-Python: >=3.9\nRequires-Dist: PyYAML\n\nlong description\n"
        )
        archive.writestr(zipfile.ZipInfo("example-1.0.dist-info/METADATA"), metadata)
    return path


@pytest.fixture
def goo(tmp_path: Path) -> Path:
    path = tmp_path / "example.noarch.1.0.0@1.goo"
    spec = {
        "Name": "example",
        "Version": "1.0.0@1",
        "Arch": "noarch",
        "PkgDependencies": {"base": "0.9.0@1"},
    }
    bill = {
        "components": [
            {
                "name": "distlib",
                "version": "0.4.4",
                "purl": "pkg:pypi/distlib@0.4.4",
                "hashes": [{"alg": "SHA-256", "content": "00" * 32}],
            }
        ]
    }
    files = {"example.pkgspec": spec, "agent/bill-of-materials.json": bill}
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            data = json.dumps(content).encode()
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return path


def kinds(document: dict[str, Any]) -> set[tuple[str, str, str]]:
    return {
        (one["spdxElementId"], one["relationshipType"], one["relatedSpdxElement"])
        for one in document["relationships"]
    }


def test_package_and_its_digest_are_described(wheel: Path) -> None:
    package, *_ = sbom.document(wheel)["packages"]
    assert (package["name"], package["versionInfo"]) == ("example", "1.0")
    assert package["licenseDeclared"] == "Apache-2.0"
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    assert {"algorithm": "SHA256", "checksumValue": digest} in package["checksums"]


def test_verification_code_is_that_of_the_specification(wheel: Path) -> None:
    document = sbom.document(wheel)
    sums = sorted(one["checksums"][0]["checksumValue"] for one in document["files"])
    expected = hashlib.sha1("".join(sums).encode()).hexdigest()
    code = document["packages"][0]["packageVerificationCode"]["packageVerificationCodeValue"]
    assert (len(sums), code) == (2, expected)


def test_each_file_of_the_package_has_its_digest(wheel: Path) -> None:
    digest = hashlib.sha256(b"a = 1\n").hexdigest()
    files = {one["fileName"]: one for one in sbom.document(wheel)["files"]}
    file = files["./example/__init__.py"]
    assert {"algorithm": "SHA256", "checksumValue": digest} in file["checksums"]


def test_what_a_package_needs_at_run_time_is_related_to_it(wheel: Path) -> None:
    document = sbom.document(wheel)
    assert [one["name"] for one in document["packages"][1:]] == ["python", "PyYAML"]
    assert ("SPDXRef-Needed-1", "RUNTIME_DEPENDENCY_OF", "SPDXRef-Package") in kinds(document)


def test_parts_of_others_in_a_windows_package_are_contained(goo: Path) -> None:
    document = sbom.document(goo)
    carried = {one["name"]: one for one in document["packages"]}["distlib"]
    assert carried["checksums"] == [{"algorithm": "SHA256", "checksumValue": "00" * 32}]
    assert ("SPDXRef-Package", "CONTAINS", carried["SPDXID"]) in kinds(document)
    assert "base" in {one["name"] for one in document["packages"]}


def test_same_artifact_elsewhere_gives_the_same_bytes(wheel: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    copy = tmp_path / "elsewhere" / wheel.name
    copy.write_bytes(wheel.read_bytes())
    assert sbom.text(copy) == sbom.text(wheel)


def test_another_artifact_has_another_namespace(wheel: Path, goo: Path) -> None:
    assert sbom.document(wheel)["documentNamespace"] != sbom.document(goo)["documentNamespace"]


def test_source_package_names_its_parts_and_what_builds_it(tmp_path: Path) -> None:
    part = tmp_path / "example_1.0.orig.tar.gz"
    part.write_bytes(b"source")
    digest = hashlib.sha256(b"source").hexdigest()
    dsc = tmp_path / "example_1.0-1.dsc"
    dsc.write_text(
        "Format: 3.0 (quilt)\nSource: example\nVersion: 1.0-1\n"
        "Build-Depends: debhelper-compat (= 13), a | b\n"
        f"Checksums-Sha256:\n {digest} 6 {part.name}\n"
    )
    document = sbom.document(dsc)
    assert [one["fileName"] for one in document["files"]] == [f"./{part.name}"]
    assert [one["name"] for one in document["packages"]] == ["example", "debhelper-compat", "a | b"]
    assert ("SPDXRef-Needed-0", "BUILD_DEPENDENCY_OF", "SPDXRef-Package") in kinds(document)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a_1-1_all.deb", True),
        ("a-1-1.noarch.rpm", True),
        ("a-1-1.src.rpm", True),
        ("a_1.orig.tar.gz", False),
        ("a_1-1.debian.tar.xz", False),
        ("a-1.tar.gz", True),
        ("SHA256SUMS", False),
    ],
)
def test_parts_of_a_source_package_have_no_bill_of_their_own(name: str, expected: bool) -> None:
    assert sbom.is_described(Path(name)) is expected


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(ValueError, match=r"notes\.txt"):
        sbom.document(tmp_path / "notes.txt")
