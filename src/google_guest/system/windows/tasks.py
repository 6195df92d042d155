"""Tasks of the Task Scheduler, registered from XML by its own program ``schtasks.exe``.

Source: learn.microsoft.com, "Task Scheduler Schema", "schtasks create"; guest-agent
``packaging/googet`` for the properties of the startup task.
"""

from __future__ import annotations

import ntpath
import os
from xml.sax.saxutils import escape

from google_guest.system import System
from google_guest.system.windows.environment import windows_folder

_SYSTEM_ACCOUNT = "S-1-5-18"
_NAMESPACE = "http://schemas.microsoft.com/windows/2004/02/mit/task"
_TIMEOUT = 60.0
_NEVER_ENDED = "PT0S"


def boot_task(
    program: str,
    *,
    description: str,
    priority: int = 5,
    delay: str = "",
    repetition: str = "",
) -> str:
    """Return the XML of a task that SYSTEM runs at every boot, without a limit of time.

    The task may also be run on demand, and batteries neither keep it from starting nor end it.
    ``delay`` (after the boot) and ``repetition`` are durations as in the schema, such as ``PT5M``.
    """
    trigger = ["<Enabled>true</Enabled>"]
    if repetition:
        trigger.insert(0, f"<Repetition><Interval>{repetition}</Interval></Repetition>")
    if delay:
        trigger.append(f"<Delay>{delay}</Delay>")
    # The schema fixes the order of elements.
    lines = (
        '<?xml version="1.0" encoding="UTF-16"?>',
        f'<Task version="1.2" xmlns="{_NAMESPACE}">',
        f"  <RegistrationInfo><Description>{escape(description)}</Description></RegistrationInfo>",
        f"  <Triggers><BootTrigger>{''.join(trigger)}</BootTrigger></Triggers>",
        "  <Principals>",
        f'    <Principal id="Author"><UserId>{_SYSTEM_ACCOUNT}</UserId>'
        "<RunLevel>HighestAvailable</RunLevel></Principal>",
        "  </Principals>",
        "  <Settings>",
        "    <MultipleInstancesPolicy>IgnoreNew</MultipleInstancesPolicy>",
        "    <DisallowStartIfOnBatteries>false</DisallowStartIfOnBatteries>",
        "    <StopIfGoingOnBatteries>false</StopIfGoingOnBatteries>",
        "    <AllowStartOnDemand>true</AllowStartOnDemand>",
        "    <Enabled>true</Enabled>",
        f"    <ExecutionTimeLimit>{_NEVER_ENDED}</ExecutionTimeLimit>",
        f"    <Priority>{priority}</Priority>",
        "  </Settings>",
        f'  <Actions Context="Author"><Exec><Command>{escape(chr(34) + program + chr(34))}'
        "</Command></Exec></Actions>",
        "</Task>",
    )
    return "".join(f"{line}\r\n" for line in lines)


def register(system: System, name: str, xml: str) -> None:
    """Create the task ``name`` in the root folder, or change the one that is there.

    Raises:
        CommandError: the Task Scheduler refused.
    """
    # In a folder that administrators alone can write to.
    file = rf"{ntpath.dirname(system.places.config)}\{name}.task.xml"
    system.files.write_atomic(file, b"\xff\xfe" + xml.encode("utf-16-le"))
    try:
        _schtasks(system, "/create", "/tn", name, "/xml", system.files.host_path(file), "/f")
    finally:
        system.files.remove(file)


def delete(system: System, name: str) -> bool:
    """Delete a task of the root folder; return whether there was one.

    Raises:
        CommandError: the Task Scheduler refused.
    """
    if not exists(system, name):
        return False
    _schtasks(system, "/delete", "/tn", name, "/f")
    return True


def exists(system: System, name: str) -> bool:
    """Return whether there is a task ``name`` in the root folder: each has a file of its name."""
    return system.files.exists(rf"{windows_folder()}\System32\Tasks\{name}")


def _schtasks(system: System, *arguments: str) -> None:
    program = rf"{windows_folder()}\System32\schtasks.exe"
    system.run([program, *arguments], timeout=_TIMEOUT, env=dict(os.environ))
