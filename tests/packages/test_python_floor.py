"""The oldest Python that a target has: the unit tests in a Debian 11 system, with its 3.9."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import cache, roots, tiers
from support.chroot import Chroot
from support.commands import run_command

TOP = Path(__file__).resolve().parents[2]
SUITE = "bullseye"
REQUIREMENTS = ("pytest", "pytest-xdist", "hypothesis", "PyYAML", "urllib3")
# pip decides by the Python that runs it which of these a requirement needs.
OF_OLD_PYTHONS = ("exceptiongroup", "tomli", "typing_extensions")
# What the unit tests start beside Python, and Debian 11 has in the base or not at all.
EXTRA = ("openssl", "xz-utils")


def _download(folder: Path) -> None:
    wheels = folder / "wheels"
    run_command(
        [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:"),
            *("--python-version", "3.9", "--implementation", "cp", "--abi", "cp39", "--abi"),
            *("abi3", "--abi", "none", "--platform", "manylinux_2_17_x86_64"),
            *("--platform", "any", "--dest", str(wheels), *REQUIREMENTS, *OF_OLD_PYTHONS),
        ],
        purpose="fetch the test programs for Python 3.9",
        timeout=300,
    )
    for wheel in sorted(wheels.iterdir()):
        shutil.unpack_archive(wheel, folder / "modules", "zip")
    shutil.rmtree(wheels)


@pytest.fixture
def debian_11(tmp_path: Path) -> Iterator[Chroot]:
    """A Debian 11 system with the source tree and the test programs below /media."""
    problems = tiers.root_problems(SUITE)
    if problems:
        reason = f"a Debian 11 system needs {'; '.join(problems)}"
        if tiers.in_ci():
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    tree = roots.base(SUITE, extra=EXTRA)
    programs = cache.artifact(
        "python39-tests", {"names": REQUIREMENTS + OF_OLD_PYTHONS}, _download
    ).tree
    # The folder of an overlay lies outside of /tmp, which may itself be one.
    folder = cache.cache_directory() / "work" / f"floor-{tmp_path.name}"
    shutil.rmtree(folder, ignore_errors=True)
    system = Chroot([tree], folder)
    for name in (
        *("src", "tests", "NEWS", "VERSION", "pyproject.toml"),
        *("tools", "config", "debian", "googet", "rpm"),
    ):
        source = TOP / name
        if source.is_dir():
            shutil.copytree(
                source, folder / "media" / "tree" / name, ignore=shutil.ignore_patterns("*.pyc")
            )
        else:
            (folder / "media" / "tree").mkdir(parents=True, exist_ok=True)
            shutil.copy(source, folder / "media" / "tree" / name)
    shutil.copytree(programs / "modules", folder / "media" / "modules")
    yield system
    shutil.rmtree(folder, ignore_errors=True)


def test_unit_tests_pass_on_python_3_9(debian_11: Chroot) -> None:
    assert debian_11.shell("python3 --version").startswith("Python 3.9.")
    done = debian_11.run(
        [
            "sh",
            "-c",
            # The emulator is no part of any package and runs where the project is developed.
            "cd /media/tree && exec python3 -X faulthandler -m pytest -q -n 2 -p no:cacheprovider"
            " tests/unit --ignore=tests/unit/metadata_server",
        ],
        environment={"PYTHONPATH": "/media/modules", "PYTHONDONTWRITEBYTECODE": "1"},
        check=False,
        timeout=600,
    )
    lines = [line for line in done.stdout.splitlines() if not line.startswith("SKIPPED")]
    assert done.status == 0, "\n".join([*lines[-150:], done.stderr[-2000:]])
    assert " passed" in lines[-1]
