"""The metadata server emulator as a process in the network around a bed.

It listens on the platform's two addresses, port 80, and is controlled through a Unix socket, so
that it can be changed while its network is cut off.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Union

from support.documents import instance_document, nic_document
from support.network import METADATA_V4, METADATA_V6, Nic, enter_namespace
from support.processes import Child, start_child

if TYPE_CHECKING:
    from metadata_server import ControlClient

SOURCE = Path(__file__).resolve().parents[2] / "src"
_PROFILES_WITH_NICS = ("linux", "windows")

Metadata = Union[str, Mapping[str, object]]
"""The name of one of the emulator's profiles, or a whole document."""


class Emulator:
    """One emulator process."""

    def __init__(self, namespace: str, directory: Path, metadata: Metadata) -> None:
        self._namespace = namespace
        self._directory = directory
        self._metadata = metadata
        self.socket = directory / "mds.sock"

    def start(self) -> Child:
        """Start it and wait until it answers; it says so in its first line."""
        command = [
            *enter_namespace(self._namespace),
            *(sys.executable, "-B", "-m", "metadata_server"),
            *("--address", METADATA_V4, "--address", METADATA_V6, "--port", "80"),
            *("--control-socket", str(self.socket), *self._content()),
        ]
        log = self._directory / "mds.log"
        child = start_child(command, log=log, environment={"PYTHONPATH": str(SOURCE)})
        deadline = time.monotonic() + 10
        while "GCE_METADATA_HOST=" not in _tail(log):
            if child.poll() is not None or time.monotonic() > deadline:
                child.kill()
                raise RuntimeError(f"the metadata server emulator did not start: {_tail(log)}")
            time.sleep(0.01)
        return child

    def _content(self) -> list[str]:
        if isinstance(self._metadata, str):
            return ["--profile", self._metadata]
        document = self._directory / "document.json"
        document.write_text(json.dumps(self._metadata))
        return ["--tree", str(document)]


def emulate(
    namespace: str, directory: Path, metadata: Union[Metadata, bool], nics: Sequence[Nic]
) -> tuple[Child, ControlClient]:
    """Start the emulator of a bed; True: that of a plain instance.

    The NICs of a profile become those of the bed.
    """
    document = instance_document(nics=nics) if isinstance(metadata, bool) else metadata
    emulator = Emulator(namespace, directory, document)
    child = emulator.start()
    client = control_client(emulator.socket)
    if document in _PROFILES_WITH_NICS:
        with client.batch():
            client.set("instance/network-interfaces", [nic_document(nic) for nic in nics])
            client.set("instance/vlan-network-interfaces", {})
    return child, client


def control_client(socket: Path) -> ControlClient:
    """A client of an emulator's control socket."""
    # The bed is used by programs that were not started with src in their path.
    if str(SOURCE) not in sys.path:
        sys.path.insert(0, str(SOURCE))
    from metadata_server import ControlClient

    return ControlClient(str(socket))


def _tail(log: Path) -> str:
    try:
        return log.read_text(errors="replace").strip()[-1000:]
    except FileNotFoundError:
        return "no output"
