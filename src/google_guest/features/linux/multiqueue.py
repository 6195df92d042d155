"""Multi-queue: spread the queues and interrupts of network interfaces over the processors.

Runs ``google_set_multiqueue``; switch: ``[InstanceSetup] set_multiqueue``.

Source: guest-configs ``src/usr/bin/google_set_multiqueue``; google-guest-agent
``cmd/core_plugin/platscript``.
"""

from __future__ import annotations

from google_guest.features.linux.platform_script import platform_script

PROGRAM = "google_set_multiqueue"

FEATURE = platform_script(
    name="multiqueue",
    summary="distribute the queues of network interfaces",
    program=PROGRAM,
    switch="set_multiqueue",
)
