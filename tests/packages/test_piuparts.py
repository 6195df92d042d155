"""piuparts: each package is installed and purged without a trace, and all of them are upgraded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from support import roots, tiers
from support.chroot import is_possible
from support.commands import Completed, missing_programs
from support.debs import GuestDebs, next_versions
from support.package_checkers import complaints, run_piuparts

SUITE = "bookworm"


@pytest.fixture(scope="module")
def base() -> Path:
    problems = [is_possible()] if is_possible() else list(tiers.root_problems(SUITE))
    problems += [f"program {name}" for name in missing_programs(("piuparts",))]
    if problems:
        reason = "piuparts needs " + "; ".join(map(str, problems))
        if tiers.in_ci():
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    return roots.base(SUITE)


def passed(done: Completed) -> list[str]:
    lines = (done.stdout + done.stderr).splitlines()
    return [line.partition("PASS: ")[2] for line in lines if "PASS: " in line]


def test_each_package_is_installed_and_purged_without_a_trace(
    base: Path, guest_debs: GuestDebs, tmp_path: Path
) -> None:
    debs: Sequence[Path] = list(guest_debs.packages.values())
    done = run_piuparts(
        base,
        debs,
        *("--no-upgrade-test", "--single-packages"),
        suite=SUITE,
        archive=debs,
        folder=tmp_path / "room",
    )
    assert (complaints(done), done.status) == ([], 0)
    assert passed(done).count("Installation and purging test.") == len(debs) == 4


def test_all_packages_are_upgraded_and_purged_without_a_trace(
    base: Path, guest_debs: GuestDebs, tmp_path: Path
) -> None:
    debs = list(guest_debs.packages.values())
    (tmp_path / "newer").mkdir()
    newer = next_versions(debs, tmp_path / "newer")
    done = run_piuparts(
        base,
        newer,
        "--no-install-purge-test",
        suite=SUITE,
        archive=debs,
        folder=tmp_path / "room",
    )
    assert (complaints(done), done.status) == ([], 0)
    assert "Installation, upgrade and purging tests." in passed(done)


def test_package_that_leaves_a_file_behind_is_found(
    base: Path, guest_debs: GuestDebs, tmp_path: Path
) -> None:
    (library,) = guest_debs.named("python3-google-guest")
    (tmp_path / "newer").mkdir()
    (careless,) = next_versions([library], tmp_path / "newer", postinst="touch /etc/left-behind")
    done = run_piuparts(
        base,
        [careless],
        "--no-upgrade-test",
        suite=SUITE,
        archive=[],
        folder=tmp_path / "room",
    )
    assert done.status != 0
    assert "/etc/left-behind" in done.stdout + done.stderr
