"""What the built Windows packages hold and say of themselves."""

from __future__ import annotations

import hashlib
import io
import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

import goo_checks
import goo_payloads
import pytest
import release
import windows_python
import yaml
from release import TOP, version
from support.goos import AGENT, CLIENT, LIBRARY, PACKAGES, RUNTIME, SCRIPTS

from googet import preload
from googet.archive import extract, read_archive_spec
from googet.index import read_index
from googet.pkgspec import PackageSpec
from googet.versions import compare_versions

BASE = "ProgramFiles/Google/Compute Engine"
PROGRAMS = {
    AGENT: (
        "agent/GCEAuthorizedKeysCommand.exe",
        "agent/GCEMetadataScriptRunner.exe",
        "agent/GCEWindowsAgent.exe",
        "agent/ggactl_plugin.exe",
        "agent/google-guest.exe",
    ),
    SCRIPTS: (
        "metadata_scripts/GCECompatMetadataScripts.exe",
        "metadata_scripts/GCEMetadataScripts.exe",
    ),
}
LICENSES = {
    RUNTIME: f"{BASE}/agent/python/LICENSE.{RUNTIME}.txt",
    LIBRARY: f"{BASE}/agent/lib/LICENSE.{LIBRARY}.txt",
    AGENT: f"{BASE}/agent/LICENSE.{AGENT}.txt",
    SCRIPTS: f"{BASE}/metadata_scripts/LICENSE.{SCRIPTS}.txt",
    CLIENT: f"ProgramData/GooGet/LICENSE.{CLIENT}.txt",
}


@pytest.fixture(scope="session")
def specs(guest_goos: Mapping[str, Path]) -> dict[str, PackageSpec]:
    return {name: read_archive_spec(path) for name, path in guest_goos.items()}


@pytest.fixture(scope="session")
def placed(
    guest_goos: Mapping[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """Each package as a tree of the places that its files get."""
    trees = {}
    for name, archive in guest_goos.items():
        trees[name] = tmp_path_factory.mktemp("placed") / name
        goo_checks.unpack(archive, trees[name])
    return trees


def check_artifacts(tree: Path, *goos: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/usr/bin/python3", tree / "tools" / "check-artifacts", *goos],
        capture_output=True,
        text=True,
        check=False,
    )


def program_zip(path: Path) -> zipfile.ZipFile:
    return zipfile.ZipFile(io.BytesIO(path.read_bytes()))


def test_packages_hold_what_the_table_says(guest_goos: Mapping[str, Path]) -> None:
    done = check_artifacts(TOP, *guest_goos.values())
    assert (done.returncode, done.stderr) == (0, "")


def test_there_is_every_package_of_the_table_and_no_other(guest_goos: Mapping[str, Path]) -> None:
    assert sorted(guest_goos) == sorted(PACKAGES)


def test_file_that_the_table_does_not_name_is_found(
    tree: Path, guest_goos: Mapping[str, Path]
) -> None:
    table = tree / "tools" / "artifacts.yaml"
    text = table.read_text()
    table.write_text(text.replace("run_startup_scripts.cmd", "run_boot_scripts.cmd"))
    done = check_artifacts(tree, *guest_goos.values())
    assert done.returncode == 1
    assert f"{SCRIPTS}: @BASE@/metadata_scripts/run_boot_scripts.cmd is in the table but" in (
        done.stderr
    )
    assert f"{SCRIPTS}: /{BASE}/metadata_scripts/run_startup_scripts.cmd is in the package but" in (
        done.stderr
    )


def test_module_that_the_library_does_not_carry_is_found(
    tree: Path, guest_goos: Mapping[str, Path]
) -> None:
    (tree / "src/google_guest/novelty.py").write_text("")
    done = check_artifacts(tree, *guest_goos.values())
    assert "src/google_guest/novelty.py is in the tree but in no package" in done.stderr


def test_package_that_was_not_built_is_found(guest_goos: Mapping[str, Path]) -> None:
    done = check_artifacts(TOP, *(path for name, path in guest_goos.items() if name != LIBRARY))
    assert f"{LIBRARY}: not built" in done.stderr
    assert f"{AGENT}: depends on {LIBRARY}, which is no package of the set" in done.stderr


@pytest.mark.parametrize("name", [LIBRARY, AGENT, SCRIPTS, CLIENT])
def test_version_is_that_of_the_file_version(specs: dict[str, PackageSpec], name: str) -> None:
    assert specs[name].version == f"{version()}.0@1"


def test_runtime_has_a_version_of_its_own(specs: dict[str, PackageSpec]) -> None:
    recorded, _ = goo_payloads.runtime_version()
    assert specs[RUNTIME].version == f"{recorded}.0@1"


@pytest.mark.parametrize(
    ("name", "arch"),
    [(RUNTIME, "x86_64"), (LIBRARY, "noarch"), (AGENT, "x86_64"), (SCRIPTS, "x86_64")],
)
def test_architecture_is(specs: dict[str, PackageSpec], name: str, arch: str) -> None:
    assert specs[name].arch == arch


@pytest.mark.parametrize("name", [AGENT, SCRIPTS])
def test_programs_need_this_library_and_a_runtime(specs: dict[str, PackageSpec], name: str) -> None:
    assert specs[name].dependencies == {
        LIBRARY: specs[LIBRARY].version,
        RUNTIME: specs[RUNTIME].version,
    }


def test_googet_needs_nothing(specs: dict[str, PackageSpec]) -> None:
    assert specs[CLIENT].dependencies == {}


@pytest.mark.parametrize(
    ("name", "vendors"),
    [
        (AGENT, "20251218.00.0@1"),
        (SCRIPTS, "20251218.00.0@1"),
        (CLIENT, "3.3.2@0"),
        (CLIENT, "20251218.00.0@1"),
    ],
)
def test_version_is_newer_than_the_vendors(
    specs: dict[str, PackageSpec], name: str, vendors: str
) -> None:
    assert compare_versions(specs[name].version, vendors) > 0


@pytest.mark.parametrize("name", PACKAGES)
def test_release_notes_are_those_of_news(specs: dict[str, PackageSpec], name: str) -> None:
    assert list(specs[name].release_notes) == release.notes()


@pytest.mark.parametrize("name", PACKAGES)
def test_no_text_has_a_place_holder(specs: dict[str, PackageSpec], name: str) -> None:
    assert not re.search(r"\{\{|<no value>|@[A-Z]+@", repr(specs[name]))


@pytest.mark.parametrize("name", [LIBRARY, AGENT, SCRIPTS, CLIENT])
def test_package_has_an_install_and_an_uninstall_step(
    specs: dict[str, PackageSpec], placed: dict[str, Path], name: str
) -> None:
    spec = specs[name]
    assert (spec.install.path, spec.uninstall.path) == ("install.cmd", "install.cmd")
    assert spec.uninstall.args == (*spec.install.args, "remove")
    assert (placed[name] / "scripts" / "install.cmd").exists()


@pytest.mark.parametrize("name", PACKAGES)
def test_package_carries_its_own_licence_text(placed: dict[str, Path], name: str) -> None:
    ours = (TOP / "LICENSE").read_text().splitlines()
    text = (placed[name] / LICENSES[name]).read_text()
    assert text.splitlines()[: len(ours)] == ours


@pytest.mark.parametrize(
    ("name", "others"),
    [(AGENT, ("distlib",)), (CLIENT, ("distlib", "PyYAML", "urllib3", "truststore"))],
)
def test_licences_of_what_is_inside_are_there_too(
    placed: dict[str, Path], name: str, others: tuple[str, ...]
) -> None:
    text = (placed[name] / LICENSES[name]).read_text().lower()
    assert [other for other in others if other.lower() not in text] == []


def test_runtime_keeps_the_licences_of_python_and_its_wheels(placed: dict[str, Path]) -> None:
    python = placed[RUNTIME] / BASE / "agent/python"
    assert "PYTHON SOFTWARE FOUNDATION LICENSE" in (python / "LICENSE.txt").read_text()
    with_licence = {
        path.parents[1].name.split("-")[0].lower()
        for path in python.glob("Lib/site-packages/*.dist-info/licenses/*")
    }
    wanted = windows_python.requirements(windows_python.RUNTIME_REQUIREMENTS)
    assert {one.name.lower() for one in wanted} <= with_licence


@pytest.mark.parametrize(
    ("name", "others"),
    [
        (
            RUNTIME,
            {"cpython", "cffi", "cryptography", "pycparser", "pyyaml", "truststore", "urllib3"},
        ),
        (CLIENT, {"cpython", "pyyaml", "truststore", "urllib3", "distlib"}),
        (AGENT, {"distlib"}),
        (SCRIPTS, {"distlib"}),
    ],
)
def test_parts_of_others_are_listed_with_their_hashes(
    placed: dict[str, Path], name: str, others: set[str]
) -> None:
    (bill,) = placed[name].rglob("bill-of-materials.json")
    components = json.loads(bill.read_text())["components"]
    assert {one["name"] for one in components} == others
    assert all(re.fullmatch("[0-9a-f]{64}", one["hashes"][0]["content"]) for one in components)


def test_library_is_the_wheel_with_byte_code(placed: dict[str, Path], tmp_path: Path) -> None:
    import library_wheel

    with zipfile.ZipFile(library_wheel.build(tmp_path / "wheel")) as wheel:
        wanted = {name: wheel.read(name) for name in wheel.namelist()}
    folder = placed[LIBRARY] / BASE / "agent/lib" / version()
    found = {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
    code = {name for name in found if name.endswith(".pyc")}
    assert {name: data for name, data in found.items() if name not in code} == wanted
    modules = {name for name in wanted if name.endswith(".py")}
    assert code == {
        re.sub(r"([^/]+)\.py$", r"__pycache__/\1.cpython-313.pyc", name) for name in modules
    }


@pytest.mark.parametrize("name", [RUNTIME, LIBRARY])
def test_byte_code_is_never_compared_with_its_module(placed: dict[str, Path], name: str) -> None:
    with zipfile.ZipFile(
        placed[RUNTIME] / BASE / "agent/python" / goo_payloads.STANDARD_LIBRARY
    ) as standard:
        magic = standard.read("os.pyc")[:4]
    heads = {path.read_bytes()[:8] for path in placed[name].rglob("*.pyc")}
    assert heads == {magic + b"\x01\0\0\0"}


def test_python_is_isolated_by_its_search_path(placed: dict[str, Path]) -> None:
    python = placed[RUNTIME] / BASE / "agent/python"
    lines = (python / goo_payloads.SEARCH_PATH).read_text().splitlines()
    assert lines == [goo_payloads.STANDARD_LIBRARY, ".", "Lib\\site-packages", "import site"]
    client = placed[CLIENT] / "ProgramData/GooGet/python" / goo_payloads.SEARCH_PATH
    assert client.read_text().splitlines() == [
        goo_payloads.STANDARD_LIBRARY,
        ".",
        "..\\googet.exe",
    ]


@pytest.mark.parametrize(
    ("package", "program"), [(name, path) for name, paths in PROGRAMS.items() for path in paths]
)
def test_program_runs_the_entry_point_of_the_table(
    placed: dict[str, Path], package: str, program: str
) -> None:
    entry_points = dict(goo_payloads.programs(package))
    module, function = entry_points[program].split(":")
    with program_zip(placed[package] / BASE / program) as entries:
        text = entries.read("__main__.py").decode()
    assert f"from {module} import {function}\n" in text
    assert version() in text
    assert (TOP / "src" / f"{module.replace('.', '/')}.py").exists()


def test_table_has_the_programs_that_are_tested_here() -> None:
    table = yaml.safe_load((TOP / "tools/artifacts.yaml").read_text())["packages"]
    found = {
        name: tuple(sorted(path for path, _ in goo_payloads.programs(name)))
        for name, entry in table.items()
        if "goo" in entry["formats"] and "programs" in entry
    }
    assert found == PROGRAMS


def test_further_name_of_a_program_is_the_same_program_but_for_its_name(
    placed: dict[str, Path],
) -> None:
    folder = placed[SCRIPTS] / BASE / "metadata_scripts"
    first, second = (
        program_zip(folder / f"{name}.exe").read("__main__.py").decode()
        for name in ("GCEMetadataScripts", "GCECompatMetadataScripts")
    )
    assert first.replace("GCEMetadataScripts", "GCECompatMetadataScripts") == second


def test_googet_has_every_module_that_it_loads_before_it_changes_files(
    placed: dict[str, Path],
) -> None:
    with program_zip(placed[CLIENT] / "ProgramData/GooGet/googet.exe") as entries:
        names = set(entries.namelist())
    wanted = {f"googet/{name.replace('.', '/')}" for name in preload._MODULES}
    missing = [n for n in wanted if not {f"{n}.pyc", f"{n}/__init__.pyc"} & names]
    assert missing == []
    assert {"__main__.py", "google_guest/VERSION", "yaml/__init__.pyc"} <= names


def test_googet_starts_from_its_own_file_alone(placed: dict[str, Path], tmp_path: Path) -> None:
    program = placed[CLIENT] / "ProgramData/GooGet/googet.exe"
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(program), "-version"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    # Of the byte code of another Python nothing is used here, of the modules everything.
    assert (done.returncode, done.stdout) == (0, f"GooGet version: {version()}\n"), done.stderr


def test_googet_carries_no_module_of_python_that_it_never_uses(placed: dict[str, Path]) -> None:
    python = placed[CLIENT] / "ProgramData/GooGet/python"
    with zipfile.ZipFile(python / goo_payloads.STANDARD_LIBRARY) as library:
        names = {name.split("/")[0].removesuffix(".pyc") for name in library.namelist()}
    code = (
        "import sys; from googet.preload import load_everything; load_everything(); "
        "import googet.cli.packages, googet.cli.queries, googet.cli.repository_files; "
        "import googet.cli.installation; "
        "print(*sorted({name.split('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        env={"PYTHONPATH": f"{TOP / 'src'}:{Path(yaml.__file__).parents[1]}"},
        capture_output=True,
        text=True,
        check=True,
    )
    trimmed = {
        name
        for name in done.stdout.split()
        if goo_payloads.NOT_IN_CLIENT_LIBRARY.fullmatch(f"{name}/x")
        or goo_payloads.NOT_IN_CLIENT_LIBRARY.fullmatch(f"{name}.pyc")
    }
    assert trimmed == set()
    assert {"encodings", "email", "http", "ssl", "sqlite3", "json"} <= names


def test_archives_are_read_back_as_they_were_packed(
    guest_goos: Mapping[str, Path], tmp_path: Path
) -> None:
    for name, archive in guest_goos.items():
        names = extract(archive, tmp_path / name)
        assert len(names) == len(set(names))
        assert f"{name}.pkgspec" in names


def test_repository_has_an_index_of_all_packages(
    guest_goos: Mapping[str, Path], tmp_path: Path
) -> None:
    done = repo_goo(tmp_path, *guest_goos.values())
    assert (done.returncode, done.stderr) == (0, "")
    entries = read_index((tmp_path / "repo" / "index.gz").read_bytes())
    assert sorted(entry.spec.name for entry in entries) == sorted(PACKAGES)
    for entry in entries:
        content = (tmp_path / entry.source).read_bytes()
        assert hashlib.sha256(content).hexdigest() == entry.checksum


def test_published_package_is_not_replaced_by_another_of_its_name(
    guest_goos: Mapping[str, Path], tmp_path: Path
) -> None:
    first = repo_goo(tmp_path / "repository", guest_goos[SCRIPTS])
    changed = tmp_path / guest_goos[SCRIPTS].name
    changed.write_bytes(guest_goos[AGENT].read_bytes())
    second = repo_goo(tmp_path / "repository", changed)
    assert (first.returncode, second.returncode) == (0, 1)
    assert "published with another content" in second.stderr
    published = tmp_path / "repository" / "packages" / changed.name
    assert published.read_bytes() == guest_goos[SCRIPTS].read_bytes()


def test_signed_repository_has_a_signature_of_its_index(
    guest_goos: Mapping[str, Path], tmp_path: Path
) -> None:
    from googet.signing import check_signature, read_public_key

    key, public = tmp_path / "key.pem", tmp_path / "public.pem"
    for command in (
        ["openssl", "genrsa", "-out", str(key), "2048"],
        ["openssl", "rsa", "-in", str(key), "-pubout", "-out", str(public)],
    ):
        subprocess.run(command, check=True, capture_output=True)
    done = repo_goo(tmp_path / "repository", guest_goos[SCRIPTS], GUEST_REPO_KEY=str(key))
    assert (done.returncode, done.stderr) == (0, "")
    folder = tmp_path / "repository" / "repo"
    index, signature = (folder / "index").read_bytes(), (folder / "index.sig").read_bytes()
    assert check_signature(read_public_key(public), index, signature) is not None


def repo_goo(output: Path, *goos: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/usr/bin/python3", TOP / "tools" / "repo-goo", "--output", output, *goos],
        env={"PATH": "/usr/bin:/bin", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def check_windows_scripts(*files: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, TOP / "tools" / "check-windows-scripts", *files],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.skipif(sys.version_info < (3, 10), reason="PowerShell's grammar needs Python 3.10")
def test_scripts_for_windows_are_in_form() -> None:
    done = check_windows_scripts()
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(sys.version_info < (3, 10), reason="PowerShell's grammar needs Python 3.10")
def test_missing_brace_of_powershell_is_found(tmp_path: Path) -> None:
    (script,) = (TOP / "googet").rglob("*.ps1")
    broken = tmp_path / "broken.ps1"
    broken.write_bytes(script.read_bytes().replace(b"}", b"", 1))
    done = check_windows_scripts(broken)
    assert done.returncode == 1
    assert "broken.ps1: line" in done.stderr


@pytest.mark.skipif(sys.version_info < (3, 10), reason="PowerShell's grammar needs Python 3.10")
def test_lines_that_end_as_on_unix_are_found(tmp_path: Path) -> None:
    script = tmp_path / "unix.cmd"
    script.write_bytes(b"@echo off\n")
    assert "do not end with CR LF" in check_windows_scripts(script).stderr
