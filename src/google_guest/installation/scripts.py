r"""``google-compute-engine-metadata-scripts``: what has Windows run the metadata scripts.

Installing adds the folder of the programs to the machine's ``Path``, registers the task
``GCEStartup``, which runs the startup scripts at boot, and adds the shutdown scripts to those of
the local group policy. Removing takes away these three and nothing else.

Source: guest-agent ``packaging/googet/google-compute-engine-metadata-scripts`` (install and
uninstall scripts).
"""

from __future__ import annotations

from google_guest.installation import Tell, attempt, layout
from google_guest.system import System
from google_guest.system.windows import environment, group_policy, tasks
from google_guest.system.windows.event_sources import register_event_source

EVENT_SOURCE = "GCEMetadataScripts"
FOLDER = layout.METADATA_SCRIPTS
STARTUP = rf"{FOLDER}\run_startup_scripts.cmd"
SHUTDOWN = rf"{FOLDER}\run_shutdown_scripts.cmd"
TASK = "GCEStartup"


def install(system: System, tell: Tell) -> None:
    """Register the scripts with ``Path``, the task scheduler and the group policy."""
    environment.add_to_path(system.windows.registry, FOLDER)
    tasks.register(system, TASK, tasks.boot_task(STARTUP, description="Runs startup scripts."))
    group_policy.add_shutdown_script(system.files, SHUTDOWN)
    register_event_source(system.windows.registry, EVENT_SOURCE)
    tell(f"the task {TASK} runs startup scripts at boot")


def remove(system: System, tell: Tell) -> None:
    """Undo what ``install`` registered."""
    registry = system.windows.registry
    attempt(f"delete the task {TASK}", lambda: tasks.delete(system, TASK), tell)
    attempt(
        "remove the shutdown scripts from the group policy",
        lambda: group_policy.remove_shutdown_script(system.files, SHUTDOWN),
        tell,
    )
    attempt(
        f"remove {FOLDER} from Path", lambda: environment.remove_from_path(registry, FOLDER), tell
    )
