"""The Wine beds themselves: exact results, a prefix each, sessions as boots, nothing left over."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support import sweep, wine_root
from support.commands import CommandFailed, CommandTimeout
from support.network import namespaces
from support.timing import quickest, seconds_of
from support.wine import PYTHON, Registry, SessionEnded, Wine, WineGap, _Place, features

TESTS = Path(__file__).resolve().parents[1]

SERVICE = r"""
import sys
import servicemanager, win32event, win32service, win32serviceutil

class Beacon(win32serviceutil.ServiceFramework):
    _svc_name_ = _svc_display_name_ = "Beacon"

    def __init__(self, args):
        super().__init__(args)
        self.args = args
        self.ended = win32event.CreateEvent(None, 0, 0, None)

    def SvcStop(self):
        self.ReportServiceStatus(win32service.SERVICE_STOP_PENDING)
        win32event.SetEvent(self.ended)

    def SvcDoRun(self):
        with open(r"C:\beacon.txt", "a") as file:
            print(*self.args[1:], file=file)
        win32event.WaitForSingleObject(self.ended, win32event.INFINITE)

if len(sys.argv) > 1:
    win32serviceutil.HandleCommandLine(Beacon)
else:
    servicemanager.Initialize()
    servicemanager.PrepareToHostSingle(Beacon)
    servicemanager.StartServiceCtrlDispatcher()
"""

FAILING_SERVICE = r"""
import ctypes
from ctypes import wintypes

advapi = ctypes.WinDLL("advapi32", use_last_error=True)
MAIN = ctypes.WINFUNCTYPE(None, wintypes.DWORD, ctypes.POINTER(wintypes.LPWSTR))
HANDLER = ctypes.WINFUNCTYPE(wintypes.DWORD, wintypes.DWORD, wintypes.DWORD, ctypes.c_void_p,
                             ctypes.c_void_p)
handler = HANDLER(lambda *_: 0)
register = advapi.RegisterServiceCtrlHandlerExW
register.restype = wintypes.HANDLE
register.argtypes = [wintypes.LPCWSTR, HANDLER, ctypes.c_void_p]
report = advapi.SetServiceStatus
report.argtypes = [wintypes.HANDLE, ctypes.c_void_p]

@MAIN
def service_main(count, arguments):
    handle = register("Failing", handler, None)
    # type, state (RUNNING, then STOPPED), accepted controls, exit code, specific exit code, ...
    report(handle, (wintypes.DWORD * 7)(0x10, 4, 0, 0, 0, 0, 0))
    report(handle, (wintypes.DWORD * 7)(0x10, 1, 0, 1066, 77, 0, 0))

class Entry(ctypes.Structure):
    _fields_ = [("name", wintypes.LPWSTR), ("main", MAIN)]

advapi.StartServiceCtrlDispatcherW((Entry * 2)(Entry("Failing", service_main), Entry()))
"""


def create_service(wine: Wine, name: str, script: str, *, start: str = "demand") -> None:
    """Place a script that is a service and tell the service control manager about it."""
    wine.write(rf"C:\{name}.py", script)
    wine.run(["sc.exe", "create", name, "start=", start, "binPath=", rf"{PYTHON} C:\{name}.py"])


def stopped_clock_offset() -> float:
    return time.time() - time.monotonic()


# --- programs ---


def test_python_answers_its_version_within_two_seconds(shared_wine: Wine) -> None:
    def ask() -> None:
        said = shared_wine.py("import sys; print(sys.version_info[:2])").stdout
        assert said == "(3, 13)\n"

    assert quickest(lambda: seconds_of(ask), bound=2) < 2


@pytest.mark.parametrize("code", [0, 1, 194, 3010, 0x80070643, 0xFFFFFFFF])
def test_exit_codes_are_exact(shared_wine: Wine, code: int) -> None:
    ends = f"import ctypes; ctypes.WinDLL('kernel32').ExitProcess({code})"
    assert shared_wine.py(ends, check=False).status == code


def test_outputs_are_told_apart(shared_wine: Wine) -> None:
    said = shared_wine.cmd("echo one& echo two>&2")
    assert (said.stdout, said.stderr.strip()) == ("one\n", "two")


def test_failed_program_is_reported_with_what_it_said(shared_wine: Wine) -> None:
    with pytest.raises(CommandFailed, match="ended with 3: no luck"):
        shared_wine.py("import sys; print('no luck', file=sys.stderr); sys.exit(3)")


def test_program_that_does_not_end_is_terminated(shared_wine: Wine) -> None:
    code = r"import os, time; open(r'C:\pid.txt', 'w').write(str(os.getpid())); time.sleep(600)"
    with pytest.raises(CommandTimeout):
        shared_wine.py(code, timeout=1)
    pid = shared_wine.path(r"C:\pid.txt").read_text()
    assert pid not in shared_wine.cmd("tasklist").stdout.split()


def test_standard_input_environment_and_folder_reach_the_program(shared_wine: Wine) -> None:
    said = shared_wine.py(
        "import os, sys; print(sys.stdin.read(), os.environ['COLOUR'], os.getcwd())",
        input="text",
        environment={"COLOUR": "blue"},
        folder=r"C:\windows",
    )
    assert said.stdout == "text blue C:\\windows\n"


def test_terminated_program_runs_no_more_code(shared_wine: Wine) -> None:
    code = (
        "import time\n"
        "try:\n    print('runs', flush=True); time.sleep(600)\n"
        "finally:\n    print('cleans up')"
    )
    shared_wine.write(r"C:\endless.py", code)
    program = shared_wine.begin([PYTHON, r"C:\endless.py"])
    shared_wine.wait_until(lambda: "runs" in program.output(), what="it runs")
    program.terminate()
    assert (program.running, program.output()) == (False, "runs\n")


def test_project_is_imported_from_the_tree(shared_wine: Wine) -> None:
    code = "import google_guest, os; print(os.path.dirname(google_guest.__file__))"
    assert shared_wine.py(code).stdout == "Z:\\tree\\src\\google_guest\n"


def test_windows_is_a_server_2022(shared_wine: Wine) -> None:
    code = "import sys; v = sys.getwindowsversion(); print(v.build, v.product_type)"
    assert shared_wine.py(code).stdout == "20348 3\n"


# --- gaps ---


def test_function_that_wine_lacks_is_named(shared_wine: Wine) -> None:
    code = "import win32net; win32net.NetUserSetInfo(None, 'root', 1003, {'password': 'x'})"
    with pytest.raises(WineGap, match=r"^wine gap: netapi32\.dll\.NetUserSetInfo$"):
        shared_wine.py(code, check=False)


def test_gap_in_a_program_beside_the_test_makes_the_test_worthless(shared_wine: Wine) -> None:
    code = "import win32net; win32net.NetUserSetInfo(None, 'root', 1003, {'password': 'x'})"
    shared_wine.write(r"C:\gap.py", code)
    shared_wine.begin([PYTHON, r"C:\gap.py"]).wait()
    assert "wine gap: netapi32.dll.NetUserSetInfo" in shared_wine.problems()
    shared_wine.forget_gaps()
    assert shared_wine.problems() == []


def test_crash_is_a_gap_and_no_result(shared_wine: Wine) -> None:
    crash = "import ctypes; ctypes.WinDLL('kernel32').ExitProcess(0xC0000005)"
    with pytest.raises(WineGap, match="0xc0000005"):
        shared_wine.py(crash, check=False)


def test_what_wine_lacks_is_known_with_its_reason() -> None:
    found = features()
    assert found["PowerShell"] == "powershell.exe does nothing and exits with 0"
    assert found["certificate stores"] == ""


def test_missing_feature_skips_the_test_with_the_reason(lacking: Callable[[str], None]) -> None:
    with pytest.raises(pytest.skip.Exception, match="lacks PowerShell: powershell.exe does noth"):
        lacking("PowerShell")


# --- services ---


def test_service_runs_stops_and_starts_with_the_next_session(wine: Wine) -> None:
    create_service(wine, "Beacon", SERVICE, start="auto")
    beacon = wine.service("Beacon")
    beacon.start("an", "argument")
    assert beacon.state() == "RUNNING"
    beacon.stop()
    assert (beacon.state(), beacon.exit_codes()) == ("STOPPED", (0, 0))
    assert wine.path(r"C:\beacon.txt").read_text() == "an argument\n"
    wine.restart_session()
    beacon.wait("RUNNING")


def test_service_that_ends_with_a_code_of_its_own_is_shown_so(wine: Wine) -> None:
    create_service(wine, "Failing", FAILING_SERVICE)
    with contextlib.suppress(RuntimeError):
        wine.service("Failing").start()
    wine.service("Failing").wait("STOPPED")
    assert wine.service("Failing").exit_codes() == (1066, 77)
    shown = wine.cmd("sc query Failing").stdout
    assert ("WIN32_EXIT_CODE    : 1066" in shown, "SERVICE_EXIT_CODE  : 77" in shown) == (
        True,
        True,
    )


def test_service_that_is_not_there_has_no_state(shared_wine: Wine) -> None:
    assert shared_wine.service("Nothing").state() is None


# --- what tests look at ---


def test_serial_ports_keep_what_was_written_to_each(wine: Wine) -> None:
    for number in range(1, 5):
        wine.py(f"open('COM{number}', 'wb').write(b'port {number}\\r\\n')")
    wanted = [f"port {number}\n" for number in range(1, 5)]
    wine.wait_until(
        lambda: [wine.com(f"COM{number}") for number in range(1, 5)] == wanted,
        what="each text is kept",
    )


def test_serial_port_takes_the_settings_of_an_application(wine: Wine) -> None:
    wine.py("import serial; serial.Serial('COM1', 115200, timeout=1).write(b'set\\n')")
    wine.wait_until(lambda: wine.com("COM1") == "set\n", what="the text is kept")


def test_path_is_found_whatever_its_case(shared_wine: Wine) -> None:
    shared_wine.write(r"C:\Mixed Case\File.TXT", "x")
    assert shared_wine.path(r"c:\mixed case/file.txt").read_text() == "x"
    assert shared_wine.cmd(r'type "C:\MIXED CASE\file.txt"').stdout == "x"


def test_registry_is_read_and_written_in_the_session(shared_wine: Wine) -> None:
    key = r"HKLM\Software\Bed"
    shared_wine.registry.set(key, "Text", "x")
    shared_wine.registry.set(key, "Many", ["a", "b"], Registry.MULTI_SZ)
    shared_wine.registry.set(rf"{key}\Below", "Bytes", b"\x00\xff")
    assert shared_wine.registry.values(key) == {"Text": "x", "Many": ["a", "b"]}
    assert shared_wine.registry.value(rf"{key}\Below", "bytes") is None
    assert shared_wine.registry.value(rf"{key}\Below", "Bytes") == b"\x00\xff"
    assert shared_wine.registry.keys(key) == ("Below",)
    shared_wine.registry.delete(key)
    assert shared_wine.registry.values(key) is None


def test_registry_and_files_outlive_a_session(wine: Wine) -> None:
    wine.registry.set(r"HKLM\Software\Bed", "Kept", "yes")
    wine.cmd(r"echo kept> C:\kept.txt")
    wine.restart_session()
    assert wine.registry.value(r"HKLM\Software\Bed", "Kept") == "yes"
    assert wine.cmd(r"type C:\kept.txt").stdout == "kept\n"


@pytest.mark.parametrize("host", ["169.254.169.254", "metadata.google.internal", "[fd20:ce::254]"])
def test_metadata_server_answers_and_sees_the_bed(shared_wine: Wine, host: str) -> None:
    code = (
        "import sys, urllib.request as u\n"
        "url = f'http://{sys.argv[1]}/computeMetadata/v1/instance/id'\n"
        "print(u.urlopen(u.Request(url, headers={'Metadata-Flavor': 'Google'})).read().decode())"
    )
    said = shared_wine.py(code, host).stdout.strip()
    request = shared_wine.mds.requests()[-1]
    nic = shared_wine.nics[0]
    assert said == str(shared_wine.mds.get("instance/id"))
    assert (request.path, request.client in (nic.address, nic.address6)) == ("instance/id", True)


def test_adapter_has_the_address_of_the_metadata(shared_wine: Wine) -> None:
    mac = shared_wine.mds.get("instance/network-interfaces/0/mac")
    said = shared_wine.cmd("ipconfig /all").stdout
    assert (shared_wine.nics[0].address in said, mac.replace(":", "-").upper() in said) == (
        True,
        True,
    )


def test_certificate_of_a_pfx_is_in_the_machines_store(wine: Wine) -> None:
    wine.py(
        """
        import datetime, win32crypt, win32cryptcon as con
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import rsa
        from cryptography.hazmat.primitives.serialization import pkcs12
        key = rsa.generate_private_key(65537, 2048)
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "bed")])
        now = datetime.datetime(2026, 1, 1)
        made = (x509.CertificateBuilder().subject_name(name).issuer_name(name)
                .public_key(key.public_key()).serial_number(1).not_valid_before(now)
                .not_valid_after(now.replace(year=2036)).sign(key, hashes.SHA256()))
        pfx = pkcs12.serialize_key_and_certificates(b"bed", key, made, None,
                                                    serialization.BestAvailableEncryption(b"pw"))
        open(r"C:\\der", "wb").write(made.public_bytes(serialization.Encoding.DER))
        store = win32crypt.PFXImportCertStore(pfx, "pw", con.CRYPT_MACHINE_KEYSET)
        machine = win32crypt.CertOpenStore(con.CERT_STORE_PROV_SYSTEM, 0, None,
                                           con.CERT_SYSTEM_STORE_LOCAL_MACHINE, "MY")
        for certificate in store.CertEnumCertificatesInStore():
            machine.CertAddCertificateContextToStore(certificate, con.CERT_STORE_ADD_ALWAYS)
        """.replace("\n        ", "\n")
    )
    listed = wine.py(
        "import ssl; print(open(r'C:\\der', 'rb').read() in"
        " [der for der, *_ in ssl.enum_certificates('MY')])"
    )
    assert listed.stdout == "True\n"


HOLD = r"file = open(r'C:\held.txt'); print('holds', flush=True); import time; time.sleep(600)"


@pytest.mark.parametrize("operation", ["os.replace('C:/new.txt', ", "os.remove("])
def test_file_that_another_program_holds_open_is_neither_replaced_nor_removed(
    shared_wine: Wine, operation: str
) -> None:
    shared_wine.write(r"C:\held.txt", "old")
    shared_wine.write(r"C:\new.txt", "new")
    shared_wine.write(r"C:\hold.py", HOLD)
    holder = shared_wine.begin([PYTHON, r"C:\hold.py"])
    shared_wine.wait_until(lambda: holder.output(), what="the file is open")
    code = (
        f"import os\ntry: {operation}'C:/held.txt')\nexcept OSError as error: print(error.winerror)"
    )
    said = shared_wine.py(code).stdout
    holder.terminate()
    assert said in ("5\n", "32\n")
    assert shared_wine.path(r"C:\held.txt").read_text() == "old"


def test_running_program_is_renamed_aside_but_not_removed(shared_wine: Wine) -> None:
    copied = r"C:\copy\python.exe"
    shared_wine.cmd(r"xcopy /e /i /q C:\py C:\copy")
    shared_wine.write(r"C:\sleep.py", "print(1, flush=True); import time; time.sleep(600)")
    program = shared_wine.begin([copied, r"C:\sleep.py"])
    shared_wine.wait_until(lambda: program.output(), what="it runs")
    said = shared_wine.py(
        "import os\n"
        f"try: os.remove(r'{copied}'); print('removed')\n"
        "except OSError as error: print('refused')\n"
        f"os.rename(r'{copied}', r'{copied}.old'); print('renamed')"
    ).stdout
    program.terminate()
    assert said == "refused\nrenamed\n"


def test_msi_made_by_wixl_is_installed_with_its_files(wine: Wine) -> None:
    wine.write(r"Z:\bed\a.txt", "from the package")
    wine.write(
        r"Z:\bed\a.wxs",
        """<?xml version="1.0"?><Wix xmlns="http://schemas.microsoft.com/wix/2006/wi">
        <Product Id="*" Name="A" UpgradeCode="9e9a0ae9-6b55-4e0d-a6d0-5e04c6ef0a01" Version="1.0"
          Language="1033" Manufacturer="M"><Package InstallerVersion="200" Compressed="yes"/>
        <Media Id="1" Cabinet="a.cab" EmbedCab="yes"/>
        <Directory Id="TARGETDIR" Name="SourceDir"><Directory Id="ProgramFilesFolder">
        <Directory Id="D" Name="A"><Component Id="C" Guid="9e9a0ae9-6b55-4e0d-a6d0-5e04c6ef0a02">
        <File Id="F" Source="/bed/a.txt"/></Component></Directory></Directory></Directory>
        <Feature Id="All" Level="1"><ComponentRef Id="C"/></Feature></Product></Wix>""",
    )
    wine.linux(["wixl", "-o", "/bed/a.msi", "/bed/a.wxs"])
    wine.run(["msiexec.exe", "/i", r"Z:\bed\a.msi", "/qn"])
    assert wine.path(r"C:\Program Files (x86)\A\a.txt").read_text() == "from the package"


# --- the host ---


def test_clock_of_the_host_cannot_be_set(shared_wine: Wine) -> None:
    before = stopped_clock_offset()
    code = (
        "import win32api, pywintypes\n"
        "try: win32api.SetSystemTime(2031, 1, 1, 1, 1, 1, 1, 1)\n"
        "except pywintypes.error as error: print(error.winerror)"
    )
    assert shared_wine.py(code).stdout == "1314\n"
    assert abs(stopped_clock_offset() - before) < 0.5


@pytest.mark.parametrize("line", ["date 01-01-31", "time 01:01"])
def test_clock_commands_leave_the_clock_of_the_host(shared_wine: Wine, line: str) -> None:
    before = stopped_clock_offset()
    shared_wine.cmd(line, check=False)
    assert abs(stopped_clock_offset() - before) < 0.5


def test_nothing_of_the_host_is_on_drive_z(shared_wine: Wine) -> None:
    probe = TESTS / "windows"
    code = rf"import os; print(os.path.exists(r'Z:{probe}'), os.listdir('Z:\\dev'))"
    said = shared_wine.py(code).stdout
    assert (said.startswith("False"), "loop" in said, "vda" in said) == (True, False, False)


def test_tree_cannot_be_written(shared_wine: Wine) -> None:
    code = r"open(r'Z:\tree\written', 'w')"
    assert shared_wine.py(code, check=False).status == 1
    assert not (TESTS.parent / "written").exists()


def test_prefix_of_one_bed_is_not_that_of_another(wine_bed: Callable[..., Wine]) -> None:
    first = wine_bed(metadata=False)
    first.cmd(r"echo x> C:\first.txt")
    first.registry.set(r"HKLM\Software\Bed", "First", "x")
    first.close()
    second = wine_bed(metadata=False)
    assert not second.path(r"C:\first.txt").exists()
    assert second.registry.values(r"HKLM\Software\Bed") is None


def test_template_and_tree_are_found_again_at_once() -> None:
    wine_root.template()

    def find() -> None:
        wine_root.template()
        wine_root.root()

    assert quickest(lambda: seconds_of(find), bound=1) < 1


def test_fresh_prefix_has_an_open_session_in_three_seconds(wine_bed: Callable[..., Wine]) -> None:
    assert quickest(lambda: seconds_of(wine_bed), bound=3) < 3


def test_command_after_the_end_of_the_session_says_so(wine: Wine) -> None:
    wine.linux(["wineserver", "-k"], check=False)
    with pytest.raises(SessionEnded):
        wine.py("print(1)")
    wine.open_session()
    assert wine.py("print(1)").stdout == "1\n"


def test_closed_bed_leaves_nothing(wine_bed: Callable[..., Wine]) -> None:
    bed = wine_bed()
    bed.begin([PYTHON, "-c", "import time; time.sleep(600)"])
    cgroup = Path(bed.state.cgroup)
    assert bed.directory.is_dir() and cgroup.is_dir()
    bed.close()
    left = [cgroup.exists(), bed.directory.exists(), namespaces(bed.name)]
    assert left == [False, False, ()]


def test_bed_of_a_killed_owner_ends_and_is_swept() -> None:
    code = (
        "import time; from support.wine import Wine\n"
        "bed = Wine(counted=False).start(); bed.begin([r'C:\\py\\python.exe', '-c',"
        " 'import time; time.sleep(600)'])\n"
        "print(bed.name, flush=True); time.sleep(600)"
    )
    top = TESTS.parent
    path = os.pathsep.join(str(top / folder) for folder in ("tests", "tools", "src"))
    owner = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path},
        text=True,
    )
    assert owner.stdout is not None
    name = owner.stdout.readline().strip()
    os.kill(owner.pid, signal.SIGKILL)
    owner.communicate()
    processes = sweep.cgroup_root() / name / "cgroup.procs"
    deadline = time.monotonic() + 5
    while processes.exists() and processes.read_text() and time.monotonic() < deadline:
        time.sleep(0.05)
    ended = not processes.exists() or processes.read_text() == ""
    with sweep.registry_lock():
        sweep.sweep()
    left = [(sweep.BEDS / name).exists(), namespaces(name)]
    assert (ended, left) == (True, [False, ()])


def test_third_process_waits_for_the_beds_of_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("support.wine._place", _Place())
    monkeypatch.setattr("support.wine.PROCESSES", 0)
    monkeypatch.setattr("support.wine._PLACE_TIMEOUT", 0.2)
    with pytest.raises(TimeoutError, match="processes have Wine beds already"):
        Wine(metadata=False).start()


def test_evidence_tells_what_happened(wine: Wine, tmp_path: Path) -> None:
    wine.py("import sys; print('said'); print('mistake', file=sys.stderr)")
    wine.cmd("echo serial> COM1")
    wine.wait_until(lambda: wine.com("COM1") == "serial\n", what="the text is kept")
    wine.registry.set(r"HKLM\Software\Bed", "Clue", "here")
    wine.mds.get("instance/id")
    wine.evidence(tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    outputs = "".join(p.read_text() for p in tmp_path.glob("*.out"))
    assert {"session.log", "com1.log", "requests.txt", "processes.txt", "registry.reg"} <= names
    assert "said" in outputs
    assert (tmp_path / "com1.log").read_bytes() == b"serial\r\n"
    assert '"Clue"="here"' in (tmp_path / "registry.reg").read_text("utf-16")
