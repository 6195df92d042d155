"""I/O scheduler: none, because the host schedules the requests of every guest anyway.

Reads and wants ``none`` in ``/sys/block/*/queue/scheduler`` of every multi-queue device that offers
it; each device on its own. A device that refuses (read-only /sys, a driver without the attribute)
does not hold up the others. Once per boot, so that an administrator's later choice stands.

Switch: ``[InstanceSetup] set_io_scheduler``.

Source: google-guest-agent ``cmd/core_plugin/iosched``, guest-agent
``google_guest_agent/instance_setup.go``; Linux ``Documentation/block/switching-sched.rst``.
"""

from __future__ import annotations

import logging

from google_guest.changes.platform import WriteKernelValue
from google_guest.features import Decision, Feature, Frequency, Inputs, Plan, Stage

log = logging.getLogger(__name__)

BLOCK_DEVICES = "/sys/block"
SCHEDULER = "none"
_WRITE_BITS = 0o222


def enabled(inputs: Inputs) -> Decision:
    """On unless the configuration says otherwise."""
    layer = inputs.config.origin("instance_setup", "set_io_scheduler")
    on = inputs.config.instance_setup.set_io_scheduler
    return Decision(on, f"[InstanceSetup] set_io_scheduler = {str(on).lower()}", layer)


def plan(inputs: Inputs) -> Plan:
    """Return one change for each device with another scheduler."""
    files = inputs.system.files
    changes = []
    for device in files.list_directory(BLOCK_DEVICES):
        path = f"{BLOCK_DEVICES}/{device}/queue/scheduler"
        if files.stat(f"{BLOCK_DEVICES}/{device}/mq") is None:
            continue
        try:
            facts = files.stat(path)
            offered = (files.read_text(path, limit=4096) or "").split()
        except OSError as error:
            log.debug("%s: %s", path, error.strerror)
            continue
        current = next((word.strip("[]") for word in offered if word.startswith("[")), "")
        if facts is None or not facts.st_mode & _WRITE_BITS or not current:
            # Without brackets there is nothing to choose from: the device takes no scheduler.
            continue
        if SCHEDULER not in offered:
            # It is in force ("[none]"), or the kernel does not have it.
            continue
        changes.append(WriteKernelValue(path, SCHEDULER, previous=current))
    return Plan(tuple(changes))


FEATURE = Feature(
    name="io-scheduler",
    summary="leave the order of disk requests to the host",
    enabled=enabled,
    plan=plan,
    stage=Stage.EARLY,
    frequency=Frequency.ONCE_PER_BOOT,
    live_only=True,
)
