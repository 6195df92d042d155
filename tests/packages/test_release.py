"""Releases: made of a commit, equal twice, with digests and bills of materials; one version."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import release
import sbom
from packaging.version import Version
from support import rpm_versions
from support.commands import Completed, run_command
from support.debs import GuestDebs

GIT = ("git", "-c", "user.name=nobody", "-c", "user.email=nobody@release.example")
ONLY = ("--only", "sdist", "wheel", "dsc")
VERSION = release.version()
RELATIONS = {
    "DESCRIBES",
    "CONTAINS",
    "RUNTIME_DEPENDENCY_OF",
    "BUILD_DEPENDENCY_OF",
}


@pytest.fixture
def repository(tree: Path) -> Path:
    """The tree as a commit."""
    git(tree, "init", "--quiet")
    commit(tree)
    return tree


def git(tree: Path, *arguments: str) -> str:
    return run_command([*GIT, "-C", str(tree), *arguments], purpose="keep a commit").stdout


def commit(tree: Path) -> None:
    git(tree, "add", "--all")
    git(tree, "commit", "--quiet", "--message", "as it is")


def tool(tree: Path, name: str, *arguments: str) -> Completed:
    command = ["/usr/bin/python3", str(tree / "tools" / name), *arguments]
    return run_command(command, purpose=name, timeout=300, check=False)


def released(tree: Path, *arguments: str) -> Completed:
    done = tool(tree, "make-release", *(arguments or ONLY))
    assert done.status == 0, done.stderr
    return done


def change(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


# Making a release.


@pytest.fixture(scope="module")
def made(frozen_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A tree in which a release was made of some builds, and what was said of it."""
    tree = tmp_path_factory.mktemp("released") / "tree"
    run_command(["cp", "-a", str(frozen_tree), str(tree)], purpose="copy the tree")
    git(tree, "init", "--quiet")
    commit(tree)
    done = released(tree)
    return tree, done.stdout


def artifacts(tree: Path) -> list[Path]:
    found = (tree / "dist" / "release").rglob("*")
    return sorted(path for path in found if path.is_file() and sbom.is_described(path))


def test_every_file_of_a_release_has_its_digest(made: tuple[Path, str]) -> None:
    folder = made[0] / "dist" / "release"
    command = ["sh", "-c", 'cd "$0" && sha256sum --strict --check SHA256SUMS', str(folder)]
    done = run_command(command, purpose="check the digests")
    checked = {line.rpartition(":")[0] for line in done.stdout.splitlines()}
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert checked == files - {"SHA256SUMS"}
    assert len(artifacts(made[0])) == 3


def test_every_artifact_of_a_release_has_a_valid_bill_of_materials(made: tuple[Path, str]) -> None:
    for artifact in artifacts(made[0]):
        bill = artifact.with_name(artifact.name + sbom.SUFFIX)
        document = json.loads(bill.read_text())
        assert list(problems(document)) == [], artifact.name
        assert document == sbom.document(artifact)


def test_table_has_each_file_with_its_size_and_digest(made: tuple[Path, str]) -> None:
    tree, table = made
    for path in artifacts(tree):
        (line,) = [each for each in table.splitlines() if each.startswith(f"{path.name} ")]
        assert hashlib.sha256(path.read_bytes()).hexdigest()[:16] in line
        assert f"{path.stat().st_size:,}".replace(",", " ") in line


def test_what_is_equal_already_is_not_built_again(made: tuple[Path, str]) -> None:
    tree, table = made
    done = released(tree)
    assert [line for line in done.stderr.splitlines() if not line.endswith("as before")] == []
    assert done.stdout == table


def test_release_leaves_no_change_in_the_tree(made: tuple[Path, str]) -> None:
    assert git(made[0], "status", "--porcelain") == ""


def test_tree_with_changes_is_refused_and_the_files_are_named(repository: Path) -> None:
    (repository / "NEWS").open("a").write("\n")
    (repository / "docs" / "new.md").write_text("new\n")
    done = tool(repository, "make-release", *ONLY)
    assert done.status == 1
    assert "  NEWS\n" in done.stderr
    assert "  docs/new.md\n" in done.stderr
    assert not (repository / "dist" / "release").exists()


def test_tree_that_is_no_commit_is_refused(tree: Path) -> None:
    done = tool(tree, "make-release", *ONLY)
    assert done.status == 1
    assert "a release is made of a commit" in done.stderr


def test_release_with_a_date_to_come_is_refused(repository: Path) -> None:
    news = repository / "NEWS"
    news.write_text(re.sub(r"\(\d{4}-", "(2999-", news.read_text(), count=1))
    run_command([str(repository / "tools" / "changelog")], purpose="write the changelogs")
    commit(repository)
    done = tool(repository, "make-release", *ONLY)
    assert done.status == 1
    assert "still to come" in done.stderr


def test_build_that_differs_the_second_time_makes_no_release_and_the_member_is_named(
    repository: Path,
) -> None:
    tool_file = repository / "tools" / "build-sdist"
    change(tool_file, "entry.mtime = moment", 'entry.mtime = len(os.environ.get("TZ", ""))')
    change(tool_file, "import argparse\n", "import argparse\nimport os\n")
    commit(repository)
    done = tool(repository, "make-release", "--only", "sdist")
    assert done.status == 1
    assert f"google-guest-environment-{VERSION}.tar.gz differs: " in done.stderr
    assert "time 3, owner 0:0 and mode" in done.stderr
    assert not (repository / "dist" / "release").exists()


def test_build_that_fails_makes_no_release(repository: Path) -> None:
    change(repository / "tools" / "build-sdist", "import argparse", "import no_such_module")
    commit(repository)
    done = tool(repository, "make-release", "--only", "sdist", "wheel")
    assert done.status == 1
    assert "sdist: ModuleNotFoundError: No module named 'no_such_module'" in done.stderr
    assert not (repository / "dist" / "release").exists()


# What can be built here.


def test_target_that_cannot_be_built_here_is_listed_with_the_reason(tree: Path) -> None:
    for name in ("build-rpm", "build-deb"):
        (tree / "tools" / name).write_text(
            "#!/usr/bin/python3\nimport os, sys\n"
            "target = os.environ.get('GUEST_TARGET', 'this')\n"
            "print(f'the archive of {target} does not answer', file=sys.stderr)\nsys.exit(3)\n"
        )
    done = tool(tree, "package-summary", "--build", "--only", "sdist", "rpm el9", "deb ubuntu2404")
    assert done.status == 0, done.stderr
    assert "not built: rpm el9: the archive of el9 does not answer\n" in done.stdout
    assert "not built: deb ubuntu2404: the archive of ubuntu2404 does not answer\n" in done.stdout
    assert f"google-guest-environment-{VERSION}.tar.gz " in done.stdout


def test_build_that_fails_is_named_and_ends_the_summary_with_an_error(tree: Path) -> None:
    (tree / "tools" / "build-rpm").write_text("import sys\nsys.exit('no such macro')\n")
    done = tool(tree, "package-summary", "--build", "--only", "sdist", "rpm sles15")
    assert done.status == 1
    assert "failed: rpm sles15: no such macro\n" in done.stdout


def test_summary_without_building_lists_what_is_there(made: tuple[Path, str]) -> None:
    tree = made[0]
    tool(tree, "package-summary", "--build", "--only", "sdist", "wheel", "dsc")
    done = tool(tree, "package-summary", "--only", "sdist", "wheel", "dsc", "goo")
    listed = [line.split()[0] for line in done.stdout.splitlines()[1:]]
    assert listed == [
        f"google-guest-environment-{VERSION}.tar.gz",
        f"google_guest-{Version(VERSION)}-py3-none-any.whl",
        f"google-guest-environment_{VERSION}-1.debian.tar.xz",
        f"google-guest-environment_{VERSION}-1.dsc",
        f"google-guest-environment_{VERSION}.orig.tar.gz",
        "not",
    ]
    assert "not built: goo: not built yet" in done.stdout


# One source of changes.


@pytest.fixture
def spec(tree: Path) -> Path:
    """The rpm spec of the tree, or where there is none yet one that has what matters here."""
    path = tree / "rpm" / "google-guest-environment.spec"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"Name: example\nVersion: {VERSION}\n\n%changelog\n")
        run_command([str(tree / "tools" / "changelog")], purpose="write the changelogs")
    return path


def test_changelog_of_the_spec_is_what_news_gives(tree: Path, spec: Path) -> None:
    assert tool(tree, "changelog", "--check").status == 0
    with spec.open("a") as file:
        file.write("- one more line\n")
    done = tool(tree, "changelog", "--check")
    assert (done.status, "rpm/google-guest-environment.spec is not" in done.stderr) == (1, True)
    assert tool(tree, "changelog").status == 0
    assert tool(tree, "changelog", "--check").status == 0


def test_new_entry_of_news_gives_all_formats_its_version(tree: Path, spec: Path) -> None:
    news = tree / "NEWS"
    news.write_text("20261124.01 (2026-11-24)\n\n* One hundred % better.\n\n" + news.read_text())
    (tree / "VERSION").write_text("20261124.01\n")
    assert tool(tree, "changelog").status == 0
    text = spec.read_text()
    assert re.search(r"^Version:\s*20261124\.01$", text, re.MULTILINE)
    day = r"^\* Tue Nov 24 2026 .+ <.+@.+> - 20261124\.01-1\n- One hundred %% better\.\n\n\* "
    assert re.search(day, text, re.MULTILINE)
    debian = (tree / "debian" / "changelog").read_text()
    assert debian.startswith("google-guest-environment (20261124.01-1) unstable")


def test_goospec_with_notes_of_its_own_is_found(tree: Path) -> None:
    change(tree / "googet" / "googet.goospec", "[{{.notes}}]", '["something new"]')
    done = tool(tree, "changelog", "--check")
    assert done.status == 1
    assert "googet/googet.goospec: releaseNotes must be" in done.stderr


# One version.


def test_debian_packages_have_the_version_of_the_tree(guest_debs: GuestDebs) -> None:
    versions = set()
    for deb in guest_debs.packages.values():
        done = run_command(["dpkg-deb", "-f", str(deb), "Version"], purpose="read a package")
        versions.add(done.stdout.strip())
    assert versions == {f"{VERSION}-1"}


def test_windows_packages_have_the_version_of_the_tree(guest_goos: Mapping[str, Path]) -> None:
    versions = {}
    for name, goo in guest_goos.items():
        with tarfile.open(goo) as archive:
            versions[name] = json.load(archive.extractfile(f"{name}.pkgspec"))["Version"]
    # The runtime has a version of its own, which changes with its content.
    versions.pop("google-guest-python-runtime")
    assert set(versions.values()) == {f"{VERSION}.0@1"}


def test_rpms_have_the_version_of_the_tree_and_no_epoch() -> None:
    versions = set()
    for rpm in rpm_versions.rpms("el9").values():
        form = "%{EPOCH} %{VERSION}-%{RELEASE}"
        command = ["rpm", "-qp", "--nosignature", "--queryformat", form, str(rpm)]
        versions.add(run_command(command, purpose="read a package").stdout)
    assert versions == {f"(none) {VERSION}-1.el9"}


def test_programs_say_the_version_of_the_tree(unpacked: dict[str, Path]) -> None:
    library = unpacked["python3-google-guest"] / "usr/lib/python3/dist-packages"
    code = f"import sys; sys.path[:0] = [{str(library)!r}]; import google_guest.cli.guest as g; "
    command = ["/usr/bin/python3", "-IS", "-c", code + "g.main()", "--version"]
    modules = "/usr/lib/python3/dist-packages"
    command[3] = code + f"sys.path.append({modules!r}); sys.exit(g.main())"
    assert run_command(command, purpose="ask for the version").stdout.strip() == VERSION


def test_python_metadata_has_the_same_version_by_its_rules(made: tuple[Path, str]) -> None:
    (wheel,) = (made[0] / "dist" / "release").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [each for each in archive.namelist() if each.endswith("/METADATA")]
        (found,) = re.findall(r"^Version: (.+)$", archive.read(name).decode(), re.MULTILINE)
    assert Version(found) == Version(VERSION)
    done = subprocess.run(["dpkg", "--compare-versions", found, "eq", VERSION])
    assert done.returncode == 0


# The form of a bill of materials (SPDX 2.3, clauses 6, 7, 8, 11).


def problems(document: dict[str, Any]) -> Iterator[str]:
    """What the specification has against a document."""
    expected = {"spdxVersion": "SPDX-2.3", "dataLicense": "CC0-1.0", "SPDXID": "SPDXRef-DOCUMENT"}
    for key, value in expected.items():
        if document.get(key) != value:
            yield f"{key} is {document.get(key)!r}"
    if not document.get("name"):
        yield "the document has no name"
    if not re.fullmatch(r"[a-z][a-z0-9+.-]*:[^#\s]+", document.get("documentNamespace", "")):
        yield "documentNamespace is no absolute URI"
    creation = document.get("creationInfo", {})
    if not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", creation.get("created", "")):
        yield "creationInfo.created is no time"
    for creator in creation.get("creators", [""]):
        if not re.match(r"(Tool|Person|Organization): \S", creator):
            yield f"creator {creator!r}"
    elements = [*document.get("packages", ()), *document.get("files", ())]
    identities = [document.get("SPDXID"), *(one.get("SPDXID") for one in elements)]
    if len(set(identities)) != len(identities):
        yield "an SPDXID stands twice"
    yield from (f"SPDXID {one}" for one in identities if not _is_identity(one))
    for package in document.get("packages", ()):
        yield from _package_problems(package, document)
    for file in document.get("files", ()):
        yield from _file_problems(file)
    for relation in document.get("relationships", ()):
        ends = {relation.get("spdxElementId"), relation.get("relatedSpdxElement")}
        if not ends <= set(identities) or relation.get("relationshipType") not in RELATIONS:
            yield f"relationship {relation}"
    if "DESCRIBES" not in {one["relationshipType"] for one in document.get("relationships", ())}:
        yield "the document describes nothing"


def _is_identity(text: Any) -> bool:
    return isinstance(text, str) and bool(re.fullmatch(r"SPDXRef-[A-Za-z0-9.-]+", text))


def _package_problems(package: dict[str, Any], document: dict[str, Any]) -> Iterator[str]:
    for key in ("name", "downloadLocation", "licenseConcluded", "licenseDeclared", "copyrightText"):
        if not package.get(key):
            yield f"{package.get('SPDXID')} has no {key}"
    yield from _checksum_problems(package)
    if package.get("filesAnalyzed", True):
        sums = sorted(_sum(file, "SHA1") for file in document.get("files", ()))
        code = hashlib.sha1("".join(sums).encode()).hexdigest()
        stated = package.get("packageVerificationCode", {}).get("packageVerificationCodeValue")
        if stated != code:
            yield f"{package.get('SPDXID')}: packageVerificationCode {stated}"
    for reference in package.get("externalRefs", ()):
        if reference.get("referenceCategory") != "PACKAGE-MANAGER" or not re.fullmatch(
            r"pkg:[a-z]+/\S+@[^\s@]+", reference.get("referenceLocator", "")
        ):
            yield f"{package.get('SPDXID')}: {reference}"


def _file_problems(file: dict[str, Any]) -> Iterator[str]:
    if not file.get("fileName", "").startswith("./"):
        yield f"fileName {file.get('fileName')!r}"
    for key in ("licenseConcluded", "copyrightText", "licenseInfoInFiles", "checksums"):
        if not file.get(key):
            yield f"{file.get('SPDXID')} has no {key}"
    yield from _checksum_problems(file)
    if not _sum(file, "SHA1"):
        yield f"{file.get('SPDXID')} has no SHA1"


def _checksum_problems(element: dict[str, Any]) -> Iterator[str]:
    lengths = {"SHA1": 40, "SHA256": 64}
    for one in element.get("checksums", ()):
        length = lengths.get(one.get("algorithm"))
        if not length or not re.fullmatch(f"[0-9a-f]{{{length}}}", one.get("checksumValue", "")):
            yield f"{element.get('SPDXID')}: {one}"


def _sum(element: dict[str, Any], algorithm: str) -> str:
    found = [one for one in element.get("checksums", ()) if one["algorithm"] == algorithm]
    return found[0]["checksumValue"] if found else ""


@pytest.mark.parametrize(
    "damage",
    [
        lambda document: document.pop("dataLicense"),
        lambda document: document["files"][0]["checksums"].pop(0),
        lambda document: document["files"][0].update(SPDXID="SPDXRef-Package"),
        lambda document: document["packages"][0].update(downloadLocation=""),
        lambda document: document["relationships"][0].update(relatedSpdxElement="SPDXRef-none"),
        lambda document: document.update(documentNamespace="no-uri"),
    ],
    ids=["licence", "checksum", "identity", "location", "relation", "namespace"],
)
def test_damaged_bill_of_materials_is_found(made: tuple[Path, str], damage: Any) -> None:
    (wheel,) = (made[0] / "dist" / "release").glob("*.whl")
    document = sbom.document(wheel)
    damage(document)
    assert list(problems(document))
