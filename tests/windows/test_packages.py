"""Our packages on Windows: installed by googet from a repository, running, upgraded, removed."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import goo_launchers
import pytest
from release import version
from support import goos, tiers
from support.commands import run_command
from support.goos import AGENT, CLIENT, LIBRARY, PACKAGES, RUNTIME, SCRIPTS
from support.windows_packages import (
    BASE,
    ENVIRONMENT,
    FIRMWARE,
    GOOGET,
    ROOT,
    PackageMachine,
)
from support.wine import Wine

from googet.archive import Member, extract, read_archive_spec, write_archive
from googet.pkgspec import file_name
from google_guest.records import replace

SERVICE = "GCEAgent"
SERVICE_KEY = rf"HKLM\SYSTEM\CurrentControlSet\Services\{SERVICE}"
POLICY = r"C:\windows\System32\GroupPolicy"
SCRIPT_LIST = rf"{POLICY}\Machine\Scripts\scripts.ini"
TASK = r"C:\windows\System32\Tasks\GCEStartup"
POINTER = rf"{BASE}\agent\python\Lib\site-packages\google-guest.pth"
STATE = r"C:\ProgramData\Google\Compute Engine\google-guest-agent"
THEIR_SCRIPT = "[Shutdown]\r\n0CmdLine=C:\\theirs.cmd\r\n0Parameters=-x\r\n"
TEMPORARY = re.compile(r"\.old[0-9a-f]*$|\.part$|\.googet-|\\\.[^\\]*\.google-")
BROKEN = "20990101.00"
LATER = "20980101.00"
MARKER = rf"{BASE}\agent\python\marker.txt"
GPT = "[General]\r\nVersion=7\r\n"


@pytest.fixture(scope="module")
def built() -> Mapping[str, Path]:
    return or_skipped(goos.built_goos)


@pytest.fixture(scope="module")
def newer() -> Mapping[str, Path]:
    return or_skipped(goos.next_goos)


def or_skipped(build: Callable[[], Mapping[str, Path]]) -> Mapping[str, Path]:
    try:
        return build()
    except goos.MissingPart as missing:
        if tiers.in_ci():
            pytest.fail(str(missing), pytrace=False)
        pytest.skip(str(missing))


@pytest.fixture(scope="module")
def machine(built: Mapping[str, Path]) -> Iterator[PackageMachine]:
    """A machine of this module's tests: googet alone is installed on it."""
    wine = Wine().start()
    found = PackageMachine(wine, built.values())
    found.bootstrap(built[CLIENT])
    yield found
    problems = wine.problems()
    wine.close()
    assert problems == []


@pytest.fixture(scope="module")
def installed(machine: PackageMachine) -> PackageMachine:
    """The same with all packages, over what a machine of the reference has."""
    wine = machine.wine
    for name in ("GCEAgentManager", "GCEWindowsCompatManager", SERVICE):
        wine.run(["sc.exe", "create", name, "binPath=", r"C:\windows\notepad.exe"])
    # What the reference's plugin manager does to the agent: disabled.
    wine.registry.set(SERVICE_KEY, "Start", 4, wine.registry.DWORD)
    wine.write(rf"{STATE}\core-plugin-enabled", "true")
    wine.write(SCRIPT_LIST, THEIR_SCRIPT)
    wine.write(rf"{POLICY}\gpt.ini", GPT)
    machine.googet("install", SCRIPTS, AGENT)
    return machine


@pytest.fixture(scope="module")
def upgraded(installed: PackageMachine, newer: Mapping[str, Path]) -> PackageMachine:
    """The same after an upgrade of everything, with the service running meanwhile."""
    installed.agent_before = installed.wine.service(SERVICE).pid()
    installed.publish(newer[name] for name in (LIBRARY, AGENT, SCRIPTS, CLIENT))
    installed.wait_for_index(goos.next_version())
    installed.googet("update")
    return installed


@pytest.fixture(scope="module")
def removed(upgraded: PackageMachine) -> PackageMachine:
    """The same after the removal of all but googet: what needs the runtime goes with it."""
    upgraded.googet("remove", RUNTIME)
    return upgraded


# --- installed ---


def test_dependencies_were_installed_too(installed: PackageMachine) -> None:
    assert sorted(installed.installed()) == sorted(PACKAGES)


def test_agent_runs_as_a_service(installed: PackageMachine) -> None:
    installed.wine.service(SERVICE).wait("RUNNING")
    installed.wine.wait_until(
        lambda: '{"ready":true' in installed.wine.com("COM4"), 20, "the agent is ready"
    )


def test_service_starts_python_itself_and_by_itself(installed: PackageMachine) -> None:
    values = installed.wine.registry.values(SERVICE_KEY)
    assert values is not None
    python = rf"{BASE}\agent\python\python.exe"
    assert values["ImagePath"] == f'"{python}" -I -B -m google_guest.cli.windows.service'
    assert (values["Start"], values["DelayedAutoStart"]) == (2, 1)
    assert values["DependOnService"] == ["samss"]
    assert values["DisplayName"] == "Google Compute Engine Agent"


@pytest.mark.parametrize("name", ["GCEAgentManager", "GCEWindowsCompatManager"])
def test_service_of_the_plugin_manager_is_gone(installed: PackageMachine, name: str) -> None:
    assert installed.wine.service(name).state() is None


def test_flag_of_the_core_plugin_is_gone(installed: PackageMachine) -> None:
    assert not installed.wine.path(rf"{STATE}\core-plugin-enabled").exists()


def test_our_shutdown_script_is_behind_the_one_that_was_there(installed: PackageMachine) -> None:
    assert installed.wine.path(SCRIPT_LIST).read_bytes().decode() == (
        f"{THEIR_SCRIPT}1CmdLine={BASE}\\metadata_scripts\\run_shutdown_scripts.cmd\r\n"
        "1Parameters=\r\n"
    )
    gpt = installed.wine.path(rf"{POLICY}\gpt.ini").read_text()
    assert "Version=8\n" in gpt


def test_startup_task_is_registered(installed: PackageMachine) -> None:
    # Of triggers, principal and action Wine keeps nothing; unit tests look at what it is given.
    task = installed.wine.path(TASK).read_bytes().decode("utf-8-sig")
    for setting in (
        "<Priority>5</Priority>",
        "<ExecutionTimeLimit>PT0S</ExecutionTimeLimit>",
        "<AllowStartOnDemand>true</AllowStartOnDemand>",
        "<DisallowStartIfOnBatteries>false</DisallowStartIfOnBatteries>",
        "<StopIfGoingOnBatteries>false</StopIfGoingOnBatteries>",
        "<Enabled>true</Enabled>",
    ):
        assert setting in task


def test_path_keeps_its_references(installed: PackageMachine) -> None:
    path = installed.wine.registry.value(ENVIRONMENT, "PATH")
    original = installed.path_before
    assert "%SystemRoot%" in original
    assert path == rf"{original};{ROOT};{BASE}\metadata_scripts"
    kind = installed.wine.registry.kind(ENVIRONMENT, "PATH")
    assert kind == installed.wine.registry.EXPAND_SZ


def test_googets_folder_is_known(installed: PackageMachine) -> None:
    assert installed.wine.registry.value(ENVIRONMENT, "GooGetRoot") == ROOT


def test_startup_script_runs_as_the_task_runs_it(installed: PackageMachine) -> None:
    installed.wine.mds.set(
        "instance/attributes/windows-startup-script-cmd", "echo started>C:\\started.txt"
    )
    installed.run(["cmd.exe", "/c", rf"{BASE}\metadata_scripts\run_startup_scripts.cmd"])
    marker = installed.wine.path(r"C:\started.txt")
    installed.wine.wait_until(marker.exists, 30, "the startup script ran")


def test_specialize_script_runs_from_the_launcher(installed: PackageMachine) -> None:
    installed.wine.mds.set(
        "instance/attributes/sysprep-specialize-script-cmd", "echo ready>C:\\specialized.txt"
    )
    installed.run([rf"{BASE}\metadata_scripts\GCEMetadataScripts.exe", "specialize"])
    assert installed.wine.path(r"C:\specialized.txt").exists()


@pytest.mark.parametrize(
    "program",
    [
        r"metadata_scripts\GCEMetadataScripts.exe",
        r"metadata_scripts\GCECompatMetadataScripts.exe",
        r"agent\GCEMetadataScriptRunner.exe",
    ],
)
def test_launcher_passes_arguments_and_exit_status(installed: PackageMachine, program: str) -> None:
    done = installed.run([rf"{BASE}\{program}", "no such event"], check=False)
    assert done.status == 2
    assert "no such event" in done.stderr


def test_command_line_shows_the_agent(installed: PackageMachine) -> None:
    done = installed.run([rf"{BASE}\agent\google-guest.exe", "status"], check=False)
    assert f"google_guest_agent {version()}" in done.stdout


def test_core_plugin_restart_restarts_the_service(installed: PackageMachine) -> None:
    service = installed.wine.service(SERVICE)
    before = service.pid()
    installed.run([rf"{BASE}\agent\ggactl_plugin.exe", "coreplugin", "restart"])
    assert service.state() == "RUNNING"
    assert service.pid() != before


def test_python_of_the_runtime_sees_nothing_of_the_machine(installed: PackageMachine) -> None:
    wine = installed.wine
    wine.write(r"C:\evil\yaml.py", "raise SystemExit(9)\n")
    done = wine.run(
        [rf"{BASE}\agent\python\python.exe", "-c", "import sys, yaml; print(sys.path)"],
        environment={"PYTHONPATH": r"C:\evil", "PYTHONHOME": r"C:\evil"},
    )
    assert "evil" not in done.stdout
    assert rf"agent\\lib\\{version()}" in done.stdout


def test_byte_code_is_what_windows_python_compiles(installed: PackageMachine) -> None:
    """Byte for byte: the compiler on the build machine is the same CPython."""
    code = r"""
import os, sys, py_compile
top, differ = sys.argv[1], []
for folder, _, names in os.walk(top):
    for name in names:
        if name.endswith(".py"):
            path = os.path.join(folder, name)
            shown = os.path.relpath(path, top).replace(os.sep, "/")
            mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
            py_compile.compile(path, r"C:\x.pyc", shown, doraise=True, invalidation_mode=mode)
            theirs = os.path.join(folder, "__pycache__", f"{name[:-3]}.cpython-313.pyc")
            if open(r"C:\x.pyc", "rb").read() != open(theirs, "rb").read():
                differ.append(shown)
print(differ)
"""
    done = installed.wine.py(code, rf"{BASE}\agent\lib\{version()}")
    assert done.stdout.strip() == "[]"


def test_running_programs_changed_no_file(installed: PackageMachine) -> None:
    done = installed.googet("verify", *PACKAGES)
    assert done.stdout.count("completed") == len(PACKAGES)


def test_installing_again_keeps_the_administrators_configuration(
    installed: PackageMachine,
) -> None:
    installed.wine.write(rf"{BASE}\instance_configs.cfg", "[wsfc]\r\nenable=false\r\n")
    installed.googet("install", "-reinstall", AGENT)
    assert installed.wine.service(SERVICE).state() == "RUNNING"
    text = installed.wine.path(rf"{BASE}\instance_configs.cfg").read_text()
    assert text == "[wsfc]\nenable=false\n"


# --- upgraded ---


def test_upgrade_leaves_the_agent_running_in_the_new_version(upgraded: PackageMachine) -> None:
    service = upgraded.wine.service(SERVICE)
    service.wait("RUNNING", 30)
    assert service.pid() != upgraded.agent_before
    upgraded.wine.wait_until(
        lambda: f'"version":"{goos.next_version()}"' in upgraded.wine.com("COM4"),
        20,
        "the new agent is ready",
    )


def test_upgrade_replaced_everything_but_the_runtime(upgraded: PackageMachine) -> None:
    expected = {name: f"{goos.next_version()}.0@1" for name in PACKAGES}
    expected[RUNTIME] = upgraded.installed()[RUNTIME]
    assert upgraded.installed() == expected


def test_googet_replaced_itself(upgraded: PackageMachine) -> None:
    done = upgraded.googet("-version")
    assert done.stdout == f"GooGet version: {goos.next_version()}\n"


def test_library_before_is_gone_after_the_upgrade(upgraded: PackageMachine) -> None:
    libraries = upgraded.wine.path(rf"{BASE}\agent\lib")
    assert [path.name for path in libraries.iterdir() if path.is_dir()] == [goos.next_version()]


def test_verification_is_clean_after_the_upgrade(upgraded: PackageMachine) -> None:
    upgraded.googet("verify", *PACKAGES)


def test_no_file_of_before_is_left_after_the_upgrade(upgraded: PackageMachine) -> None:
    left = [name for name in upgraded.files(BASE) if TEMPORARY.search(name)]
    assert left == []


def test_library_on_which_the_agent_does_not_start_is_taken_back(
    upgraded: PackageMachine, newer: Mapping[str, Path]
) -> None:
    broken = broken_library(newer[LIBRARY], Path(tempfile.mkdtemp(dir=upgraded.wine.directory)))
    upgraded.wine.write(rf"C:\{broken.name}", broken.read_bytes())
    done = upgraded.googet("install", rf"C:\{broken.name}", check=False)
    assert done.status == 1
    assert "the service GCEAgent does not" in done.stdout + done.stderr
    assert upgraded.installed()[LIBRARY] == f"{goos.next_version()}.0@1"
    assert upgraded.wine.service(SERVICE).state() == "RUNNING"
    assert not upgraded.wine.path(rf"{BASE}\agent\lib\{BROKEN}").exists()
    lines = upgraded.wine.path(POINTER).read_text().splitlines()
    assert lines[0] == rf"..\..\..\lib\{goos.next_version()}"
    upgraded.googet("verify", LIBRARY)


def test_runtime_is_replaced_under_the_running_agent(
    upgraded: PackageMachine, built: Mapping[str, Path]
) -> None:
    service = upgraded.wine.service(SERVICE)
    before = service.pid()
    folder = Path(tempfile.mkdtemp(dir=upgraded.wine.directory))
    runtime = later_runtime(built[RUNTIME], folder)
    upgraded.wine.write(rf"C:\{runtime.name}", runtime.read_bytes())
    upgraded.googet("install", rf"C:\{runtime.name}")
    service.wait("RUNNING", 30)
    assert service.pid() != before
    upgraded.googet("verify", RUNTIME)
    assert f"version {LATER}" in upgraded.wine.path(MARKER).read_text()
    # Files that a process still has open cannot be deleted; none is left that the agent had.
    upgraded.wine.cmd(r'del /q "%TEMP%\*.old*"')
    left = upgraded.wine.cmd(r'dir /b "%TEMP%\*.old*"', check=False).stdout
    assert left == ""


def later_runtime(runtime: Path, folder: Path) -> Path:
    """The runtime as a later version, with one file more."""
    extract(runtime, folder / "files")
    files = (path for path in sorted((folder / "files").rglob("*")) if path.is_file())
    members = {
        path.relative_to(folder / "files").as_posix(): Member(path)
        for path in files
        if path.suffix != ".pkgspec"
    }
    members["agent/python/marker.txt"] = Member(f"version {LATER}".encode())
    spec = replace(read_archive_spec(runtime), version=f"{LATER}.0@1")
    archive = folder / file_name(spec)
    write_archive(archive, spec, members)
    shutil.rmtree(folder / "files")
    return archive


def broken_library(library: Path, folder: Path) -> Path:
    """The library as a later version on which the agent's service ends before it runs."""
    extract(library, folder / "files")
    spec = read_archive_spec(library)
    members = {}
    for path in sorted((folder / "files").rglob("*")):
        name = path.relative_to(folder / "files").as_posix()
        if not path.is_file() or name.endswith(".pkgspec"):
            continue
        # Byte code is never compared with its module.
        if "windows/__pycache__/service_process." in name:
            continue
        content = path.read_bytes()
        if name.endswith("windows/service_process.py"):
            content += b"\n\ndef run_service(*arguments):\n    raise SystemExit(5)\n"
        if name.endswith("google_guest/VERSION"):
            content = BROKEN.encode()
        members[name.replace(goos.next_version(), BROKEN)] = Member(content)
    spec = replace(
        spec,
        version=f"{BROKEN}.0@1",
        install=replace(spec.install, args=(BROKEN,)),
        uninstall=replace(spec.uninstall, args=(BROKEN, "remove")),
    )
    archive = folder / file_name(spec)
    write_archive(archive, spec, members)
    shutil.rmtree(folder / "files")
    return archive


# --- removed ---


def test_removal_of_the_runtime_removes_what_needs_it(removed: PackageMachine) -> None:
    assert sorted(removed.installed()) == [CLIENT]


def test_service_and_task_are_gone_after_removal(removed: PackageMachine) -> None:
    assert removed.wine.service(SERVICE).state() is None
    assert not removed.wine.path(TASK).exists()


def test_removal_leaves_the_configuration_alone(removed: PackageMachine) -> None:
    assert removed.files(r"C:\Program Files\Google") == [r"Compute Engine\instance_configs.cfg"]
    assert not removed.wine.path(STATE).exists()


def test_shutdown_scripts_of_others_stay_after_removal(removed: PackageMachine) -> None:
    assert removed.wine.path(SCRIPT_LIST).read_bytes().decode() == THEIR_SCRIPT


def test_removal_leaves_the_registry_key_of_the_agent(removed: PackageMachine) -> None:
    assert removed.wine.registry.values(r"HKLM\SOFTWARE\Google\ComputeEngine") is not None


def test_googet_removes_itself_and_path_is_as_before(removed: PackageMachine) -> None:
    assert removed.googet("remove", CLIENT).status == 0
    assert not removed.wine.path(GOOGET).exists()
    path = removed.wine.registry.value(ENVIRONMENT, "PATH")
    assert path == removed.path_before
    assert removed.wine.registry.value(ENVIRONMENT, "GooGetRoot") is None


# --- alone ---


@pytest.mark.parametrize("package", [RUNTIME, LIBRARY, AGENT, SCRIPTS, CLIENT])
def test_missing_interpreter_is_told_in_one_line(
    shared_wine: Wine, built: Mapping[str, Path], tmp_path: Path, package: str
) -> None:
    extract(built[package], tmp_path / "package")
    spec = read_archive_spec(built[package])
    script = (tmp_path / "package" / spec.install.path).read_bytes()
    shared_wine.write(rf"C:\alone\{package}\install.cmd", script)
    arguments = " ".join(spec.install.args)
    done = shared_wine.cmd(rf"C:\alone\{package}\install.cmd {arguments}", check=False)
    assert done.status == 1
    assert len(done.stderr.strip().splitlines()) == 1
    assert f"{package}: " in done.stderr and "is missing" in done.stderr


def test_signed_program_still_finds_what_it_runs(shared_wine: Wine, tmp_path: Path) -> None:
    program = goo_launchers.program(
        r"..\py\python.exe", {"__main__.py": b"import sys; sys.exit(int(sys.argv[1]))"}
    )
    (tmp_path / "plain.exe").write_bytes(program)
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    for command in (
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=tests"),
            *("-addext", "extendedKeyUsage=codeSigning"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        [
            *("osslsigncode", "sign", "-key", str(key), "-certs", str(certificate)),
            *("-in", str(tmp_path / "plain.exe"), "-out", str(tmp_path / "signed.exe")),
        ],
    ):
        run_command(command, purpose="sign a program")
    signed = (tmp_path / "signed.exe").read_bytes()
    assert len(signed) > len(program)
    shared_wine.write(r"C:\signed\signed.exe", signed)
    assert shared_wine.run([r"C:\signed\signed.exe", "42"], check=False).status == 42


def test_machine_that_is_no_instance_installs_too(wine: Wine, built: Mapping[str, Path]) -> None:
    """The service runs, sees that there is nothing to do, and ends well."""
    machine = PackageMachine(wine, built.values())
    wine.registry.set(FIRMWARE, "SystemProductName", "Standard PC")
    machine.bootstrap(built[CLIENT])
    machine.googet("install", AGENT)
    wine.service(SERVICE).wait("STOPPED", 30)
    assert wine.service(SERVICE).exit_codes() == (0, 0)
