"""``gce_workload_cert_refresh``: one refresh of the workload certificates, started by a timer.

Exit status: 0 when the credentials are in force or there are none to fetch, 1 when new ones could
not be put in force, 2 for wrong arguments.
"""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Sequence
from typing import Optional

from google_guest.config import Config, load_config
from google_guest.errors import GuestError
from google_guest.logs import configure_logging
from google_guest.metadata.client import MetadataClient
from google_guest.metadata.endpoint import HOST_VARIABLE
from google_guest.system import System
from google_guest.version import version
from google_guest.workload_certificates import (
    DEFAULT_KEY_MODE,
    parse_key_mode,
    refresh_credentials,
)

NAME = "gce_workload_cert_refresh"
log = logging.getLogger(__name__)


def main(arguments: Optional[Sequence[str]] = None, *, system: Optional[System] = None) -> int:
    """Run the program; return its exit status."""
    parser = argparse.ArgumentParser(
        prog=NAME,
        description="Fetch the workload certificates of this instance into /run/secrets.",
    )
    parser.add_argument("--version", action="version", version=f"{NAME} {version()}")
    parser.parse_args(arguments)
    machine = system or System()
    config = load_config(machine.files)
    sink = configure_logging(NAME)
    try:
        return _refresh(machine, config)
    finally:
        sink.flush(everything=True)


def _refresh(system: System, config: Config) -> int:
    if not os.environ.get(HOST_VARIABLE) and not system.is_compute_engine():
        log.info("this machine is no Compute Engine instance: nothing to do")
        return 0
    mode = parse_key_mode(config.mwlid.private_key_mode)
    if mode is None:
        log.warning("[MWLID] private_key_mode = %r is no mode", config.mwlid.private_key_mode)
        mode = DEFAULT_KEY_MODE
    try:
        with MetadataClient() as client:
            if refresh_credentials(client, system.files, key_mode=mode):
                log.info("workload certificates refreshed")
    except (GuestError, OSError) as error:
        log.error("workload certificates are not refreshed: %s", error)
        return 1
    return 0
