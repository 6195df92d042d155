"""The library: installed alone, built by stdeb, and its metadata as setuptools sees it."""

from __future__ import annotations

import importlib.machinery
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path

import pytest
from release import TOP, version
from support import tiers
from support.debs import LIBRARY, GuestDebs

Make = Callable[..., "subprocess.CompletedProcess[str]"]


def test_library_installed_alone_can_be_imported(chroot, guest_debs: GuestDebs) -> None:
    system = chroot()
    system.install(guest_debs.named(LIBRARY))
    done = system.run(
        ["/usr/bin/python3", "-c", "from google_guest.version import version; print(version())"]
    )
    assert done.stdout.strip() == version()


def test_library_has_files_in_the_module_folder_and_documentation_alone(
    unpacked: dict[str, Path],
) -> None:
    allowed = ("DEBIAN/", "usr/lib/python3/dist-packages/google_guest", "usr/share/doc/")
    allowed += ("usr/share/lintian/",)
    root = unpacked[LIBRARY]
    files = [str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()]
    assert [path for path in files if not path.startswith(allowed)] == []


def test_library_is_compiled_on_the_system_that_gets_it(chroot, guest_debs: GuestDebs) -> None:
    system = chroot()
    system.install(guest_debs.named(LIBRARY))
    folder = "/usr/lib/python3/dist-packages/google_guest"
    assert "version.cpython-311.pyc" in system.shell(f"ls {folder}/__pycache__")
    system.dpkg("--purge", LIBRARY)
    assert not system.exists(folder)


@pytest.mark.xdist_group("build")
def test_package_of_stdeb_is_older_than_the_real_one(built_tree: Path) -> None:
    (deb,) = (built_tree / "dist/deb-lib").glob("*.deb")
    command = ["dpkg-deb", "-f", deb, "Version"]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    assert found == f"{version()}-1~stdeb1"
    command = ["dpkg", "--compare-versions", found, "lt", f"{version()}-1"]
    assert subprocess.run(command, check=False).returncode == 0


@pytest.mark.xdist_group("build")
def test_requirement_changed_in_setup_cfg_alone_is_found(tree: Path, make: Make) -> None:
    setup = tree / "setup.cfg"
    setup.write_text(setup.read_text().replace("    PyYAML\n", ""))
    done = make(tree, "deb-lib")
    assert done.returncode != 0
    assert "build-deb-lib: Depends:" in done.stdout


DERIVED_SOURCE = """Source: google-guest
Maintainer: Somebody <somebody@maintainers.example>
X-Python3-Version: >= 3.9
"""
DERIVED_BINARY = """Package: python3-google-guest
Architecture: all
Section: python
Homepage: https://home.example
Depends: python3-urllib3, python3-yaml, python3:any (>= 3.9~)
Description: library of things
 More words.
"""
WRITTEN = """Source: google-guest-environment
Maintainer: Somebody <somebody@maintainers.example>
Homepage: https://home.example
X-Python3-Version: >= 3.9

Package: python3-google-guest
Architecture: all
Section: python
Depends: python3-urllib3,
         python3-yaml,
         ${misc:Depends},
         ${python3:Depends}
Description: library of things
 Other words.
"""


def differences(derived_source: str, derived_binary: str, written: str) -> list[str]:
    path = str(TOP / "tools" / "build-deb-lib")
    loader = importlib.machinery.SourceFileLoader("build_deb_lib", path)
    module = types.ModuleType(loader.name)
    loader.exec_module(module)
    found: list[str] = module.differences(derived_source, derived_binary, written)
    return found


def test_equal_packages_differ_in_nothing() -> None:
    assert differences(DERIVED_SOURCE, DERIVED_BINARY, WRITTEN) == []


@pytest.mark.parametrize(
    ("before", "after", "complaint"),
    [
        ("         python3-yaml,\n", "", "Depends"),
        ("python3-yaml,", "python3-yaml, python3-jinja2,", "Depends"),
        ("library of things", "a library of things", "synopsis"),
        ("https://home", "http://home", "Homepage"),
        ("Section: python", "Section: libs", "Section"),
        ("Architecture: all", "Architecture: any", "Architecture"),
        ("Somebody", "Anybody", "Maintainer"),
        (">= 3.9\n", ">= 3.10\n", "X-Python3-Version"),
    ],
)
def test_field_that_differs_is_named(before: str, after: str, complaint: str) -> None:
    (found,) = differences(DERIVED_SOURCE, DERIVED_BINARY, WRITTEN.replace(before, after))
    assert found.startswith(f"{complaint}:")


@pytest.mark.parametrize("setuptools", ["53.0.0", "84.0.0"])
def test_old_and_new_setuptools_report_the_same_name_and_version(
    tree: Path, tmp_path: Path, setuptools: str
) -> None:
    target = tmp_path / "setuptools"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(target)]
    done = subprocess.run([*install, f"setuptools=={setuptools}"], capture_output=True, text=True)
    if done.returncode != 0:
        reason = f"setuptools {setuptools} cannot be had: {done.stderr.strip()[-200:]}"
        if tiers.in_ci():
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    done = subprocess.run(
        ["/usr/bin/python3", "-S", "setup.py", "--quiet", "egg_info"],
        cwd=tree,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(target), "LC_ALL": "C.UTF-8"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (information,) = (tree / "src").glob("*.egg-info/PKG-INFO")
    lines = information.read_text().splitlines()
    day, counter = version().split(".")
    assert "Name: google-guest" in lines
    assert f"Version: {day}.{int(counter)}" in lines
