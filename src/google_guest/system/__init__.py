"""The boundary to the operating system: the only room whose code touches it.

A :class:`System` is handed to features, which read through it and return changes, and to changes,
which act through it. Replacing one part (another root, a recording command runner, a scratch
network) is how everything above is tested without privileges.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Optional, Protocol

from google_guest.system.commands import DEFAULT_TIMEOUT, Completed, run_command
from google_guest.system.files import Files

if TYPE_CHECKING:
    from google_guest.places import Places
    from google_guest.system.accounts import Accounts
    from google_guest.system.netlink import Network
    from google_guest.system.windows import Windows

BOOT_ID = "/proc/sys/kernel/random/boot_id"
"""The kernel's identifier of this boot (random(4))."""


class CommandRunner(Protocol):
    """What runs programs: ``google_guest.system.commands.run_command`` or a recording double."""

    def __call__(
        self,
        argv: Sequence[str],
        *,
        timeout: float = ...,
        input: Optional[str] = ...,
        check: bool = ...,
        env: Optional[Mapping[str, str]] = ...,
    ) -> Completed:
        """Run ``argv``; see ``run_command``."""


class MetadataChannel(Protocol):
    """What a change may send to the metadata server; ``MetadataClient`` is one."""

    def put_guest_attribute(self, namespace: str, key: str, value: str) -> None:
        """Publish one guest attribute."""

    def write_guest_attribute(self, namespace: str, key: str, value: str) -> None:
        """Publish one guest attribute; also raise where guest attributes are switched off."""

    def report(self, headers: Mapping[str, str]) -> None:
        """Send one request that carries ``headers`` and whose answer does not matter."""

    def oslogin_certificates(self) -> object:
        """Return the JSON document that lists OS Login's certificate authorities."""


class NetworkMonitor(Protocol):
    """A subscription to news of the kernel's network; a rtnetlink ``RouteMonitor`` is one."""

    def fileno(self) -> int:
        """Return the descriptor that becomes readable."""

    def drain(self) -> frozenset[int]:
        """Take all waiting news; return the indexes of the devices they are about."""

    def close(self) -> None:
        """Unsubscribe."""


class System:
    """One guest: the running machine, or a file tree that is not booted."""

    def __init__(
        self,
        root: Path = Path("/"),
        runner: CommandRunner = run_command,
        channel: Optional[MetadataChannel] = None,
        *,
        windows: Optional[Windows] = None,
    ) -> None:
        """Take the running machine, or the tree below ``root``.

        ``windows`` stands in for what the running Windows offers; with it, or on Windows, the
        guest is a Windows machine.
        """
        self.root = root
        self.runner = runner
        self.channel = channel
        self._windows = windows

    @property
    def is_live(self) -> bool:
        """Whether this is the running machine and not a tree below some folder."""
        return self.root == Path("/")

    @property
    def is_windows(self) -> bool:
        """Whether the guest is a Windows machine."""
        return self._windows is not None or sys.platform == "win32"

    @property
    def places(self) -> Places:
        """Where this guest keeps its files."""
        return self.files.places

    @cached_property
    def files(self) -> Files:
        """Files below the root."""
        if self.is_windows:
            from google_guest.system.windows.files import WindowsFiles

            return WindowsFiles(self.root)
        return Files(self.root)

    @cached_property
    def windows(self) -> Windows:
        """What only Windows has: the registry, its accounts, its services.

        Raises:
            GuestError: the guest is no Windows machine, or one that is not running.
        """
        if self._windows is not None:
            return self._windows
        from google_guest.system.windows.native import native_windows

        return native_windows(live=self.is_live)

    @cached_property
    def accounts(self) -> Accounts:
        """The user and group databases."""
        from google_guest.system.accounts import Accounts

        return Accounts(self.files, self.runner, live=self.is_live)

    @cached_property
    def network(self) -> Network:
        """The kernel's links, addresses and local routes."""
        from google_guest.system.netlink import Network

        return Network(self.runner)

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout: float = DEFAULT_TIMEOUT,
        input: Optional[str] = None,
        check: bool = True,
        env: Optional[Mapping[str, str]] = None,
    ) -> Completed:
        """Run a program of the platform on the running machine; see ``run_command``."""
        return self.runner(argv, timeout=timeout, input=input, check=check, env=env)

    def boot_id(self) -> str:
        """Return the identifier of this boot; empty where the kernel offers none."""
        if self.is_windows:
            return self.windows.boot_id() if self._has_windows else ""
        return (self.files.read_text(BOOT_ID) or "").strip()

    def is_alive(self, process: int) -> bool:
        """Return whether the process with this number runs; on Windows: as a Python program."""
        if self.is_windows:
            return self._has_windows and self.windows.is_alive(process)
        return self.files.exists(f"/proc/{process}")

    def is_compute_engine(self) -> bool:
        """Return whether the firmware says that this is a Compute Engine instance."""
        if self.is_windows:
            return self._has_windows and self.windows.is_compute_engine()
        from google_guest.system.firmware import is_compute_engine

        return is_compute_engine(self.files)

    def open_network_monitor(self) -> NetworkMonitor:
        """Return what becomes readable when links, addresses or routes change.

        Raises:
            OSError: the kernel offers none.
        """
        return self.windows.open_monitor() if self.is_windows else self.network.open_monitor()

    @staticmethod
    def set_hostname(name: str) -> None:
        """Give the running machine this host name; see ``kernel.set_hostname``."""
        from google_guest.system.kernel import set_hostname

        set_hostname(name)

    def prepare(self) -> None:
        """Make the folders ready that the agent writes to; on Linux the service's unit does.

        Raises:
            GuestError, OSError: the agent will not be able to remember anything.
        """
        if self.is_windows and self._has_windows:
            from google_guest.system.windows.start import prepare

            prepare(self.files, self.windows)

    @property
    def _has_windows(self) -> bool:
        return self._windows is not None or self.is_live

    @staticmethod
    def now() -> float:
        """Return the wall clock in Unix seconds."""
        return time.time()
