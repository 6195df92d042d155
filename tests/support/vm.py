"""A virtual machine: an instance with a kernel of its own, emulated by QEMU.

    with Machine(debs=[...], scsi=[ScsiDisk("data-1")]) as machine:
        machine.run("readlink /dev/disk/by-id/google-data-1")

For what a bed cannot have, because it shares the host's kernel: disks and their names, kernel
settings, IRQs, modules, the boot itself.  Around the machine stands the network of the beds
(`network`, `emulator`), with a tap instead of a cable; commands run through one ssh connection that
stays open.  A machine is registered, swept and looked for as a bed is.  One runs at a time on a
host: the emulated processors take all real ones.

Facts: QEMU's documentation (-accel tcg, -smbios, -S); the SMBIOS values of Compute Engine;
ssh(1) (-M, -S); times measured on two cores: 15 s until a login is offered, 0.2 s for a command.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import shlex
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Optional, Union

from support import sweep, tiers, vm_devices, vm_image
from support.bed import BootFailed
from support.commands import CommandFailed, Completed, run_command
from support.emulator import Metadata, emulate
from support.guest import (
    BedState,
    Command,
    Found,
    Guest,
    Key,
    guest_argv,
    in_cgroup,
    ssh_argv,
)
from support.network import LEASED_NAME, MTU, Network, enter_namespace, numbered_nics
from support.processes import Child, start_child
from support.vm_qmp import Monitor, QmpError

if TYPE_CHECKING:
    from metadata_server import ControlClient

QEMU = "qemu-system-x86_64"
PROCESSORS = 2
BOOT_TIMEOUT = 240.0
_PROGRAMS = (
    *(QEMU, "qemu-img", "mke2fs", "unshare", "nsenter", "setpriv", "mount", "ip"),
    *("ssh", "scp", "ssh-keygen", "dnsmasq"),
)
_TURN_TIMEOUT = 1200.0
_KERNEL_LINE = (
    f"root=PARTUUID={vm_image.ROOT_PARTUUID} rw console=ttyS0 quiet mitigations=off panic=1"
)
_SNAPSHOT = "ready"
_numbers = itertools.count(1)


class Machine(Guest):
    """A machine that this process owns: it ends when the process ends."""

    def __init__(
        self,
        suite: str = "bookworm",
        *,
        debs: Sequence[Path] = (),
        files: Optional[Mapping[str, str]] = None,
        metadata: Union[Metadata, bool] = True,
        scsi: Sequence[vm_devices.ScsiDisk] = (),
        nvme: Sequence[vm_devices.NvmeController] = (),
        on_google: bool = True,
        snapshots: bool = False,
    ) -> None:
        """Describe a machine; entering it (or `start`) boots it.

        `debs` and text `files` are in its image.  `metadata` as of `Bed`; NIC and name come by
        DHCP.  `on_google`: whether its firmware says Google.  Without `snapshots` its root is an
        NVMe disk as QEMU makes them, which needs no initial RAM disk; with them a virtio one, which
        does.
        """
        name = f"{sweep.PREFIX}vm{os.getpid()}-{next(_numbers)}"
        directory = sweep.BEDS / name
        specification = numbered_nics(1)
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
        self._files = dict(files or {})
        self._metadata = metadata
        self._scsi = tuple(scsi)
        self._nvme = tuple(nvme)
        self._on_google = on_google
        self._snapshots = snapshots
        self._network = Network(name, specification, dhcp=True)
        self._image: Optional[vm_image.Image] = None
        self._turn: Optional[int] = None
        self._key: Optional[Key] = None
        self._mds: Optional[ControlClient] = None
        self._monitor: Optional[Monitor] = None
        self._qemu: Optional[Child] = None
        self._login: Optional[Child] = None
        self._dhcp: Optional[Child] = None
        self._emulator: Optional[Child] = None

    def __enter__(self) -> Machine:
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
        """The control of the metadata server emulator."""
        if self._mds is None:
            raise RuntimeError(f"machine {self.name} has no metadata server")
        return self._mds

    @property
    def monitor(self) -> Monitor:
        """QEMU's control socket, while the machine runs."""
        if self._monitor is None:
            raise RuntimeError(f"machine {self.name} is not running")
        return self._monitor

    @property
    def running(self) -> bool:
        return self._qemu is not None and self._qemu.poll() is None

    def emulator_failures(self) -> list[str]:
        """What went wrong in the metadata server emulator itself."""
        return [] if self._mds is None else self._mds.failures

    def start(self) -> Machine:
        """Make the machine, wait for its turn on this host and boot it."""
        with _timed(self.state, "image"):
            image = self._image = vm_image.image(self.state.suite, self._debs, files=self._files)
        self._key = Key(image.key, image.key.with_suffix(".pub").read_text().strip())
        with _timed(self.state, "turn"):
            self._turn = _await_turn()
        with sweep.registry_lock():
            sweep.sweep()
            self.directory.mkdir()
            self.state.write()
        try:
            self._surround()
            vm_image.overlay(self.directory / "root.qcow2", image.disk)
            self.boot()
        except BaseException:
            self.close()
            raise
        return self

    def boot(self) -> None:
        """Power on and wait until all units are started and commands can be run."""
        assert self._image is not None
        (self.directory / "qmp.sock").unlink(missing_ok=True)
        self.state.boots += 1
        with _timed(self.state, "boot"):
            began = len(self.serial())
            self._qemu = start_child(
                [
                    *in_cgroup(Path(self.state.cgroup)),
                    *enter_namespace(self.state.outside),
                    *self._qemu_command(self._image),
                ],
                log=self.directory / "qemu.log",
            )
            try:
                self._monitor = Monitor(self.directory / "qmp.sock", alive=lambda: self.running)
                vm_devices.identify(self._qemu.pid, self._nvme)
                self._monitor.command("cont")
            except (QmpError, vm_devices.IdentityError, OSError) as failure:
                raise BootFailed(f"{failure}: {self._qemu_said()}") from None
            self._await_login_offer(began)
            self._log_in()
            self._await_units()
        self.state.write()

    def run(
        self,
        command: Command,
        *,
        check: bool = True,
        timeout: float = 60.0,
        input: Optional[str] = None,
        user: Optional[str] = None,
    ) -> Completed:
        """Run a command in the machine as root, or as `user` with a login environment."""
        if self._login is None:
            raise RuntimeError(f"machine {self.name} is not running")
        argv = guest_argv(command, user=user)
        try:
            return run_command(
                [*self._ssh("-S", str(self._control)), shlex.join(argv)],
                purpose=f"run a command in machine {self.name}",
                timeout=timeout,
                check=check,
                input=input,
            )
        except CommandFailed as failed:
            purpose = f"run a command in machine {self.name}"
            raise type(failed)(argv, failed.completed, purpose=purpose) from None

    def write(self, guest_path: str, text: str, *, mode: int = 0o644) -> None:
        """Place a root-owned file in the running machine, with its parent folders."""
        place = shlex.quote(guest_path)
        self.run(
            f"mkdir -p $(dirname {place}) && cat >{place} && chmod {mode:o} {place}", input=text
        )

    def read(self, guest_path: str) -> str:
        """A file's text."""
        return self.run(["cat", guest_path]).stdout

    def copy(self, files: Sequence[Path], folder: str) -> None:
        """Copy files of the host into a folder of the machine, which may be new."""
        self.run(["mkdir", "-p", folder])
        run_command(
            [
                *enter_namespace(self.state.outside),
                *("scp", "-q", "-o", f"ControlPath={self._control}", "-F", "none"),
                *map(str, files),
                f"root@{self.nics[0].address}:{folder}/",
            ],
            purpose=f"copy files into machine {self.name}",
            timeout=60,
        )

    def path(self, guest_path: str) -> Path:
        raise RuntimeError(f"{guest_path}: the files of a machine lie in its disk, use read")

    def wait_until(
        self,
        predicate: Callable[[], Found],
        timeout: float = 40.0,
        what: str = "the condition holds",
        *,
        interval: float = 0.1,
    ) -> Found:
        """As of any guest, with the patience that emulated processors of a busy host need."""
        return super().wait_until(predicate, timeout, what, interval=interval)

    def settle(self) -> None:
        """Wait until udev has handled every event."""
        self.run("udevadm settle --timeout=60", timeout=70)

    def serve_dhcp(
        self, host_name: str = LEASED_NAME, *, renew_after: Optional[int] = None
    ) -> None:
        """From now on the DHCP server gives this name, and leases to renew after so many seconds
        (RFC 2132, option 58)."""
        if self._dhcp is not None:
            self._dhcp.kill()
            self._dhcp.wait()
        network = Network(self.name, self.nics, dhcp=True, leased_name=host_name)
        server = network.dhcp_server(self.directory)
        if renew_after is not None:
            server.append(f"--dhcp-option-force=58,{renew_after}")
        self._dhcp = start_child(
            [*enter_namespace(self.state.outside), *server], log=self.directory / "dnsmasq.log"
        )

    def dhcp_log(self) -> list[str]:
        """What the DHCP server did, one step a line, since the machine was made."""
        return (self.directory / "dnsmasq.log").read_text(errors="replace").splitlines()

    def plug_scsi(self, disk: vm_devices.ScsiDisk) -> None:
        """Attach a disk to the running machine, which needs a SCSI controller."""
        path = self.directory / f"plugged-{disk.name}.raw"
        vm_image.data_disk(path, disk.mib, disk.partitions)
        drive = f"drive_add 0 if=none,id=plugged-{disk.name},file={path},format=raw"
        said = self.monitor.human(drive)
        if said != "OK":
            raise QmpError(f"{drive}: {said}")
        driver, *options = f"{disk.options()},drive=plugged-{disk.name}".split(",")
        pairs = dict(option.split("=", 1) for option in options)
        self.monitor.command("device_add", {"driver": driver, "id": disk.name, **pairs})

    def unplug_scsi(self, disk: vm_devices.ScsiDisk) -> None:
        """Take away a disk that was plugged in."""
        self.monitor.command("device_del", {"id": disk.name})

    def snapshot(self) -> None:
        """Keep the whole state, memory and disks, for `restore`."""
        self._log_out()
        self._human(f"savevm {_SNAPSHOT}")
        self._log_in()

    def restore(self) -> None:
        """Go back to the state of `snapshot`; the clock goes on."""
        self._log_out()
        self._human(f"loadvm {_SNAPSHOT}")
        self._log_in()
        self.run(["date", "--set", f"@{time.time():.3f}"])

    def poweroff(self, *, timeout: float = 90.0) -> None:
        """Press the power button: a clean shutdown with every stop job."""
        self._log_out()
        self.monitor.command("system_powerdown")
        assert self._qemu is not None
        try:
            self._qemu.wait(timeout)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"machine {self.name} runs {timeout:g} s after its end") from None
        self._forget_qemu()

    def evidence(self, directory: Path) -> None:
        """As of any guest, with the metadata server's request log."""
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "serial.txt").write_text(self.serial())
        for log in self.directory.glob("*.log"):
            (directory / log.name).write_bytes(log.read_bytes())
        if self._mds is not None:
            lines = [
                f"{r.time:.3f} {r.client} {r.method} {r.target}\n" for r in self._mds.requests()
            ]
            (directory / "requests.txt").write_text("".join(lines))
        if self.running and self._login is not None:
            super().evidence(directory)

    def close(self) -> None:
        """End everything of this machine and leave nothing on the host."""
        self._log_out()
        if self._qemu is not None:
            self._qemu.kill()
            self._qemu.wait()
            self._forget_qemu()
        self._mds = None
        for child in (self._dhcp, self._emulator):
            if child is not None:
                child.kill()
                child.wait()
        self._dhcp = self._emulator = None
        with sweep.registry_lock():
            self._network.remove()
            sweep.remove_remains(self.name)
        if self._turn is not None:
            os.close(self._turn)
            self._turn = None

    @property
    def _control(self) -> Path:
        return self.directory / "ssh.sock"

    def _surround(self) -> None:
        """Make what is around the machine for its whole life."""
        with _timed(self.state, "network and metadata server"):
            Path(self.state.cgroup).mkdir(exist_ok=True)
            self._network.create_outside()
            run_command(
                ["ip", "-n", self.state.outside, "-batch", "-"],
                purpose="plug the machine's network cable",
                input="tuntap add tap0 mode tap multi_queue\n"
                f"link set tap0 mtu {MTU} master br0 up\n",
            )
            self.serve_dhcp()
            if self._metadata is not False:
                self._emulator, self._mds = emulate(
                    self.state.outside, self.directory, self._metadata, self.nics
                )

    def _qemu_command(self, image: vm_image.Image) -> list[str]:
        command = [
            *(QEMU, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-S"),
            *("-name", self.name, "-machine", "pc", "-cpu", "Nehalem", "-m", "1024"),
            *("-accel", "tcg,thread=multi,tb-size=1024", "-smp", str(PROCESSORS)),
            *("-kernel", str(image.kernel), "-append", _KERNEL_LINE),
            *("-chardev", f"file,id=serial,path={self.directory / 'serial.log'},append=on"),
            *("-serial", "chardev:serial"),
            *("-qmp", f"unix:{self.directory / 'qmp.sock'},server=on,wait=off"),
            *("-device", "virtio-rng-pci,addr=0x3"),
            "-netdev",
            f"tap,id=nic,ifname=tap0,script=no,downscript=no,queues={PROCESSORS}",
            "-device",
            f"virtio-net-pci,netdev=nic,mac={self.nics[0].mac},romfile=,mq=on,"
            f"vectors={2 * PROCESSORS + 2},addr=0x4",
            *("-drive", f"if=none,id=root,file={self.directory / 'root.qcow2'},cache=unsafe"),
            "-device",
            "virtio-blk-pci,drive=root,addr=0x5"
            if self._snapshots
            else "nvme,drive=root,serial=root,addr=0x5",
            *vm_devices.scsi_arguments(self._scsi, self.directory),
            *vm_devices.nvme_arguments(self._nvme, self.directory),
        ]
        if self._snapshots:
            command += ["-initrd", str(image.initrd)]
        if self._on_google:
            serial = f"GoogleCloud-{uuid.uuid4().hex.upper()}"
            command += [
                *("-smbios", "type=0,vendor=Google,version=Google"),
                "-smbios",
                f"type=1,manufacturer=Google,product=Google Compute Engine,serial={serial}",
                "-smbios",
                f"type=2,manufacturer=Google,product=Google Compute Engine,serial=Board-{serial}",
            ]
        return command

    def _await_login_offer(self, began: int) -> None:
        deadline = time.monotonic() + BOOT_TIMEOUT
        while " login: " not in self.serial()[began:]:
            if not self.running:
                raise BootFailed(f"machine {self.name} ended: {self._qemu_said()}")
            if time.monotonic() > deadline:
                raise BootFailed(
                    f"machine {self.name} offers no login after {BOOT_TIMEOUT:g} s: "
                    f"{self.serial()[-3000:]}"
                )
            time.sleep(0.1)

    def _await_units(self) -> None:
        done = self.run(
            ["systemctl", "is-system-running", "--wait"], check=False, timeout=BOOT_TIMEOUT
        )
        if done.stdout.strip() not in ("running", "degraded"):
            raise BootFailed(f"machine {self.name} is {done.stdout.strip() or done.stderr.strip()}")

    def _log_in(self) -> None:
        """Open the connection that all commands share."""
        deadline = time.monotonic() + 60.0
        log = self.directory / "ssh.log"
        while True:
            self._login = start_child(
                self._ssh("-M", "-N", "-S", str(self._control), options=("ConnectTimeout=20",)),
                log=log,
            )
            while self._login.poll() is None and time.monotonic() < deadline:
                if self._control.exists():
                    return
                time.sleep(0.02)
            self._log_out()
            if time.monotonic() > deadline or not self.running:
                said = log.read_text(errors="replace")[-500:]
                raise BootFailed(f"machine {self.name} lets nobody log in: {said.strip()}")
            time.sleep(0.5)

    def _log_out(self) -> None:
        if self._login is not None:
            self._login.kill()
            self._login.wait()
            self._login = None
        self._control.unlink(missing_ok=True)

    def _ssh(self, *arguments: str, options: Sequence[str] = ()) -> list[str]:
        ssh, *rest = ssh_argv("root", self.nics[0].address, self._key, options)
        return [*enter_namespace(self.state.outside), ssh, *arguments, *rest]

    def _human(self, line: str) -> None:
        said = self.monitor.human(line)
        if said:
            raise QmpError(f"{line}: {said}")

    def _qemu_said(self) -> str:
        try:
            return (self.directory / "qemu.log").read_text(errors="replace")[-2000:].strip()
        except FileNotFoundError:
            return "it said nothing"

    def _forget_qemu(self) -> None:
        if self._monitor is not None:
            self._monitor.close()
        self._monitor = None
        self._qemu = None


def machine_problems(suite: str = "bookworm") -> tuple[str, ...]:
    """What this host lacks for running virtual machines of `suite`."""
    problems = tiers.namespace_problems(_PROGRAMS)
    if not problems and not Path("/dev/net/tun").exists():
        problems = ("/dev/net/tun (the machine's network cable is a tap)",)
    return problems or tiers.root_problems(suite, extra=vm_image.PACKAGES)


def _await_turn() -> int:
    """Wait until no other machine runs on this host; a descriptor that holds the turn."""
    sweep.BEDS.mkdir(mode=0o755, parents=True, exist_ok=True)
    descriptor = os.open(sweep.BEDS / ".vm-turn", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    deadline = time.monotonic() + _TURN_TIMEOUT
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        except BlockingIOError:
            if time.monotonic() > deadline:
                os.close(descriptor)
                raise TimeoutError("another virtual machine runs on this host") from None
            time.sleep(0.5)


@contextmanager
def _timed(state: BedState, step: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    state.steps.append((step, time.monotonic() - began))
