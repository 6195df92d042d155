from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from support.goo_machine import Machine, copies, echoes, exits


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_package_goes_with_its_files_and_archive(machine: Machine) -> None:
    machine.publish(machine.folder_goo("a", "1.0.0", {"x/y/z/f": "1", "g": "2"}), machine.goo("b"))
    machine.ok("install", "a", "b")
    result = machine.ok("remove", "a")
    assert "Removal of a completed" in result.lines
    assert machine.tree() == {}
    assert list(machine.installed()) == ["b.noarch"]
    assert machine.cached() == ["b.noarch.1.0.0@1.goo"]


def test_files_of_others_stay(machine: Machine) -> None:
    machine.publish(machine.folder_goo("a", "1.0.0", {"f": "1"}))
    machine.ok("install", "a")
    (machine.disk / "top" / "mine").write_text("mine")
    machine.ok("remove", "a")
    assert machine.tree() == {"top/": "", "top/mine": "mine"}


def test_dependents_go_first_and_dependencies_stay(machine: Machine) -> None:
    def script(name: str) -> dict[str, str]:
        return {"uninstall": echoes(name, machine.folder / "trace")}

    machine.publish(
        machine.goo("d", scripts=script("d")),
        machine.goo("a", dependencies=["d"], scripts=script("a")),
        machine.goo("b", dependencies=["a"], scripts=script("b")),
        machine.goo("c", dependencies=["b"], scripts=script("c")),
    )
    machine.ok("install", "c")
    machine.ok("remove", "a")
    assert list(machine.installed()) == ["d.noarch"]
    assert (machine.folder / "trace").read_text().split() == ["c", "b", "a"]


def test_question_lists_what_goes(machine: Machine) -> None:
    machine.publish(machine.goo("a"), machine.goo("b", dependencies=["a"]))
    machine.ok("install", "b")
    result = machine.run("remove", "a")
    assert [line.split()[:2] for line in result.lines if line.startswith("  ")] == [
        ["b.noarch", "1.0.0@1"],
        ["a.noarch", "1.0.0@1"],
    ]
    assert len(machine.installed()) == 2
    machine.run("remove", "a", answer="yes\n")
    assert machine.installed() == {}


def test_dry_run_changes_nothing(machine: Machine) -> None:
    machine.publish(machine.goo("a", contents={"f": "1"}))
    machine.ok("install", "a")
    before = machine.state()
    result = machine.ok("remove", "-dry_run", "a")
    assert result.lines[0].endswith(":")
    assert "  a.noarch 1.0.0@1" in result.lines
    assert "would remove a" in result.out
    assert machine.state() == before


def test_absent_package_is_said_to_be_absent(machine: Machine) -> None:
    result = machine.ok("remove", "nowhere")
    assert "nowhere is not installed" in result.out
    assert "completed" not in result.out


@pytest.mark.parametrize("name", ["a.arm64", "a.x86_64.2.0.0", "a.noarch", "A", "a%", "_"])
def test_named_architecture_and_version_must_match(machine: Machine, name: str) -> None:
    machine.publish(*(machine.goo("a", "1.0.0", arch) for arch in ("x86_32", "x86_64")))
    machine.ok("install", "a.x86_32", "a.x86_64")
    machine.ok("remove", name)
    assert len(machine.installed()) == 2


def test_one_of_two_architectures_is_removed_alone(machine: Machine) -> None:
    machine.publish(
        *(machine.goo("a", "1.0.0", arch, contents={arch: "1"}) for arch in ("x86_32", "x86_64"))
    )
    machine.ok("install", "a.x86_32", "a.x86_64")
    machine.ok("remove", "a.x86_32")
    assert machine.tree() == {"x86_64": "1"}
    assert list(machine.installed()) == ["a.x86_64"]


def test_name_alone_means_every_architecture(machine: Machine) -> None:
    machine.publish(*(machine.goo("a", "1.0.0", arch) for arch in ("x86_32", "x86_64")))
    machine.ok("install", "a.x86_32", "a.x86_64")
    machine.ok("remove", "a")
    assert machine.installed() == {}


def test_package_without_uninstall_script_needs_no_archive(machine: Machine) -> None:
    machine.publish(machine.goo("a", contents={"f": "1"}))
    machine.ok("install", "a")
    shutil.rmtree(machine.root / "cache")
    shutil.rmtree(machine.served)
    machine.ok("remove", "a")
    assert machine.tree() == {}


def test_archive_is_downloaded_again_for_the_uninstall_script(machine: Machine) -> None:
    machine.publish(machine.goo("a", scripts={"uninstall": echoes("x", machine.folder / "ran")}))
    machine.ok("install", "a")
    (machine.root / "cache" / "a.noarch.1.0.0@1.goo").write_bytes(b"damaged")
    machine.ok("remove", "a")
    assert (machine.folder / "ran").exists()
    assert machine.installed() == {}


def test_archive_that_cannot_be_had_suggests_db_only(machine: Machine) -> None:
    machine.publish(machine.goo("a", contents={"f": "1"}, scripts={"uninstall": exits(0)}))
    machine.ok("install", "a")
    shutil.rmtree(machine.root / "cache")
    shutil.rmtree(machine.served)
    assert "-db_only" in machine.fails("remove", "a").err
    assert machine.read("f") == "1"
    machine.ok("remove", "-db_only", "a")
    assert machine.installed() == {}
    assert machine.read("f") == "1"


def test_failing_uninstall_script_leaves_the_package_and_what_it_needs(machine: Machine) -> None:
    b = machine.goo("b", dependencies=["a"], contents={"b": "b"}, scripts={"uninstall": exits(3)})
    machine.publish(machine.goo("a", contents={"a": "a"}), b, machine.goo("c", contents={"c": "c"}))
    machine.ok("install", "b", "c")
    result = machine.fails("remove", "a", "c")
    assert "exit code 3" in result.err
    assert machine.tree() == {"a": "a", "b": "b"}
    assert sorted(machine.installed()) == ["a.noarch", "b.noarch"]
    assert "Removal of c completed" in result.lines
    assert "Removal of a completed" not in result.lines
    assert (machine.root / "cache" / "failed" / "b.noarch.1.0.0@1").is_dir()


def test_uninstall_script_still_sees_the_files(machine: Machine) -> None:
    script = copies(machine.disk / "f", machine.folder / "seen")
    machine.publish(machine.goo("a", contents={"f": "1"}, scripts={"uninstall": script}))
    machine.ok("install", "a")
    machine.ok("remove", "a")
    assert (machine.folder / "seen").read_text() == "1"


def test_last_provider_takes_its_dependents_along(machine: Machine) -> None:
    machine.publish(
        machine.goo("one", provides=("mta",)),
        machine.goo("two", provides=("mta",)),
        machine.goo("user", dependencies=["mta"]),
    )
    machine.ok("install", "one", "two", "user")
    machine.ok("remove", "one")
    assert sorted(machine.installed()) == ["two.noarch", "user.noarch"]
    machine.ok("remove", "two")
    assert machine.installed() == {}
