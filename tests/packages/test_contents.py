"""What the built packages hold and say of themselves."""

from __future__ import annotations

import configparser
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from release import TOP, version
from support.debs import AGENT, CONFIGS, LIBRARY, OSLOGIN, GuestDebs

PROGRAMS = (
    "gce_workload_cert_refresh",
    "google-guest",
    "google_guest_agent",
    "google_metadata_authorized_keys",
    "google_metadata_script_runner",
)
SCRIPT_RUNNER_ALIASES = (
    "gce_compat_metadata_script_runner",
    "gce_metadata_script_runner",
    "google_metadata_script_runner_adapt",
)
RELATIONS = ("Depends", "Recommends", "Suggests", "Breaks", "Replaces", "Conflicts", "Provides")


def field(deb: Path, name: str) -> str:
    done = subprocess.run(["dpkg-deb", "-f", deb, name], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def relations_of(deb: Path) -> str:
    return ", ".join(field(deb, name) for name in RELATIONS)


def check_artifacts(tree: Path, *debs: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/usr/bin/python3", tree / "tools" / "check-artifacts", *debs],
        capture_output=True,
        text=True,
        check=False,
    )


def unit(agent: Path, name: str) -> dict[str, list[str]]:
    """Directives of a unit file, each with all its values."""
    (path,) = [*agent.glob(f"lib/systemd/system/{name}"), *agent.glob(f"usr/lib/systemd/*/{name}")]
    directives: dict[str, list[str]] = {}
    for line in path.read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            key, value = line.split("=", 1)
            directives.setdefault(key, []).extend(value.split())
    return directives


def test_packages_hold_what_the_table_says(guest_debs: GuestDebs) -> None:
    done = check_artifacts(TOP, *guest_debs.packages.values())
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    "stray",
    [
        "config/common/etc/stray.conf",
        "config/common/usr/lib/stray/file",
        "src/google_guest/stray_folder/module.py",
        "src/google_guest/data.json",
    ],
)
def test_file_that_no_package_carries_is_named(
    tree: Path, guest_debs: GuestDebs, stray: str
) -> None:
    path = tree / stray
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("")
    done = check_artifacts(tree, *guest_debs.packages.values())
    assert done.returncode != 0
    assert stray in done.stderr


def test_build_ends_with_the_name_of_a_file_outside_the_table(tree: Path, make) -> None:
    (tree / "src/google_guest/data.json").write_text("{}")
    done = make(tree, "deb")
    assert done.returncode != 0
    assert "src/google_guest/data.json" in done.stdout


def test_file_of_the_table_that_a_package_lacks_is_named(tree: Path, guest_debs: GuestDebs) -> None:
    table = tree / "tools" / "artifacts.yaml"
    table.write_text(table.read_text().replace("google-guest.8.gz", "google-guest.9.gz"))
    done = check_artifacts(tree, *guest_debs.packages.values())
    assert "google-guest.9.gz is in the table but not in the package" in done.stderr
    assert "google-guest.8.gz is in the package but not in the table" in done.stderr


def test_every_package_has_the_version_of_the_file_version(guest_debs: GuestDebs) -> None:
    versions = {field(deb, "Version") for deb in guest_debs.packages.values()}
    assert versions == {f"{version()}-1"}


def test_library_carries_the_version_as_it_is_written(unpacked: dict[str, Path]) -> None:
    (text,) = unpacked[LIBRARY].glob("usr/lib/python3/dist-packages/google_guest/VERSION")
    assert text.read_text().strip() == version()


def test_python_metadata_has_the_same_version_by_pep_440(unpacked: dict[str, Path]) -> None:
    (metadata,) = unpacked[LIBRARY].glob("usr/lib/python3/dist-packages/*-info/METADATA")
    recorded = re.search(r"^Version: (.+)$", metadata.read_text(), re.MULTILINE)
    assert recorded is not None
    assert [int(n) for n in recorded[1].split(".")] == [int(n) for n in version().split(".")]


def test_no_relation_has_an_epoch(guest_debs: GuestDebs) -> None:
    texts = [relations_of(deb) for deb in guest_debs.packages.values()]
    texts.append((TOP / "debian" / "control").read_text().split("Homepage:")[0])
    found = [text for text in texts if re.search(r"[ (=][0-9]+:", text)]
    assert found == []


@pytest.mark.parametrize(
    "unwanted",
    ["jq", "curl", "networkd-dispatcher", "parted", "gdisk", "boost", "json-c"],
)
def test_package_is_in_no_relation(guest_debs: GuestDebs, unwanted: str) -> None:
    relations = " ".join(relations_of(deb) for deb in guest_debs.packages.values())
    assert unwanted not in relations


def test_agent_depends_on_exactly_its_library(guest_debs: GuestDebs) -> None:
    depends = field(guest_debs.packages[AGENT], "Depends").split(", ")
    assert f"{LIBRARY} (= {version()}-1)" in depends


def test_oslogin_is_recommended_and_not_required(guest_debs: GuestDebs) -> None:
    deb = guest_debs.packages[AGENT]
    assert "oslogin" in field(deb, "Recommends")
    assert "oslogin" not in field(deb, "Depends")


@pytest.mark.parametrize("name", [LIBRARY, AGENT, OSLOGIN, CONFIGS])
def test_no_place_holder_is_left(unpacked: dict[str, Path], name: str) -> None:
    found = [
        str(path.relative_to(unpacked[name]))
        for path in unpacked[name].rglob("*")
        if path.is_file() and re.search(rb"%\{|@[A-Z_]{3,}@|#DEBHELPER#", path.read_bytes())
    ]
    assert found == []


def test_every_link_leads_somewhere(unpacked: dict[str, Path]) -> None:
    links = [path for root in unpacked.values() for path in root.rglob("*") if path.is_symlink()]
    assert links
    assert [path for path in links if not path.exists()] == []


def test_every_program_that_a_unit_starts_is_in_the_package_or_essential(
    unpacked: dict[str, Path],
) -> None:
    essential = {"/bin/true", "/bin/kill"}
    started = []
    for path in unpacked[AGENT].glob("lib/systemd/system/*.service"):
        for line in path.read_text().splitlines():
            if line.startswith("Exec"):
                started.append(shlex.split(line.split("=", 1)[1])[0])
    assert len(started) >= 5
    missing = [
        program
        for program in started
        if program not in essential and not (unpacked[AGENT] / program.lstrip("/")).exists()
    ]
    assert missing == []


@pytest.mark.parametrize("program", PROGRAMS)
def test_launcher_is_isolated_and_adds_the_distributions_folder_alone(
    unpacked: dict[str, Path], program: str
) -> None:
    lines = (unpacked[AGENT] / "usr/bin" / program).read_text().splitlines()
    assert lines[0] == "#!/usr/bin/python3 -IS"
    paths = [line for line in lines if "sys.path" in line]
    assert paths == ['sys.path += ["/usr/lib/python3/dist-packages"]']


@pytest.mark.parametrize("alias", SCRIPT_RUNNER_ALIASES)
def test_former_name_of_the_script_runner_is_a_link_to_it(
    unpacked: dict[str, Path], alias: str
) -> None:
    link = unpacked[AGENT] / "usr/bin" / alias
    assert str(link.readlink()) == "google_metadata_script_runner"


@pytest.mark.parametrize("program", [*PROGRAMS, *SCRIPT_RUNNER_ALIASES])
def test_program_has_a_manual_page(unpacked: dict[str, Path], program: str) -> None:
    assert (unpacked[AGENT] / "usr/share/man/man8" / f"{program}.8.gz").exists()


def test_system_configuration_alone_has_conffiles(unpacked: dict[str, Path]) -> None:
    found = [name for name, root in unpacked.items() if (root / "DEBIAN/conffiles").exists()]
    assert found == [CONFIGS]


@pytest.mark.parametrize("directive", ["PartOf", "BindsTo", "Requires", "Requisite", "Wants"])
def test_agent_is_not_tied_to_another_unit(unpacked: dict[str, Path], directive: str) -> None:
    assert directive not in unit(unpacked[AGENT], "google-guest-agent.service")


def test_agent_does_not_wait_for_the_network_to_be_online(unpacked: dict[str, Path]) -> None:
    directives = unit(unpacked[AGENT], "google-guest-agent.service")
    assert "network-online.target" not in directives["After"]


def test_sshd_waits_for_the_agent_but_not_for_ever(unpacked: dict[str, Path]) -> None:
    directives = unit(unpacked[AGENT], "google-guest-agent.service")
    assert {"ssh.service", "sshd.service"} <= set(directives["Before"])
    assert directives["TimeoutStartSec"] == ["90s"]


def test_startup_scripts_follow_the_agent_and_the_network(unpacked: dict[str, Path]) -> None:
    directives = unit(unpacked[AGENT], "google-startup-scripts.service")
    assert {"network-online.target", "google-guest-agent.service"} <= set(directives["After"])
    assert directives["Before"] == ["apt-daily.service"]
    assert directives["Type"] == ["oneshot"]
    assert directives["KillMode"] == ["process"]
    assert "RemainAfterExit" not in directives


def test_shutdown_scripts_run_only_when_the_system_stops(unpacked: dict[str, Path]) -> None:
    directives = unit(unpacked[AGENT], "google-shutdown-scripts.service")
    assert directives["ExecStart"] == ["/bin/true"]
    assert directives["ExecStop"][-2:] == ["shutdown", "--if-stopping"]
    assert directives["TimeoutStopSec"] == ["infinity"]
    assert "google-startup-scripts.service" not in directives["After"]


def test_script_output_goes_to_journal_and_console_once(unpacked: dict[str, Path]) -> None:
    for name in ("google-startup-scripts.service", "google-shutdown-scripts.service"):
        directives = unit(unpacked[AGENT], name)
        assert directives["StandardOutput"] == ["journal+console"]
        assert directives["SyslogFacility"] == ["local0"]


def test_preset_is_the_state_after_the_first_installation(unpacked: dict[str, Path]) -> None:
    (preset,) = unpacked[AGENT].glob("usr/lib/systemd/system-preset/*.preset")
    lines = [line for line in preset.read_text().splitlines() if not line.startswith("#")]
    assert sorted(lines) == [
        "enable gce-workload-cert-refresh.timer",
        "enable google-guest-agent.service",
        "enable google-shutdown-scripts.service",
        "enable google-startup-scripts.service",
    ]


def test_networkd_keeps_routes_that_are_not_its_own(unpacked: dict[str, Path]) -> None:
    (file,) = unpacked[AGENT].glob("usr/lib/systemd/networkd.conf.d/*.conf")
    settings = configparser.ConfigParser()
    settings.read_string(file.read_text())
    assert settings["Network"]["ManageForeignRoutes"] == "no"
