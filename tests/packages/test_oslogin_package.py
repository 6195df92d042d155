"""The package of OS Login: what it holds, and what its scripts do to a system, call by call."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from release import TOP, version
from support.chroot import Chroot
from support.debs import AGENT, LIBRARY, OSLOGIN, GuestDebs, next_versions

MODULES = "usr/share/google-compute-engine-oslogin/oslogin"
TIMER = "google-oslogin-cache.timer"
SERVICE = "google-oslogind.service"
SOCKETS = tuple(f"google-oslogind-{name}.socket" for name in ("auth", "nss", "userdb"))
STOPPED = {
    "google-oslogin-cache.service",
    "google-oslogin-users.path",
    "google-oslogin-users.service",
    SERVICE,
    TIMER,
    *SOCKETS,
}
HELPERS = ("google_authorized_keys", "google_authorized_keys_sk", "google_authorized_principals")
PROGRAMS = {
    "usr/bin/google_oslogin_control",
    "usr/bin/google_oslogin_nss_cache",
    "usr/libexec/google-oslogind",
    *(f"usr/bin/{name}" for name in HELPERS),
}
EDITED = (
    "/etc/ssh/sshd_config",
    "/etc/nsswitch.conf",
    "/etc/pam.d/sshd",
    "/etc/security/group.conf",
)
Make = Callable[..., Chroot]


@pytest.fixture(scope="module")
def package(unpacked: dict[str, Path]) -> Path:
    return unpacked[OSLOGIN]


def objects(package: Path) -> list[Path]:
    """Objects and links to them."""
    folders = [*package.glob("lib"), *package.glob("usr/lib")]
    found = [path for folder in folders for path in folder.rglob("*.so*")]
    return sorted(path for path in found if re.search(r"\.so(\.\d+)?$", path.name))


def file_of(package: Path, name: str) -> Path:
    (found,) = [path for path in package.rglob(name) if "usr/share/man" not in str(path)]
    return found


def unit(package: Path, name: str) -> dict[str, list[str]]:
    directives: dict[str, list[str]] = {}
    for line in file_of(package, name).read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            key, value = line.split("=", 1)
            directives.setdefault(key, []).append(value)
    return directives


def readelf(path: Path, *options: str) -> str:
    command = ["readelf", "--wide", *options, str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def symbols(path: Path, *, defined: bool) -> set[str]:
    command = ["nm", "-D", "--defined-only" if defined else "--undefined-only", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return {line.split()[-1].partition("@")[0] for line in done.stdout.splitlines()}


# What it holds.


def test_there_are_one_object_of_the_name_service_and_two_of_pam(package: Path) -> None:
    assert [path.name for path in objects(package) if not path.is_symlink()] == [
        "libnss_oslogin.so.2",
        "pam_oslogin_admin.so",
        "pam_oslogin_login.so",
    ]


def test_second_name_of_the_object_is_a_link_to_it(package: Path) -> None:
    link = file_of(package, "libnss_cache_oslogin.so.2")
    assert str(link.readlink()) == "libnss_oslogin.so.2"


def test_objects_lie_where_debian_12_has_such(package: Path) -> None:
    folders = {str(path.parent.relative_to(package)) for path in objects(package)}
    assert all(re.fullmatch(r"lib/[a-z0-9_]+-linux-gnu\w*(/security)?", f) for f in folders)


def test_name_service_object_needs_the_c_library_alone(package: Path) -> None:
    text = readelf(file_of(package, "libnss_oslogin.so.2"), "--dynamic")
    assert re.findall(r"NEEDED.*\[(.*)\]", text) == ["libc.so.6"]


def test_name_service_object_cannot_allocate(package: Path) -> None:
    # But grow the array of groups that the C library hands over for that.
    used = symbols(file_of(package, "libnss_oslogin.so.2"), defined=False)
    assert used & {"malloc", "calloc", "free", "strdup", "fopen", "dlopen"} == set()


def test_name_service_object_answers_for_both_services(package: Path) -> None:
    offered = symbols(file_of(package, "libnss_oslogin.so.2"), defined=True)
    wanted = {
        f"_nss_{service}_{function}"
        for service in ("oslogin", "cache_oslogin")
        for function in ("getpwnam_r", "getpwuid_r", "getgrnam_r", "getgrgid_r", "initgroups_dyn")
    }
    assert wanted <= offered
    assert {name for name in offered if not name.startswith("_nss_")} <= {"GLIBC_2.2.5"}


@pytest.mark.parametrize(
    ("name", "functions"),
    [
        ("pam_oslogin_login.so", {"pam_sm_authenticate", "pam_sm_setcred", "pam_sm_acct_mgmt"}),
        ("pam_oslogin_admin.so", {"pam_sm_acct_mgmt"}),
    ],
)
def test_pam_module_has_every_function_that_configurations_name(
    package: Path, name: str, functions: set[str]
) -> None:
    assert functions <= symbols(file_of(package, name), defined=True)


def test_objects_are_hardened(package: Path) -> None:
    for path in objects(package):
        text = readelf(path, "--dynamic", "--program-headers")
        assert "BIND_NOW" in text or " NOW" in text, path.name
        assert "GNU_RELRO" in text, path.name
        assert re.search(r"GNU_STACK.* RW ", text), path.name


@pytest.mark.parametrize("program", sorted(PROGRAMS))
def test_launcher_is_isolated_and_finds_the_packages_own_modules(
    package: Path, program: str
) -> None:
    lines = (package / program).read_text().splitlines()
    assert lines[0] == "#!/usr/bin/python3 -IS"
    assert [line for line in lines if "sys.path" in line] == [
        'sys.path += ["/usr/share/google-compute-engine-oslogin", "/usr/lib/python3/dist-packages"]'
    ]


def test_modules_are_those_of_the_tree_and_nothing_else(package: Path) -> None:
    packed = {path.name for path in (package / MODULES).iterdir()}
    assert packed == {path.name for path in (TOP / "src" / "oslogin").glob("*.py")}


def test_library_does_not_hold_the_service(unpacked: dict[str, Path]) -> None:
    assert not list(unpacked[LIBRARY].rglob("oslogin/paths.py"))


def test_module_that_no_package_carries_ends_the_build(tree: Path, guest_debs: GuestDebs) -> None:
    (tree / "src/oslogin/stray.py").write_text("")
    command = ["/usr/bin/python3", tree / "tools/check-artifacts", *guest_debs.packages.values()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "src/oslogin/stray.py is in the tree but in no package that was built" in done.stderr


def test_folders_of_grants_are_for_root_alone(package: Path) -> None:
    modes = {
        name: oct((package / "var" / name).stat().st_mode & 0o7777)
        for name in ("google-users.d", "google-sudoers.d")
    }
    assert set(modes.values()) == {"0o750"}


def test_packaged_users_file_is_comments_alone(package: Path) -> None:
    lines = (package / "var/google-users.d/README").read_text().splitlines()
    assert lines and all(line.startswith("#") for line in lines)


def test_relations_name_library_server_and_c_library(guest_debs: GuestDebs) -> None:
    command = ["dpkg-deb", "-f", guest_debs.packages[OSLOGIN], "Depends"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    depends = done.stdout.strip().split(", ")
    assert f"{LIBRARY} (= {version()}-1)" in depends
    assert {"openssh-server", "systemd"} <= set(depends)
    assert any(relation.startswith("libc6 ") for relation in depends)
    assert AGENT not in done.stdout


def test_presets_enable_the_timer_and_no_socket(package: Path) -> None:
    (preset,) = package.glob("usr/lib/systemd/system-preset/*.preset")
    lines = [line for line in preset.read_text().splitlines() if not line.startswith("#")]
    assert sorted(lines) == sorted(
        [f"enable {TIMER}", *(f"disable {socket}" for socket in SOCKETS)]
    )


@pytest.mark.parametrize(
    ("name", "path", "mode"),
    [
        ("nss", "/run/google-oslogin/nss.sock", "0666"),
        ("auth", "/run/google-oslogin/auth.sock", "0600"),
        ("userdb", "/run/systemd/userdb/com.google.OSLogin", "0666"),
    ],
)
def test_socket_has_its_place_mode_and_name(package: Path, name: str, path: str, mode: str) -> None:
    directives = unit(package, f"google-oslogind-{name}.socket")
    assert directives["ListenStream"] == [path]
    assert directives["SocketMode"] == [mode]
    assert directives["FileDescriptorName"] == [name]
    assert directives["Service"] == [SERVICE]


def test_service_has_no_capability_and_writes_in_its_folders_alone(package: Path) -> None:
    directives = unit(package, SERVICE)
    assert directives["CapabilityBoundingSet"] == [""]
    assert directives["ProtectSystem"] == ["strict"]
    assert directives["ReadWritePaths"] == [
        "-/var/google-users.d -/var/google-sudoers.d -/run/google-sudoers.d"
    ]
    assert directives["RestrictAddressFamilies"] == ["AF_UNIX AF_INET"]
    assert directives["IPAddressDeny"] == ["any"]


def test_service_waits_for_nothing_at_boot(package: Path) -> None:
    directives = unit(package, SERVICE)
    assert not {"After", "Requires", "Wants", "BindsTo"} & set(directives)


def test_every_program_of_a_unit_is_in_the_package_or_essential(package: Path) -> None:
    started = {
        value.lstrip("-").split()[0]
        for path in package.glob("lib/systemd/system/*.service")
        for key, values in unit(package, path.name).items()
        if key.startswith("Exec")
        for value in values
    }
    assert len(started) == 4
    assert {p for p in started if not (package / p.lstrip("/")).exists()} == {"/bin/sh"}


@pytest.mark.parametrize(
    "page",
    [
        *(f"man8/{name}.8" for name in HELPERS),
        "man8/google_oslogin_control.8",
        "man8/google_oslogin_nss_cache.8",
        "man8/google-oslogind.8",
        "man8/nss-oslogin.8",
        "man8/nss-cache-oslogin.8",
        "man8/libnss_oslogin.so.2.8",
        "man8/libnss_cache_oslogin.so.2.8",
        "man8/pam_oslogin_login.8",
        "man8/pam_oslogin_admin.8",
        "man5/oslogin-identity-cache.5",
    ],
)
def test_there_is_a_manual_page(package: Path, page: str) -> None:
    assert (package / "usr/share/man" / f"{page}.gz").exists()


# What its scripts do.


@pytest.fixture
def installed(chroot: Make, guest_debs: GuestDebs) -> Iterator[Chroot]:
    """A system with recorded systemctl calls on which the package has just been installed."""
    system = chroot(installed=True, recorded_systemctl=True)
    system.install(guest_debs.named(OSLOGIN))
    yield system


def jobs(system: Chroot) -> list[str]:
    return [
        " ".join(word for word in line.split() if not word.startswith("-"))
        for line in system.systemctl_calls()
        if "daemon-reload" not in line
    ]


def configuration(system: Chroot) -> dict[str, str]:
    """Digest and mode of everything below /etc, without the links that enable units."""
    text = system.shell(
        "find /etc -xdev -type f ! -path '*/systemd/*' ! -name ld.so.cache -exec sha256sum {} +;"
        "find /etc -xdev -type f ! -path '*/systemd/*' ! -name ld.so.cache"
        " -printf '%m:%u:%g  mode of %p\\n'"
    )
    return {line.split(None, 1)[1]: line.split(None, 1)[0] for line in text.splitlines()}


def test_first_installation_enables_and_starts_the_timer_alone(installed: Chroot) -> None:
    assert jobs(installed) == [f"start {TIMER}"]
    states = {unit: installed.is_enabled(unit) for unit in (TIMER, *SOCKETS)}
    assert states == {TIMER: "enabled", **dict.fromkeys(SOCKETS, "disabled")}


def test_presets_change_nothing_after_the_installation(installed: Chroot) -> None:
    find = "find /etc/systemd -name '*oslogin*' | sort"
    before = installed.shell(find)
    assert before.strip()
    installed.run(["systemctl", "preset-all"], check=False)
    assert installed.shell(find) == before


def test_upgrade_restarts_the_timer_and_a_running_service(
    installed: Chroot, guest_debs: GuestDebs, tmp_path: Path
) -> None:
    installed.systemctl_calls()
    installed.install(next_versions([*guest_debs, *guest_debs.named(OSLOGIN)], tmp_path))
    ours = [job for job in jobs(installed) if "oslogin" in job]
    assert ours == [f"restart {TIMER}", f"try-restart {SERVICE}"]


def test_installation_and_upgrade_change_nothing_below_etc(
    chroot: Make, guest_debs: GuestDebs, tmp_path: Path
) -> None:
    system = chroot(installed=True)
    before = configuration(system)
    system.install(guest_debs.named(OSLOGIN))
    system.install(next_versions([*guest_debs, *guest_debs.named(OSLOGIN)], tmp_path))
    assert configuration(system) == before


def test_modules_are_compiled_at_the_installation(installed: Chroot) -> None:
    made = installed.shell(f"ls /{MODULES}/__pycache__").split()
    assert len(made) == len(list((TOP / "src" / "oslogin").glob("*.py")))


def test_removal_sets_an_active_configuration_back_byte_for_byte(
    chroot: Make, guest_debs: GuestDebs
) -> None:
    system = chroot(installed=True)
    before = configuration(system)
    system.install(guest_debs.named(OSLOGIN))
    system.run(["google_oslogin_control", "activate", "--force", "--twofactor"], check=False)
    active = configuration(system)
    assert {path for path in EDITED if active[path] != before[path]} == set(EDITED)
    system.dpkg("--remove", OSLOGIN)
    assert configuration(system) == before


def test_removal_stops_every_unit(installed: Chroot) -> None:
    installed.systemctl_calls()
    installed.dpkg("--remove", OSLOGIN)
    stopped = {word for job in jobs(installed) if job.startswith("stop") for word in job.split()}
    assert stopped >= STOPPED


def test_purge_leaves_the_system_as_it_was(chroot: Make, guest_debs: GuestDebs) -> None:
    system = chroot(installed=True)
    before = system.files()
    system.install(guest_debs.named(OSLOGIN))
    system.shell("mkdir -p /etc/oslogin; echo x >/etc/oslogin/identity.v1.cache")
    system.shell("echo x >/etc/oslogin_passwd.cache; echo x >/var/google-users.d/ada")
    system.run(["google_oslogin_control", "activate", "--force"], check=False)
    system.dpkg("--purge", OSLOGIN)
    left = {path for path in system.files() - before if not path.startswith("/var/lib/dpkg/")}
    assert left - {"/var/log/dpkg.log", "/var/cache/ldconfig/aux-cache"} == set()
    assert before - system.files() == set()


def test_scripts_succeed_on_a_read_only_etc(
    chroot: Make, guest_debs: GuestDebs, tmp_path: Path
) -> None:
    system = chroot(installed=True, recorded_systemctl=True)
    system.make_etc_read_only()
    system.install(guest_debs.named(OSLOGIN))
    system.install(next_versions([*guest_debs, *guest_debs.named(OSLOGIN)], tmp_path))
    system.dpkg("--purge", OSLOGIN)
    assert system.dpkg("-s", OSLOGIN, check=False).status != 0


@pytest.mark.parametrize("script", ["postinst", "prerm", "postrm"])
def test_scripts_respect_dpkg_root(installed: Chroot, package: Path, script: str) -> None:
    installed.shell("mkdir -p /target/etc/oslogin /target/run /target/var/lib /etc/oslogin")
    installed.shell("cp -a /var/lib/dpkg /target/var/lib")
    installed.write("/etc/oslogin/identity.v1.cache", "of the host")
    installed.write("/target/etc/oslogin/identity.v1.cache", "of the target")
    installed.write(f"/script.{script}", (package / "DEBIAN" / script).read_text(), mode=0o755)
    argument = {"postinst": "configure", "prerm": "remove", "postrm": "purge"}[script]
    done = installed.run(
        [f"/script.{script}", argument],
        environment={
            "DPKG_ROOT": "/target",
            "DPKG_MAINTSCRIPT_PACKAGE": OSLOGIN,
            "DPKG_MAINTSCRIPT_NAME": script,
        },
        check=False,
    )
    assert done.status == 0, done.stderr
    assert installed.read("/etc/oslogin/identity.v1.cache") == "of the host"
    assert installed.exists("/target/etc/oslogin") == (script != "postrm")
