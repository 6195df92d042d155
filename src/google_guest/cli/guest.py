"""``google-guest``: what the agent would do, does and did, for people and for scripts.

plan         what would change, as a difference; changes nothing
apply        make one pass over every feature now
status       each feature: on or off, who decided, what it last did and when
config       every setting, its value and where it comes from
keys         every SSH key of the metadata and what becomes of it
image-clean  remove what this instance left, before an image is made of its disk
version      the version

Every command takes ``--json``. Exit status: 0 done, 1 failed, 2 wrong arguments, 3 (apply) the
agent is running and applies changes itself.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional

from google_guest.changes import Change
from google_guest.cli.terminal import BOLD, DIM, GREEN, RED, YELLOW, Terminal, ago
from google_guest.config import Config, load_config
from google_guest.errors import GuestError
from google_guest.features import Decision, Feature, Inputs, Plan
from google_guest.features.key_explanations import KeyExplanation
from google_guest.metadata.client import MetadataClient
from google_guest.metadata.tree import Metadata, parse_metadata
from google_guest.reconcile import plan_feature, run_pass
from google_guest.state import read_state, status_path
from google_guest.system import System
from google_guest.version import version

EXIT_FAILED, EXIT_ALREADY_RUNNING = 1, 3
_METADATA_BUDGET = 5.0
_LOOK_AGAIN = (
    "restarting the service GCEAgent makes it look at everything again"
    if sys.platform == "win32"
    else "'systemctl reload google-guest-agent' makes it look at everything again"
)


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the command and return the exit status."""
    arguments = _parser().parse_args(sys.argv[1:] if argv is None else argv)
    terminal = Terminal(sys.stdout)
    try:
        status: int = arguments.run(arguments, terminal)
        sys.stdout.flush()
        return status
    except GuestError as error:
        print(f"google-guest: {error}", file=sys.stderr)
    except BrokenPipeError:
        # The reader (head, less) has seen enough; keep the interpreter from complaining at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except PermissionError as error:
        print(f"google-guest: {error.filename}: {error.strerror}{_hint()}", file=sys.stderr)
    except OSError as error:
        print(f"google-guest: {error}", file=sys.stderr)
    return EXIT_FAILED


def _hint() -> str:
    if sys.platform == "win32":
        return " (try as an administrator)"
    return "" if os.geteuid() == 0 else " (try as root)"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "google-guest", description="Look at and steer the Compute Engine guest environment."
    )
    parser.add_argument("--version", action="version", version=version())
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, run: Any, text: str) -> argparse.ArgumentParser:
        one = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        one.add_argument("--json", action="store_true", help="print JSON")
        one.add_argument(
            "--root", type=Path, default=Path("/"), metavar="DIR", help="act on the tree below DIR"
        )
        one.set_defaults(run=run)
        return one

    for name, run, text in (
        ("plan", _plan, "show what would change, and change nothing"),
        ("apply", _apply, "make one pass over the features now"),
    ):
        one = command(name, run, text)
        one.add_argument(
            "--metadata", type=Path, metavar="FILE", help="a recursive JSON document, no server"
        )
        one.add_argument(
            "--feature", action="append", metavar="NAME", help="only this one (repeatable)"
        )
        if name == "apply":
            one.add_argument("--dry-run", action="store_true", help="the same as plan")
    command("status", _status, "show each feature: on or off, why, what it did and when")
    command("config", _config, "show every setting and where its value comes from")
    keys = command("keys", _keys, "show every SSH key of the metadata and what becomes of it")
    keys.add_argument("--metadata", type=Path, metavar="FILE", help="a recursive JSON document")
    keys.add_argument("user", nargs="?", help="only this user's keys")
    clean = command("image-clean", _image_clean, "remove what this instance left behind")
    clean.add_argument("--dry-run", action="store_true", help="only list it")
    clean.add_argument("--host-keys", action="store_true", help="remove the SSH host keys, too")
    clean.add_argument("--yes", action="store_true", help="do not ask on a terminal")
    command("version", _version, "show the version")
    return parser


# plan and apply


def _plan(arguments: argparse.Namespace, terminal: Terminal) -> int:
    inputs = _inputs(arguments)
    rows = [(feature, *plan_feature(feature, inputs)) for feature in _features(arguments)]
    if arguments.json:
        _print_json({"features": [_plan_row(*row) for row in rows]})
        return 0
    total = 0
    for feature, decision, plan in rows:
        total += len(plan.changes)
        _show_plan(terminal, feature, decision, plan)
    terminal.line()
    terminal.line(
        "Nothing would change."
        if total == 0
        else f"{total} change{'s' if total != 1 else ''} would be made; nothing was changed."
    )
    return 0


def _plan_row(feature: Feature, decision: Decision, plan: Plan) -> dict[str, Any]:
    return {
        "name": feature.name,
        "on": decision.on,
        "reason": decision.reason,
        "layer": decision.layer,
        "changes": [change.as_dict() for change in plan.changes],
        "notes": list(plan.notes),
        "warnings": list(plan.warnings),
        "recheck_at": plan.recheck_at,
    }


def _show_plan(terminal: Terminal, feature: Feature, decision: Decision, plan: Plan) -> None:
    state = terminal.paint("on", GREEN) if decision.on else terminal.paint("off", YELLOW)
    reason = terminal.paint(f"({decision.reason}; {decision.layer})", DIM)
    terminal.line(f"{terminal.paint(feature.name, BOLD)}  {state}  {reason}")
    for change in plan.changes:
        _show_change(terminal, change)
    for warning in plan.warnings:
        terminal.line(terminal.paint(f"  ! {warning}", YELLOW))
    for note in plan.notes:
        terminal.line(f"  # {note}")


def _show_change(terminal: Terminal, change: Change) -> None:
    terminal.line(f"  * {change.describe()}")
    for line in change.diff():
        terminal.difference(line)


def _apply(arguments: argparse.Namespace, terminal: Terminal) -> int:
    if arguments.dry_run:
        return _plan(arguments, terminal)
    # Only here: the other commands take no lock.
    from google_guest.system.service import LOCK_NAME, AlreadyRunning, InstanceLock

    inputs = _inputs(arguments)
    try:
        lock = InstanceLock(inputs.system.files.host_path(inputs.system.places.in_run(LOCK_NAME)))
    except AlreadyRunning:
        print(
            f"google-guest: the agent is running and applies changes itself; {_LOOK_AGAIN}",
            file=sys.stderr,
        )
        return EXIT_ALREADY_RUNNING
    rows = []
    try:
        inputs.system.prepare()
        for feature in _features(arguments):
            rows.append(run_pass(feature, inputs))
    finally:
        lock.release()
    if arguments.json:
        _print_json(
            {
                "features": [
                    {
                        **_plan_row(row.feature, row.decision, row.plan),
                        "applied": [change.describe() for change in row.outcome.applied],
                        "failed": list(row.errors),
                        "skipped": row.skipped,
                        "left_out": [
                            change.describe()
                            for change in (*row.outcome.left_out, *row.outcome.not_live)
                        ],
                    }
                    for row in rows
                ]
            }
        )
    else:
        for row in rows:
            _show_plan(terminal, row.feature, row.decision, row.plan)
            for change in row.outcome.not_live:
                terminal.line(f"  # left out, needs the running machine: {change.describe()}")
            if row.skipped:
                terminal.line(f"  # skipped, {row.skipped}")
            for line in row.errors:
                terminal.line(terminal.paint(f"  ! {line}", RED))
    return EXIT_FAILED if any(row.is_failure for row in rows) else 0


def _system(arguments: argparse.Namespace) -> System:
    root: Path = arguments.root
    # The running machine's root names no drive on Windows, and must keep naming none.
    return System(root=root if root == Path("/") else root.resolve())


def _inputs(arguments: argparse.Namespace) -> Inputs:
    system = _system(arguments)
    if not system.root.is_dir():
        raise GuestError(f"{arguments.root} is no directory")
    config = load_config(system.files)
    for problem in config.problems:
        print(f"google-guest: {problem}", file=sys.stderr)
    return Inputs(_metadata(arguments, system), config, system, system.now())


def _metadata(arguments: argparse.Namespace, system: System) -> Metadata:
    path: Optional[Path] = arguments.metadata
    if path is not None:
        try:
            return parse_metadata(json.loads(path.read_bytes()))
        except (ValueError, RecursionError) as error:
            raise GuestError(f"{path} is no JSON document: {error}") from error
    if system.is_live and not system.is_compute_engine():
        if not os.environ.get("GCE_METADATA_HOST"):
            raise GuestError(
                "this machine is no Compute Engine instance: name a document with --metadata"
                " or a server with GCE_METADATA_HOST"
            )
    client = MetadataClient()
    system.channel = client
    return parse_metadata(client.get_metadata(budget=_METADATA_BUDGET).document)


def _features(arguments: argparse.Namespace) -> Sequence[Feature]:
    from google_guest.catalog import platform_features

    features = platform_features()
    wanted: Optional[list[str]] = arguments.feature
    if not wanted:
        return features
    names = [feature.name for feature in features]
    for name in wanted:
        if name not in names:
            raise GuestError(f"there is no feature {name!r}; there are {', '.join(names)}")
    return [feature for feature in features if feature.name in wanted]


# status


def _status(arguments: argparse.Namespace, terminal: Terminal) -> int:
    system = _system(arguments)
    path = status_path(system)
    document = read_state(system, path)
    if document is None:
        raise GuestError(f"the agent has not run since the machine started (no {path})")
    running = document.get("state") == "running" and _is_alive(system, document.get("pid"))
    document["state"] = "running" if running else "stopped"
    for row in document.get("features", {}).values():
        row["state"] = _state(row)
    if arguments.json:
        _print_json(document)
        return 0
    now = system.now()
    state = terminal.paint("running", GREEN) if running else terminal.paint("stopped", RED)
    ready = "ready" if document.get("ready") else "not ready yet"
    terminal.line(
        f"google_guest_agent {document.get('version')}: {state}, {ready},"
        f" started {ago(document.get('started'), now=now)}"
    )
    rows = []
    for name, row in document.get("features", {}).items():
        rows.append(_status_row(name, row, now))
    terminal.table(("FEATURE", "STATE", "DECIDED BY", "LAST CHANGE", "WHEN", "CHECKED"), rows)
    for name, row in document.get("features", {}).items():
        if row.get("error"):
            terminal.line(terminal.paint(f"{name}: {row['error']}", RED))
        if row.get("skipped"):
            terminal.line(f"{name}: {row['skipped']}")
        for note in row.get("notes", ()):
            terminal.line(f"{name}: {note}")
    return 0


def _status_row(name: str, row: dict[str, Any], now: float) -> tuple[str, ...]:
    decided = f"{row.get('layer')}: {row.get('reason')}" if "on" in row else ""
    changes = row.get("changes") or []
    more = int(row.get("changes_count", 0)) - 1
    last = (changes[-1] + (f" (+{more} more)" if more > 0 else "")) if changes else "nothing"
    return (
        name,
        row["state"],
        decided,
        last,
        ago(row.get("last_change"), now=now) if changes else "",
        ago(row.get("last_pass"), now=now),
    )


def _state(row: dict[str, Any]) -> str:
    """Return "waiting" (for metadata), "failing", "skipped", "on" or "off"."""
    if "on" not in row:
        return "waiting"
    for sign, state in (("error", "failing"), ("skipped", "skipped")):
        if row.get(sign):
            return state
    return "on" if row["on"] else "off"


def _is_alive(system: System, pid: object) -> bool:
    if not isinstance(pid, int):
        return False
    if not system.is_live:
        return os.path.isdir(f"/proc/{pid}")
    return system.is_alive(pid)


# config, keys, image-clean, version


def _config(arguments: argparse.Namespace, terminal: Terminal) -> int:
    config: Config = load_config(_system(arguments).files)
    if arguments.json:
        _print_json(
            {
                "settings": [
                    {
                        "section": setting.section,
                        "key": setting.key,
                        "value": setting.value,
                        "origin": setting.origin,
                    }
                    for setting in config.settings()
                ],
                "problems": [str(problem) for problem in config.problems],
            }
        )
        return 0
    terminal.table(
        ("SECTION", "KEY", "VALUE", "FROM"),
        [
            (setting.section, setting.key, setting.text, setting.origin)
            for setting in config.settings()
        ],
    )
    for problem in config.problems:
        terminal.line(terminal.paint(f"# {problem}", YELLOW))
    return 0


def _keys(arguments: argparse.Namespace, terminal: Terminal) -> int:
    inputs = _inputs(arguments)
    rows = [row for row in _explained(inputs) if arguments.user in (None, row.user)]
    if arguments.json:
        _print_json({"keys": [row.as_dict() for row in rows]})
        return 0
    terminal.table(
        ("USER", "FROM", "TYPE", "KEY", "EXPIRES", "VERDICT"), [row.cells() for row in rows]
    )
    return 0


def _explained(inputs: Inputs) -> tuple[KeyExplanation, ...]:
    if inputs.system.is_windows:
        from google_guest.features.windows.ssh_users import explain_keys as explain_on_windows

        return explain_on_windows(inputs)
    from google_guest.features.linux.accounts import explain_keys

    if inputs.metadata is None:
        raise GuestError("no metadata")
    return explain_keys(inputs.metadata, inputs.config, inputs.now)


def _image_clean(arguments: argparse.Namespace, terminal: Terminal) -> int:
    if sys.platform == "win32":
        raise GuestError("on Windows GCESysprep prepares a machine for an image")
    from google_guest import image_clean
    from google_guest.changes import apply_all

    system = _system(arguments)
    config = load_config(system.files)
    changes = image_clean.plan(system, config, host_keys=arguments.host_keys)
    dry_run = arguments.dry_run
    if not arguments.json:
        for change in changes:
            _show_change(terminal, change)
        if not changes:
            terminal.line("There is nothing to remove.")
        elif dry_run:
            terminal.line("Nothing was changed.")
        elif terminal.is_terminal and not arguments.yes and not _confirmed():
            terminal.line("Nothing was changed.")
            return EXIT_FAILED
    outcome = None if dry_run else apply_all(changes, system)
    errors = [] if outcome is None else [f"{c.describe()}: {e}" for c, e in outcome.failed]
    if arguments.json:
        _print_json(
            {
                "changes": [change.as_dict() for change in changes],
                "applied": outcome is not None and not errors,
                "failed": errors,
            }
        )
    for line in errors:
        print(f"google-guest: {line}", file=sys.stderr)
    return EXIT_FAILED if errors else 0


def _confirmed() -> bool:
    return input("Remove this? [y/N] ").strip().lower() in ("y", "yes")


def _version(arguments: argparse.Namespace, terminal: Terminal) -> int:
    if arguments.json:
        _print_json({"version": version()})
    else:
        terminal.line(version())
    return 0


def _print_json(document: object) -> None:
    json.dump(document, sys.stdout, indent=1)
    sys.stdout.write("\n")
