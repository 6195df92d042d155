"""``google_metadata_authorized_keys``: a user's keys from metadata, for AuthorizedKeysCommand.

    AuthorizedKeysCommand /usr/bin/google_metadata_authorized_keys %u
    AuthorizedKeysCommandUser nobody

It prints one authorized_keys line for each valid key of exactly that user, by the same rules as the
agent, and nothing while OS Login is on. sshd waits for it during the login, so the metadata server
gets 5 seconds altogether. The user is the last argument that does not start with ``-``.

On Windows, where sshd runs it as ``GCEAuthorizedKeysCommand.exe``, keys count while
``enable-windows-ssh`` is true; otherwise it says why not, also on COM1.

Exit status: 0 when the metadata server answered, whether or not it knows the user, and on machines
that are no Compute Engine instance; 1 when nothing can be said, so that sshd refuses these keys.

Source: guest-agent ``google_authorized_keys/main.go`` for arguments; sshd_config(5),
"AuthorizedKeysCommand".
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Optional

from google_guest.config import load_config
from google_guest.errors import GuestError
from google_guest.features import Inputs
from google_guest.metadata.client import MetadataClient
from google_guest.metadata.endpoint import HOST_VARIABLE
from google_guest.metadata.tree import parse_metadata
from google_guest.system import System
from google_guest.version import version

NAME = "google_metadata_authorized_keys"
DEADLINE = 5.0
"""Seconds for the metadata server, all attempts together."""
_CONSOLE_PATIENCE = 1.0


def main(arguments: Optional[Sequence[str]] = None, *, system: Optional[System] = None) -> int:
    """Run the program; return its exit status."""
    words = sys.argv[1:] if arguments is None else arguments
    if any(word in ("-version", "--version") for word in words):
        print(f"{NAME} {version()}")
        return 0
    names = [word for word in words if not word.startswith("-")]
    if not names:
        print(f"usage: {NAME} [-version] USER", file=sys.stderr)
        return 1
    machine = system or System()
    if not os.environ.get(HOST_VARIABLE) and not machine.is_compute_engine():
        return 0
    try:
        keys = _keys(machine, names[-1])
    except GuestError as error:
        _complain(str(error))
        return 1
    try:
        sys.stdout.write("".join(f"{key}\n" for key in keys))
        sys.stdout.flush()
    except BrokenPipeError:
        # sshd has found its key and closed the pipe; the interpreter must not complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return 0


def _keys(system: System, user: str) -> tuple[str, ...]:
    config = load_config(system.files)
    with MetadataClient() as client:
        answer = client.get_metadata(timeout=DEADLINE, budget=DEADLINE)
    metadata = parse_metadata(answer.document)
    if system.is_windows:
        from google_guest.features.windows import ssh_users

        return ssh_users.served_keys(Inputs(metadata, config, system, system.now()), user)
    from google_guest.features.linux.accounts.wanted import served_keys

    return served_keys(metadata, config, user, system.now())


def _complain(text: str) -> None:
    print(f"{NAME}: {text}", file=sys.stderr)
    if sys.platform == "win32":
        from google_guest.system.windows.service_log import ConsoleLines

        console = ConsoleLines(NAME)
        console.put(text)
        console.flush(_CONSOLE_PATIENCE)
