from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
from support.goo_machine import Machine, echoes, exits, prints

from googet.pkgspec import Command

COMPLETED = "Installation of {} and all dependencies completed"
PRESENT = "{} or a newer version is already installed on the system"


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


# From a repository.


def test_package_is_installed_and_recorded(machine: Machine) -> None:
    package = machine.goo("a", contents={"etc/a.conf": "hello"})
    machine.publish(package)
    result = machine.ok("install", "a")
    assert COMPLETED.format("a.noarch.1.0.0@1") in result.lines
    assert machine.read("etc/a.conf") == "hello"
    row = machine.package("a")
    digest = hashlib.sha256(package.read_bytes()).hexdigest()
    assert row.checksum == digest
    assert row.source_repo == str(machine.served / "repo" / "repo")
    assert Path(row.download_url).parts[-2:] == ("packages", package.name)
    assert Path(row.local_path) == machine.root / "cache" / package.name
    assert row.installed_files == {
        str(machine.disk / "etc/a.conf"): hashlib.sha256(b"hello").hexdigest()
    }
    assert row.install_date > 0


def test_cache_has_the_package_and_nothing_else_afterwards(machine: Machine) -> None:
    machine.publish(machine.goo("a", contents={"f": "1"}, scripts={"install": exits(0)}))
    machine.ok("install", "a")
    assert machine.cached() == ["a.noarch.1.0.0@1.goo"]


def test_dependency_is_installed_first_in_the_version_that_is_needed(machine: Machine) -> None:
    trace = machine.folder / "trace"
    old = machine.goo("b", "1.0.0", contents={"b": "1"})
    new = machine.goo("b", "3.0.0", contents={"b": "3"}, scripts={"install": echoes("b", trace)})
    a = machine.goo(
        "a",
        dependencies={"b": "2.0.0"},
        scripts={"install": f"{prints(machine.disk / 'b')}\n{echoes('a', trace)}"},
    )
    machine.publish(old)
    machine.ok("install", "b")
    machine.publish(old, new, a)
    result = machine.ok("install", "a")
    assert machine.installed() == {"a.noarch": "1.0.0@1", "b.noarch": "3.0.0"}
    assert trace.read_text().split() == ["b", "a"]
    assert "3" in result.out


def test_present_package_is_left_alone(machine: Machine) -> None:
    machine.publish(machine.goo("a"))
    machine.ok("install", "a")
    for name in ("a", "a.noarch", "a.noarch.1.0.0@1", "a.noarch.0.5.0"):
        result = machine.ok("install", name)
        assert any(line.endswith(PRESENT.format("")) for line in result.lines)


def test_cycle_of_two_is_installed_and_removed(machine: Machine) -> None:
    machine.publish(machine.goo("a", dependencies=["b"]), machine.goo("b", dependencies=["a"]))
    machine.ok("install", "a")
    assert sorted(machine.installed()) == ["a.noarch", "b.noarch"]
    machine.ok("remove", "a")
    assert machine.installed() == {}


def test_arguments_are_independent_of_each_other(machine: Machine) -> None:
    machine.publish(machine.goo("a"), machine.goo("b"))
    result = machine.fails("install", "a", "nowhere", "b")
    assert sorted(machine.installed()) == ["a.noarch", "b.noarch"]
    assert "nowhere" in result.err


def test_same_argument_twice_is_installed_once(machine: Machine) -> None:
    machine.publish(machine.goo("a"))
    assert machine.ok("install", "a", "a").out.count("completed") == 1


def test_no_argument_is_an_error(machine: Machine) -> None:
    machine.fails("install")


def test_package_that_was_never_published_fails(machine: Machine) -> None:
    machine.fails("install", "a")


def test_without_repositories_installing_a_name_says_so(machine: Machine) -> None:
    (machine.root / "repos" / "repo.repo").unlink()
    assert "addrepo" in machine.fails("install", "a").err


def test_sources_stand_for_the_repository_files(machine: Machine) -> None:
    other = machine.repository("other")
    (machine.root / "repos" / "other.repo").unlink()
    machine.publish(machine.goo("a"), repository="other")
    machine.fails("install", "a")
    machine.ok("install", "-sources", str(other), "a")
    assert machine.package("a").source_repo == str(other)


# Questions and dry runs.


def test_question_shows_installs_upgrades_and_removals(machine: Machine) -> None:
    a, lib = machine.goo("a", "5.0.0"), machine.goo("lib", "1.0.0")
    c = machine.goo("c", dependencies=["a"])
    machine.publish(a, c, lib)
    machine.ok("install", "c", "lib")
    b = machine.goo("b", replaces=("a.noarch.3",), dependencies={"lib": "2.0.0"})
    machine.publish(a, c, b, machine.goo("lib", "2.0.0"))
    result = machine.run("install", "b")
    assert result.status == 0
    lines = result.lines
    assert "  b.noarch.1.0.0@1" in lines
    assert any(line.startswith("  lib.noarch.2.0.0") and "1.0.0" in line for line in lines)
    removed = lines[lines.index("The following packages will be REMOVED:") + 1 :][:2]
    assert [line.split()[0] for line in removed] == ["c.noarch", "a.noarch"]
    assert any(line.endswith(" (y/N): ") for line in lines)
    assert machine.installed()["a.noarch"] == "5.0.0"


@pytest.mark.parametrize(
    ("answer", "is_yes"),
    [("y\n", True), ("YES\n", True), ("Y", True), ("n\n", False), ("", False), ("yep\n", False)],
)
def test_only_yes_is_yes(machine: Machine, answer: str, is_yes: bool) -> None:
    machine.publish(machine.goo("a"))
    assert machine.run("install", "a", answer=answer).status == 0
    assert bool(machine.installed()) == is_yes


def test_missing_standard_input_declines(machine: Machine) -> None:
    machine.publish(machine.goo("a"))
    assert machine.run("install", "a", answer=None).status == 0
    assert machine.installed() == {}


def test_dry_run_lists_and_changes_nothing(machine: Machine) -> None:
    machine.publish(machine.goo("a", dependencies=["b"]), machine.goo("b"))
    result = machine.ok("install", "-dry_run", "a")
    assert "  a.noarch.1.0.0@1" in result.lines and "  b.noarch.1.0.0@1" in result.lines
    assert "would install" in result.out
    assert "Installing" not in result.out
    assert machine.installed() == {}


def test_dry_run_of_a_present_package_lists_nothing(machine: Machine) -> None:
    machine.publish(machine.goo("a"))
    machine.ok("install", "a")
    result = machine.ok("install", "-dry_run", "a")
    assert result.lines == [PRESENT.format("a.noarch.1.0.0@1")]


# Conflicts and replacements.


def test_conflict_with_an_installed_provider_fails_and_names_it(machine: Machine) -> None:
    machine.publish(
        machine.goo("impl", provides=("libconflict",)),
        machine.goo("a", conflicts=("libconflict",)),
    )
    machine.ok("install", "impl")
    assert "impl" in machine.fails("install", "a").err
    assert list(machine.installed()) == ["impl.noarch"]


@pytest.mark.parametrize("with_dependent", [False, True])
def test_replaced_package_is_removed_with_its_files(machine: Machine, with_dependent: bool) -> None:
    a = machine.goo("a", "5.0.0", contents={"a/a.txt": "a"})
    c = machine.goo("c", dependencies=["a"], contents={"c.txt": "c"})
    b = machine.goo("b", replaces=("a.noarch.3",), contents={"b.txt": "b"})
    machine.publish(a, b, c)
    machine.ok("install", "a", *(["c"] if with_dependent else []))
    machine.ok("install", "b")
    assert list(machine.installed()) == ["b.noarch"]
    assert [name for name in machine.tree() if not name.endswith("/")] == ["b.txt"]
    assert machine.cached() == ["b.noarch.1.0.0@1.goo"]


def test_download_that_fails_leaves_replaced_packages_alone(machine: Machine) -> None:
    a, c = machine.goo("a", contents={"a": "a"}), machine.goo("c", dependencies=["a"])
    b = machine.goo("b", replaces=("a",))
    machine.publish(a, b, c)
    machine.ok("install", "c")
    before = machine.state()
    (machine.served / "repo" / "packages" / b.name).write_bytes(b"not this")
    assert "checksum" in machine.fails("install", "b").err
    assert machine.state() == before


def test_dependency_that_cannot_be_had_stops_before_anything_is_placed(machine: Machine) -> None:
    lib = machine.goo("lib", contents={"lib": "lib"})
    bad = machine.goo("bad")
    a = machine.goo("a", dependencies=["bad", "lib"], contents={"a": "a"})
    machine.publish(lib, bad, a, machine.goo("other", contents={"other": "o"}))
    (machine.served / "repo" / "packages" / bad.name).write_bytes(b"not this")
    machine.fails("install", "a", "other")
    assert list(machine.installed()) == ["other.noarch"]
    assert machine.tree() == {"other": "o"}


def test_uninstall_script_of_a_replaced_package_runs(machine: Machine) -> None:
    script = echoes("x", machine.folder / "uninstalled")
    machine.publish(
        machine.goo("a", scripts={"uninstall": script}), machine.goo("b", replaces=("a",))
    )
    machine.ok("install", "a")
    machine.ok("install", "b")
    assert (machine.folder / "uninstalled").exists()


def test_failed_installation_brings_the_replaced_package_back(machine: Machine) -> None:
    a = machine.goo("a", contents={"a/a": "a"})
    b = machine.goo("b", replaces=("a",), contents={"b": "b"}, scripts={"install": exits(9)})
    machine.publish(a, b)
    machine.ok("install", "a")
    before = (machine.tree(), machine.installed())
    machine.fails("install", "b")
    assert (machine.tree(), machine.installed()) == before


# Commands of packages.


def test_failing_command_restores_the_old_files_and_keeps_its_log(machine: Machine) -> None:
    old = machine.goo("a", "1.0.0", contents={"a.txt": "old", "gone.txt": "x"})
    new = machine.goo(
        "a",
        "2.0.0",
        contents={"a.txt": "new", "more.txt": "y"},
        scripts={"install": f"{echoes('it broke')}\n{exits(5)}"},
    )
    machine.publish(old)
    machine.ok("install", "a")
    tree, row = machine.tree(), machine.package("a")
    machine.publish(old, new)
    result = machine.fails("install", "a")
    assert "exit code 5" in result.err
    assert machine.tree() == tree
    assert machine.package("a") == row
    (log,) = (machine.root / "cache" / "failed" / "a.noarch.2.0.0").glob("*.log")
    assert "it broke" in log.read_text()


def test_listed_exit_code_is_success(machine: Machine) -> None:
    command = Command(exit_codes=(5,))
    machine.publish(machine.goo("a", scripts={"install": exits(5)}, install=command))
    machine.ok("install", "a")
    assert machine.installed() == {"a.noarch": "1.0.0@1"}


def test_package_that_needs_a_failed_one_is_not_tried(machine: Machine) -> None:
    bad = machine.goo("bad", scripts={"install": exits(1)})
    a = machine.goo(
        "a", dependencies=["bad"], scripts={"install": echoes("x", machine.folder / "ran")}
    )
    machine.publish(bad, a, machine.goo("b"))
    machine.fails("install", "a", "b")
    assert list(machine.installed()) == ["b.noarch"]
    assert not (machine.folder / "ran").exists()


def test_package_that_conflicts_with_what_could_not_be_replaced_is_not_tried(
    machine: Machine,
) -> None:
    b = machine.goo("b", replaces=("a",), scripts={"install": exits(1)})
    machine.publish(machine.goo("a"), b, machine.goo("c", conflicts=("a",)))
    machine.ok("install", "a")
    assert "still installed" in machine.fails("install", "b", "c").err
    assert list(machine.installed()) == ["a.noarch"]


# Upgrades, downgrades, architectures.


def test_upgrade_deletes_dropped_files_and_keeps_neighbours(machine: Machine) -> None:
    tree = machine.goo("a", "1.0.0", contents={"d/old.txt": "o", "d/f.txt": "1"})
    machine.publish(tree)
    machine.ok("install", "a")
    (machine.disk / "d" / "mine.txt").write_text("mine")
    machine.publish(machine.goo("a", "2.0.0", contents={"d/f.txt": "2"}))
    machine.ok("install", "a")
    assert machine.tree() == {"d/": "", "d/f.txt": "2", "d/mine.txt": "mine"}
    assert machine.cached() == ["a.noarch.2.0.0.goo"]


def test_upgrade_removes_recorded_folders_that_became_empty(machine: Machine) -> None:
    first = machine.folder_goo("a", "1.0.0", {"sub/f.txt": "1", "g.txt": "g"})
    machine.publish(first)
    machine.ok("install", "a")
    assert (machine.disk / "top/sub/f.txt").exists()
    machine.publish(machine.folder_goo("a", "2.0.0", {"g.txt": "g"}))
    machine.ok("install", "a")
    assert machine.tree() == {"top/": "", "top/g.txt": "g"}


def test_allowed_downgrade_installs_the_older_version(machine: Machine) -> None:
    one, two = (machine.goo("a", f"{n}.0.0", contents={"v": str(n)}) for n in (1, 2))
    machine.publish(one, two)
    machine.ok("install", "a")
    machine.ok("install", "a.noarch.1.0.0")
    assert machine.read("v") == "2"
    machine.ok("install", "-allow_downgrade", "a.noarch.1.0.0")
    assert machine.read("v") == "1"
    assert machine.installed() == {"a.noarch": "1.0.0"}


def test_upgrade_of_one_architecture_keeps_the_files_of_the_other(machine: Machine) -> None:
    both = [
        machine.goo("a", "1.0.0", arch, contents={f"{arch}.txt": "1"})
        for arch in ("x86_32", "x86_64")
    ]
    machine.publish(*both)
    machine.ok("install", "a.x86_32", "a.x86_64")
    new = machine.goo("a", "2.0.0", "x86_32", contents={"x86_32.new": "2"})
    machine.publish(*both, new)
    machine.ok("install", "a.x86_32")
    assert machine.installed() == {"a.x86_32": "2.0.0", "a.x86_64": "1.0.0"}
    assert machine.tree() == {"x86_32.new": "2", "x86_64.txt": "1"}


def test_change_of_architecture_removes_the_old_row_and_its_files(machine: Machine) -> None:
    machine.publish(machine.goo("a", "1.0.0", contents={"old": "1", "both": "1"}))
    machine.ok("install", "a")
    machine.publish(machine.goo("a", "2.0.0", "x86_64", contents={"new": "2", "both": "2"}))
    machine.ok("install", "a")
    assert machine.installed() == {"a.x86_64": "2.0.0"}
    assert machine.tree() == {"new": "2", "both": "2"}
    assert machine.cached() == ["a.x86_64.2.0.0.goo"]


def test_named_architecture_is_installed_beside_the_other(machine: Machine) -> None:
    machine.publish(machine.goo("a", "1.0.0"), machine.goo("a", "2.0.0", "x86_64"))
    machine.ok("install", "a.noarch")
    machine.ok("install", "a.x86_64")
    assert machine.installed() == {"a.noarch": "1.0.0", "a.x86_64": "2.0.0"}


# Files of other packages.


def owners(machine: Machine, conf: str = "") -> None:
    machine.configure(conf)
    machine.publish(
        machine.goo("p", contents={"shared": "p"}), machine.goo("q", contents={"shared": "q"})
    )
    machine.ok("install", "p")


def test_file_of_another_package_is_overwritten_and_changes_its_owner(machine: Machine) -> None:
    owners(machine)
    assert "shared of p.noarch.1.0.0@1 is overwritten" in machine.ok("install", "q").out
    machine.ok("remove", "p")
    assert machine.read("shared") == "q"
    machine.ok("remove", "q")
    assert machine.tree() == {}


def test_strict_conflicts_forbid_overwriting(machine: Machine) -> None:
    owners(machine, "strictconflicts: true\n")
    assert "-force" in machine.fails("install", "q").err
    assert machine.read("shared") == "p"
    assert list(machine.installed()) == ["p.noarch"]
    machine.ok("install", "-force", "q")
    assert machine.read("shared") == "q"


def test_unset_variable_of_a_destination_fails_before_anything_is_copied(
    machine: Machine,
) -> None:
    bad = machine.goo("bad", contents={"first": "1"}, files={"x": "<NOSUCHVAR>/x"})
    machine.publish(bad)
    assert "NOSUCHVAR" in machine.fails("install", "bad").err
    assert machine.tree() == {}
    assert machine.installed() == {}


# Only the database.


def test_db_only_records_real_hashes_and_places_nothing(machine: Machine) -> None:
    package = machine.goo(
        "a", contents={"f": "x"}, scripts={"install": echoes("x", machine.folder / "ran")}
    )
    machine.publish(package)
    machine.ok("install", "-db_only", "a")
    assert machine.tree() == {} and not (machine.folder / "ran").exists()
    assert list((machine.package("a").installed_files or {}).values()) == [
        hashlib.sha256(b"x").hexdigest()
    ]
    (machine.disk / "f").write_text("x")
    machine.ok("verify", "a")


# What an index says and what an archive is.


def test_archive_of_another_package_than_promised_is_refused(machine: Machine) -> None:
    machine.publish(machine.goo("a", "1.0.0"))
    index = machine.served / "repo" / "repo" / "index"
    index.write_text(index.read_text().replace('"1.0.0"', '"2.0.0"'))
    assert "a.noarch.1.0.0" in machine.fails("install", "a").err
    assert machine.installed() == {}


def test_entry_without_a_spec_does_not_hide_the_others(machine: Machine) -> None:
    machine.publish(machine.goo("a"))
    index = machine.served / "repo" / "repo" / "index"
    entries = json.loads(index.read_text())
    index.write_text(json.dumps([{"Checksum": "0" * 64, "Source": "packages/x.goo"}, *entries]))
    machine.ok("install", "a")


# From files.


def test_file_is_installed_without_any_repository(machine: Machine) -> None:
    (machine.root / "repos" / "repo.repo").unlink()
    package = machine.goo("a", contents={"f": "1"})
    machine.ok("install", str(package))
    row = machine.package("a")
    assert (row.source_repo, row.download_url) == ("", "")
    assert row.checksum == hashlib.sha256(package.read_bytes()).hexdigest()
    assert (machine.root / "cache" / package.name).exists()


def test_file_asks_no_repository_when_files_suffice(machine: Machine) -> None:
    shutil.rmtree(machine.served)
    a = machine.goo("a", dependencies=["b"])
    machine.ok("install", str(a), str(machine.goo("b")))
    assert sorted(machine.installed()) == ["a.noarch", "b.noarch"]


def test_file_gets_what_it_needs_from_the_repositories(machine: Machine) -> None:
    machine.publish(machine.goo("b"))
    machine.ok("install", str(machine.goo("a", dependencies=["b"])))
    assert sorted(machine.installed()) == ["a.noarch", "b.noarch"]


def test_file_with_an_unmet_dependency_fails(machine: Machine) -> None:
    result = machine.fails("install", str(machine.goo("a", dependencies=["b"])))
    assert "needs b" in result.err
    assert machine.installed() == {}


def test_file_that_is_not_needed_is_left_alone(machine: Machine) -> None:
    new = machine.goo("a", "2.0.0")
    machine.ok("install", str(new))
    for package in (new, machine.goo("a", "1.0.0")):
        result = machine.ok("install", str(package))
        assert result.lines == [PRESENT.format(package.name[:-4])]


def test_file_is_reinstalled_on_demand(machine: Machine) -> None:
    package = machine.goo("a", contents={"f": "1"})
    machine.ok("install", str(package))
    (machine.disk / "f").write_text("changed")
    machine.ok("install", "-reinstall", str(package))
    assert machine.read("f") == "1"


def test_file_upgrade_cleans_what_the_old_version_left(machine: Machine) -> None:
    machine.ok("install", str(machine.goo("a", "1.0.0", contents={"old": "1"})))
    machine.ok("install", str(machine.goo("a", "2.0.0", contents={"new": "2"})))
    assert machine.tree() == {"new": "2"}
    assert machine.cached() == ["a.noarch.2.0.0.goo"]


def test_file_in_the_cache_is_installed_from_there(machine: Machine) -> None:
    package = machine.goo("a", contents={"f": "1"})
    cache = machine.root / "cache"
    cache.mkdir()
    inside = cache / package.name
    shutil.copy(package, inside)
    machine.ok("install", str(inside))
    assert machine.read("f") == "1"
    assert inside.read_bytes() == package.read_bytes()


@pytest.mark.parametrize("content", [b"", b"junk", b"\x1f\x8b\x08"])
def test_file_that_is_no_package_fails(machine: Machine, content: bytes) -> None:
    path = machine.folder / "x.goo"
    path.write_bytes(content)
    assert "x.goo" in machine.fails("install", str(path)).err


def test_missing_file_fails_and_others_go_on(machine: Machine) -> None:
    package = machine.goo("a")
    result = machine.fails("install", str(machine.folder / "no.goo"), str(package))
    assert "no.goo" in result.err
    assert list(machine.installed()) == ["a.noarch"]


# Again.


def test_reinstall_restores_files_without_any_repository(machine: Machine) -> None:
    machine.publish(machine.goo("a", contents={"f": "1"}))
    machine.ok("install", "a")
    row = machine.package("a")
    shutil.rmtree(machine.served)
    (machine.disk / "f").unlink()
    machine.ok("install", "-reinstall", "a")
    assert machine.read("f") == "1"
    assert machine.package("a") == row


def test_reinstall_of_an_absent_package_does_nothing(machine: Machine) -> None:
    machine.publish(machine.goo("a"))
    machine.ok("install", "-reinstall", "a")
    assert machine.installed() == {}


def test_reinstall_with_nobody_to_ask_changes_nothing(machine: Machine) -> None:
    machine.publish(machine.goo("a", contents={"f": "1"}))
    machine.ok("install", "a")
    (machine.disk / "f").unlink()
    assert machine.run("install", "-reinstall", "a", answer=None).status == 0
    assert not (machine.disk / "f").exists()


def test_reinstall_downloads_what_is_missing_in_the_cache(machine: Machine) -> None:
    package = machine.goo("a", contents={"f": "1"})
    machine.publish(package)
    machine.ok("install", "a")
    cached = machine.root / "cache" / package.name
    cached.write_bytes(b"damaged")
    machine.ok("install", "-reinstall", "a")
    assert cached.read_bytes() == package.read_bytes()


def test_redownload_fetches_a_good_file_again(machine: Machine) -> None:
    package = machine.goo("a")
    machine.publish(package)
    machine.ok("install", "a")
    (machine.served / "repo" / "packages" / package.name).unlink()
    machine.ok("install", "-reinstall", "a")
    machine.fails("install", "-reinstall", "-redownload", "a")
    machine.fails("install", "-redownload", "a")


def test_reinstall_of_a_package_from_a_file_whose_archive_is_gone_fails(machine: Machine) -> None:
    package = machine.goo("a")
    machine.ok("install", str(package))
    (machine.root / "cache" / package.name).unlink()
    machine.fails("install", "-reinstall", "a")


def test_reinstall_of_both_architectures(machine: Machine) -> None:
    machine.publish(
        *(machine.goo("a", arch=arch, contents={arch: "1"}) for arch in ("x86_32", "x86_64"))
    )
    machine.ok("install", "a.x86_32", "a.x86_64")
    for arch in ("x86_32", "x86_64"):
        (machine.disk / arch).unlink()
    machine.ok("install", "-reinstall", "a")
    assert machine.tree() == {"x86_32": "1", "x86_64": "1"}
