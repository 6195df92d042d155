"""The tables of targets and packages: what a machine is built as, what a target gets."""

from __future__ import annotations

import tempfile
from pathlib import Path

import artifact_table
import pytest
from hypothesis import given
from hypothesis import strategies as st

RELEASES = {
    "debian12": 'ID=debian\nVERSION_ID="12"\n',
    "debian13": 'PRETTY_NAME="Debian"\nID=debian\nVERSION_ID=13\n',
    "ubuntu2204": 'ID=ubuntu\nID_LIKE=debian\nVERSION_ID="22.04"\n',
    "ubuntu2404": 'ID=ubuntu\nID_LIKE=debian\nVERSION_ID="24.04"\n',
    "el8": 'ID="almalinux"\nID_LIKE="rhel centos fedora"\nVERSION_ID="8.10"\n',
    "el9": 'ID="rocky"\nID_LIKE="rhel centos fedora"\nVERSION_ID="9.6"\n',
    "el10": 'ID="rhel"\nVERSION_ID="10.1"\n',
    "fedora": "ID=fedora\nVERSION_ID=44\n",
    "sles15": 'ID="sles"\nID_LIKE="suse"\nVERSION_ID="15.6"\n',
    "sles16": 'ID="sles"\nVERSION_ID="16.0"\n',
}
DEB_TARGETS = [name for name, each in artifact_table.targets().items() if each.format == "deb"]
RPM_TARGETS = [name for name, each in artifact_table.targets().items() if each.format == "rpm"]
LIBRARY_NAMES = {"sles15": "python311-google-guest", "sles16": "python313-google-guest"}


def detected(tmp_path: Path, text: str) -> str:
    file = tmp_path / "os-release"
    file.write_text(text)
    return artifact_table.detect_target(file)


def names(target: str) -> set[str]:
    return {package.name for package in artifact_table.packages(artifact_table.target(target))}


def paths(target: str, key: str) -> set[str]:
    package = artifact_table.package(artifact_table.target(target), key)
    return {item["path"] for item in package.files}


@pytest.mark.parametrize(("target", "text"), RELEASES.items(), ids=list(RELEASES))
def test_machine_is_built_as_its_release(tmp_path: Path, target: str, text: str) -> None:
    assert detected(tmp_path, text) == target


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("ID=debian\nVERSION_CODENAME=sid\n", "debian13"),
        ("ID=debian\nVERSION_ID=14\n", "debian13"),
        ("ID=ubuntu\nVERSION_ID=25.10\n", "ubuntu2404"),
        ("ID=debian\nVERSION_ID=10\n", "debian11"),
        ('ID=linuxmint\nID_LIKE="ubuntu debian"\nVERSION_ID=22\n', "ubuntu2404"),
        ("ID=opensuse-leap\nVERSION_ID=15.6\n", "sles15"),
    ],
)
def test_release_without_a_target_is_built_as_the_nearest(
    tmp_path: Path, text: str, target: str
) -> None:
    assert detected(tmp_path, text) == target


def test_machine_of_no_family_is_told_to_set_the_target(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="GUEST_TARGET"):
        detected(tmp_path, "ID=plan9\n")


@given(st.text())
def test_any_os_release_gives_a_target_or_one_clear_error(text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "os-release"
        file.write_text(text, errors="replace")
        try:
            assert artifact_table.detect_target(file) in artifact_table.targets()
        except SystemExit as refused:
            assert "GUEST_TARGET" in str(refused)


def test_unknown_target_is_refused_with_the_known_ones() -> None:
    with pytest.raises(SystemExit, match=r"no target debian7; there are .*debian12"):
        artifact_table.target("debian7")


def test_environment_beats_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUEST_TARGET", "sles16")
    assert artifact_table.target().name == "sles16"


@pytest.mark.parametrize("target", DEB_TARGETS)
def test_trixies_own_package_is_for_debian_13_alone(target: str) -> None:
    assert ("gce-configs-trixie" in names(target)) == (target == "debian13")


@pytest.mark.parametrize("target", DEB_TARGETS)
def test_transitional_package_is_for_ubuntu_alone(target: str) -> None:
    assert ("gce-compute-image-packages" in names(target)) == target.startswith("ubuntu")


@pytest.mark.parametrize("target", RPM_TARGETS)
def test_suse_has_its_own_names(target: str) -> None:
    suse = target.startswith("sles")
    assert names(target) == {
        LIBRARY_NAMES.get(target, "python3-google-guest"),
        "google-guest-agent",
        "google-guest-configs" if suse else "google-compute-engine",
        "google-guest-oslogin" if suse else "google-compute-engine-oslogin",
        "google-guest-oslogin-selinux" if suse else "google-compute-engine-oslogin-selinux",
    }


@pytest.mark.parametrize("target", sorted(artifact_table.targets()))
def test_every_target_but_ubuntu_copies_our_messages_to_the_console(target: str) -> None:
    found = "/etc/rsyslog.d/90-google.conf" in paths(target, "google-compute-engine")
    assert found != target.startswith("ubuntu")


@pytest.mark.parametrize("target", sorted(artifact_table.targets()))
def test_no_package_has_the_administrators_settings(target: str) -> None:
    every = artifact_table.packages(artifact_table.target(target))
    files = {item["path"] for package in every for item in package.files}
    assert "/etc/default/instance_configs.cfg" not in files


@pytest.mark.parametrize("target", sorted(artifact_table.targets()))
def test_no_file_of_a_target_has_two_packages(target: str) -> None:
    every = artifact_table.packages(artifact_table.target(target))
    files = [item["path"] for package in every for item in package.files]
    assert sorted(set(files)) == sorted(files)


@pytest.mark.parametrize("target", sorted(artifact_table.targets()))
def test_what_lies_below_etc_is_configuration(target: str) -> None:
    every = artifact_table.packages(artifact_table.target(target))
    for package in every:
        below = sorted(i["path"] for i in package.files if i["path"].startswith("/etc/"))
        assert package.configuration_files == below


def test_later_overlay_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for overlay in ("common", "debian"):
        file = tmp_path / "config" / overlay / "etc" / "file"
        file.parent.mkdir(parents=True)
        file.write_text(overlay)
    monkeypatch.setattr(artifact_table, "TOP", tmp_path)
    debian = artifact_table.Target("d", "deb", "debian", ("common", "debian"), "3.11", "debian", "")
    other = artifact_table.Target("o", "deb", "other", ("common",), "3.11", "other", "")
    assert artifact_table.overlay_file(debian, "/etc/file").read_text() == "debian"
    assert artifact_table.overlay_file(other, "/etc/file").read_text() == "common"
    assert artifact_table.overlay_file(other, "/etc/none") is None
    assert artifact_table.overlay_paths(debian)["/etc/file"].read_text() == "debian"
