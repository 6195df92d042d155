"""A bed: one instance, booted with systemd as PID 1 in namespaces of this host's kernel.

    with Bed(debs=[...], metadata=instance_document(attributes={...})) as bed:
        bed.run("systemctl is-active google-guest-agent")

A bed is an overlay in memory on a cached root (`roots`), a network of its own with the metadata
server emulator in it (`network`, `emulator`), a cgroup, two terminals, and the process tree of
`boot.sh`.  Files live as long as the bed; everything else belongs to one boot.

Facts: namespaces(7), unshare(1) (--kill-child; it ends by the signal that ended the guest),
systemd(1) (SIGRTMIN+4 powers off, SIGRTMIN+5 reboots; reboot(2) in a pid namespace ends its init
with SIGINT for power off and SIGHUP for reboot), the container interface of systemd.
"""

from __future__ import annotations

import enum
import itertools
import os
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Optional, Union

from support import furnish, roots, sweep
from support.emulator import Metadata, emulate
from support.guest import BedState, Guest, kill_cgroup
from support.network import LEASED_NAME, NAMESPACES, Network, numbered_nics
from support.processes import Child, start_child
from support.terminals import Terminals

if TYPE_CHECKING:
    from metadata_server import ControlClient

BOOT_SCRIPT = Path(__file__).with_name("boot.sh")
BOOT_TIMEOUT = 30.0
_INOTIFY_INSTANCES = Path("/proc/sys/fs/inotify/max_user_instances")
_INOTIFY_NEEDED = 1024
_numbers = itertools.count(1)

Progress = Callable[[str, float], None]
"""Told the name of a finished step and its seconds."""


class BootFailed(Exception):
    """The guest did not reach `running` or `degraded`; the message has what it said."""


class Stop(enum.Enum):
    """How a guest ended."""

    POWEROFF = signal.SIGINT
    REBOOT = signal.SIGHUP
    KILLED = signal.SIGKILL


class Sysfs(str, enum.Enum):
    """What the guest may do with /sys."""

    READ_ONLY = "ro"
    CAPTURED = "captured"  # writes land in the bed's folder, the host's kernel sees none
    WRITABLE = "rw"  # only for rules about network devices: other writes reach the host


class Bed(Guest):
    """A bed that this process owns: it ends when the process ends."""

    def __init__(
        self,
        suite: str = "bookworm",
        *,
        debs: Sequence[Path] = (),
        dhcp: Union[bool, str] = False,
        dhcp_name: str = LEASED_NAME,
        dmi: bool = True,
        serial: bool = True,
        metadata: Union[Metadata, bool] = True,
        nics: int = 1,
        macs: Sequence[str] = (),
        sysfs: Sysfs = Sysfs.READ_ONLY,
        packages: Sequence[str] = (),
        name: Optional[str] = None,
        files: Optional[dict[str, str]] = None,
        progress: Optional[Progress] = None,
    ) -> None:
        """Describe a bed; entering it (or `start`) boots it.

        `debs` are installed before the first boot.  `dhcp`: the DHCP client that configures the
        first NIC ("dhclient", "networkd", "NetworkManager"; True: the suite's own); False: the
        network is complete before PID 1.  `dhcp_name`: the host name that DHCP answers give.
        `metadata`: a document, the name of an emulator profile (its NICs become those of the bed),
        True for a plain instance (`documents`), False for no metadata server.  `packages`: further
        ones of the distribution.  `files`: texts put into the guest before its first boot, by path.
        """
        name = sweep.PREFIX + (name or f"{_worker()}{os.getpid()}-{next(_numbers)}")
        self._dhcp_client = furnish.dhcp_client(suite, dhcp)
        specification = numbered_nics(nics, macs=macs)
        directory = sweep.BEDS / name
        super().__init__(
            BedState(
                name=name,
                directory=str(directory),
                suite=suite,
                owner=os.getpid(),
                owner_started=sweep.process_start(os.getpid()),
                inside=f"{name}-in",
                outside=f"{name}-out",
                cgroup=str(sweep.cgroup_root() / name),
                nics=[asdict(nic) for nic in specification],
                control_socket=str(directory / "mds.sock"),
            )
        )
        self._debs = tuple(debs)
        self._dmi = dmi
        self._serial = serial
        self._metadata = metadata
        self._sysfs = sysfs
        self._packages = (*packages, *furnish.client_packages(self._dhcp_client))
        self._files = dict(files or {})
        self._progress = progress
        self._network = Network(
            name, specification, dhcp=self._dhcp_client is not None, leased_name=dhcp_name
        )
        self._terminals: Optional[Terminals] = None
        self._runner: Optional[Child] = None
        self._children: list[Child] = []
        self._mds: Optional[ControlClient] = None

    def __enter__(self) -> Bed:
        return self.start()

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self.close()

    @property
    def mds(self) -> ControlClient:
        """The control of the emulator; works while its packets are dropped and while stopped."""
        if self._mds is None:
            raise RuntimeError(f"bed {self.name} has no metadata server")
        return self._mds

    def emulator_failures(self) -> list[str]:
        """What went wrong in the emulator itself; a test that meets any proves nothing."""
        return [] if self._mds is None else self._mds.failures

    def start(self) -> Bed:
        """Make the bed and boot it."""
        began = time.monotonic()
        root = roots.base(self.state.suite, extra=self._packages)
        lower = [root]
        if self._debs:
            lower.insert(0, roots.layer(self.state.suite, self._debs, extra=self._packages))
        self._step("root tree", began)
        _allow_many_systemds()
        with sweep.registry_lock():
            sweep.sweep()
            if self.directory.exists():
                raise FileExistsError(f"bed {self.name} exists already")
            self.directory.mkdir()
            self._mount_files(lower)
            self.state.write()
        try:
            self._surround()
            self.boot()
        except BaseException:
            self.close()
            raise
        return self

    def boot(self) -> None:
        """Power on: a new kernel-side life on the same files.  Returns when units are started."""
        if self.running:
            raise RuntimeError(f"bed {self.name} is running")
        began = time.monotonic()
        self._network.create_inside()
        self._start_init()
        self._step("namespaces", began)
        began = time.monotonic()
        self._await_running()
        self._step("boot", began)
        self.state.write()

    def poweroff(self, *, timeout: float = 60.0) -> None:
        """Press the power button: a clean shutdown with every stop job."""
        os.kill(self.pid1, signal.SIGRTMIN + 4)
        self._expect(Stop.POWEROFF, timeout)

    def reboot(self, *, timeout: float = 60.0) -> None:
        """A clean shutdown and the next boot."""
        os.kill(self.pid1, signal.SIGRTMIN + 5)
        self._expect(Stop.REBOOT, timeout)
        self.boot()

    def power_loss(self) -> None:
        """End every process at once; `boot` powers on again."""
        os.kill(self.pid1, signal.SIGKILL)
        self._expect(Stop.KILLED, 10)

    def wait_stopped(self, timeout: Optional[float] = 60.0) -> Stop:
        """Wait until the guest ended by itself (None: for as long as it takes); how it ended."""
        if self._runner is None:
            raise RuntimeError(f"bed {self.name} is not running")
        try:
            status = self._runner.wait(timeout)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"bed {self.name} still runs after {timeout:g} s") from None
        self._runner = None
        self.state.pid1 = 0
        self.state.write()
        # Commands that were in the guest are gone with its pid namespace; their outer halves
        # (nsenter) see that a moment later.
        kill_cgroup(Path(self.state.cgroup))
        return Stop(signal.Signals(-status)) if status < 0 else Stop.KILLED

    def drop_metadata_packets(self) -> None:
        """The metadata server goes silent: packets to it are lost."""
        self._network.drop_metadata_packets()

    def restore_metadata(self) -> None:
        """Packets reach the metadata server again."""
        self._network.restore_metadata()

    def cut_cable(self, nic: int = 0) -> None:
        """The guest loses the carrier of a NIC."""
        self._network.cut(self.nics[nic])

    def plug_cable(self, nic: int = 0) -> None:
        """The guest gets the carrier of a NIC back."""
        self._network.plug(self.nics[nic])

    def evidence(self, directory: Path) -> None:
        """As of any guest, with the metadata server's request log."""
        super().evidence(directory)
        if self._mds is not None:
            lines = [
                f"{request.time:.3f} {request.client} {request.method} {request.target}\n"
                for request in self._mds.requests()
            ]
            (directory / "requests.txt").write_text("".join(lines))

    def close(self) -> None:
        """End everything of this bed and leave nothing on the host."""
        if self._runner is not None:
            if self.state.pid1:
                _kill_quietly(self.state.pid1)
            self._runner.kill()
            self._runner.wait()
            self._runner = None
        self.state.pid1 = 0
        self._mds = None
        for child in self._children:
            child.kill()
            child.wait()
        self._children.clear()
        if self._terminals is not None:
            self._terminals.close()
            self._terminals = None
        with sweep.registry_lock():
            self._network.remove()
            sweep.remove_remains(self.name)

    def captured_writes(self) -> Path:
        """With Sysfs.CAPTURED: the folder in which the guest's writes below /sys appear."""
        return self.directory / "sys" / "upper"

    def _mount_files(self, lower: Sequence[Path]) -> None:
        began = time.monotonic()
        furnish.stack_files(self.name, self.directory, lower)
        for folder in ("fake", "real", "upper", "work", "class"):
            (self.directory / "sys" / folder).mkdir(parents=True)
        furnish.furnish(self.directory / "m", self._dhcp_client)
        if self._dmi:
            furnish.fake_dmi(self.directory / "sys" / "fake")
        for path, text in self._files.items():
            self.write(path, text)
        self._step("files", began)

    def _surround(self) -> None:
        """Make what is around the guest for its whole life."""
        began = time.monotonic()
        logs = {"console": self.directory / "console.log"}
        if self._serial:
            logs["ttyS0"] = self.directory / "serial.log"
        self._terminals = Terminals(logs)
        self._network.create_outside()
        if self._dhcp_client is not None:
            server = [*_in(self._network.outside), *self._network.dhcp_server(self.directory)]
            self._children.append(start_child(server, log=self.directory / "dnsmasq.log"))
        if self._metadata is not False:
            child, self._mds = emulate(
                self._network.outside, self.directory, self._metadata, self.nics
            )
            self._children.append(child)
        self._step("network and metadata server", began)

    def _start_init(self) -> None:
        assert self._terminals is not None
        cgroup = Path(self.state.cgroup)
        cgroup.mkdir(exist_ok=True)
        (self.directory / "boot_id").write_text(f"{uuid.uuid4()}\n")
        self.state.boots += 1
        command = [
            *("sh", "-c", 'echo $$ >"$0/cgroup.procs" && exec "$@"', str(cgroup)),
            *_in(self._network.inside),
            *("unshare", "--mount", "--pid", "--fork", "--uts", "--ipc", "--cgroup"),
            *("--kill-child", "--", str(BOOT_SCRIPT)),
            str(self.directory / "m"),
            str(self.directory),
            self._sysfs.value,
            str(self.directory / "sys" / "fake") if self._dmi else "",
            self._terminals.device("console"),
            self._terminals.device("ttyS0"),
        ]
        self._runner = start_child(command, log=self.directory / "boot.log")

    def _await_running(self) -> None:
        """Wait for PID 1 and for the end of its start jobs."""
        deadline = time.monotonic() + BOOT_TIMEOUT
        while self.state.pid1 == 0:
            self._check_boot(deadline)
            self.state.pid1 = self._find_init()
            time.sleep(0.005)
        control = Path(f"/proc/{self.state.pid1}/root/run/systemd/private")
        while not control.exists():
            self._check_boot(deadline)
            time.sleep(0.01)
        while self.system_state() not in ("running", "degraded"):
            self._check_boot(deadline)
            time.sleep(0.03)

    def _find_init(self) -> int:
        """The process id of the child of unshare, once it became systemd; else 0."""
        assert self._runner is not None
        pid = self._runner.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        if len(children) != 1 or Path(f"/proc/{pid}/comm").read_text().strip() != "unshare":
            return 0
        # Until then its root is the host's.
        if Path(f"/proc/{children[0]}/comm").read_text().strip() != "systemd":
            return 0
        return int(children[0])

    def _check_boot(self, deadline: float) -> None:
        assert self._runner is not None
        if self._runner.poll() is None and time.monotonic() < deadline:
            return
        said = (self.directory / "boot.log").read_text(errors="replace")[-2000:]
        raise BootFailed(
            f"bed {self.name} ({self.state.suite}) did not boot"
            + (f" in {BOOT_TIMEOUT:g} s" if self._runner.poll() is None else "")
            + f": {said.strip()}\n{self.console()[-3000:]}"
        )

    def _expect(self, stop: Stop, timeout: float) -> None:
        ended = self.wait_stopped(timeout)
        if ended is not stop:
            raise RuntimeError(f"bed {self.name} ended by {ended.name}, not by {stop.name}")

    def _step(self, name: str, began: float) -> None:
        seconds = time.monotonic() - began
        self.state.steps.append((name, seconds))
        if self._progress is not None:
            self._progress(name, seconds)


def _in(namespace: str) -> list[str]:
    return ["nsenter", f"--net={NAMESPACES / namespace}", "--"]


def _allow_many_systemds() -> None:
    """Raise the host's limit of inotify instances for root, which all beds share.

    Each systemd takes a dozen and the kernel's default is 128: the tenth bed would not boot.
    """
    if int(_INOTIFY_INSTANCES.read_text()) < _INOTIFY_NEEDED:
        _INOTIFY_INSTANCES.write_text(f"{_INOTIFY_NEEDED}\n")


def _worker() -> str:
    """The parallel test worker's name as a part of the bed's."""
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    return f"{worker}-" if worker else ""


def _kill_quietly(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return  # ended by itself between the look and the kill
