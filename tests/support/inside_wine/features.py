"""Runs once in Windows Python when the prefix is made: what this Wine can and cannot do.

Each trial is a Python of its own, because a missing function ends the process that calls it.  A
trial fails with the words that a skipped test shows.  The argument names the file for the answers:
a JSON object, the feature's name to the reason why it is missing, empty for one that works.
"""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor

STUB = 0x80000100  # EXCEPTION_WINE_STUB

TRIALS = {
    "NetUserSetInfo": """
        import win32net
        win32net.NetUserAdd(None, 1, dict(name="probe", password="x", priv=1, home_dir=None,
                            comment="", flags=1, script_path=None))
        win32net.NetUserSetInfo(None, "probe", 1003, {"password": "y"})
    """,
    "local groups": """
        import win32net
        win32net.NetLocalGroupGetMembers(None, "Administrators", 1)
    """,
    "accounts of other processes": """
        import subprocess, sys, win32net
        win32net.NetUserAdd(None, 1, dict(name="probe", password="x", priv=1, home_dir=None,
                            comment="", flags=1, script_path=None))
        code = "import win32net; win32net.NetUserGetInfo(None, 'probe', 1)"
        if subprocess.run([sys.executable, "-c", code]).returncode:
            sys.exit("accounts live in the process that made them")
    """,
    "profiles": """
        import ctypes
        ctypes.WinDLL("userenv").CreateProfile
    """,
    "PowerShell": """
        import subprocess, sys
        said = subprocess.run(["powershell.exe", "-NoProfile", "-Command", "6*7"],
                              capture_output=True).stdout
        if said.strip() != b"42":
            sys.exit("powershell.exe does nothing and exits with 0")
    """,
    "event log": """
        import sys, win32evtlog, win32evtlogutil
        win32evtlogutil.ReportEvent("probe", 882, strings=["probe"])
        handle = win32evtlog.OpenEventLog(None, "Application")
        if not win32evtlog.GetNumberOfEventLogRecords(handle):
            sys.exit("the event log keeps no records")
    """,
    "addresses": """
        import ctypes, sys
        ctypes.WinDLL("iphlpapi").CreateUnicastIpAddressEntry
    """,
    "routes": """
        import ctypes
        ctypes.WinDLL("iphlpapi").CreateIpForwardEntry2
    """,
    "firmware variables": """
        import ctypes, sys
        kernel = ctypes.WinDLL("kernel32", use_last_error=True)
        buffer = ctypes.create_string_buffer(64)
        kernel.GetFirmwareEnvironmentVariableW(
            "SetupMode", "{8be4df61-93ca-11d2-aa0d-00e098032b8c}", buffer, 64)
        if ctypes.get_last_error() == 1:
            sys.exit("there is no firmware")
    """,
    "symbolic links": """
        import os, sys
        os.makedirs("C:/probe", exist_ok=True)
        open("C:/probe/target", "w").close()
        try:
            os.symlink("C:/probe/target", "C:/probe/link")
        except OSError as error:
            sys.exit(str(error))
        if not os.path.exists("C:/probe/link"):
            sys.exit("a symbolic link is reported made and is not there")
    """,
    "service failure actions": """
        import sys, win32service as w
        manager = w.OpenSCManager(None, None, w.SC_MANAGER_ALL_ACCESS)
        service = w.CreateService(manager, "actions", "actions", w.SERVICE_ALL_ACCESS, 0x10, 3,
                                  0, "cmd.exe", None, 0, None, None, None)
        try:
            w.ChangeServiceConfig2(service, w.SERVICE_CONFIG_FAILURE_ACTIONS, dict(
                ResetPeriod=60, RebootMsg="", Command="", Actions=[(w.SC_ACTION_RESTART, 1000)]))
            found = w.QueryServiceConfig2(service, w.SERVICE_CONFIG_FAILURE_ACTIONS)
        finally:
            w.DeleteService(service)
        if found["ResetPeriod"] != 60:
            sys.exit("failure actions are not kept")
    """,
    "service SID type": """
        import win32service as w
        manager = w.OpenSCManager(None, None, w.SC_MANAGER_ALL_ACCESS)
        service = w.CreateService(manager, "sid", "sid", w.SERVICE_ALL_ACCESS, 0x10, 3,
                                  0, "cmd.exe", None, 0, None, None, None)
        try:
            w.ChangeServiceConfig2(service, w.SERVICE_CONFIG_SERVICE_SID_INFO, 1)
        finally:
            w.DeleteService(service)
    """,
    "service triggers": """
        import subprocess, sys
        said = subprocess.run(["sc.exe", "qtriggerinfo", "RpcSs"], capture_output=True)
        if b"RpcSs" not in said.stdout:
            sys.exit("sc.exe knows no triggers")
    """,
    "scheduled tasks": """
        import subprocess, sys
        subprocess.run(["schtasks.exe", "/create", "/tn", "probe", "/tr", "cmd.exe /c rem", "/sc",
                        "onstart", "/f"], capture_output=True)
        said = subprocess.run(["schtasks.exe", "/query", "/tn", "probe"], capture_output=True)
        if said.returncode or b"probe" not in said.stdout:
            sys.exit("schtasks.exe keeps no task that /sc describes")
    """,
    "WMI product": """
        import sys, win32com.client
        rows = win32com.client.GetObject("winmgmts:").ExecQuery("SELECT * FROM Win32_Product")
        if not len(rows):
            sys.exit("WMI knows no products")
    """,
    "AF_UNIX": """
        import socket
        socket.AF_UNIX
    """,
    "file DACL": """
        import sys, win32security as s
        open("C:/probe.txt", "w").close()
        sid = s.CreateWellKnownSid(s.WinBuiltinUsersSid)
        acl = s.ACL(); acl.AddAccessAllowedAce(s.ACL_REVISION, 0x1200a9, sid)
        s.SetNamedSecurityInfo("C:/probe.txt", s.SE_FILE_OBJECT, s.DACL_SECURITY_INFORMATION
                               | s.PROTECTED_DACL_SECURITY_INFORMATION, None, None, acl, None)
        found = s.GetNamedSecurityInfo("C:/probe.txt", s.SE_FILE_OBJECT,
                                       s.DACL_SECURITY_INFORMATION)
        control, _ = found.GetSecurityDescriptorControl()
        if not control & s.SE_DACL_PROTECTED:
            sys.exit("a protected DACL loses its flag")
    """,
    "certificate stores": """
        import ssl
        ssl.enum_certificates("MY")
    """,
    "netsh": """
        import subprocess, sys
        said = subprocess.run(["netsh.exe", "interface", "show", "interface"], capture_output=True)
        if not said.stdout.strip():
            sys.exit("netsh.exe does nothing and exits with 0")
    """,
    "msiexec": """
        import subprocess, sys
        done = subprocess.run(["msiexec.exe", "/i", "C:\\\\missing.msi", "/qn"], timeout=30)
        if done.returncode == 0:
            sys.exit("msiexec.exe installs what is not there")
    """,
}


def attempt(trial: str) -> str:
    """Why a trial failed, or an empty text."""
    program = [sys.executable, "-c", textwrap.dedent(trial)]
    try:
        done = subprocess.run(program, capture_output=True, text=True, timeout=60)
    except subprocess.TimeoutExpired:
        return "it does not end"
    if done.returncode == 0:
        return ""
    if done.returncode == STUB:
        return "it has no such function, and ends the program that calls it"
    said = done.stderr.strip().splitlines()
    return said[-1] if said else f"the program that uses it ends with {done.returncode:#x}"


def main() -> None:
    with ThreadPoolExecutor(max_workers=4) as pool:
        answers = dict(zip(TRIALS, pool.map(attempt, TRIALS.values())))
    with open(sys.argv[1], "w", encoding="utf-8") as file:
        json.dump(answers, file, indent=1)


if __name__ == "__main__":
    main()
