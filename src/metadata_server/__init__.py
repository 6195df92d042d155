"""A metadata server emulator for tests and demonstrations.

A development tool: nothing that is installed on instances contains it.  ``Emulator`` runs the
server in this process; ``ControlClient`` steers one that runs elsewhere.
"""

from __future__ import annotations

from metadata_server.control import ControlClient
from metadata_server.emulator import Emulator
from metadata_server.faults import Fault
from metadata_server.request_log import Request

__all__ = ["ControlClient", "Emulator", "Fault", "Request"]
