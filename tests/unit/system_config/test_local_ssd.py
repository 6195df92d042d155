"""google_optimize_local_ssd: which interrupts go where, which disks are set, and what stays."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.machine_trees import IRQS, FakeSysfs

from system_config import local_ssd
from system_config.settings import Settings
from system_config.sysfs import Tree

LOCAL, LOCAL_NUMBERED, PERSISTENT = "nvme_card", "nvme_card3", "nvme_card-pd"
LOCAL_SCSI, PERSISTENT_SCSI = "EphemeralDisk", "PersistentDisk"
QUEUE = "/sys/block/sdb/queue"


@pytest.fixture
def machine(tmp_path: Path) -> FakeSysfs:
    machine = FakeSysfs(tmp_path)
    machine.processors("0-3", "0-3")
    return machine


@pytest.fixture(autouse=True)
def no_sink(monkeypatch: pytest.MonkeyPatch) -> None:
    """The program's own place for log lines is left alone, so that tests see them."""
    monkeypatch.setattr(local_ssd, "configure_logging", lambda _name: _Sink())


class _Sink:
    def flush(self, *, everything: bool) -> None:
        assert everything


def run(machine: FakeSysfs, *arguments: str) -> list[str]:
    """What the program prints; it ends well whatever it finds."""
    lines: list[str] = []
    assert local_ssd.main(["--root", str(machine.root), *arguments], say=lines.append) == 0
    return lines


def refuse(monkeypatch: pytest.MonkeyPatch, number: int, part: str) -> list[str]:
    """Have the kernel refuse to write attributes with this part in their paths."""
    write: Callable[..., None] = Tree.write
    refused: list[str] = []

    def refusing(tree: Tree, path: str, value: str) -> None:
        if part in path:
            refused.append(path)
            raise OSError(number, os.strerror(number), path)
        write(tree, path, value)

    monkeypatch.setattr(Tree, "write", refusing)
    return refused


def test_interrupt_70_of_96_goes_to_processor_70(tmp_path: Path) -> None:
    machine = FakeSysfs(tmp_path)
    machine.processors("0-95", "0-47", "48-95")
    irqs = [machine.irq(f"nvme0q{queue}", number=queue) for queue in range(96)]
    machine.nvme("nvme0", "0000:00:05.0", LOCAL, irqs)
    run(machine)
    assert machine.served_by(irqs) == [str(irq) for irq in irqs]
    assert machine.read(f"{IRQS}/70/smp_affinity_list") == "70"
    assert machine.read(f"{IRQS}/70/smp_affinity") == "00000003"


def test_count_goes_on_with_the_next_controller_and_begins_anew(machine: FakeSysfs) -> None:
    first = [machine.irq(f"nvme0q{queue}") for queue in range(3)]
    second = [machine.irq(f"nvme1q{queue}") for queue in range(3)]
    machine.nvme("nvme0", "0000:00:05.0", LOCAL, first)
    machine.nvme("nvme1", "0000:00:06.0", LOCAL_NUMBERED, second)
    run(machine)
    assert machine.served_by([*first, *second]) == ["0", "1", "2", "3", "0", "1"]


def test_interrupts_are_counted_by_number(machine: FakeSysfs) -> None:
    irqs = [machine.irq(f"nvme0q{queue}", number=number) for queue, number in enumerate((9, 10))]
    machine.nvme("nvme0", "0000:00:05.0", LOCAL, irqs)
    run(machine)
    assert machine.served_by(irqs) == ["0", "1"]


def test_only_running_processors_serve(tmp_path: Path) -> None:
    machine = FakeSysfs(tmp_path)
    machine.processors("0,2-3", "0-3")
    irqs = [machine.irq(f"nvme0q{queue}") for queue in range(4)]
    machine.nvme("nvme0", "0000:00:05.0", LOCAL, irqs)
    run(machine)
    assert machine.served_by(irqs) == ["0", "2", "3", "0"]


@pytest.mark.parametrize(
    "model",
    [PERSISTENT, "nvme_cardx", "nvme_card-", "ACME SSD", "", "xnvme_card", "nvme_card 3"],
)
def test_other_controllers_are_left_alone(machine: FakeSysfs, model: str) -> None:
    irqs = [machine.irq("nvme0q0"), machine.irq("nvme0q1")]
    machine.nvme("nvme0", "0000:00:05.0", model, irqs)
    before = machine.contents()
    run(machine)
    assert machine.contents() == before


def test_ephemeral_disk_gets_the_settings_of_memory(machine: FakeSysfs) -> None:
    machine.scsi_host("virtio1", "0000:00:03.0", 0, {"sdb": LOCAL_SCSI})
    run(machine)
    assert {name: machine.read(f"{QUEUE}/{name}") for name in os.listdir(machine.path(QUEUE))} == {
        "scheduler": "none",
        "add_random": "0",
        "nr_requests": "512",
        "rotational": "0",
        "rq_affinity": "0",
        "nomerges": "1",
    }


@pytest.mark.parametrize(
    ("offered", "afterwards"),
    [
        ("noop [deadline] cfq", "noop"),
        ("[mq-deadline] none", "none"),
        ("[mq-deadline] kyber bfq none", "none"),
        ("[none] mq-deadline", "[none] mq-deadline"),
        ("[noop] deadline", "[noop] deadline"),
        ("none", "none"),
        ("[mq-deadline] kyber", "[mq-deadline] kyber"),
        ("", ""),
    ],
)
def test_scheduler_is_noop_or_where_that_is_not_offered_none(
    machine: FakeSysfs, offered: str, afterwards: str
) -> None:
    machine.scsi_host("virtio1", "0000:00:03.0", 0, {"sdb": LOCAL_SCSI})
    machine.queue("sdb", offered)
    run(machine)
    assert machine.read(f"{QUEUE}/scheduler") == afterwards


def test_persistent_scsi_disks_stay_as_they_are(machine: FakeSysfs) -> None:
    machine.scsi_host("virtio1", "0000:00:03.0", 0, {"sda": PERSISTENT_SCSI, "sdb": LOCAL_SCSI})
    before = {
        path: text for path, text in machine.contents().items() if path.startswith("/sys/block/sda")
    }
    run(machine)
    assert before
    assert before.items() <= machine.contents().items()


def test_requests_of_persistent_disks_hosts_are_left_alone(machine: FakeSysfs) -> None:
    machine.scsi_host("virtio1", "0000:00:03.0", 0, {"sda": PERSISTENT_SCSI})
    irq = machine.irq("virtio1-request")
    run(machine)
    assert machine.served_by([irq]) == ["0-1"]


@pytest.mark.parametrize(
    ("processors", "count", "served"),
    [
        ("0-7", 2, ["0", "4"]),
        ("0-7", 3, ["0", "2", "4"]),
        ("0-95", 2, ["0", "48"]),
        ("0-1", 5, ["0", "1", "0", "1", "0"]),
        ("0-3", 4, ["0", "1", "2", "3"]),
        ("0", 2, ["0", "0"]),
    ],
)
def test_requests_are_spread_over_all_processors(
    tmp_path: Path, processors: str, count: int, served: list[str]
) -> None:
    machine = FakeSysfs(tmp_path)
    machine.processors(processors)
    machine.scsi_host("virtio1", "0000:00:03.0", 0, {"sdb": LOCAL_SCSI})
    irqs = []
    for action in ("config", "control", "event"):
        machine.irq(f"virtio1-{action}")
    irqs = [machine.irq("virtio1-request") for _ in range(count)]
    run(machine)
    assert machine.served_by(irqs) == served
    assert machine.served_by([1, 2, 3]) == ["0-1"] * 3


def test_second_run_writes_nothing(machine: FakeSysfs, monkeypatch: pytest.MonkeyPatch) -> None:
    irqs = [machine.irq(f"nvme0q{queue}") for queue in range(3)]
    machine.nvme("nvme0", "0000:00:05.0", LOCAL, irqs)
    machine.scsi_host("virtio1", "0000:00:03.0", 0, {"sdb": LOCAL_SCSI})
    machine.irq("virtio1-request")
    run(machine)
    machine.file(f"{QUEUE}/scheduler", "[none] mq-deadline")
    refused = refuse(monkeypatch, errno.EPERM, "/")
    assert run(machine) == [
        "google_optimize_local_ssd: 0 settings changed, 9 as they should be,"
        " 0 kept by the kernel, 0 failed"
    ]
    assert refused == []


def test_interrupts_that_the_kernel_keeps_are_no_failure(
    machine: FakeSysfs, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    irqs = [machine.irq(f"nvme0q{queue}") for queue in range(3)]
    machine.nvme("nvme0", "0000:00:05.0", LOCAL, irqs)
    refused = refuse(monkeypatch, errno.EIO, "smp_affinity_list")
    with caplog.at_level(logging.INFO):
        lines = run(machine)
    assert len(refused) == 3
    assert lines[0].endswith(
        "0 settings changed, 0 as they should be, 3 kept by the kernel, 0 failed"
    )
    assert caplog.records == []


def test_failures_are_told_in_a_line_for_each_kind(
    machine: FakeSysfs, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    irqs = [machine.irq(f"nvme0q{queue}") for queue in range(3)]
    machine.nvme("nvme0", "0000:00:05.0", LOCAL, irqs)
    refuse(monkeypatch, errno.EPERM, "smp_affinity_list")
    lines = run(machine)
    assert lines[0].endswith(" 3 failed")
    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [
        (
            logging.WARNING,
            f"{IRQS}/1/smp_affinity_list (and 2 more): Operation not permitted",
        )
    ]


def test_setting_that_a_driver_does_not_have_is_passed_over(
    machine: FakeSysfs, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    machine.scsi_host("virtio1", "0000:00:03.0", 0, {"sdb": LOCAL_SCSI})
    machine.path(f"{QUEUE}/add_random").unlink()
    refuse(monkeypatch, errno.EINVAL, "nr_requests")
    assert run(machine)[0].endswith(
        "4 settings changed, 0 as they should be, 1 kept by the kernel, 0 failed"
    )
    assert [record for record in caplog.records if record.levelno > logging.DEBUG] == []


def test_dry_run_says_what_would_change_and_writes_nothing(machine: FakeSysfs) -> None:
    irqs = [machine.irq("nvme0q0", affinity="0"), machine.irq("nvme0q1")]
    machine.nvme("nvme0", "0000:00:05.0", LOCAL, irqs)
    before = machine.contents()
    assert run(machine, "--dry-run") == [
        f"{IRQS}/2/smp_affinity_list: 0-1 -> 1",
        "google_optimize_local_ssd: 1 setting would change, 1 as they should be,"
        " 0 kept by the kernel, 0 failed",
    ]
    assert machine.contents() == before


def test_machine_without_local_ssds_has_one_line(machine: FakeSysfs) -> None:
    assert run(machine) == [
        "google_optimize_local_ssd: 0 settings changed, 0 as they should be,"
        " 0 kept by the kernel, 0 failed"
    ]


def test_system_without_sysfs_is_no_failure(tmp_path: Path) -> None:
    assert run(FakeSysfs(tmp_path / "empty"))[0].endswith("0 failed")


@pytest.mark.parametrize("arguments", [["--no"], ["--root"], ["--root="], ["sda"], ["-n"]])
def test_wrong_arguments_are_refused(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert local_ssd.main(arguments) == 2
    printed = capsys.readouterr()
    assert (printed.out, printed.err.startswith("usage: ")) == ("", True)


@pytest.mark.parametrize("argument", ["-h", "--help"])
def test_help_is_printed(argument: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert local_ssd.main([argument]) == 0
    assert capsys.readouterr().out.startswith("usage: google_optimize_local_ssd")


_NAMES = st.sampled_from(
    [
        "0",
        "1",
        "70",
        "-1",
        "x",
        "nvme0",
        "host0",
        "target0:0:1",
        "0:0:1:0",
        "virtio1",
        "block",
        "sdb",
    ]
) | st.text(st.characters(exclude_characters="/\0", codec="utf-8"), min_size=1, max_size=9).filter(
    lambda name: name not in (".", "..")
)
_TEXTS = st.sampled_from(
    ["0-3", "0-99999999999", "3-0", "nvme_card", "EphemeralDisk", "[none]", ""]
)
_FOLDERS = st.sampled_from(
    [
        "proc/irq",
        "proc/irq/1",
        "sys/bus/pci/drivers/nvme",
        "sys/bus/pci/drivers/nvme/0000:00:05.0/msi_irqs",
        "sys/bus/pci/drivers/nvme/0000:00:05.0/nvme/nvme0",
        "sys/bus/virtio/drivers/virtio_scsi/virtio1/host0/target0:0:1/0:0:1:0",
        "sys/block/sdb/queue",
        "sys/devices/system/cpu",
        "sys/devices/system/node/node0",
    ]
)
_ATTRIBUTES = _NAMES | st.sampled_from(
    [
        "online",
        "cpulist",
        "model",
        "scheduler",
        "nr_requests",
        "smp_affinity_list",
        "virtio1-request",
    ]
)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(_FOLDERS, _ATTRIBUTES, st.binary(max_size=9) | _TEXTS.map(str.encode)),
        max_size=12,
    ),
    st.booleans(),
)
def test_no_tree_brings_a_trace(
    tmp_path_factory: pytest.TempPathFactory, files: list[tuple[str, str, bytes]], folders: bool
) -> None:
    root = tmp_path_factory.mktemp("hostile")
    for folder, name, data in files:
        try:
            (root / folder).mkdir(parents=True, exist_ok=True)
            if folders and len(data) % 3 == 0:
                (root / folder / name).mkdir(exist_ok=True)
            else:
                (root / folder / name).write_bytes(data)
        except OSError:
            continue  # a file where a folder has to be, or the other way round
    tree = Settings(Tree(str(root)), say=_ignore)
    local_ssd.optimize(tree)
    assert tree.report()


def _ignore(_line: Any) -> None:
    return
