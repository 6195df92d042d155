"""Which architectures a machine installs, in order of preference."""

from __future__ import annotations

import pytest

from googet.architectures import ARCHITECTURES, default_architectures, native_architecture


@pytest.mark.parametrize(
    ("machine", "expected"),
    [
        ("x86_64", ("x86_64", "x86_32", "noarch")),
        ("AMD64", ("x86_64", "x86_32", "noarch")),
        ("x86_32", ("x86_32", "noarch")),
        ("x86", ("x86_32", "noarch")),
        ("i686", ("x86_32", "noarch")),
        ("arm", ("arm", "noarch")),
        ("armv7l", ("arm", "noarch")),
        ("ARM64", ("arm64", "x86_64", "x86_32", "noarch")),
        ("aarch64", ("arm64", "x86_64", "x86_32", "noarch")),
        ("what is this", ("x86_32", "noarch")),
    ],
)
def test_windows_prefers_the_native_architecture(machine: str, expected: tuple[str, ...]) -> None:
    assert default_architectures("windows", machine) == expected


@pytest.mark.parametrize("machine", ["x86_64", "aarch64", ""])
def test_linux_takes_everything(machine: str) -> None:
    expected = ("noarch", "x86_64", "x86_32", "arm", "arm64")
    assert default_architectures("linux", machine) == expected


def test_unknown_machine_has_no_architecture() -> None:
    assert native_architecture("sparc") == ""


def test_defaults_are_valid_architectures() -> None:
    machines = ("x86_64", "x86_32", "arm", "arm64")
    used = {arch for machine in machines for arch in default_architectures("windows", machine)}
    assert used == set(ARCHITECTURES)
