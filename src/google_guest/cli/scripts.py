"""``google_metadata_script_runner``: the startup and shutdown scripts of the metadata.

Usage: google_metadata_script_runner startup | shutdown [--if-stopping]

On Windows: ``GCEMetadataScripts startup | shutdown | specialize``; see ``cli.windows.scripts``.

With ``--if-stopping`` nothing runs unless the system is going down. The program may be called by
any other name, and ``--script-type EVENT`` of the runner of 2017 is still understood. Exit status:
0 when the scripts have run, whatever became of them, when there are none or the event is switched
off, and on machines that are not Compute Engine instances; 1 when metadata cannot be read; 2 for
wrong arguments, before anything is asked or read.

This program is on the path of every boot and has seconds at a shutdown: arguments are taken apart
by hand because loading ``argparse`` costs as much as everything else here together.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Optional

from google_guest.records import record
from google_guest.scripts.events import LINUX, WINDOWS, Event
from google_guest.system import System
from google_guest.system.children import Stopped, end_by_signal, initial_environment, stop_signals

if TYPE_CHECKING:
    from google_guest.config import MetadataScriptsSection
    from google_guest.scripts.output import Console
    from google_guest.scripts.platforms import Platform

ON_WINDOWS = sys.platform == "win32"
PROGRAM = "GCEMetadataScripts" if ON_WINDOWS else "google_metadata_script_runner"
EVENTS = WINDOWS if ON_WINDOWS else LINUX
EXIT_FAILED, EXIT_USAGE = 1, 2
_SIGNALLED = 128
_DEBUG = ("-d", "--debug")


@record
class Arguments:
    """The command line."""

    event: Event
    if_stopping: bool = False


class WrongUsage(Exception):
    """The arguments make no sense; the message says which."""


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the scripts of an event and return the exit status.

    Without ``argv`` this is the program itself, and it ends here: nothing of ours waits for the
    interpreter's own clean-up, which takes a seventh of the time of a boot without scripts.
    """
    if argv is not None:
        return _main(list(argv))
    status = _main(sys.argv[1:])
    for stream in (sys.stdout, sys.stderr):
        # On Windows there are programs without.
        if stream is not None:
            stream.flush()
    os._exit(status)


def _main(words: Sequence[str]) -> int:
    if words in (["-h"], ["--help"]):
        print(_usage())
        return 0
    if words == ["--version"]:
        from google_guest.version import version

        print(version())
        return 0
    try:
        arguments = parse_arguments(words)
    except WrongUsage as error:
        print(f"{PROGRAM}: {error}\n{_usage()}", file=sys.stderr)
        return EXIT_USAGE
    if sys.platform == "win32":
        from google_guest.cli.windows.scripts import run_event

        return run_event(arguments.event)
    try:
        with stop_signals():
            return run(arguments, System(), environment=initial_environment())
    except Stopped as stopped:
        end_by_signal(stopped.number)
        return _SIGNALLED + stopped.number


def parse_arguments(words: Sequence[str], events: Mapping[str, Event] = EVENTS) -> Arguments:
    """Return what the command line says; raise ``WrongUsage`` if it says nothing sensible."""
    names: list[str] = []
    if_stopping = False
    pending = list(words)
    while pending:
        word = pending.pop(0)
        if word == "--if-stopping" and events is LINUX:
            if_stopping = True
        elif word == "--script-type":
            if not pending:
                raise WrongUsage("--script-type needs a value")
            names.append(pending.pop(0))
        elif word.startswith("--script-type="):
            names.append(word.partition("=")[2])
        elif word.startswith("-") and word not in _DEBUG:
            raise WrongUsage(f"unknown option {word!r}")
        elif word not in _DEBUG:
            names.append(word)
    if len(names) != 1:
        raise WrongUsage("one event is needed" if not names else "only one event at a time")
    event = events.get(names[0])
    if event is None:
        raise WrongUsage(f"unknown event {names[0]!r}")
    return Arguments(event, if_stopping)


def run(
    arguments: Arguments, system: System, *, environment: Mapping[str, str], descriptor: int = 1
) -> int:
    """Run the scripts on ``system``; lines go to ``descriptor``."""
    # Imported one by one, so that wrong arguments and skipped shutdowns are cheap.
    from google_guest.scripts.output import console_of

    console = console_of(environment, descriptor)
    if arguments.if_stopping:
        from google_guest.scripts.stopping import is_stopping

        # Unknown counts as going down: a script too many is better than one that never runs.
        if is_stopping(system) is False:
            console.info(f"system is not shutting down, skipping {arguments.event.name} scripts")
            return 0

    def platform(settings: MetadataScriptsSection) -> Platform:
        from google_guest.scripts.linux import Linux

        return Linux(system, settings, console, environment)

    return perform(arguments.event, system, console, platform, environment=environment)


def perform(
    event: Event,
    system: System,
    console: Console,
    platform: Callable[[MetadataScriptsSection], Platform],
    *,
    environment: Mapping[str, str],
) -> int:
    """Run the scripts of ``event`` unless this is no instance; return the exit status."""
    override = environment.get("GCE_METADATA_HOST")
    if system.is_live and not override and not system.is_compute_engine():
        console.info("this machine is no Compute Engine instance: nothing to do")
        return 0
    from google_guest.config import load_config
    from google_guest.errors import GuestError
    from google_guest.metadata.client import MetadataClient
    from google_guest.metadata.errors import MetadataError
    from google_guest.scripts.runner import Run

    try:
        system.prepare()
    except (GuestError, OSError) as error:
        console.warning(f"the agent's folders are not as they should be: {error}")

    config = load_config(system.files, environ=environment)
    for problem in config.problems:
        if problem.is_error or "[metadatascripts]" in problem.text.lower():
            console.warning(str(problem))
    try:
        client = MetadataClient(environ=environment)
    except MetadataError as error:
        console.warning(str(error))
        return EXIT_FAILED
    with client:
        return Run(
            event=event,
            system=system,
            settings=config.metadata_scripts,
            console=console,
            environment=environment,
            client=client,
            platform=platform(config.metadata_scripts),
        ).perform()


def _usage() -> str:
    return f"usage: {PROGRAM} {'|'.join(EVENTS)}{'' if ON_WINDOWS else ' [--if-stopping]'}"
