"""What is in the finished rpms of every target, against the table and the rules of the family."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import artifact_table
import pytest
import release
from support import rpms
from support.commands import run_command

LIBC = {"el8": (2, 28), "el9": (2, 34), "sles15": (2, 31)}
HOST_OWNED = "root:root"
Unpack = Callable[[str], Path]

pytestmark = pytest.mark.xdist_group("rpm-contents")


@pytest.fixture(params=rpms.TARGETS, scope="module")
def target(request: pytest.FixtureRequest) -> str:
    if rpms.missing():
        pytest.skip("; ".join(rpms.missing()))
    return str(request.param)


@pytest.fixture(scope="module")
def trees(target: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The unpacked packages by key."""
    folder = tmp_path_factory.mktemp(target)
    return {key: rpms.unpacked(rpm, folder / key) for key, rpm in rpms.built_rpms(target).items()}


def test_packages_hold_what_the_table_says(target: str) -> None:
    tool = str(release.TOP / "tools" / "check-artifacts")
    files = [str(path) for path in rpms.built_rpms(target).values()]
    command = [sys.executable, tool, "--target", target, *files]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_check_finds_what_a_package_has_too_much_and_too_little(
    target: str, tmp_path: Path
) -> None:
    """The comparison above would be worth nothing without this."""
    tree = rpms.unpacked(rpms.built_rpms(target)["google-guest-agent"], tmp_path / "tree")
    named = tree.rename(tmp_path / "google-guest-agent")
    (named / "usr/bin/google-guest").rename(named / "usr/bin/another")
    (named / "usr/bin/google_guest_agent").chmod(0o777)
    tool = str(release.TOP / "tools" / "check-artifacts")
    command = [sys.executable, tool, "--target", target, str(named)]
    said = subprocess.run(command, capture_output=True, text=True, check=False).stderr
    assert "/usr/bin/another is in the package but not in the table" in said
    assert "/usr/bin/google-guest is in the table but not in the package" in said
    assert "/usr/bin/google_guest_agent has mode 0777" in said


def test_all_of_them_are_there_in_one_version(target: str) -> None:
    known = artifact_table.target(target)
    packages = rpms.built_rpms(target)
    assert set(packages) == {package.key for package in artifact_table.packages(known)}
    form = "%{EPOCH} %{VERSION} %{RELEASE}"
    found = {rpms.query(rpm, form) for rpm in packages.values()}
    assert found == {f"(none) {release.version()} 1{known.dist}"}


def test_everything_is_roots_and_nothing_else_may_write_it(target: str) -> None:
    for rpm in rpms.built_rpms(target).values():
        files = rpms.packaged_files(rpm)
        assert {each.owner for each in files} == {HOST_OWNED}
        writable = [each.path for each in files if each.permissions & 0o6022 and not _link(each)]
        assert writable == []


def test_configuration_is_kept_with_its_edits_and_nothing_else_is_configuration(
    target: str,
) -> None:
    for key, rpm in rpms.built_rpms(target).items():
        wanted = artifact_table.package(artifact_table.target(target), key).configuration_files
        flags = {each.path: each.flags for each in rpms.packaged_files(rpm) if each.flags}
        assert {path: "cn" for path in wanted} == {
            path: "".join(sorted(flag)) for path, flag in flags.items() if "c" in flag
        }


def test_no_package_has_a_file_of_another_one(target: str) -> None:
    seen: dict[str, str] = {}
    for key, rpm in rpms.built_rpms(target).items():
        for each in rpms.packaged_files(rpm):
            if each.mode & 0o170000 != 0o040000:
                assert seen.setdefault(each.path, key) == key


def test_settings_of_the_agent_are_no_packages(target: str) -> None:
    owned = {each.path for rpm in rpms.built_rpms(target).values() for each in _files(rpm)}
    assert "/etc/default/instance_configs.cfg" not in owned


def test_folders_belong_to_the_package(target: str) -> None:
    """Those that are ours alone: erasing the package takes them away."""
    for rpm in rpms.built_rpms(target).values():
        files = rpms.packaged_files(rpm)
        folders = {each.path for each in files if each.mode & 0o170000 == 0o040000}
        ours = [each.path for each in files if re.search(r"/(google|gce|oslogin|30gcp)", each.path)]
        for path in ours:
            parents = [str(parent) for parent in Path(path).parents]
            assert [
                p for p in parents if re.search(r"/(google|30gcp)", p) and p not in folders
            ] == []


def test_launchers_name_the_targets_interpreter_and_folders(
    target: str, trees: dict[str, Path]
) -> None:
    known = artifact_table.target(target)
    count = 0
    for package in artifact_table.packages(known):
        for program in package.programs:
            text = (trees[package.key] / program["path"].lstrip("/")).read_text()
            assert text.splitlines()[0] == f"#!{known.interpreter} -IS"
            folders = [folder for folder in [package.modules, *known.module_folders] if folder]
            assert ", ".join(f'"{folder}"' for folder in folders) in text
            count += 1
    assert count >= 15


def test_library_lies_where_the_targets_python_looks(target: str, trees: dict[str, Path]) -> None:
    folder = artifact_table.target(target).module_folders[0].lstrip("/")
    tree = trees["python3-google-guest"]
    assert (tree / folder / "google_guest" / "__init__.py").is_file()
    assert not list((tree / folder / "google_guest").rglob("*windows*"))
    python = artifact_table.target(target).python
    needed = rpms.relations(rpms.built_rpms(target)["python3-google-guest"], "requires")
    assert f"python(abi) = {python}" in needed


def test_library_alone_has_no_program_and_no_unit(target: str) -> None:
    folder = artifact_table.target(target).module_folders[0]
    others = ("/usr/share/licenses", "/usr/share/doc")
    paths = [each.path for each in _files(rpms.built_rpms(target)["python3-google-guest"])]
    assert [path for path in paths if not path.startswith((folder, *others))] == []


def test_no_byte_code_of_another_python_is_shipped(target: str) -> None:
    """The tests build beside another Python than the target's."""
    for rpm in rpms.built_rpms(target).values():
        assert [each.path for each in _files(rpm) if each.path.endswith(".pyc")] == []


def test_manual_pages_are_compressed(target: str) -> None:
    for rpm in rpms.built_rpms(target).values():
        pages = [each.path for each in _files(rpm) if each.path.startswith("/usr/share/man/")]
        assert [path for path in pages if not path.endswith(".gz")] == []


def test_objects_lie_in_the_folder_that_the_target_reads(
    target: str, trees: dict[str, Path]
) -> None:
    folder = {"sles15": "lib64"}.get(target, "usr/lib64")
    tree = trees["google-compute-engine-oslogin"] / folder
    assert (tree / "libnss_oslogin.so.2").is_file()
    assert (tree / "libnss_cache_oslogin.so.2").resolve() == tree / "libnss_oslogin.so.2"
    for name in ("pam_oslogin_login.so", "pam_oslogin_admin.so"):
        assert (tree / "security" / name).is_file()


def test_objects_are_hardened_and_need_no_newer_c_library(
    target: str, trees: dict[str, Path]
) -> None:
    root = trees["google-compute-engine-oslogin"]
    objects = [*root.rglob("pam_*.so"), *root.rglob("libnss_*.so.2")]
    assert len(objects) == 4
    for path in objects:
        shown = run_command(["readelf", "-Wd", "-s", "-l", str(path)], purpose="read").stdout
        assert "__stack_chk_fail" in shown
        assert re.search(r"BIND_NOW|FLAGS_1.*NOW", shown)
        assert "GNU_RELRO" in shown
        assert re.search(r"GNU_STACK.* RW ", shown)
        versions = [tuple(map(int, v.split("."))) for v in re.findall(r"GLIBC_([\d.]+)", shown)]
        assert max(versions)[:2] <= LIBC.get(target, (2, 34))


def test_modules_of_pam_are_no_libraries_of_the_system(target: str) -> None:
    provided = rpms.relations(rpms.built_rpms(target)["google-compute-engine-oslogin"], "provides")
    assert [each for each in provided if each.startswith("pam_")] == []


def test_pages_of_policy_name_the_module_that_the_scriptlets_load(
    target: str, trees: dict[str, Path], tmp_path: Path
) -> None:
    tree = trees["google-compute-engine-oslogin-selinux"]
    policy = tree / "usr/share/selinux/packages/targeted/oslogin.pp"
    command = ["semodule_unpackage", str(policy), str(tmp_path / "module")]
    run_command(command, purpose="unpack the policy")
    # The name stands in front of the version, each with its length.
    assert b"\x07\0\0\0oslogin\x03\0\0\x001.0" in (tmp_path / "module").read_bytes()


def _files(rpm: Path) -> list[rpms.PackagedFile]:
    return [each for each in rpms.packaged_files(rpm) if each.mode & 0o170000 != 0o040000]


def _link(each: rpms.PackagedFile) -> bool:
    return each.mode & 0o170000 == 0o120000
