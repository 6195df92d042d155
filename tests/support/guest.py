"""A running bed as its user sees it: commands inside, ssh from outside, logs, state.

Reads the state file that the bed's owner keeps (`BEDS/NAME/state.json`), so that another process
can use the same bed.  Commands enter with nsenter(1) and give up the capabilities for the clock,
modules and raw I/O first: the kernel below is the host's.  Each runs in a cgroup of its own, so
that a time limit ends everything it started.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Optional, TypeVar, Union

from support.commands import (
    CommandFailed,
    CommandTimeout,
    Completed,
    missing_programs,
    run_command,
)
from support.network import Nic, enter_namespace

Command = Union[str, Sequence[str]]
"""An argument list, or a line for the guest's /bin/sh."""

DROPPED_CAPABILITIES = "-sys_time,-sys_module,-sys_rawio"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_REFUSED = "port 22: Connection refused"
_SSHD_RESTART = 5.0
"""Seconds in which sshd is back after it was told to read its configuration again."""
_OWN_MOUNTS = ("dev", "proc", "run", "sys", "tmp")

Found = TypeVar("Found")


@dataclass(frozen=True)
class Key:
    """A client's ssh key: the file of its private half and the line of its public one."""

    private: Path
    public: str


@dataclass
class BedState:
    """What another process needs to use a bed; times and paths are the host's."""

    name: str
    directory: str
    suite: str
    owner: int
    owner_started: str
    inside: str
    outside: str
    cgroup: str
    nics: list[dict[str, str]]
    control_socket: str
    pid1: int = 0
    boots: int = 0
    steps: list[tuple[str, float]] = field(default_factory=list)

    def write(self) -> None:
        """Replace the state file in one step."""
        path = Path(self.directory) / "state.json"
        fresh = path.with_suffix(".new")
        fresh.write_text(json.dumps(asdict(self), indent=1) + "\n")
        fresh.rename(path)


def read_state(directory: Path) -> Optional[BedState]:
    """The state of the bed in `directory`; None while it is being made or after it is gone."""
    try:
        return BedState(**json.loads((directory / "state.json").read_text()))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None


class Guest:
    """A bed that somebody booted."""

    def __init__(self, state: BedState) -> None:
        self.state = state
        self.nics: tuple[Nic, ...] = tuple(Nic(**nic) for nic in state.nics)
        self._counter = 0

    @property
    def name(self) -> str:
        return self.state.name

    @property
    def directory(self) -> Path:
        """The host's folder of this bed; gone when the bed is."""
        return Path(self.state.directory)

    @property
    def pid1(self) -> int:
        """The host's process id of the guest's init."""
        if self.state.pid1 == 0:
            raise RuntimeError(f"bed {self.name} is not running")
        return self.state.pid1

    @property
    def running(self) -> bool:
        """Whether the guest has a PID 1."""
        return self.state.pid1 != 0 and Path(f"/proc/{self.state.pid1}").exists()

    def run(
        self,
        command: Command,
        *,
        check: bool = True,
        timeout: float = 30.0,
        input: Optional[str] = None,
        user: Optional[str] = None,
    ) -> Completed:
        """Run a command in the guest as root, or as `user` with a login environment.

        Raises CommandFailed on a status other than 0 (unless `check` is false), CommandTimeout
        when it did not end in time; what it started is then ended too.
        """
        argv = guest_argv(command, user=user)
        leaf = self._command_cgroup()
        try:
            return run_command(
                [*in_cgroup(leaf), *self.enter(), *argv],
                purpose=f"run a command in bed {self.name}",
                timeout=timeout,
                input=input,
                check=check,
            )
        except CommandTimeout:
            kill_cgroup(leaf)
            raise
        except CommandFailed as failed:
            raise CommandFailed(
                guest_argv(command, user=user),
                failed.completed,
                purpose=f"run a command in bed {self.name}",
            ) from None
        finally:
            _remove_empty(leaf)

    def unit_run(
        self,
        command: Command,
        *,
        check: bool = True,
        timeout: float = 30.0,
        input: Optional[str] = None,
        properties: Iterable[str] = (),
        environment: Optional[Mapping[str, str]] = None,
    ) -> Completed:
        """Run a command as a transient service, with unit `properties` (NAME=VALUE)."""
        argv = ["systemd-run", "--wait", "--pipe", "--quiet", "--collect"]
        argv += [f"--property={entry}" for entry in properties]
        argv += [f"--setenv={name}={value}" for name, value in (environment or {}).items()]
        argv += ["--", *guest_argv(command, user=None)]
        return self.run(argv, check=check, timeout=timeout, input=input)

    def enter(self, *, terminal: str = "dumb") -> list[str]:
        """The beginning of a command that runs in the guest, without its cgroup.

        `terminal`: the kind of terminal (TERM) that the command is attached to.
        """
        return [
            *("nsenter", "-t", str(self.pid1), "-m", "-u", "-i", "-n", "-p", "-C", "-r", "-w"),
            *("env", "-i", f"PATH={_PATH}", "HOME=/root", "LANG=C.UTF-8", f"TERM={terminal}"),
            *("setpriv", f"--bounding-set={DROPPED_CAPABILITIES}", "--"),
        ]

    def outside(
        self, argv: Sequence[str], *, timeout: float = 30.0, check: bool = True
    ) -> Completed:
        """Run a command of the host in the network around the guest."""
        return run_command(
            [*enter_namespace(self.state.outside), *argv],
            purpose=f"run a command in the network around bed {self.name}",
            timeout=timeout,
            check=check,
        )

    def new_key(self, *, kind: str = "ed25519", comment: str = "test@client") -> Key:
        """Generate a client's key pair (ssh-keygen -t `kind`)."""
        folder = self.directory / "keys"
        folder.mkdir(exist_ok=True)
        self._counter += 1
        private = folder / f"{os.getpid()}-{self._counter}-{kind}"
        run_command(
            ["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", comment, "-f", str(private)],
            purpose="make an ssh key",
        )
        return Key(private, private.with_name(private.name + ".pub").read_text().strip())

    def ssh(
        self,
        user: str,
        key: Optional[Key],
        command: Command = "true",
        *,
        check: bool = True,
        timeout: float = 30.0,
        options: Sequence[str] = (),
        ipv6: bool = False,
        input: Optional[str] = None,
    ) -> Completed:
        """Log in from outside and run a command; ssh's own failures have status 255.

        `options` are further `-o` values and come first, so they win.  A refused connection is
        tried again: sshd has no open port for a moment while it reads its configuration anew.
        """
        address = self.nics[0].address6 if ipv6 else self.nics[0].address
        argv = ssh_argv(user, address, key, options)
        line = command if isinstance(command, str) else shlex.join(command)
        whole = [*enter_namespace(self.state.outside), *argv, line]
        purpose = f"log in to bed {self.name} as {user}"
        last_try = time.monotonic() + _SSHD_RESTART
        while True:
            is_last = time.monotonic() > last_try
            done = run_command(whole, purpose=purpose, timeout=timeout, check=False, input=input)
            if is_last or done.status != 255 or _REFUSED not in done.stderr:
                break
            time.sleep(0.2)
        if check and done.status != 0:
            raise CommandFailed(whole, done, purpose=purpose)
        return done

    def path(self, guest_path: str) -> Path:
        """The host's path of a guest's file, for looking at it and for placing it.

        Valid while stopped too, except below /dev, /proc, /run, /sys and /tmp, which belong to
        one boot.  Symbolic links are not followed inside the guest: name the file itself.
        """
        relative = guest_path.lstrip("/")
        if relative.split("/", 1)[0] in _OWN_MOUNTS:
            return Path(f"/proc/{self.pid1}/root") / relative
        return self.directory / "m" / relative

    def write(self, guest_path: str, text: str, *, mode: int = 0o644) -> None:
        """Place a root-owned file in the guest, with its parent folders."""
        target = self.path(guest_path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        target.chmod(mode)

    def journal(self, unit: Optional[str] = None, *, boot: str = "0", output: str = "cat") -> str:
        """The journal of a boot ("0" this one, "-1" the one before), of one unit or of all."""
        argv = ["journalctl", "--no-pager", "--quiet", f"--boot={boot}", f"--output={output}"]
        if unit is not None:
            argv.append(f"--unit={unit}")
        return self.run(argv, check=False).stdout

    def console(self) -> str:
        """What was written to /dev/console since the bed was made."""
        return _terminal_text(self.directory / "console.log")

    def serial(self) -> str:
        """What was written to /dev/ttyS0 since the bed was made."""
        return _terminal_text(self.directory / "serial.log")

    def system_state(self) -> str:
        """What `systemctl is-system-running` says."""
        return self.run(["systemctl", "is-system-running"], check=False).stdout.strip()

    def failed_units(self) -> tuple[str, ...]:
        """Names of the units in state failed."""
        listed = self.run(["systemctl", "list-units", "--failed", "--plain", "--no-legend"])
        return tuple(line.split()[0] for line in listed.stdout.splitlines() if line.strip())

    def unit_property(self, unit: str, name: str) -> str:
        """One property of a unit, as `systemctl show --value` prints it."""
        shown = self.run(["systemctl", "show", "--value", f"--property={name}", unit])
        return shown.stdout.strip()

    def wait_until(
        self,
        predicate: Callable[[], Found],
        timeout: float = 10.0,
        what: str = "the condition holds",
        *,
        interval: float = 0.05,
    ) -> Found:
        """Ask `predicate` until its answer is true and return it; TimeoutError names `what`."""
        deadline = time.monotonic() + timeout
        while True:
            found = predicate()
            if found:
                return found
            if time.monotonic() > deadline:
                raise TimeoutError(f"bed {self.name}: not within {timeout:g} s: {what}")
            time.sleep(interval)

    def await_addresses(self) -> None:
        """Wait until the kernel has checked every IPv6 address: only then its route is there."""
        self.wait_until(
            lambda: not self.run("ip -6 address show tentative").stdout, what="no address is new"
        )

    def evidence(self, directory: Path) -> None:
        """Keep what explains a failure: logs, units, addresses and routes of every family."""
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "console.txt").write_text(self.console())
        (directory / "serial.txt").write_text(self.serial())
        for log in self.directory.glob("*.log"):
            (directory / log.name).write_bytes(log.read_bytes())
        if not self.running:
            self._evidence_of_stopped(directory)
            return
        for file, command in _EVIDENCE.items():
            try:
                done = self.run(command, check=False, timeout=15)
                text = done.stdout + done.stderr
            except CommandFailed as failed:
                text = f"{failed}\n"
            (directory / file).write_text(text)

    def _evidence_of_stopped(self, directory: Path) -> None:
        journal = self.path("/var/log/journal")
        if journal.is_dir() and not missing_programs(["journalctl"]):
            done = run_command(
                ["journalctl", "-D", str(journal), "--no-pager", "-o", "short-precise"],
                purpose="read the journal of a stopped bed",
                check=False,
            )
            (directory / "journal.txt").write_text(done.stdout)

    def _command_cgroup(self) -> Path:
        self._counter += 1
        leaf = Path(self.state.cgroup) / f"command-{os.getpid()}-{self._counter}-{id(self):x}"
        leaf.mkdir()
        return leaf


_EVIDENCE: Mapping[str, Command] = {
    "journal.txt": "journalctl --no-pager -o short-precise",
    "units.txt": "systemctl list-units --all --no-pager; systemctl list-jobs --no-pager",
    "processes.txt": "ps -efww --forest",
    "network.txt": (
        "ip -d link; ip address; for f in -4 -6; do for t in main local; do "
        'echo "# $f table $t"; ip $f route show table $t; done; ip $f rule; done'
    ),
    "sockets.txt": "ss -anp",
}


def guest_argv(command: Command, *, user: Optional[str]) -> list[str]:
    """The guest's argument list for a command, as root or as a user with a login environment."""
    argv = ["sh", "-c", command] if isinstance(command, str) else list(command)
    if user is None:
        return argv
    return ["runuser", "-l", user, "-s", "/bin/sh", "-c", shlex.join(argv)]


def ssh_argv(user: str, address: str, key: Optional[Key], options: Sequence[str]) -> list[str]:
    """The beginning of an ssh command that reads nobody's configuration or agent."""
    fixed = (
        "StrictHostKeyChecking=no",
        "UserKnownHostsFile=/dev/null",
        "GlobalKnownHostsFile=/dev/null",
        "IdentitiesOnly=yes",
        "IdentityAgent=none",
        "ConnectTimeout=10",
        "LogLevel=ERROR",
        "BatchMode=yes",
    )
    argv = ["ssh", "-F", "none"]
    for option in (*options, *fixed):
        argv += ["-o", option]
    if key is not None:
        argv += ["-i", str(key.private)]
    return [*argv, "-l", user, address, "--"]


def kill_cgroup(path: Path, *, timeout: float = 20.0) -> None:
    """End every process of a cgroup and its children, and wait until they are gone."""
    deadline = time.monotonic() + timeout
    while True:
        pids = cgroup_pids(path)
        if not pids:
            return
        if time.monotonic() > deadline:
            raise TimeoutError(f"processes of {path} do not end: {pids}")
        for pid in pids:
            _kill(pid)
        time.sleep(0.01)


def cgroup_pids(path: Path) -> list[int]:
    """The host's process ids in a cgroup and below it."""
    pids: list[int] = []
    for folder, _, _ in os.walk(path):
        try:
            pids += [int(word) for word in (Path(folder) / "cgroup.procs").read_text().split()]
        except OSError:
            continue  # removed between listing and reading
    return pids


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return  # it ended by itself


def in_cgroup(leaf: Path) -> list[str]:
    """The beginning of a command that runs in a cgroup."""
    return ["sh", "-c", 'echo $$ >"$0/cgroup.procs" && exec "$@"', str(leaf)]


def _remove_empty(leaf: Path) -> None:
    try:
        leaf.rmdir()
    except OSError:
        return  # a daemon that the command started still lives there; the bed's end removes it


def _terminal_text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8", "replace").replace("\r\n", "\n")
    except FileNotFoundError:
        return ""
