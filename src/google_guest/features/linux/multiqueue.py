"""Multi-queue: spread the queues and interrupts of network interfaces over the processors.

Runs ``google_set_multiqueue`` of the system configuration package, once per boot and before
metadata is there; without that program there is nothing to do.

Switch: ``[InstanceSetup] set_multiqueue``.

Source: guest-configs ``src/usr/bin/google_set_multiqueue``; google-guest-agent
``cmd/core_plugin/platscript``.
"""

from __future__ import annotations

from google_guest.changes.platform import RunCommand
from google_guest.features import Decision, Feature, Frequency, Inputs, Plan, Stage
from google_guest.programs import find_program

PROGRAM = "google_set_multiqueue"


def enabled(inputs: Inputs) -> Decision:
    """On unless the configuration says otherwise, where the program is installed."""
    layer = inputs.config.origin("instance_setup", "set_multiqueue")
    if not inputs.config.instance_setup.set_multiqueue:
        return Decision(False, "[InstanceSetup] set_multiqueue = false", layer)
    if find_program(inputs.system.files, PROGRAM) is None:
        return Decision(False, f"{PROGRAM} is not installed")
    return Decision(True, "[InstanceSetup] set_multiqueue = true", layer)


def plan(inputs: Inputs) -> Plan:
    """Return the program's run."""
    path = find_program(inputs.system.files, PROGRAM) or PROGRAM
    return Plan(
        (RunCommand((path,), "distribute the queues of network interfaces", about=PROGRAM),)
    )


FEATURE = Feature(
    name="multiqueue",
    summary="distribute the queues of network interfaces",
    enabled=enabled,
    plan=plan,
    stage=Stage.EARLY,
    frequency=Frequency.ONCE_PER_BOOT,
    live_only=True,
)
