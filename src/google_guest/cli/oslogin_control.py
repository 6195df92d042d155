"""``google_oslogin_control``: switch OS Login's configuration on or off by hand, or look at it.

Usage: google_oslogin_control {activate|deactivate|status} [--twofactor] [--norestartsshd] [--force]

The agent does the same from metadata, with the same plans; this program is for images, packages and
people. ``activate`` refuses while metadata does not switch OS Login on, because the agent would
undo it; ``--force`` goes ahead. ``deactivate`` asks nobody: it works without a metadata server, a
daemon or helpers, and beside a running agent. ``--norestartsshd`` leaves sshd as it runs.

Exit status: activate and deactivate 0 done, 1 failed or refused; status 0 active, 1 inactive or
partly active, 2 cannot say. Wrong arguments: 1.

Source: compute-image-packages ``google_oslogin_control`` for the arguments.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Optional

from google_guest.changes import Change, apply_all
from google_guest.config import Config, load_config
from google_guest.errors import GuestError
from google_guest.features import Inputs, Plan
from google_guest.features.linux.oslogin import reconcile
from google_guest.features.linux.oslogin.services import is_about_sshd
from google_guest.features.linux.oslogin.trusted_ca import RefreshTrustedCa
from google_guest.records import record
from google_guest.system import System

PROGRAM = "google_oslogin_control"
ACTIONS = ("activate", "deactivate", "status")
EXIT_DONE, EXIT_FAILED, EXIT_CANNOT_SAY = 0, 1, 2

_USAGE = f"usage: {PROGRAM} {{{'|'.join(ACTIONS)}}} [--twofactor] [--norestartsshd] [--force]"
_OPTIONS = ("--twofactor", "--norestartsshd", "--force")
_BUDGET = 10.0


@record
class Arguments:
    """The command line."""

    action: str
    two_factor: bool = False
    restart_sshd: bool = True
    force: bool = False


def parse(words: Sequence[str]) -> Optional[Arguments]:
    """Return the arguments, or None if they are wrong."""
    actions = [word for word in words if not word.startswith("-")]
    options = [word for word in words if word.startswith("-")]
    if len(actions) != 1 or actions[0] not in ACTIONS or not set(options) <= set(_OPTIONS):
        return None
    return Arguments(
        actions[0],
        two_factor="--twofactor" in options,
        restart_sshd="--norestartsshd" not in options,
        force="--force" in options,
    )


def main(argv: Optional[Sequence[str]] = None, *, system: Optional[System] = None) -> int:
    """Do what the arguments say and return the exit status."""
    words = sys.argv[1:] if argv is None else argv
    if list(words) in (["--help"], ["-h"]):
        print(_USAGE)
        return EXIT_DONE
    arguments = parse(words)
    if arguments is None:
        print(_USAGE, file=sys.stderr)
        return EXIT_FAILED
    is_status = arguments.action == "status"
    if system is None and os.geteuid() != 0:
        _complain("only root can do this")
        return EXIT_CANNOT_SAY if is_status else EXIT_FAILED
    machine = system or System()
    try:
        if is_status:
            return _status(machine, arguments)
        if arguments.action == "deactivate":
            return _apply(machine, reconcile.plan_off(machine, thorough=True), arguments)
        return _activate(machine, arguments)
    except (GuestError, OSError) as error:
        _complain(str(error))
        return EXIT_CANNOT_SAY if is_status else EXIT_FAILED


def _status(system: System, arguments: Arguments) -> int:
    checks = reconcile.state(system, two_factor=arguments.two_factor)
    for text, holds in checks:
        print(f"{'yes' if holds else 'no ':3}  {text}")
    return EXIT_DONE if all(holds for _, holds in checks) else EXIT_FAILED


def _activate(system: System, arguments: Arguments) -> int:
    config = load_config(system.files)
    try:
        inputs = _inputs(system, config)
    except GuestError as error:
        if not arguments.force:
            raise GuestError(f"{error}; --force goes ahead without metadata") from error
        inputs = Inputs(None, config, system, system.now())
    if not arguments.force and not reconcile.is_on(inputs):
        raise GuestError(
            "metadata does not switch OS Login on (enable-oslogin), so the agent would undo this;"
            " --force goes ahead"
        )
    problem = reconcile.obstacle(system)
    if problem:
        raise GuestError(problem)
    plan = reconcile.plan_on(inputs, two_factor=arguments.two_factor)
    status = _apply(system, plan, arguments)
    if status != EXIT_DONE:
        _complain("activation failed, setting everything back")
        _apply(system, reconcile.plan_off(system, thorough=True), arguments)
    return status


def _inputs(system: System, config: Config) -> Inputs:
    from google_guest.metadata.client import MetadataClient
    from google_guest.metadata.tree import parse_metadata

    client = MetadataClient()
    system.channel = client
    metadata = parse_metadata(client.get_metadata(budget=_BUDGET).document)
    return Inputs(metadata, config, system, system.now())


def _apply(system: System, plan: Plan, arguments: Arguments) -> int:
    for text in (*plan.warnings, *plan.notes):
        print(f"{PROGRAM}: {text}")
    changes: list[Change] = [
        change for change in plan.changes if arguments.restart_sshd or not is_about_sshd(change)
    ]
    outcome = apply_all(changes, system)
    for change in outcome.applied:
        print(change.describe())
    for change, error in outcome.failed:
        _complain(f"{change.describe()}: {error}")
    # Without its authorities OS Login lacks certificates only, and the agent asks again.
    failed = [c for c, _ in outcome.failed if not isinstance(c, RefreshTrustedCa)]
    return EXIT_FAILED if failed or outcome.left_out else EXIT_DONE


def _complain(text: str) -> None:
    print(f"{PROGRAM}: {text}", file=sys.stderr)
