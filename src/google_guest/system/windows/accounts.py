"""Users and groups of the running machine, through netapi32 and advapi32.

Names are looked up as ``COMPUTER\\user``, so that a domain account of the same name is never meant;
on a domain controller, which has no accounts of its own, the domain's are.

Source: learn.microsoft.com, "NetUserAdd", "NetUserGetInfo", "NetUserSetInfo" (level 1003),
"NetLocalGroupAddMembers" (level 0), "LookupAccountSid"; lmaccess.h and lmerr.h for the numbers.
"""

from __future__ import annotations

import sys

if sys.platform == "win32":
    import ctypes
    from ctypes import wintypes

    from google_guest.system.windows import UserExists
    from google_guest.system.windows.calls import failure, function, last_error
    from google_guest.system.windows.registry import Registry

    _USER_NOT_FOUND, _USER_EXISTS, _MEMBER_ALREADY = 2221, 2224, 1378
    _USER_PRIVILEGE = 1
    _SCRIPT, _NORMAL_ACCOUNT, _PASSWORD_STAYS = 0x1, 0x200, 0x10000
    _LONGEST_NAME = 256
    _LONGEST_SID = 68
    _PRODUCT_OPTIONS = r"SYSTEM\CurrentControlSet\Control\ProductOptions"

    class _UserInfo1(ctypes.Structure):
        _fields_ = (
            ("name", wintypes.LPWSTR),
            ("password", ctypes.c_void_p),
            ("password_age", wintypes.DWORD),
            ("privilege", wintypes.DWORD),
            ("home_dir", wintypes.LPWSTR),
            ("comment", wintypes.LPWSTR),
            ("flags", wintypes.DWORD),
            ("script_path", wintypes.LPWSTR),
        )

    class _Password:
        """A password in memory that is overwritten as soon as it was used."""

        def __init__(self, text: str) -> None:
            self._buffer = ctypes.create_unicode_buffer(text)

        def __enter__(self) -> int:
            return ctypes.addressof(self._buffer)

        def __exit__(self, *_: object) -> None:
            ctypes.memset(self._buffer, 0, ctypes.sizeof(self._buffer))

    class NativeAccounts:
        """The accounts of this machine; see ``UserAccounts``."""

        def __init__(self, registry: Registry) -> None:
            self._registry = registry

        def exists(self, name: str) -> bool:
            """Return whether there is a user ``name``."""
            found = ctypes.c_void_p()
            code = function(
                "netapi32",
                "NetUserGetInfo",
                wintypes.LPCWSTR,
                wintypes.LPCWSTR,
                wintypes.DWORD,
                ctypes.POINTER(ctypes.c_void_p),
            )(None, name, 1, ctypes.byref(found))
            if code == _USER_NOT_FOUND:
                return False
            if code:
                raise failure("NetUserGetInfo", code)
            function("netapi32", "NetApiBufferFree", ctypes.c_void_p)(found)
            return True

        def create(self, name: str, password: str) -> None:
            """Create a user."""
            with _Password(password) as address:
                info = _UserInfo1(
                    name=name,
                    password=address,
                    privilege=_USER_PRIVILEGE,
                    flags=_SCRIPT | _NORMAL_ACCOUNT | _PASSWORD_STAYS,
                )
                code = function(
                    "netapi32",
                    "NetUserAdd",
                    wintypes.LPCWSTR,
                    wintypes.DWORD,
                    ctypes.c_void_p,
                    ctypes.c_void_p,
                )(None, 1, ctypes.byref(info), None)
            if code == _USER_EXISTS:
                raise UserExists(f"user {name} exists already")
            if code:
                raise failure("NetUserAdd", code)

        def set_password(self, name: str, password: str) -> None:
            """Set the password."""
            with _Password(password) as address:
                info = ctypes.c_void_p(address)
                code = function(
                    "netapi32",
                    "NetUserSetInfo",
                    wintypes.LPCWSTR,
                    wintypes.LPCWSTR,
                    wintypes.DWORD,
                    ctypes.c_void_p,
                    ctypes.c_void_p,
                )(None, name, 1003, ctypes.byref(info), None)
            if code:
                raise failure("NetUserSetInfo", code)

        def add_to_group(self, name: str, group_sid: str) -> None:
            """Add the user to the group that has this SID."""
            member = ctypes.create_string_buffer(self._sid_of(name))
            info = ctypes.c_void_p(ctypes.addressof(member))
            code = function(
                "netapi32",
                "NetLocalGroupAddMembers",
                wintypes.LPCWSTR,
                wintypes.LPCWSTR,
                wintypes.DWORD,
                ctypes.c_void_p,
                wintypes.DWORD,
            )(None, _name_of(group_sid), 0, ctypes.byref(info), 1)
            if code and code != _MEMBER_ALREADY:
                raise failure("NetLocalGroupAddMembers", code)

        def is_domain_controller(self) -> bool:
            """Return whether Windows runs as a domain controller."""
            return self._registry.text(_PRODUCT_OPTIONS, "ProductType") == "LanmanNT"

        def _sid_of(self, name: str) -> bytes:
            account = name if self.is_domain_controller() else f"{_computer_name()}\\{name}"
            sid = ctypes.create_string_buffer(_LONGEST_SID)
            sid_size = wintypes.DWORD(len(sid))
            domain = ctypes.create_unicode_buffer(_LONGEST_NAME)
            domain_size = wintypes.DWORD(len(domain))
            use = wintypes.DWORD()
            if not function(
                "advapi32",
                "LookupAccountNameW",
                wintypes.LPCWSTR,
                wintypes.LPCWSTR,
                ctypes.c_void_p,
                ctypes.c_void_p,
                wintypes.LPWSTR,
                ctypes.c_void_p,
                ctypes.c_void_p,
            )(
                None,
                account,
                sid,
                ctypes.byref(sid_size),
                domain,
                ctypes.byref(domain_size),
                ctypes.byref(use),
            ):
                raise last_error("LookupAccountName")
            return sid.raw

    def _name_of(sid: str) -> str:
        """Return the name that the local group with this SID has here."""
        binary = ctypes.c_void_p()
        if not function("advapi32", "ConvertStringSidToSidW", wintypes.LPCWSTR, ctypes.c_void_p)(
            sid, ctypes.byref(binary)
        ):
            raise last_error("ConvertStringSidToSid")
        name = ctypes.create_unicode_buffer(_LONGEST_NAME)
        name_size = wintypes.DWORD(len(name))
        domain = ctypes.create_unicode_buffer(_LONGEST_NAME)
        domain_size = wintypes.DWORD(len(domain))
        use = wintypes.DWORD()
        try:
            if not function(
                "advapi32",
                "LookupAccountSidW",
                wintypes.LPCWSTR,
                ctypes.c_void_p,
                wintypes.LPWSTR,
                ctypes.c_void_p,
                wintypes.LPWSTR,
                ctypes.c_void_p,
                ctypes.c_void_p,
            )(
                None,
                binary,
                name,
                ctypes.byref(name_size),
                domain,
                ctypes.byref(domain_size),
                ctypes.byref(use),
            ):
                raise last_error("LookupAccountSid")
        finally:
            function("kernel32", "LocalFree", ctypes.c_void_p, result=ctypes.c_void_p)(binary)
        return name.value

    def _computer_name() -> str:
        name = ctypes.create_unicode_buffer(_LONGEST_NAME)
        size = wintypes.DWORD(len(name))
        if not function("kernel32", "GetComputerNameW", wintypes.LPWSTR, ctypes.c_void_p)(
            name, ctypes.byref(size)
        ):
            raise last_error("GetComputerName")
        return name.value
