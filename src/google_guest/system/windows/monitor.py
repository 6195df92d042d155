"""News of routes and addresses, as a descriptor to wait on.

Windows calls back in threads of its own; each call makes one end of a pair of sockets readable.

Source: learn.microsoft.com, "NotifyRouteChange2", "NotifyUnicastIpAddressChange".
"""

from __future__ import annotations

import sys

if sys.platform == "win32":
    import ctypes
    from typing import Any

    from google_guest.system.service import WakeUp
    from google_guest.system.windows import WindowsError
    from google_guest.system.windows.calls import failure, function

    _AF_UNSPEC = 0
    _EVERYTHING = frozenset({0})
    _Callback = ctypes.WINFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int)

    class AddressMonitor:
        """A subscription; see ``google_guest.system.NetworkMonitor``."""

        def __init__(self) -> None:
            """Subscribe.

            Raises:
                OSError: Windows refused.
            """
            self._wake_up = WakeUp()
            # Windows calls it as long as a subscription lives, so it must live as long.
            self._callback = _Callback(self._news)
            self._handles: list[Any] = []
            try:
                for name in ("NotifyRouteChange2", "NotifyUnicastIpAddressChange"):
                    self._subscribe(name)
            except WindowsError as error:
                self.close()
                raise OSError(str(error)) from error

        def _subscribe(self, name: str) -> None:
            handle = ctypes.c_void_p()
            code = function(
                "iphlpapi",
                name,
                ctypes.c_uint16,
                _Callback,
                ctypes.c_void_p,
                ctypes.c_bool,
                ctypes.c_void_p,
            )(_AF_UNSPEC, self._callback, None, False, ctypes.byref(handle))
            if code:
                raise failure(name, code)
            self._handles.append(handle)

        def _news(self, context: int, row: int, kind: int) -> None:
            self._wake_up.wake()

        def fileno(self) -> int:
            """Return the descriptor that becomes readable."""
            return self._wake_up.fileno()

        def drain(self) -> frozenset[int]:
            """Take the news; they do not say which interface they are about."""
            self._wake_up.drain()
            return _EVERYTHING

        def close(self) -> None:
            """Unsubscribe; returns once no callback runs any more."""
            for handle in self._handles:
                function("iphlpapi", "CancelMibChangeNotify2", ctypes.c_void_p)(handle)
            self._handles.clear()
            self._wake_up.close()
