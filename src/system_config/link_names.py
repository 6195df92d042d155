"""Gives a network interface another name, as ``ip link set NAME name OTHER`` does.

Source: netdevice(7) (SIOCSIFNAME, SIOCGIFFLAGS); Linux ``net/core/dev.c`` (EBUSY of a link that is
up, in kernels before 6.2).
"""

from __future__ import annotations

import errno
import struct

LONGEST_NAME = 15
"""Bytes: IFNAMSIZ without the zero at its end."""

_SIOCGIFFLAGS, _SIOCSIFFLAGS, _SIOCSIFNAME = 0x8913, 0x8914, 0x8923
_UP = 0x1
_NAME = struct.Struct("=16s24x")
_NAMES = struct.Struct("=16s16s8x")
_FLAGS = struct.Struct("=16sH22x")


def rename_link(old: str, new: str) -> None:
    """Rename an interface; one that is up is taken down for it where the kernel demands that.

    Raises:
        OSError: the kernel refused; the interface is up again if it was before.
    """
    # Loaded here: most runs rename nothing.
    import fcntl
    import socket

    names = old.encode(), new.encode()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        try:
            fcntl.ioctl(channel, _SIOCSIFNAME, _NAMES.pack(*names))
            return
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
        shown = fcntl.ioctl(channel, _SIOCGIFFLAGS, _NAME.pack(names[0]))
        flags = int(_FLAGS.unpack(shown)[1])
        fcntl.ioctl(channel, _SIOCSIFFLAGS, _FLAGS.pack(names[0], flags & ~_UP))
        name = names[0]
        try:
            fcntl.ioctl(channel, _SIOCSIFNAME, _NAMES.pack(*names))
            name = names[1]
        finally:
            fcntl.ioctl(channel, _SIOCSIFFLAGS, _FLAGS.pack(name, flags))
