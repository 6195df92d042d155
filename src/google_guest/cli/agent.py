"""``google_guest_agent``: the service.

Usage: google_guest_agent [run] [--foreground] [--once] [--print-config] [--log-level N]
       [--root DIR]

Exit status: 0 after an orderly stop, and on machines that are not Compute Engine instances; 1 when
nothing can run; 2 for wrong arguments; 3 when another agent is running.
"""

from __future__ import annotations

import gc
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Optional

from google_guest import logs
from google_guest.config import Config, load_config
from google_guest.errors import GuestError
from google_guest.records import record
from google_guest.system import System
from google_guest.system.service import LOCK_NAME, AlreadyRunning, InstanceLock, ServiceManager
from google_guest.version import version

log = logging.getLogger(__name__)

PROGRAM = "google_guest_agent"
EXIT_FAILED, EXIT_USAGE, EXIT_ALREADY_RUNNING = 1, 2, 3


@record
class Arguments:
    """The command line."""

    once: bool = False
    print_config: bool = False
    log_level: Optional[int] = None
    root: Path = Path("/")


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the agent and return its exit status."""
    arguments = _parse(sys.argv[1:] if argv is None else argv)
    system = System(root=arguments.root)
    config = load_config(system.files)
    if arguments.print_config:
        return _print_config(config)
    level = arguments.log_level or config.core.log_level
    sink = logs.configure_logging(PROGRAM, level=logs.level_of(level))
    _open_log_file(config)
    manager = ServiceManager()
    if system.is_live and not system.is_compute_engine() and not _host_override():
        log.info("this machine is no Compute Engine instance: nothing to do")
        manager.notify(READY="1", STATUS="not a Compute Engine instance")
        return 0
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
        return _once(system, config) if arguments.once else _serve(system, manager, sink)
    finally:
        sink.flush(everything=True)
        lock.release()


def _serve(system: System, manager: ServiceManager, sink: logs.Sink) -> int:
    # Imported after the checks above: machines that are not instances never pay for it.
    from google_guest.agent import Agent
    from google_guest.catalog import FEATURES
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
        features=FEATURES,
        manager=manager,
        status=StatusFile(),
        flush_logs=sink.flush,
    )
    # Everything is imported: what lives now lives on, so the collector need not look at it again.
    gc.freeze()
    gc.enable()
    return agent.run()


def _once(system: System, config: Config) -> int:
    from google_guest.catalog import FEATURES
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
    for feature in FEATURES:
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


def _parse(argv: Sequence[str]) -> Arguments:
    if list(argv) in ([], ["run"]):
        return Arguments()
    # A service start has no options and does not pay for the parser.
    import argparse

    parser = argparse.ArgumentParser(PROGRAM, description="The Compute Engine guest agent.")
    parser.add_argument("command", nargs="?", choices=("run",), default="run")
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
    return Arguments(
        once=chosen.once,
        print_config=chosen.print_config,
        log_level=chosen.log_level,
        root=chosen.root.resolve(),
    )
