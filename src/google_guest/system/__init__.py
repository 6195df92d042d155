"""The boundary to the operating system: the only room whose code touches it.

A :class:`System` is handed to features, which read through it and return changes, and to changes,
which act through it. Replacing one part (another root, a recording command runner, a scratch
network) is how everything above is tested without privileges.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Optional, Protocol

from google_guest.system.commands import DEFAULT_TIMEOUT, Completed, run_command
from google_guest.system.files import Files

if TYPE_CHECKING:
    from google_guest.system.accounts import Accounts
    from google_guest.system.netlink import Network

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


class System:
    """One guest: the running machine, or a file tree that is not booted."""

    def __init__(
        self,
        root: Path = Path("/"),
        runner: CommandRunner = run_command,
        channel: Optional[MetadataChannel] = None,
    ) -> None:
        self.root = root
        self.runner = runner
        self.channel = channel

    @property
    def is_live(self) -> bool:
        """Whether this is the running machine and not a tree below some folder."""
        return self.root == Path("/")

    @cached_property
    def files(self) -> Files:
        """Files below the root."""
        return Files(self.root)

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
        return (self.files.read_text(BOOT_ID) or "").strip()

    @staticmethod
    def now() -> float:
        """Return the wall clock in Unix seconds."""
        return time.time()
