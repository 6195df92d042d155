"""The authorized_keys files of the guest's users: looked at by the agent, written as their owner.

Looking is done here, with directory descriptors and without following links, and only serves to
compare. Every write, and the look into homes that root may not read (root-squashed NFS), is done by
the program in ``home_writer``, which becomes the user first. One process serves a whole batch.
"""

from __future__ import annotations

import json
import os
from binascii import a2b_base64
from collections.abc import Mapping, Sequence
from typing import Any, Optional

from google_guest.errors import GuestError
from google_guest.records import as_dict, record
from google_guest.system import System, home_writer
from google_guest.system.accounts import Account
from google_guest.system.commands import CommandError, CommandMissing, program_argv
from google_guest.system.home_writer import (
    KeyFile,
    Refused,
    merge_keys,
    parse_key_file,
    unterminated_mark,
    without_added_lf,
)

__all__ = [
    "HomeError",
    "HomeTask",
    "KeyFile",
    "Look",
    "account_problem",
    "home_problem",
    "is_read_only",
    "look_as_users",
    "look_at",
    "merge_keys",
    "parse_key_file",
    "unterminated_mark",
    "update_homes",
    "without_added_lf",
]

_PROGRAM = home_writer.__file__
_TIME_LIMIT = home_writer.BATCH_TIME_LIMIT + home_writer.USER_TIME_LIMIT + 5.0
_REFUSED_HOMES = ("/nonexistent", "/dev", "/var/empty", "/proc", "/sys")
_SHELLS_THAT_REFUSE = ("nologin", "false")
_SELINUX = "/sys/fs/selinux/enforce"


class HomeError(GuestError):
    """A user's keys could not be written; the message says why."""


@record
class HomeTask:
    """What one user's authorized_keys shall be."""

    name: str
    uid: int
    gid: int
    home: str
    keys: tuple[str, ...] = ()
    make_home: bool = False
    may_unlink: bool = False
    unterminated: Optional[int] = None


@record
class Look:
    """What is at a home's authorized_keys."""

    content: Optional[bytes] = None
    """None: there is no file, or ``problem`` says why it was not read."""
    problem: str = ""
    is_home_missing: bool = False
    needs_user: bool = False
    """Root may not read it; the user may."""

    @property
    def keys(self) -> KeyFile:
        """The parts of the file."""
        return parse_key_file(self.content or b"")


def home_problem(home: str) -> str:
    """Return why no keys may be written below ``home``; empty when they may.

    Homes of service accounts are places that belong to nobody.
    """
    if not home:
        return "it has no home directory"
    if not home.startswith("/") or ".." in home.split("/"):
        return f"its home {home!r} is not an absolute path"
    plain = "/" + "/".join(part for part in home.split("/") if part not in ("", "."))
    if plain == "/":
        return "its home is /"
    for refused in _REFUSED_HOMES:
        if plain == refused or plain.startswith(f"{refused}/"):
            return f"its home is {home}"
    return ""


def account_problem(account: Account) -> str:
    """Return why the account gets no keys; empty when it does.

    Shells that refuse a login do not refuse port forwarding, so such an account gets no key at all.
    """
    if account.shell.rpartition("/")[2] in _SHELLS_THAT_REFUSE:
        return f"its shell is {account.shell}"
    return home_problem(account.home)


def look_at(system: System, account: Account) -> Look:
    """Read the account's authorized_keys without following links; never raises."""
    try:
        # The way to the home is resolved inside the root; the home and what is below are not.
        home = system.files.host_path(account.home)
        return Look(home_writer.read_key_file(home, account.uid))
    except Refused as error:
        return Look(problem=str(error))
    except FileNotFoundError:
        return Look(problem="its home does not exist", is_home_missing=True)
    except PermissionError as error:
        return Look(problem=_words(error), needs_user=True)
    except OSError as error:
        return Look(problem=_words(error))


def look_as_users(system: System, accounts: Sequence[Account]) -> Mapping[str, Look]:
    """Read the files that only their owners may read; one process for all of them."""
    tasks = [HomeTask(account.name, account.uid, account.gid, account.home) for account in accounts]
    looks = {}
    for name, answer in _ask(system, "read", tasks).items():
        if answer["status"] == home_writer.FAILED:
            looks[name] = Look(problem=str(answer["error"]))
        else:
            content = answer.get("content")
            looks[name] = Look(None if content is None else a2b_base64(content))
    return looks


def update_homes(system: System, tasks: Sequence[HomeTask]) -> Mapping[str, Optional[HomeError]]:
    """Write the users' keys as the users; return None or the error for each name.

    A user whose file holds the keys already is left alone. Afterwards the SELinux labels of what
    was written are restored, by one process.
    """
    errors: dict[str, Optional[HomeError]] = {}
    touched = []
    by_name = {task.name: task for task in tasks}
    for name, answer in _ask(system, "write", tasks).items():
        if answer["status"] == home_writer.FAILED:
            errors[name] = HomeError(
                f"the keys of user {name} cannot be written: {answer['error']}"
            )
            continue
        errors[name] = None
        if answer["status"] == home_writer.WRITTEN:
            directory = os.path.join(by_name[name].home, ".ssh")
            touched += [directory, os.path.join(directory, home_writer.FILE)]
    if touched and system.files.exists(_SELINUX):
        _restore_labels(system, touched)
    return errors


def is_read_only(system: System, path: str) -> bool:
    """Return whether the file system that ``path`` is on takes no writes."""
    try:
        return bool(os.statvfs(system.files.resolved(path)).f_flag & os.ST_RDONLY)
    except OSError:
        return False


def _ask(system: System, action: str, tasks: Sequence[HomeTask]) -> dict[str, dict[str, Any]]:
    """Run the writer for ``tasks`` and return its answer for each name."""
    if not tasks:
        return {}
    rows = [{**as_dict(task), "home": system.files.host_path(task.home)} for task in tasks]
    request = json.dumps({"action": action, "tasks": rows})
    problem = "the writing process gave no answer"
    lines: Sequence[str] = ()
    try:
        done = system.run(program_argv(_PROGRAM), input=request, timeout=_TIME_LIMIT, check=False)
        lines = done.stdout.splitlines()
        if done.stderr.strip():
            problem = done.stderr.strip().splitlines()[-1]
    except (CommandError, CommandMissing) as error:
        problem = str(error)
    answers: dict[str, dict[str, Any]] = {
        task.name: {"status": home_writer.FAILED, "error": problem} for task in tasks
    }
    for line in lines:
        try:
            answer = json.loads(line)
        except ValueError:
            # The process was ended in the middle of a line.
            continue
        if answer.get("name") in answers:
            answers[answer["name"]] = answer
    return answers


def _restore_labels(system: System, paths: Sequence[str]) -> None:
    try:
        system.run(["restorecon", "-i", *paths], check=False)
    except CommandMissing:
        # A kernel with SELinux and a distribution without its tools: nothing to restore by.
        return


def _words(error: OSError) -> str:
    return f"{error.strerror or error}"
