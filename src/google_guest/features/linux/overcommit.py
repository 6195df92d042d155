"""Overcommit: E2 machines let programs reserve more memory than there is.

Reads ``instance/machine-type`` and ``/proc/sys/vm/overcommit_memory``; wants 1 there on machine
types ``e2-*``, whose memory the host hands out on demand. Once per start of the agent.

Switch: ``[InstanceSetup] set_overcommit``.

Source: guest-agent ``google_guest_agent/instance_setup.go``; Linux
``Documentation/mm/overcommit-accounting.rst``.
"""

from __future__ import annotations

from typing import Optional

from google_guest.changes.platform import WriteKernelValue
from google_guest.features import Decision, Feature, Frequency, Inputs, Plan, Stage
from google_guest.metadata.tree import Metadata, last_part

OVERCOMMIT = "/proc/sys/vm/overcommit_memory"
ALWAYS = "1"


def enabled(inputs: Inputs) -> Decision:
    """On for E2 machines unless the configuration says otherwise."""
    layer = inputs.config.origin("instance_setup", "set_overcommit")
    if not inputs.config.instance_setup.set_overcommit:
        return Decision(False, "[InstanceSetup] set_overcommit = false", layer)
    machine_type = None if inputs.metadata is None else inputs_of(inputs.metadata)
    if machine_type is None or not machine_type.startswith("e2-"):
        return Decision(False, "this is no E2 machine")
    return Decision(True, f"machine type {machine_type}", layer)


def inputs_of(metadata: Metadata) -> Optional[str]:
    """Return the machine type, such as ``e2-small``."""
    return last_part(metadata.instance.machine_type)


def plan(inputs: Inputs) -> Plan:
    """Return the change of the kernel's policy, if it has another."""
    try:
        current = inputs.system.files.read_text(OVERCOMMIT, limit=4096)
    except OSError as error:
        return Plan(notes=(f"{OVERCOMMIT} cannot be read: {error.strerror}",))
    if current is None or current.strip() == ALWAYS:
        return Plan()
    return Plan((WriteKernelValue(OVERCOMMIT, ALWAYS, previous=current.strip()),))


FEATURE = Feature(
    name="overcommit",
    summary="let programs reserve more memory than there is on E2 machines",
    enabled=enabled,
    plan=plan,
    stage=Stage.BOOT,
    frequency=Frequency.ONCE_PER_START,
    inputs_of=inputs_of,
    live_only=True,
)
