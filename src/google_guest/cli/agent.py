"""``google_guest_agent``: the service.

Usage: google_guest_agent [run] [--foreground] [--once] [--print-config] [--log-level N]
       [--root DIR]

On Windows, where ``run`` means the service manager's service, there are further verbs: see
``cli.windows.service``. There, ``--accounts=memory`` keeps users in memory instead of Windows; it
is for tests under Wine, which has no accounts, and refused everywhere else.

Exit status: 0 after an orderly stop, and on machines that are not Compute Engine instances; 1 when
nothing can run; 2 for wrong arguments; 3 when another agent is running.
"""

from __future__ import annotations

import gc
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Optional

from google_guest import logs
from google_guest.config import Config, load_config
from google_guest.errors import GuestError
from google_guest.records import record
from google_guest.system import System
from google_guest.system.service import LOCK_NAME, AlreadyRunning, InstanceLock, ServiceManager
from google_guest.version import version

if TYPE_CHECKING:
    from google_guest.agent import Agent
    from google_guest.system.windows.service_process import ServiceControls

log = logging.getLogger(__name__)

PROGRAM = "google_guest_agent"
_SERVICE_STOP_BOUND = 8.0
"""Seconds that passes get to end when Windows stops the service, which it wants within ten."""
EXIT_FAILED, EXIT_USAGE, EXIT_ALREADY_RUNNING = 1, 2, 3


@record
class Arguments:
    """The command line."""

    once: bool = False
    print_config: bool = False
    log_level: Optional[int] = None
    root: Path = Path("/")
    verb: str = "run"
    memory_accounts: bool = False


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the agent and return its exit status."""
    words = sys.argv[1:] if argv is None else argv
    arguments = _parse(words)
    if sys.platform == "win32":
        from google_guest.cli.windows import service

        if arguments.verb in service.VERBS:
            return service.do(arguments.verb, System().windows.services, python=sys.executable)
        if arguments.verb == "run" and not (arguments.once or arguments.print_config):
            return service.main([word for word in words if word != "run"])
    return _run(arguments)


def run_as_service(argv: Sequence[str], controls: ServiceControls) -> int:
    """Run the agent as a Windows service that ``controls`` stop and reload."""

    def connect(agent: Agent) -> None:
        controls.connect(stop=agent.stop, reload=agent.reload)

    return _run(_parse(argv), connect=connect)


def _run(arguments: Arguments, *, connect: Optional[Callable[[Agent], None]] = None) -> int:
    """Run the agent; without ``connect`` signals stop and reload it."""
    system = _system(arguments)
    config = load_config(system.files)
    if arguments.print_config:
        return _print_config(config)
    level = arguments.log_level or config.core.log_level
    watched = sys.platform == "win32" and (arguments.verb == "noservice" or arguments.once)
    sink = logs.configure_logging(PROGRAM, level=logs.level_of(level), watched=watched)
    _open_log_file(config)
    manager = ServiceManager()
    if system.is_live and not system.is_compute_engine() and not _host_override():
        log.info("this machine is no Compute Engine instance: nothing to do")
        manager.notify(READY="1", STATUS="not a Compute Engine instance")
        return 0
    try:
        system.prepare()
    except (GuestError, OSError) as error:
        log.error("the agent's folders are not as they should be: %s", error)
    lock_path = system.places.in_run(LOCK_NAME)
    try:
        lock = InstanceLock(system.files.host_path(lock_path))
    except AlreadyRunning as error:
        log.error("%s", error)
        return EXIT_ALREADY_RUNNING
    except OSError as error:
        log.critical("%s: %s", lock_path, error.strerror)
        return EXIT_FAILED
    try:
        if arguments.once:
            return _once(system, config)
        return _serve(system, manager, sink, connect)
    finally:
        sink.flush(everything=True)
        lock.release()


def _serve(
    system: System,
    manager: ServiceManager,
    sink: logs.Sink,
    connect: Optional[Callable[[Agent], None]],
) -> int:
    # Imported after the checks above: machines that are not instances never pay for it.
    from google_guest.agent import Agent, AgentOptions
    from google_guest.catalog import platform_features
    from google_guest.metadata.client import MetadataClient
    from google_guest.metadata.watcher import Watcher
    from google_guest.status import StatusFile

    log.info("google_guest_agent %s starts", version())
    client = MetadataClient()
    system.channel = client
    agent = Agent(
        system,
        load_config=lambda: load_config(system.files),
        watcher=Watcher(client),
        features=platform_features(),
        manager=manager,
        status=StatusFile(),
        flush_logs=sink.flush,
        options=AgentOptions() if connect is None else AgentOptions(stop_bound=_SERVICE_STOP_BOUND),
    )
    if connect is not None:
        connect(agent)
    # Everything is imported: what lives now lives on, so the collector need not look at it again.
    gc.freeze()
    gc.enable()
    return agent.run(handle_signals=connect is None)


def _once(system: System, config: Config) -> int:
    from google_guest.catalog import platform_features
    from google_guest.features import Inputs
    from google_guest.metadata.client import MetadataClient
    from google_guest.metadata.tree import parse_metadata
    from google_guest.reconcile import run_pass

    client = MetadataClient()
    system.channel = client
    try:
        metadata = parse_metadata(client.get_metadata().document)
    except GuestError as error:
        log.error("%s", error)
        return EXIT_FAILED
    failed = False
    for feature in platform_features():
        result = run_pass(feature, Inputs(metadata, config, system, system.now()))
        for change in result.outcome.applied:
            log.info("%s: %s", feature.name, change.describe())
        for line in result.errors:
            log.error("%s: %s", feature.name, line)
        if result.skipped:
            log.info("%s: skipped, %s", feature.name, result.skipped)
        failed = failed or result.is_failure
    return EXIT_FAILED if failed else 0


def _print_config(config: Config) -> int:
    for setting in config.settings():
        print(f"[{setting.section}] {setting.key} = {setting.text}\t{setting.origin}")
    for problem in config.problems:
        print(f"# {problem}")
    return 0


def _open_log_file(config: Config) -> None:
    if not config.core.log_file:
        return
    try:
        logs.add_log_file(config.core.log_file)
    except OSError as error:
        log.warning("[Core] log_file %s: %s", config.core.log_file, error.strerror)


def _host_override() -> bool:
    """Return whether somebody named a metadata server on purpose."""
    return bool(os.environ.get("GCE_METADATA_HOST"))


def _system(arguments: Arguments) -> System:
    if sys.platform == "win32" and arguments.memory_accounts:
        from google_guest.system.windows.memory import MemoryAccounts
        from google_guest.system.windows.native import NativeWindows

        return System(root=arguments.root, windows=NativeWindows(accounts=MemoryAccounts()))
    return System(root=arguments.root)


def _parse(argv: Sequence[str]) -> Arguments:
    if list(argv) in ([], ["run"]):
        return Arguments()
    # A service start has no options and does not pay for the parser.
    import argparse

    parser = argparse.ArgumentParser(PROGRAM, description="The Compute Engine guest agent.")
    verbs: tuple[str, ...] = ("run",)
    if sys.platform == "win32":
        from google_guest.cli.windows import service

        verbs = ("run", "noservice", *service.VERBS, "help")
        parser.add_argument("--accounts", choices=("memory",), help=argparse.SUPPRESS)
    parser.add_argument("command", nargs="?", choices=verbs, default="run")
    parser.add_argument("--version", action="version", version=version())
    parser.add_argument(
        "--foreground", action="store_true", help="stay in the foreground, which it always does"
    )
    parser.add_argument("--once", action="store_true", help="make one pass and end")
    parser.add_argument(
        "--print-config", action="store_true", help="print every setting with its origin and end"
    )
    parser.add_argument(
        "--log-level", type=int, choices=(1, 2, 3, 4), help="1 errors .. 4 everything"
    )
    parser.add_argument("--root", type=Path, default=Path("/"), help="act on the tree below DIR")
    chosen = parser.parse_args(argv)
    if chosen.command == "help":
        parser.print_help()
        parser.exit()
    in_memory = getattr(chosen, "accounts", None) == "memory"
    if in_memory and not _is_wine():
        parser.error("--accounts=memory is for tests under Wine, and this is Windows")
    return Arguments(
        once=chosen.once,
        print_config=chosen.print_config,
        log_level=chosen.log_level,
        root=chosen.root if chosen.root == Path("/") else chosen.root.resolve(),
        verb=chosen.command,
        memory_accounts=in_memory,
    )


def _is_wine() -> bool:
    if sys.platform == "win32":
        from google_guest.system.windows.calls import is_wine

        return is_wine()
    return False
