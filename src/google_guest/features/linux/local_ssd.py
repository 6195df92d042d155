"""Local SSDs: spread the interrupts of NVMe and SCSI disks over the processors.

Runs ``google_optimize_local_ssd``; switch: ``[InstanceSetup] optimize_local_ssd``.

Source: guest-configs ``src/usr/bin/google_optimize_local_ssd``; google-guest-agent
``cmd/core_plugin/platscript``.
"""

from __future__ import annotations

from google_guest.features.linux.platform_script import platform_script

PROGRAM = "google_optimize_local_ssd"

FEATURE = platform_script(
    name="local-ssd",
    summary="distribute the interrupts of local SSDs",
    program=PROGRAM,
    switch="optimize_local_ssd",
)
