"""Local SSDs: spread the interrupts of NVMe and SCSI disks over the processors.

Runs ``google_optimize_local_ssd`` of the system configuration package, once per boot and before
metadata is there; without that program there is nothing to do.

Switch: ``[InstanceSetup] optimize_local_ssd``.

Source: guest-configs ``src/usr/bin/google_optimize_local_ssd``; google-guest-agent
``cmd/core_plugin/platscript``.
"""

from __future__ import annotations

from google_guest.changes.platform import RunCommand
from google_guest.features import Decision, Feature, Frequency, Inputs, Plan, Stage
from google_guest.programs import find_program

PROGRAM = "google_optimize_local_ssd"


def enabled(inputs: Inputs) -> Decision:
    """On unless the configuration says otherwise, where the program is installed."""
    layer = inputs.config.origin("instance_setup", "optimize_local_ssd")
    if not inputs.config.instance_setup.optimize_local_ssd:
        return Decision(False, "[InstanceSetup] optimize_local_ssd = false", layer)
    if find_program(inputs.system.files, PROGRAM) is None:
        return Decision(False, f"{PROGRAM} is not installed")
    return Decision(True, "[InstanceSetup] optimize_local_ssd = true", layer)


def plan(inputs: Inputs) -> Plan:
    """Return the program's run."""
    path = find_program(inputs.system.files, PROGRAM) or PROGRAM
    return Plan((RunCommand((path,), "distribute the interrupts of local SSDs", about=PROGRAM),))


FEATURE = Feature(
    name="local-ssd",
    summary="distribute the interrupts of local SSDs",
    enabled=enabled,
    plan=plan,
    stage=Stage.EARLY,
    frequency=Frequency.ONCE_PER_BOOT,
    live_only=True,
)
