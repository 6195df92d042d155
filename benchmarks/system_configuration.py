"""Figures of the system configuration's programs, each on a tree that shows a large machine.

No distribution carries others that run on a tree, so the columns of a reference stay empty: the
figures stand against their own bounds. A program is measured as a package has it, launcher and
compiled modules, from its start to its end. udev starts one of them for each interface, the agent
waits for the others before it is ready.
"""

from __future__ import annotations

import compileall
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from support.machine_trees import FakeSysfs

from metadata_server.emulator import Emulator

TOP = Path(__file__).resolve().parents[1]
MULTIQUEUE = "google_set_multiqueue"
LOCAL_SSD = "google_optimize_local_ssd"
NIC_NAMING = "gce-nic-naming"
MACHINE_TYPE = "projects/1/machineTypes/a3-highgpu-8g"
GVNICS, QUEUES = 5, 16
CONTROLLERS, PROCESSORS = 16, 96
_PYTHON = sys.executable
_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "HOME": "/root"}


@contextmanager
def memory_folder() -> Iterator[Path]:
    """Make a folder in memory, where the kernel's files are, too; a disk is not to be measured."""
    with tempfile.TemporaryDirectory(prefix="guest-bench-", dir="/dev/shm") as name:
        yield Path(name)


def install_programs(folder: Path) -> Path:
    """Install the programs below ``folder`` as a package does; return where they are."""
    modules = folder / "modules"
    for component in ("google_guest", "system_config"):
        shutil.copytree(
            TOP / "src" / component,
            modules / component,
            ignore=shutil.ignore_patterns("__pycache__"),
        )
    compileall.compile_dir(str(modules), quiet=1)
    subprocess.run(
        [
            *(_PYTHON, str(TOP / "tools/launchers"), "--package", "google-compute-engine"),
            *("--python", os.path.realpath(_PYTHON), "--folders", str(modules)),
            *("--", str(folder)),
        ],
        check=True,
    )
    # The package's own folder for modules comes first in a launcher, and may exist here.
    for program in (folder / "usr/bin").iterdir():
        text = program.read_text()
        program.write_text(text.replace("/usr/share/google-compute-engine", str(modules)))
    return folder / "usr/bin"


def accelerator_machine(folder: Path) -> FakeSysfs:
    """A machine of the type a3-highgpu-8g: 208 processors, five gVNICs with 16 queues each."""
    machine = FakeSysfs(folder)
    machine.processors("0-207", "0-51,104-155", "52-103,156-207")
    for number in range(GVNICS):
        place = f"0000:{number + 4:02x}:00.0"
        machine.gvnic(f"eth{number}", place, queues=QUEUES, node=number % 2)
    return machine


def storage_machine(folder: Path) -> FakeSysfs:
    """A machine with 96 processors and 16 local SSDs, each with an interrupt for each of them."""
    machine = FakeSysfs(folder)
    machine.processors("0-95", "0-47", "48-95")
    for number in range(CONTROLLERS):
        irqs = [machine.irq(f"nvme{number}q{queue}") for queue in range(PROCESSORS)]
        machine.nvme(f"nvme{number}", f"0000:{number + 4:02x}:00.0", f"nvme_card{number}", irqs)
    return machine


def gpu_machine(folder: Path) -> tuple[FakeSysfs, str]:
    """Eight GPUs, each with its interface behind a bridge; and what udev calls the last one."""
    machine = FakeSysfs(folder)
    path = ""
    for number in range(8):
        bus = f"0000:{0x80 + 4 * number:02x}:00.0"
        machine.pci(f"{bus}/0000:{0x81 + 4 * number:02x}:00.0", identity="10de:2330")
        device = machine.pci(f"{bus}/0000:{0x82 + 4 * number:02x}:00.0", identity="15b3:101e")
        path = machine.interface(f"eth{number}", device, tx=QUEUES, rx=QUEUES)
    return machine, path[len("/sys") :]


@contextmanager
def metadata_host() -> Iterator[str]:
    """A metadata server of a machine of ``MACHINE_TYPE``; yields its host and port."""
    with Emulator() as emulator:
        emulator.set("instance/machineType", MACHINE_TYPE)
        yield emulator.host


def multiqueue_seconds(programs: Path, machine: FakeSysfs, host: str) -> float:
    """Lay out the queues and interrupts of a machine; return the seconds.

    Raises:
        RuntimeError: the program failed, or the first interrupt is not where it belongs.
    """
    took, _ = _run(
        programs / MULTIQUEUE,
        GOOGLE_SET_MULTIQUEUE_FAKEROOT=str(machine.root),
        GOOGLE_SET_MULTIQUEUE_METADATASERVER=host,
    )
    _expect(machine.read("/proc/irq/1/smp_affinity_list"), "1")
    return took


def local_ssd_seconds(programs: Path, machine: FakeSysfs) -> float:
    """Spread the interrupts of all local SSDs; return the seconds.

    Raises:
        RuntimeError: the program failed, or an interrupt is not where it belongs.
    """
    took, _ = _run(programs / LOCAL_SSD, "--root", str(machine.root))
    _expect(machine.read("/proc/irq/96/smp_affinity_list"), "95")
    return took


def nic_naming_seconds(programs: Path, machine: FakeSysfs, devpath: str) -> float:
    """Name one interface; return the seconds.

    Raises:
        RuntimeError: the program failed or said another name.
    """
    took, name = _run(
        programs / NIC_NAMING,
        GCE_NIC_NAMING_FAKEROOT=str(machine.root),
        DEVPATH=devpath,
        SUBSYSTEM="net",
    )
    _expect(name, "gpu7rdma0")
    return took


def _run(program: Path, *arguments: str, **environ: str) -> tuple[float, str]:
    """The seconds that a program took, and what it printed."""
    environment: Mapping[str, str] = {**_ENVIRONMENT, **environ}
    began = time.monotonic()
    done = subprocess.run(
        [str(program), *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    took = time.monotonic() - began
    if done.returncode:
        raise RuntimeError(f"{program.name} ended with {done.returncode}: {done.stderr[-800:]}")
    return took, done.stdout.strip()


def _expect(found: str, wanted: str) -> None:
    if found != wanted:
        raise RuntimeError(f"{found!r} is not {wanted!r}")
