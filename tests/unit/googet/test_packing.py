"""Packing a goospec: the archive, the build command, and what the spec promises."""

from __future__ import annotations

import json
import logging
import os
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from googet.archive import extract, read_archive_spec, sha256_of
from googet.host import HostError
from googet.packing import PackingError, pack
from google_guest.errors import GuestError

TIME = 1767312000
# What the interpreter that runs the tests is to a goospec of each system.
RUNNER = {"linux": sys.executable, "windows": sys.executable}


class Workshop:
    """A folder with a goospec and files."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.out = top / "out"
        self.out.mkdir()

    def file(self, name: str, content: str = "") -> None:
        path = self.top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content or name)

    def goospec(self, file: str = "x.goospec", /, **more: Any) -> Path:
        value = {"name": "a", "version": "1.0.0@1", "arch": "noarch", **more}
        path = self.top / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value))
        return path

    def pack(self, **more: Any) -> Path:
        return pack(self.goospec(**more), {}, self.out, self.top, mtime=TIME)

    def packed(self, **more: Any) -> list[str]:
        with tarfile.open(self.pack(**more)) as tar:
            return sorted(tar.getnames())


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path)


def test_package_has_payload_and_spec(workshop: Workshop, tmp_path: Path) -> None:
    workshop.file("bin/tool", "tool")
    path = workshop.top / "x.goospec"
    path.write_text(
        '{{$v := printf "%s.0@1" .version -}}\n'
        '{"name": "a", "version": "{{$v}}", "arch": "noarch",'
        ' "files": {"bin": "<ProgramFiles>/a"}, "sources": [{"include": ["bin/**"]}]}'
    )
    archive = pack(path, {"version": "20260102.00"}, workshop.out, workshop.top)
    assert archive == workshop.out / "a.noarch.20260102.00.0@1.goo"
    assert read_archive_spec(archive).files == {"bin": "<ProgramFiles>/a"}
    assert extract(archive, tmp_path / "unpacked") == ("a.pkgspec", "bin/tool")
    written = json.loads((tmp_path / "unpacked/a.pkgspec").read_bytes())
    assert [written[key] for key in ("Replaces", "Conflicts", "Provides")] == [None] * 3
    assert [written[key] for key in ("Install", "Uninstall", "Verify")] == [{}] * 3


def test_package_without_payload_is_packed(workshop: Workshop) -> None:
    assert workshop.packed() == ["a.pkgspec"]


def test_two_runs_give_the_same_bytes(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", str(TIME))
    sums = set()
    for time in (1_500_000_000, 1_600_000_000):
        workshop.file("d/f")
        os.utime(workshop.top / "d/f", (time, time))
        spec = workshop.goospec(sources=[{"include": ["d/**"]}])
        sums.add(sha256_of(pack(spec, {}, workshop.out, workshop.top)))
    assert len(sums) == 1


def test_build_command_runs_before_files_are_collected(workshop: Workshop) -> None:
    build = {**RUNNER}
    for system in ("linux", "windows"):
        build[f"{system}Args"] = ["-c", "open('made', 'w').close()"]
    assert workshop.packed(build=build, sources=[{"include": ["made"]}]) == ["a.pkgspec", "made"]


def test_relative_build_command_is_beside_the_goospec(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    if sys.platform == "win32":
        pytest.skip("the program is a shell script")
    script = workshop.top / "packaging/build.sh"
    workshop.file("packaging/build.sh", '#!/bin/sh\necho "$1" > made\n')
    script.chmod(0o755)
    goospec = workshop.goospec(
        "packaging/x.goospec",
        build={"linux": "./build.sh", "linuxArgs": ["x y"]},
        sources=[{"include": ["made"]}],
    )
    monkeypatch.chdir(workshop.top)
    # As goopack is called: from the top of a source tree.
    pack(goospec.relative_to(workshop.top), {}, Path("out"))
    assert (workshop.top / "made").read_text() == "x y\n"


def test_build_command_of_another_system_is_not_run(workshop: Workshop) -> None:
    other = "linux" if sys.platform == "win32" else "windows"
    assert workshop.packed(build={other: "/no/such/program"}) == ["a.pkgspec"]


def test_failed_build_writes_no_package(workshop: Workshop) -> None:
    build = {**RUNNER, "linuxArgs": ["-c", "exit(5)"], "windowsArgs": ["-c", "exit(5)"]}
    with pytest.raises(PackingError, match="failed with status 5"):
        workshop.pack(build=build)
    assert not list(workshop.out.iterdir())


def test_missing_build_command_is_named(workshop: Workshop) -> None:
    with pytest.raises(HostError, match="nosuch"):
        workshop.pack(build=dict.fromkeys(("linux", "windows"), "nosuch"))


def test_key_of_files_with_a_slash_at_its_end_is_refused_by_name(workshop: Workshop) -> None:
    workshop.file("lic/a")
    with pytest.raises(PackingError, match="'lic/' \\(write it as 'lic'\\)"):
        workshop.pack(files={"lic/": "/x"}, sources=[{"include": ["lic/a"]}])
    assert not list(workshop.out.iterdir())


def test_key_of_files_that_is_a_folder_is_packed(workshop: Workshop) -> None:
    workshop.file("lic/a")
    names = workshop.packed(files={"lic": "/x"}, sources=[{"include": ["lic/a"]}])
    assert names == ["a.pkgspec", "lic/a"]


@pytest.mark.parametrize("key", ["install", "uninstall", "verify"])
def test_command_that_is_not_packaged_is_refused(workshop: Workshop, key: str) -> None:
    workshop.file("run.ps1")
    command = {key: {"path": "..\\run.ps1"}}
    with pytest.raises(PackingError, match=rf"{key.capitalize()}\.Path 'run\.ps1'"):
        workshop.pack(**command)
    assert "run.ps1" in workshop.packed(sources=[{"include": ["run.ps1"]}], **command)


@pytest.mark.parametrize(
    "more",
    [
        {"tags": {str(number): "" for number in range(11)}},
        {"tags": {"k" * 128: ""}},
        {"arch": "amd64"},
        {"install": {"path": "/abs"}},
        {"name": "n/../../zz"},
        {"sources": [{"include": ["missing"]}]},
        {"sources": [{"include": ["a\0b"]}]},
        {"sources": [{"include": ["a\0b/*"]}]},
        {"sources": [{"include": ["*"], "root": "\0"}]},
        {"build": {"linux": "\0", "windows": "\0"}},
        {"build": {**RUNNER, "linuxArgs": ["\0"], "windowsArgs": ["\0"]}},
        {"sources": [{"include": ["x.goospec"], "target": "d/x.pkgspec/.."}, {"include": ["?"]}]},
    ],
)
def test_wrong_goospec_leaves_no_package(workshop: Workshop, more: dict[str, Any]) -> None:
    before = sorted(workshop.top.rglob("*"))
    with pytest.raises(GuestError):
        workshop.pack(**more)
    (workshop.top / "x.goospec").unlink()
    assert sorted(workshop.top.rglob("*")) == before


def test_payload_that_looks_like_a_spec_is_refused(workshop: Workshop) -> None:
    workshop.file("d/x.pkgspec")
    with pytest.raises(GuestError, match="taken for the spec"):
        workshop.pack(sources=[{"include": ["d/*"]}])


@pytest.mark.parametrize(
    ("version", "warned"),
    [
        ("20260102.00@1", True),
        ("1", True),
        ("1-a.b.c", True),
        ("1.0.0", False),
        ("1.0.0+w@1", False),
    ],
)
def test_short_version_is_warned_of(
    workshop: Workshop, caplog: pytest.LogCaptureFixture, version: str, warned: bool
) -> None:
    with caplog.at_level(logging.WARNING):
        workshop.pack(version=version)
    assert ("older than any 1.0.0" in caplog.text) == warned
