"""User names asked of the name service, with errors told from absence.

``getent passwd NAME`` ends with status 2 both when there is no such user and when the directory
server does not answer, and so does Python's ``pwd``: they drop the error number. An account that
exists in a directory must not be created a second time because the directory was down, so this
program calls getpwnam_r(3) itself. Its result 0 without a record means "absent", any other result
is an error.

It is a program (``python3 -IS name_lookup.py NAME...``) because name service modules block without
limit, load libraries into the process and start threads. One line of JSON is printed for each name
in order; the alarm clock ends the process at a lookup that takes too long, and what was printed by
then stands.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from typing import Any

LOOKUP_TIME_LIMIT = 5
"""Seconds for one name."""

_BUFFER = 1 << 16


class _Passwd(ctypes.Structure):
    """``struct passwd`` of Linux, glibc and musl alike."""

    _fields_ = (
        ("pw_name", ctypes.c_char_p),
        ("pw_passwd", ctypes.c_char_p),
        ("pw_uid", ctypes.c_uint32),
        ("pw_gid", ctypes.c_uint32),
        ("pw_gecos", ctypes.c_char_p),
        ("pw_dir", ctypes.c_char_p),
        ("pw_shell", ctypes.c_char_p),
    )


def look_up(name: str) -> dict[str, Any]:
    """Return ``{"name", "found", ...}``, or ``{"name", "error"}`` with the error's words."""
    library = ctypes.CDLL(None)
    entry = _Passwd()
    result = ctypes.POINTER(_Passwd)()
    buffer = ctypes.create_string_buffer(_BUFFER)
    code = library.getpwnam_r(
        name.encode(),
        ctypes.byref(entry),
        buffer,
        ctypes.c_size_t(_BUFFER),
        ctypes.byref(result),
    )
    if code:
        return {"name": name, "error": os.strerror(code)}
    if not result or entry.pw_name != name.encode():
        return {"name": name, "found": False}
    return {
        "name": name,
        "found": True,
        "uid": entry.pw_uid,
        "gid": entry.pw_gid,
        "home": (entry.pw_dir or b"").decode("utf-8", "surrogateescape"),
        "shell": (entry.pw_shell or b"").decode("utf-8", "surrogateescape"),
    }


def main() -> int:
    """Look up the names of the command line."""
    for name in sys.argv[1:]:
        signal.alarm(LOOKUP_TIME_LIMIT)
        print(json.dumps(look_up(name)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
