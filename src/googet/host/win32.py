"""The functions of Windows that googet needs and the standard library does not have.

One Python function for each, with Python's types; a failure is an ``OSError`` with its
``winerror``. Facts: the Windows API reference of Microsoft, page of the function's name.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import wintypes
from typing import Any

assert sys.platform == "win32"

GENERIC_READ = 0x80000000
GENERIC_WRITE = 0x40000000
FILE_SHARE_ALL = 7
FILE_SHARE_READ_WRITE = 3
CREATE_ALWAYS = 2
OPEN_ALWAYS = 4

ERROR_ACCESS_DENIED = 5
ERROR_SHARING_VIOLATION = 32
ERROR_LOCK_VIOLATION = 33
ERROR_IO_PENDING = 997

EVENTLOG_ERROR = 1
EVENTLOG_WARNING = 2
EVENTLOG_INFORMATION = 4

_INVALID_HANDLE = ctypes.c_void_p(-1).value
_FILE_OBJECT = 1
_ACCESS_LIST = 4
_ALLOWED = 0
# Writing, appending and creating, deleting, changing rights or the owner; also the generic ones.
_WRITING = 0x2 | 0x4 | 0x40 | 0x10000 | 0x40000 | 0x80000 | 0x10000000 | 0x40000000
_EVERYONE = "S-1-1-0"
_LOCK_EXCLUSIVELY_AT_ONCE = 3
# Far beyond the content, which stays readable for others.
_LOCKED_BYTE = 0xFFFFFFFF
_MOVE_AT_RESTART = 4
_QUERY_LIMITED_INFORMATION = 0x1000
_TERMINATE = 1
_TOKEN_QUERY = 8
_TOKEN_USER = 1
_EPOCH = 116444736000000000  # 1970, in the 100 ns of FILETIME
_MACHINES = {0x014C: "x86_32", 0x8664: "x86_64", 0xAA64: "arm64", 0x01C4: "arm", 0x01C0: "arm"}
_PROCESSORS = {0: "x86_32", 5: "arm", 9: "x86_64", 12: "arm64"}

_kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
_advapi32 = ctypes.WinDLL("advapi32", use_last_error=True)
_shell32 = ctypes.WinDLL("shell32", use_last_error=True)


class _Overlapped(ctypes.Structure):
    _fields_ = (
        ("internal", ctypes.c_void_p),
        ("internal_high", ctypes.c_void_p),
        ("offset", wintypes.DWORD),
        ("offset_high", wintypes.DWORD),
        ("event", wintypes.HANDLE),
    )


class _AccessList(ctypes.Structure):
    _fields_ = (
        ("revision", ctypes.c_ubyte),
        ("reserved", ctypes.c_ubyte),
        ("size", wintypes.WORD),
        ("count", wintypes.WORD),
        ("reserved_too", wintypes.WORD),
    )


class _AccessEntry(ctypes.Structure):
    _fields_ = (
        ("kind", ctypes.c_ubyte),
        ("flags", ctypes.c_ubyte),
        ("size", wintypes.WORD),
        ("mask", wintypes.DWORD),
        ("sid", wintypes.DWORD),
    )


class _SystemInfo(ctypes.Structure):
    _fields_ = (
        ("architecture", wintypes.WORD),
        ("reserved", wintypes.WORD),
        ("page_size", wintypes.DWORD),
        ("lowest", ctypes.c_void_p),
        ("highest", ctypes.c_void_p),
        ("mask", ctypes.c_void_p),
        ("processors", wintypes.DWORD),
        ("type", wintypes.DWORD),
        ("granularity", wintypes.DWORD),
        ("level", wintypes.WORD),
        ("revision", wintypes.WORD),
    )


def _declare(library: Any, name: str, result: Any, *arguments: Any) -> Any:
    function = getattr(library, name)
    function.restype = result
    function.argtypes = arguments
    return function


_BOOL, _DWORD, _HANDLE, _TEXT = wintypes.BOOL, wintypes.DWORD, wintypes.HANDLE, wintypes.LPCWSTR
_PDWORD = ctypes.POINTER(_DWORD)
_POVERLAPPED = ctypes.POINTER(_Overlapped)
_PFILETIME = ctypes.POINTER(wintypes.FILETIME)

_close = _declare(_kernel32, "CloseHandle", _BOOL, _HANDLE)
_create_file = _declare(
    _kernel32,
    "CreateFileW",
    _HANDLE,
    _TEXT,
    _DWORD,
    _DWORD,
    ctypes.c_void_p,
    _DWORD,
    _DWORD,
    _HANDLE,
)
_lock_file = _declare(
    _kernel32, "LockFileEx", _BOOL, _HANDLE, _DWORD, _DWORD, _DWORD, _DWORD, _POVERLAPPED
)
_unlock_file = _declare(
    _kernel32, "UnlockFileEx", _BOOL, _HANDLE, _DWORD, _DWORD, _DWORD, _POVERLAPPED
)
_move_file = _declare(_kernel32, "MoveFileExW", _BOOL, _TEXT, _TEXT, _DWORD)
_temp_path = _declare(_kernel32, "GetTempPathW", _DWORD, _DWORD, wintypes.LPWSTR)
_current_process = _declare(_kernel32, "GetCurrentProcess", _HANDLE)
_native_system_info = _declare(_kernel32, "GetNativeSystemInfo", None, ctypes.POINTER(_SystemInfo))
_open_process = _declare(_kernel32, "OpenProcess", _HANDLE, _DWORD, _BOOL, _DWORD)
_terminate_process = _declare(_kernel32, "TerminateProcess", _BOOL, _HANDLE, wintypes.UINT)
_image_name = _declare(
    _kernel32,
    "QueryFullProcessImageNameW",
    _BOOL,
    _HANDLE,
    _DWORD,
    wintypes.LPWSTR,
    _PDWORD,
)
_process_times = _declare(
    _kernel32, "GetProcessTimes", _BOOL, _HANDLE, _PFILETIME, _PFILETIME, _PFILETIME, _PFILETIME
)
_create_job = _declare(_kernel32, "CreateJobObjectW", _HANDLE, ctypes.c_void_p, _TEXT)
_assign_to_job = _declare(_kernel32, "AssignProcessToJobObject", _BOOL, _HANDLE, _HANDLE)
_terminate_job = _declare(_kernel32, "TerminateJobObject", _BOOL, _HANDLE, wintypes.UINT)
_is_user_an_admin = _declare(_shell32, "IsUserAnAdmin", _BOOL)
_register_source = _declare(_advapi32, "RegisterEventSourceW", _HANDLE, _TEXT, _TEXT)
_report_event = _declare(
    _advapi32,
    "ReportEventW",
    _BOOL,
    _HANDLE,
    wintypes.WORD,
    wintypes.WORD,
    _DWORD,
    ctypes.c_void_p,
    wintypes.WORD,
    _DWORD,
    ctypes.POINTER(_TEXT),
    ctypes.c_void_p,
)


_security_of = _declare(
    _advapi32,
    "GetNamedSecurityInfoW",
    _DWORD,
    _TEXT,
    ctypes.c_int,
    _DWORD,
    ctypes.c_void_p,
    ctypes.c_void_p,
    ctypes.POINTER(ctypes.c_void_p),
    ctypes.c_void_p,
    ctypes.POINTER(ctypes.c_void_p),
)
_get_entry = _declare(
    _advapi32, "GetAce", _BOOL, ctypes.c_void_p, _DWORD, ctypes.POINTER(ctypes.c_void_p)
)
_sid_text = _declare(
    _advapi32,
    "ConvertSidToStringSidW",
    _BOOL,
    ctypes.c_void_p,
    ctypes.POINTER(ctypes.c_void_p),
)
_open_token = _declare(
    _advapi32, "OpenProcessToken", _BOOL, _HANDLE, _DWORD, ctypes.POINTER(_HANDLE)
)
_token_facts = _declare(
    _advapi32,
    "GetTokenInformation",
    _BOOL,
    _HANDLE,
    ctypes.c_int,
    ctypes.c_void_p,
    _DWORD,
    _PDWORD,
)
_local_free = _declare(_kernel32, "LocalFree", ctypes.c_void_p, ctypes.c_void_p)


def _check(result: Any, path: str = "") -> Any:
    if not result:
        raise last_error(path)
    return result


def last_error(path: str = "") -> OSError:
    """Return the error of the last function that failed, about ``path``."""
    error = ctypes.WinError(ctypes.get_last_error())
    if path:
        error.filename = path
    return error


def native_machine() -> str:
    """Return the machine of the system, emulated or not."""
    # Windows 10 and later; the older function takes an emulated machine for the real one on ARM.
    query = getattr(_kernel32, "IsWow64Process2", None)
    if query is not None:
        query.argtypes = (
            _HANDLE,
            ctypes.POINTER(ctypes.c_ushort),
            ctypes.POINTER(ctypes.c_ushort),
        )
        process, native = ctypes.c_ushort(), ctypes.c_ushort()
        if query(_current_process(), ctypes.byref(process), ctypes.byref(native)):
            if native.value in _MACHINES:
                return _MACHINES[native.value]
    info = _SystemInfo()
    _native_system_info(ctypes.byref(info))
    return _PROCESSORS.get(info.architecture, "x86_32")


def is_elevated() -> bool:
    """Return whether the administrators' group counts in the token of this process."""
    # Not TokenElevation: Wine says no, although everything is allowed.
    return bool(_is_user_an_admin())


def temporary_folder() -> str:
    """Return the folder for temporary files, with a final backslash."""
    buffer = ctypes.create_unicode_buffer(1024)
    _check(_temp_path(len(buffer), buffer))
    return buffer.value


def remove_at_restart(path: str) -> None:
    """Have a file deleted when the system starts."""
    _check(_move_file(path, None, _MOVE_AT_RESTART), path)


def create_file(path: str, access: int, share: int, disposition: int) -> int:
    """Open a file; return its handle."""
    handle = _create_file(path, access, share, None, disposition, 0x80, None)
    if handle in (None, _INVALID_HANDLE):
        raise last_error(path)
    return int(handle)


def close_handle(handle: int) -> None:
    """Close a handle."""
    _close(handle)


def lock(handle: int) -> bool:
    """Lock the byte far beyond the end of a file; return whether nobody else has it."""
    place = _Overlapped(offset=_LOCKED_BYTE)
    if _lock_file(handle, _LOCK_EXCLUSIVELY_AT_ONCE, 0, 1, 0, ctypes.byref(place)):
        return True
    error = last_error()
    if error.winerror in (ERROR_LOCK_VIOLATION, ERROR_IO_PENDING):
        return False
    raise error


def unlock(handle: int) -> None:
    """Undo :func:`lock`."""
    place = _Overlapped(offset=_LOCKED_BYTE)
    _unlock_file(handle, 0, 1, 0, ctypes.byref(place))


def process_image(pid: int) -> tuple[str, float]:
    """Return the program of a process and when it started, in seconds since 1970."""
    process = _check(_open_process(_QUERY_LIMITED_INFORMATION, False, pid))
    with _closing(process):
        buffer = ctypes.create_unicode_buffer(32768)
        size = _DWORD(len(buffer))
        _check(_image_name(process, 0, buffer, ctypes.byref(size)))
        times = [wintypes.FILETIME() for _ in range(4)]
        _check(_process_times(process, *map(ctypes.byref, times)))
    ticks = (times[0].dwHighDateTime << 32) | times[0].dwLowDateTime
    return buffer.value, (ticks - _EPOCH) / 1e7


def end_process(pid: int) -> None:
    """End a process."""
    process = _check(_open_process(_TERMINATE, False, pid))
    with _closing(process):
        _check(_terminate_process(process, 1))


class Job:
    """A process and all that it starts, which can be ended together."""

    def __init__(self) -> None:
        self._handle = _check(_create_job(None, None))

    def add(self, process: int) -> None:
        """Add the process with that handle."""
        _check(_assign_to_job(self._handle, process))

    def end(self) -> None:
        """End all of it."""
        _check(_terminate_job(self._handle, 1))

    def close(self) -> None:
        """Let it go; its processes go on."""
        _close(self._handle)


class EventSource:
    """A source of the Event Log."""

    def __init__(self, name: str) -> None:
        self._handle = _check(_register_source(None, name))

    def report(self, kind: int, identifier: int, text: str) -> None:
        """Write one event."""
        texts = (_TEXT * 1)(text)
        _check(_report_event(self._handle, kind, 0, identifier, None, 1, 0, texts, None))


def writers(path: str) -> tuple[str, ...]:
    """Return the SIDs whom the access list of a file or folder lets change it or its content."""
    access_list, descriptor = ctypes.c_void_p(), ctypes.c_void_p()
    status = _security_of(
        path,
        _FILE_OBJECT,
        _ACCESS_LIST,
        None,
        None,
        ctypes.byref(access_list),
        None,
        ctypes.byref(descriptor),
    )
    _check_status(status, path)
    try:
        if not access_list.value:
            return (_EVERYONE,)
        count = _AccessList.from_address(access_list.value).count
        return tuple(dict.fromkeys(filter(None, (_writer(access_list, i) for i in range(count)))))
    finally:
        _local_free(descriptor)


def _writer(access_list: ctypes.c_void_p, index: int) -> str:
    """Return whom one entry of an access list lets write, empty if it does not."""
    place = ctypes.c_void_p()
    _check(_get_entry(access_list, index, ctypes.byref(place)))
    entry = _AccessEntry.from_address(place.value or 0)
    if entry.kind != _ALLOWED or not entry.mask & _WRITING:
        return ""
    return _text_of_sid(ctypes.addressof(entry) + _AccessEntry.sid.offset)


def current_user() -> str:
    """Return the SID of the user that this process runs as."""
    token = _HANDLE()
    _check(_open_token(_current_process(), _TOKEN_QUERY, ctypes.byref(token)))
    with _closing(token):
        # TOKEN_USER: a pointer to the SID, attributes, and the SID itself.
        buffer = ctypes.create_string_buffer(256)
        _check(_token_facts(token, _TOKEN_USER, buffer, len(buffer), ctypes.byref(_DWORD())))
        return _text_of_sid(ctypes.c_void_p.from_buffer(buffer).value or 0)


def _text_of_sid(address: int) -> str:
    text = ctypes.c_void_p()
    _check(_sid_text(address, ctypes.byref(text)))
    try:
        return ctypes.wstring_at(text.value or 0)
    finally:
        _local_free(text)


def known_folder(identifier: str) -> str:
    """Return a known folder by its GUID (KNOWNFOLDERID), empty where there is none."""
    import uuid

    shell32 = ctypes.WinDLL("shell32")
    ole32 = ctypes.WinDLL("ole32")
    guid = (ctypes.c_byte * 16).from_buffer_copy(uuid.UUID(identifier).bytes_le)
    found = ctypes.c_wchar_p()
    shell32.SHGetKnownFolderPath.argtypes = (
        ctypes.c_void_p,
        _DWORD,
        _HANDLE,
        ctypes.POINTER(ctypes.c_wchar_p),
    )
    status = shell32.SHGetKnownFolderPath(ctypes.byref(guid), 0, None, ctypes.byref(found))
    path = found.value or ""
    ole32.CoTaskMemFree.argtypes = (ctypes.c_void_p,)
    ole32.CoTaskMemFree(ctypes.cast(found, ctypes.c_void_p))
    return path if status == 0 else ""


def patch_targets(path: str) -> tuple[str, ...]:
    """Return the installed products (their codes) that a Windows Installer patch is for.

    Raises:
        OSError: it is no patch.
    """
    msi = ctypes.WinDLL("msi")
    database, summary = wintypes.ULONG(), wintypes.ULONG()
    _check_status(msi.MsiOpenDatabaseW(path, ctypes.c_void_p(32), ctypes.byref(database)), path)
    try:
        _check_status(msi.MsiGetSummaryInformationW(database, None, 0, ctypes.byref(summary)), path)
        try:
            template = _summary_text(msi, summary, 7, path)
        finally:
            msi.MsiCloseHandle(summary)
    finally:
        msi.MsiCloseHandle(database)
    codes = [code.strip() for code in template.split(";")]
    # INSTALLSTATE_DEFAULT
    return tuple(code for code in codes if code and msi.MsiQueryProductStateW(code) == 5)


def _summary_text(msi: Any, summary: Any, number: int, path: str) -> str:
    kind, value, size = _DWORD(), ctypes.c_int(), _DWORD(1 << 15)
    buffer = ctypes.create_unicode_buffer(size.value)
    moment = wintypes.FILETIME()
    _check_status(
        msi.MsiSummaryInfoGetPropertyW(
            summary,
            number,
            ctypes.byref(kind),
            ctypes.byref(value),
            ctypes.byref(moment),
            buffer,
            ctypes.byref(size),
        ),
        path,
    )
    return buffer.value


def _check_status(status: int, path: str) -> None:
    if status:
        raise OSError(None, ctypes.FormatError(status), path, status)


@contextmanager
def _closing(handle: Any) -> Iterator[None]:
    try:
        yield
    finally:
        _close(handle)


def descriptor_of(handle: int, flags: int) -> int:
    """Return a file descriptor that owns ``handle``."""
    import msvcrt

    return msvcrt.open_osfhandle(handle, flags | os.O_NOINHERIT)
