from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Optional

import pytest
from support.goo_machine import Machine

from googet.database import encode


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def parse_as_os_config(out: str) -> list[tuple[str, str, str]]:
    """Return name, architecture and version of each line that OS Config takes for a package."""
    found = []
    for line in out.splitlines():
        fields = line.split()
        parts = fields[0].split(".", 1) if len(fields) == 2 else []
        if len(parts) == 2:
            found.append((parts[0], parts[1], fields[1]))
    return found


def parse_updates_as_os_config(out: str) -> list[tuple[str, str, str]]:
    """Return name, architecture and new version of each line that OS Config takes for an update."""
    found = []
    for line in out.splitlines():
        fields = line.split()
        parts = fields[0].split(".", 1) if len(fields) == 6 else []
        if len(parts) == 2:
            found.append((parts[0], parts[1].strip(","), fields[3]))
    return found


# installed


def install(machine: Machine, *names: str) -> None:
    machine.publish(
        *(
            machine.goo(*name.split(".", 2)[::2], name.split(".")[1], source="https://src/x")
            for name in names
        )
    )
    machine.ok("install", *(".".join(name.split(".")[:2]) for name in names))


def test_os_config_reads_installed(machine: Machine) -> None:
    install(machine, "foo.x86_64.1.2.3@4", "bar.noarch.1.2.3@4")
    assert parse_as_os_config(machine.ok("installed").out) == [
        ("bar", "noarch", "1.2.3@4"),
        ("foo", "x86_64", "1.2.3@4"),
    ]


def test_os_config_reads_nothing_where_nothing_is_installed(machine: Machine) -> None:
    assert parse_as_os_config(machine.ok("installed").out) == []


def test_os_config_reads_updates_and_their_question_is_ignored(machine: Machine) -> None:
    install(machine, "foo.noarch.3.5.4@1", "bar.x86_64.1.0.0@1")
    machine.publish(
        machine.goo("foo", "3.6.7@1", dependencies=["lib"], replaces=("bar",)),
        machine.goo("lib", "1.0.0"),
    )
    result = machine.run("update", answer=None)
    assert result.status == 0
    assert parse_updates_as_os_config(result.out) == [("foo", "noarch", "3.6.7@1")]
    assert machine.installed()["foo.noarch"] == "3.5.4@1"


def test_os_config_reads_no_updates_where_there_are_none(machine: Machine) -> None:
    install(machine, "foo.noarch.3.5.4@1")
    assert parse_updates_as_os_config(machine.ok("update").out) == []


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("foo", ["foo.noarch", "foo.x86_64"]),
        ("FOO", ["foo.noarch", "foo.x86_64"]),
        ("foo.noarch", ["foo.noarch"]),
        ("foo.x86_64.2.0.0@1", ["foo.x86_64"]),
        ("foo.x86_64.2.*", ["foo.x86_64"]),
        ("f%", ["foo.noarch", "foo.x86_64", "foo_bar.noarch"]),
        ("*bar", ["foo_bar.noarch"]),
        ("*.x86_64", ["foo.x86_64"]),
        ("foo_bar", ["foo_bar.noarch"]),
    ],
)
def test_filter_of_installed(machine: Machine, pattern: str, names: list[str]) -> None:
    install(machine, "foo.noarch.1.0.0@1", "foo.x86_64.2.0.0@1", "foo_bar.noarch.1.0.0@1")
    found = parse_as_os_config(machine.ok("installed", pattern).out)
    assert [f"{name}.{arch}" for name, arch, _ in found] == names


@pytest.mark.parametrize("pattern", ["fo", "absent", "foo.arm64", "foo.noarch.9", "fooXbar", "["])
def test_filter_without_a_match_fails(machine: Machine, pattern: str) -> None:
    install(machine, "foo.noarch.1.0.0@1", "foo_bar.noarch.1.0.0@1")
    assert parse_as_os_config(machine.fails("installed", pattern).out) == []


def test_empty_machine_is_no_failure(machine: Machine) -> None:
    machine.ok("installed")
    machine.fails("installed", "absent")


def test_installed_files_are_listed(machine: Machine) -> None:
    machine.publish(machine.folder_goo("a", "1.0.0", {"f": "1"}))
    machine.ok("install", "a")
    lines = machine.ok("installed", "-files", "a").lines
    assert lines[-2:] == [f"  - {machine.disk / 'top'}", f"  - {machine.disk / 'top' / 'f'}"]


def test_information_is_a_block_after_a_blank_line(machine: Machine) -> None:
    install(machine, "foo.noarch.1.0.0@1")
    lines = machine.ok("installed", "-info", "foo.noarch").lines
    assert lines[1] == ""
    facts = dict(line.split(":", 1) for line in lines[2:])
    assert facts["Version      "] == " 1.0.0@1"
    assert facts["Source       "] == " https://src/x"
    assert facts["Repo         "] == " installed"


def test_json_of_an_empty_machine(machine: Machine) -> None:
    assert machine.ok("installed", "-format", "json").out == "{}\n"


def test_json_has_the_records_of_the_database(machine: Machine) -> None:
    install(machine, "foo.noarch.1.0.0@1")
    found = json.loads(machine.ok("installed", "-format=json").out)
    assert found == [json.loads(encode(machine.package("foo")))]


def test_installed_needs_no_lock(machine: Machine) -> None:
    install(machine, "foo.noarch.1.0.0@1")
    log = (machine.root / "googet.log").read_bytes()
    machine.ok("installed")
    assert (machine.root / "googet.log").read_bytes() == log


def test_state_of_old_googet_is_listed(machine: Machine) -> None:
    record = {
        "SourceRepo": "https://h/r",
        "PackageSpec": {"Name": "old", "Version": "1.0.0@1", "Arch": "noarch"},
        "UnpackDir": "C:\\x",
        "InstallDate": 5,
    }
    (machine.root / "googet.state").write_text(json.dumps([record, {"x": 1}]))
    assert parse_as_os_config(machine.ok("installed").out) == [("old", "noarch", "1.0.0@1")]
    assert machine.package("old").install_date == 5


def test_database_that_a_killed_googet_left_half_written_is_mended(machine: Machine) -> None:
    install(machine, "foo.noarch.1.0.0@1")
    path = machine.root / "googet.db"
    connection = sqlite3.connect(path, isolation_level=None)
    # A page leaves the cache before the commit: both files are as after a kill there.
    connection.execute("PRAGMA cache_size = 1")
    connection.execute("BEGIN IMMEDIATE")
    for number in range(200):
        row = (f"p{number}", "noarch", "1", b"x" * 500)
        connection.execute(
            "INSERT INTO InstalledPackages (pkg_name, pkg_arch, pkg_ver, pkg_json)"
            " VALUES (?, ?, ?, ?)",
            row,
        )
    left = {name: (machine.root / name).read_bytes() for name in ("googet.db", "googet.db-journal")}
    connection.execute("ROLLBACK")
    connection.close()
    for name, data in left.items():
        (machine.root / name).write_bytes(data)
    assert parse_as_os_config(machine.ok("installed").out) == [("foo", "noarch", "1.0.0@1")]


# available


def test_available_lists_repositories_and_packages(machine: Machine) -> None:
    other = machine.repository("other")
    machine.publish(machine.goo("b", "2.0.0"), machine.goo("a"), machine.goo("b", "10.0.0"))
    machine.publish(machine.goo("c"), repository="other")
    assert machine.ok("available").lines == [
        f"{other}:",
        "  c.noarch 1.0.0@1",
        f"{machine.served / 'repo' / 'repo'}:",
        "  a.noarch 1.0.0@1",
        "  b.noarch 2.0.0",
        "  b.noarch 10.0.0",
    ]


@pytest.mark.parametrize(
    ("text", "found"),
    [("foo", 2), ("oo", 2), ("bar", 1), ("noarch.1", 1), ("x86_64.2.0.0", 1), ("baz", 0)],
)
def test_available_finds_any_part_of_a_name(machine: Machine, text: str, found: int) -> None:
    machine.publish(machine.goo("foo", "1.0.0"), machine.goo("foobar", "2.0.0", "x86_64"))
    result = machine.run("available", text)
    assert len(parse_as_os_config(result.out)) == found
    assert result.status == (0 if found else 1)
    assert bool(result.err) == (found == 0)


def test_available_information_names_the_repository(machine: Machine) -> None:
    machine.publish(machine.goo("a"))
    assert "Repo         : repo" in machine.ok("available", "-info").lines


def test_available_as_json(machine: Machine) -> None:
    machine.publish(machine.goo("a"))
    (row,) = json.loads(machine.ok("available", "-format", "json").out)
    assert row == {
        "package_name": "a",
        "arch": "noarch",
        "version": "1.0.0@1",
        "repository": str(machine.served / "repo" / "repo"),
        "priority": 500,
    }


def test_without_repositories_available_fails(machine: Machine) -> None:
    (machine.root / "repos" / "repo.repo").unlink()
    assert "no repository" in machine.fails("available").err


def test_repositories_that_all_fail_are_a_failure(machine: Machine) -> None:
    (machine.served / "repo" / "repo" / "index").unlink()
    machine.fails("available")
    machine.fails("update") if machine.installed() else machine.ok("update")


def test_one_good_repository_is_enough(machine: Machine) -> None:
    machine.repository("other")
    machine.publish(machine.goo("a"), repository="other")
    (machine.served / "repo" / "repo" / "index").unlink()
    result = machine.ok("available")
    assert "  a.noarch 1.0.0@1" in result.lines
    assert result.err


def test_unsafe_source_is_never_contacted(machine: Machine) -> None:
    machine.fails("available", "-sources", "http://127.0.0.1:1/repo")
    machine.configure("allowunsafeurl: true\n")
    assert "127.0.0.1" in machine.fails("available", "-sources", "http://127.0.0.1:1/repo").err


# latest


def test_latest_prints_the_version(machine: Machine) -> None:
    machine.publish(machine.goo("a", "1.0.0"), machine.goo("a", "2.0.0", "x86_32"))
    assert machine.ok("latest", "a").out == "2.0.0\n"
    assert machine.ok("latest", "a.noarch").out == "1.0.0\n"
    machine.fails("latest", "nowhere")


@pytest.mark.parametrize(
    ("installed", "status"),
    [
        (None, "not_installed"),
        ("1.0.0", "update_available"),
        ("2.0.0", "up_to_date"),
        ("3.0.0", "newer_version_installed"),
    ],
)
def test_latest_is_compared_with_what_is_installed(
    machine: Machine, installed: Optional[str], status: str
) -> None:
    if installed:
        machine.ok("install", str(machine.goo("a", installed)))
    machine.publish(machine.goo("a", "2.0.0"))
    found = json.loads(machine.ok("latest", "-compare", "-json", "a").out)
    expected = {"package_name": "a", "status": status, "latest_version": "2.0.0"}
    if installed:
        expected["installed_version"] = installed
    assert found == expected
    sentence = machine.ok("latest", "-compare", "a").out
    assert "2.0.0" in sentence and "a " in sentence
