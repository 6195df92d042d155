"""Where the files of a package go, whose they are, and what becomes obsolete."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from googet.database import InstalledPackage
from googet.host import current_host
from googet.host.memory import MemoryHost
from googet.pkgspec import PackageSpec, spec_from_json
from googet.placing import (
    PlacementPlan,
    PlacingError,
    check_conflicts,
    check_destinations,
    conflicts,
    damaged_files,
    expand_destination,
    obsolete,
    plan_files,
    resolve_destination,
    transfers,
)
from google_guest.errors import GuestError

SHA_OF_NOTHING = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
SHA_OF_X = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"

# The double keeps Linux files; under Windows the real host has the same tests in test_transaction.
if sys.platform == "win32":
    pytest.skip("needs case-sensitive files below the double", allow_module_level=True)


def spec(files: Optional[Mapping[str, str]] = None, name: str = "a") -> PackageSpec:
    return spec_from_json({"Name": name, "Version": "1", "Arch": "noarch", "Files": files or {}})


def package(files: Mapping[str, str], name: str = "a") -> InstalledPackage:
    return InstalledPackage(spec(name=name), installed_files=dict(files))


@pytest.fixture
def host(tmp_path: Path) -> MemoryHost:
    return MemoryHost(tmp_path / "drives")


@pytest.fixture
def unpacked(tmp_path: Path) -> Path:
    folder = tmp_path / "unpacked"
    for name in ("app/bin/tool.exe", "app/readme.txt", "LICENSE"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    return folder


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("<foo>/some/place", "bar/some/place"),
        ("<foo/some/place", "/<foo/some/place"),
        ("something/<foo>/some/place", "/something/<foo>/some/place"),
        ("<foo>", "bar"),
    ],
)
def test_variable_of_a_destination_is_replaced(text: str, expanded: str) -> None:
    assert expand_destination(text, {"foo": "bar"}.get) == expanded


def test_name_of_a_variable_goes_to_the_last_bracket() -> None:
    assert expand_destination("<a>b>/c", {"a>b": "/x"}.get) == "/x/c"


def test_variable_that_is_not_set_is_an_error() -> None:
    with pytest.raises(PlacingError, match="NOSUCHVAR"):
        expand_destination("<NOSUCHVAR>/x", {}.get)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("C:\\A\\b.txt", "C:\\A\\b.txt"),
        ("C:/A//./c/", "C:\\A\\c"),
        ("<ProgramFiles>/X", "C:\\Program Files\\X"),
        ("<PROGRAMFILES>\\X\\..\\Y", "C:\\Program Files\\Y"),
        ("<ProgramFiles(x86)>/X", "C:\\Program Files (x86)\\X"),
        ("A/b", "C:\\A\\b"),
        ("/A/b", "C:\\A\\b"),
        ("\\\\server\\share\\x", "\\\\server\\share\\x"),
        ("\\\\?\\C:\\A", "C:\\A"),
    ],
)
def test_destination_on_windows(host: MemoryHost, text: str, path: str) -> None:
    assert resolve_destination(text, host) == path


@pytest.mark.parametrize(
    "text",
    [
        "<NOSUCHVAR>/x",
        "<relative>/x",
        "<SystemDrive>x",
        "<ProgramFiles>:x",
        "something/<ProgramFiles>/x",
        "C:\\a\\con",
        "C:\\a:stream",
    ],
)
def test_destination_that_is_no_place_is_an_error(host: MemoryHost, text: str) -> None:
    host.variables["relative"] = "some\\where"
    with pytest.raises(PlacingError):
        resolve_destination(text, host)
    with pytest.raises(PlacingError):
        check_destinations(spec({"x": text}), host)


@given(st.text(max_size=30), st.text(max_size=10))
def test_any_destination_is_an_absolute_path_or_an_error(text: str, value: str) -> None:
    host = current_host()
    for destination in (text, f"<GOOGET>{text}", f"C:\\{text}", f"/{text}"):
        try:
            expanded = expand_destination(destination, {"GOOGET": value}.get)
        except PlacingError:
            continue
        assert expanded
        try:
            path = resolve_destination(destination, host)
        except GuestError:
            continue
        assert host.paths.cleaned(path) == path


class TestPlan:
    def test_folder_goes_below_its_destination(self, host: MemoryHost, unpacked: Path) -> None:
        plan = plan_files(spec({"app": "<ProgramFiles>/App"}), unpacked, host)
        assert plan.recorded == {
            "C:\\Program Files\\App": "",
            "C:\\Program Files\\App\\bin": "",
            "C:\\Program Files\\App\\bin\\tool.exe": SHA_OF_X,
            "C:\\Program Files\\App\\readme.txt": SHA_OF_X,
        }

    def test_file_goes_to_its_destination_and_records_no_folders(
        self, host: MemoryHost, unpacked: Path
    ) -> None:
        plan = plan_files(spec({"LICENSE": "<ProgramFiles>/App/doc/LICENSE.txt/"}), unpacked, host)
        assert plan.recorded == {"C:\\Program Files\\App\\doc\\LICENSE.txt": SHA_OF_X}

    def test_whole_archive_goes_to_a_long_path(self, host: MemoryHost, tmp_path: Path) -> None:
        unpacked = tmp_path / "three"
        unpacked.mkdir()
        for name in ("one", "two", "three"):
            (unpacked / name).touch()
        target = "C:\\" + "\\".join(["long-name-" * 5] * 6)
        assert len(target) > 300
        plan = plan_files(spec({"./": target}), unpacked, host)
        names = [f"{target}\\{name}" for name in ("one", "two", "three")]
        assert plan.recorded == {target: "", **dict.fromkeys(names, SHA_OF_NOTHING)}

    def test_folders_come_before_what_is_in_them(self, host: MemoryHost, unpacked: Path) -> None:
        plan = plan_files(spec({"app": "C:\\App"}), unpacked, host)
        assert plan.folders == ("C:\\App", "C:\\App\\bin")

    def test_modes_are_kept(self, host: MemoryHost, unpacked: Path) -> None:
        (unpacked / "LICENSE").chmod(0o751)
        plan = plan_files(spec({"LICENSE": "C:\\L"}), unpacked, host)
        assert [file.mode for file in plan.files] == [0o751]

    def test_missing_file_is_named(self, host: MemoryHost, unpacked: Path) -> None:
        with pytest.raises(PlacingError, match="nothing-here"):
            plan_files(spec({"nothing-here": "C:\\L"}), unpacked, host)

    def test_two_files_for_one_path_are_an_error(self, host: MemoryHost, unpacked: Path) -> None:
        files = {"LICENSE": "C:\\x", "app/readme.txt": "c:\\X"}
        with pytest.raises(PlacingError, match="two files"):
            plan_files(spec(files), unpacked, host)

    def test_file_and_folder_for_one_path_are_an_error(
        self, host: MemoryHost, unpacked: Path
    ) -> None:
        files = {"LICENSE": "C:\\x", "app": "C:\\x\\below"}
        with pytest.raises(PlacingError, match="a file and a folder"):
            plan_files(spec(files), unpacked, host)

    def test_root_of_a_drive_is_no_file(self, host: MemoryHost, unpacked: Path) -> None:
        with pytest.raises(PlacingError, match="cannot be a file"):
            plan_files(spec({"LICENSE": "C:\\"}), unpacked, host)

    def test_link_in_the_extracted_package_is_refused(
        self, host: MemoryHost, unpacked: Path
    ) -> None:
        (unpacked / "app" / "link").symlink_to("/etc/passwd")
        with pytest.raises(PlacingError, match="neither a file nor a folder"):
            plan_files(spec({"app": "C:\\App"}), unpacked, host)


class TestOwnership:
    def plan(self, host: MemoryHost, unpacked: Path) -> PlacementPlan:
        return plan_files(spec({"app": "C:\\App"}), unpacked, host)

    def test_files_of_others_are_conflicts_in_any_case_and_folders_are_not(
        self, host: MemoryHost, unpacked: Path
    ) -> None:
        others = [
            package({"C:\\App": "", "c:\\APP\\README.TXT": "1"}, "other"),
            package({"C:\\App\\bin": "", "C:\\App\\unrelated": "2"}, "third"),
        ]
        found = conflicts(self.plan(host, unpacked), others, host)
        assert [(each.path, each.owner) for each in found] == [
            ("C:\\App\\readme.txt", "other.noarch.1")
        ]

    @pytest.mark.parametrize(
        ("conflict", "force", "strict", "refused"),
        [
            (conflict, force, strict, conflict and strict and not force)
            for conflict in (False, True)
            for force in (False, True)
            for strict in (False, True)
        ],
    )
    def test_only_a_strict_conflict_without_force_is_refused(
        self,
        host: MemoryHost,
        unpacked: Path,
        caplog: pytest.LogCaptureFixture,
        conflict: bool,
        force: bool,
        strict: bool,
        refused: bool,
    ) -> None:
        others = [package({"C:\\App\\readme.txt": "1"}, "other")] if conflict else []
        found = conflicts(self.plan(host, unpacked), others, host)
        if refused:
            with pytest.raises(PlacingError, match="readme.txt belongs to other"):
                check_conflicts(found, strict=strict, force=force)
            return
        check_conflicts(found, strict=strict, force=force)
        assert ("other.noarch.1" in caplog.text) is conflict

    def test_overwritten_file_leaves_the_record_of_its_owner(
        self, host: MemoryHost, unpacked: Path
    ) -> None:
        owner = package({"C:\\App": "", "C:\\APP\\readme.txt": "1", "C:\\App\\own": "2"}, "other")
        changed = transfers(self.plan(host, unpacked), [owner, package({}, "third")], host)
        assert [each.spec.name for each in changed] == ["other"]
        assert changed[0].installed_files == {"C:\\App": "", "C:\\App\\own": "2"}

    def test_file_with_the_same_content_stays_owned_by_both(
        self, host: MemoryHost, unpacked: Path
    ) -> None:
        owner = package({"C:\\App\\readme.txt": SHA_OF_X}, "other")
        assert transfers(self.plan(host, unpacked), [owner], host) == ()

    def test_files_no_longer_listed_are_obsolete_and_deepest_folders_first(
        self, host: MemoryHost, unpacked: Path, tmp_path: Path
    ) -> None:
        old = package(
            {
                "C:\\App": "",
                "C:\\App\\bin": "",
                "C:\\APP\\readme.txt": "1",
                "C:\\App\\old": "",
                "C:\\App\\old\\deep": "",
                "C:\\App\\old\\deep\\f": "2",
                "C:\\App\\gone.txt": "3",
            }
        )
        found = obsolete([old], self.plan(host, unpacked), [], host, root=tmp_path)
        assert found.files == ("C:\\App\\gone.txt", "C:\\App\\old\\deep\\f")
        assert found.folders == ("C:\\App\\old\\deep", "C:\\App\\old")

    def test_what_others_own_is_never_obsolete(self, host: MemoryHost, tmp_path: Path) -> None:
        old = package({"C:\\App": "", "C:\\App\\f": "1", "C:\\App\\g": "2"})
        other = package({"c:\\app": "", "C:\\APP\\F": "1"}, "other")
        found = obsolete([old], None, [other], host, root=tmp_path)
        assert (found.files, found.folders) == (("C:\\App\\g",), ())

    def test_protected_folders_are_never_obsolete(self, host: MemoryHost) -> None:
        root = host.folder / "C" / "ProgramData" / "GooGet"
        folders = [
            "C:\\",
            "D:\\",
            "c:\\windows",
            "C:\\Windows\\System32",
            "C:\\PROGRAM FILES",
            "C:\\Program Files (x86)",
            "C:\\ProgramData",
            "C:\\ProgramData\\GooGet",
            "C:\\ProgramData\\Other",
        ]
        found = obsolete([package(dict.fromkeys(folders, ""))], None, [], host, root=root)
        assert found.folders == ("C:\\ProgramData\\Other",)

    def test_recorded_text_that_is_no_path_is_left_alone(
        self, host: MemoryHost, tmp_path: Path
    ) -> None:
        old = package({"relative\\x": "1", "C:\\a:b": "2", "C:\\ok": "3"})
        assert obsolete([old], None, [], host, root=tmp_path).files == ("C:\\ok",)

    def test_file_that_was_recorded_without_a_digest_is_a_file(
        self, host: MemoryHost, tmp_path: Path
    ) -> None:
        path = Path(host.long_path("C:\\f"))
        path.touch()
        found = obsolete([package({"C:\\f": "", "C:\\d": ""})], None, [], host, root=tmp_path)
        assert (found.files, found.folders) == (("C:\\f",), ("C:\\d",))


class TestDamage:
    def found(self, host: MemoryHost, files: Mapping[str, str]) -> list[str]:
        return [line.rpartition(": ")[2] for line in damaged_files(package(files), host)]

    def test_package_without_files_is_whole(self, host: MemoryHost) -> None:
        assert damaged_files(InstalledPackage(spec()), host) == ()

    def test_every_damaged_path_is_told(self, host: MemoryHost) -> None:
        Path(host.long_path("C:\\good")).write_text("x")
        Path(host.long_path("C:\\bad")).write_text("y")
        Path(host.long_path("C:\\folder")).mkdir()
        files = {
            "C:\\good": SHA_OF_X,
            "c:\\GOOD": SHA_OF_X.upper(),
            "C:\\bad": SHA_OF_X,
            "C:\\missing": SHA_OF_X,
            "C:\\folder": "",
            "C:\\no folder": "",
        }
        assert self.found(host, files) == ["its content differs", "missing", "missing"]

    def test_folder_in_the_place_of_a_file_is_told(self, host: MemoryHost) -> None:
        Path(host.long_path("C:\\x")).mkdir()
        assert self.found(host, {"C:\\x": SHA_OF_X}) == ["a folder is in its place"]
