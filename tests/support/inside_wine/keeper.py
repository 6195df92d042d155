"""The program that holds a session open, and starts programs inside Windows for the tests.

Services end with the last ordinary program, so something must run for as long as the session; and
exact exit codes can be read only inside Windows (Linux sees them modulo 256).  One JSON object a
line comes in, `{"id": N, "do": NAME, ...}`; one goes out for each, after MARK, in any order.
Outputs of programs go to files: a pipe would be inherited by services, which never close it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import traceback
import winreg

MARK = "\x01"
ROOTS = {
    "HKLM": winreg.HKEY_LOCAL_MACHINE,
    "HKCU": winreg.HKEY_CURRENT_USER,
    "HKCR": winreg.HKEY_CLASSES_ROOT,
    "HKU": winreg.HKEY_USERS,
}
STATES = (
    "?",
    "STOPPED",
    "START_PENDING",
    "STOP_PENDING",
    "RUNNING",
    "CONTINUE_PENDING",
    "PAUSE_PENDING",
    "PAUSED",
)
SERVICE_DOES_NOT_EXIST = 1060

_programs: dict[int, subprocess.Popen] = {}
_writing = threading.Lock()


def start(request: dict) -> dict:
    """Start a program: argv (a list, or one line as CreateProcess takes it), out, err, env, cwd."""
    environment = dict(os.environ)
    for name, value in request["env"].items():
        if value is None:
            environment.pop(name, None)
        else:
            environment[name] = value
    with (
        open(request["in"] or os.devnull, "rb") as stdin,
        open(request["out"], "wb") as out,
        open(request["err"], "wb") as err,
    ):
        program = subprocess.Popen(
            request["argv"],
            stdin=stdin,
            stdout=out,
            stderr=err,
            env=environment,
            cwd=request["cwd"],
            creationflags=subprocess.CREATE_NEW_PROCESS_GROUP,
        )
    _programs[program.pid] = program
    return {"pid": program.pid}


def run(request: dict) -> dict:
    """Start a program and wait for its end; after `timeout` seconds it is terminated."""
    return wait({"pid": start(request)["pid"], "timeout": request["timeout"], "end": True})


def wait(request: dict) -> dict:
    """The exit code of a program (0 to 2**32 - 1), or None when it has not ended in time."""
    program = _programs[request["pid"]]
    try:
        return {"code": program.wait(request["timeout"]) & 0xFFFFFFFF}
    except subprocess.TimeoutExpired:
        if request.get("end"):
            program.kill()
        return {"code": None}


def terminate(request: dict) -> dict:
    """TerminateProcess on a started program: it runs no more code."""
    program = _programs[request["pid"]]
    program.kill()
    program.wait(10)
    return {}


def service(request: dict) -> dict:
    """State and exit codes of a service; state None when there is no such service."""
    import pywintypes
    import win32service

    manager = win32service.OpenSCManager(None, None, win32service.SC_MANAGER_CONNECT)
    try:
        handle = win32service.OpenService(
            manager, request["name"], win32service.SERVICE_QUERY_STATUS
        )
    except pywintypes.error as error:
        if error.winerror != SERVICE_DOES_NOT_EXIST:
            raise
        return {"state": None, "win32": 0, "specific": 0, "pid": 0}
    finally:
        win32service.CloseServiceHandle(manager)
    try:
        status = win32service.QueryServiceStatusEx(handle)
    finally:
        win32service.CloseServiceHandle(handle)
    return {
        "state": STATES[status["CurrentState"]],
        "win32": status["Win32ExitCode"],
        "specific": status["ServiceSpecificExitCode"],
        "pid": status["ProcessId"],
    }


def control_service(request: dict) -> dict:
    """Start ("start", with args) a service or send it a control code; the error code or 0."""
    import pywintypes
    import win32service

    manager = win32service.OpenSCManager(None, None, win32service.SC_MANAGER_CONNECT)
    try:
        handle = win32service.OpenService(manager, request["name"], win32service.SERVICE_ALL_ACCESS)
        try:
            if request["control"] == "start":
                win32service.StartService(handle, request["args"])
            else:
                win32service.ControlService(handle, request["control"])
        finally:
            win32service.CloseServiceHandle(handle)
    except pywintypes.error as error:
        return {"error": error.winerror, "text": error.strerror}
    finally:
        win32service.CloseServiceHandle(manager)
    return {"error": 0, "text": ""}


def running_services(request: dict) -> dict:
    """Names of the Windows services of their own process that are not stopped."""
    import win32service

    manager = win32service.OpenSCManager(None, None, win32service.SC_MANAGER_ENUMERATE_SERVICE)
    try:
        found = win32service.EnumServicesStatus(
            manager, win32service.SERVICE_WIN32, win32service.SERVICE_ACTIVE
        )
    finally:
        win32service.CloseServiceHandle(manager)
    return {"names": [name for name, _, _ in found]}


def read_key(request: dict) -> dict:
    """Values (name, type, data) and subkeys of a registry key; values None without the key."""
    root, path = _key(request["key"])
    try:
        key = winreg.OpenKey(root, path, 0, winreg.KEY_READ)
    except FileNotFoundError:
        return {"values": None, "keys": []}
    with key:
        keys, values, _ = winreg.QueryInfoKey(key)
        found = [winreg.EnumValue(key, index) for index in range(values)]
        return {
            "values": [
                (name, kind, list(data) if isinstance(data, bytes) else data)
                for name, data, kind in found
            ],
            "keys": [winreg.EnumKey(key, index) for index in range(keys)],
        }


def write_value(request: dict) -> dict:
    """Set a value of a registry key, which is made when it is missing."""
    root, path = _key(request["key"])
    data = bytes(request["data"]) if request["type"] == winreg.REG_BINARY else request["data"]
    with winreg.CreateKeyEx(root, path, 0, winreg.KEY_WRITE) as key:
        winreg.SetValueEx(key, request["name"], 0, request["type"], data)
    return {}


def delete_key(request: dict) -> dict:
    """Remove a registry key with everything below it; nothing without it."""
    _delete_tree(*_key(request["key"]))
    return {}


def end(request: dict) -> dict:
    """End the keeper, and with it the session."""
    return {}


def _delete_tree(root: int, path: str) -> None:
    try:
        with winreg.OpenKey(root, path, 0, winreg.KEY_READ) as key:
            below = [winreg.EnumKey(key, i) for i in range(winreg.QueryInfoKey(key)[0])]
    except FileNotFoundError:
        return
    for name in below:
        _delete_tree(root, f"{path}\\{name}")
    winreg.DeleteKey(root, path)


def _key(text: str) -> tuple[int, str]:
    root, _, path = text.partition("\\")
    return ROOTS[root], path


def _answer(request: dict) -> None:
    try:
        answer = WAYS[request["do"]](request)
    except Exception:
        answer = {"failure": traceback.format_exc()}
    answer["id"] = request["id"]
    with _writing:
        sys.stdout.write(f"{MARK}{json.dumps(answer)}\n")
        sys.stdout.flush()


WAYS = {
    way.__name__: way
    for way in (
        *(start, run, wait, terminate, end),
        *(service, control_service, running_services),
        *(read_key, write_value, delete_key),
    )
}


def main() -> None:
    sys.stdin.reconfigure(encoding="utf-8")
    sys.stdout.reconfigure(encoding="utf-8", newline="\n")
    _answer({"do": "end", "id": 0})  # ready
    for line in sys.stdin:
        request = json.loads(line)
        if request["do"] == "end":
            break
        threading.Thread(target=_answer, args=(request,), daemon=True).start()


if __name__ == "__main__":
    main()
