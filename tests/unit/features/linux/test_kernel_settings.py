"""I/O scheduler, overcommit, multi-queue and local SSDs."""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType

import pytest
from support.trees import Commands, inputs, metadata, place, tree

from google_guest.changes import apply_all
from google_guest.changes.platform import RunCommand, WriteKernelValue
from google_guest.features.linux import io_scheduler, local_ssd, multiqueue, overcommit
from google_guest.system import System


class Live(System):
    """A tree that is treated as the running machine."""

    is_live = True


def device(root: Path, name: str, scheduler: str, *, multi_queue: bool = True) -> Path:
    if multi_queue:
        (root / f"sys/block/{name}/mq").mkdir(parents=True)
    return place(root, f"/sys/block/{name}/queue/scheduler", f"{scheduler}\n")


def test_multi_queue_device_gets_no_scheduler(tmp_path: Path) -> None:
    device(tmp_path, "sda", "[mq-deadline] kyber none")
    (change,) = io_scheduler.plan(inputs(tree(tmp_path))).changes
    assert change == WriteKernelValue("/sys/block/sda/queue/scheduler", "none", "mq-deadline")


@pytest.mark.parametrize("scheduler", ["[none] mq-deadline", "none", "[none]", "", "[bfq] kyber"])
def test_device_without_a_choice_is_left_alone(tmp_path: Path, scheduler: str) -> None:
    device(tmp_path, "sda", scheduler)
    assert io_scheduler.plan(inputs(tree(tmp_path))).changes == ()


def test_single_queue_device_is_left_alone(tmp_path: Path) -> None:
    device(tmp_path, "fd0", "[mq-deadline] none", multi_queue=False)
    assert io_scheduler.plan(inputs(tree(tmp_path))).changes == ()


def test_device_that_is_read_only_is_left_alone(tmp_path: Path) -> None:
    device(tmp_path, "sda", "[mq-deadline] none").chmod(0o444)
    assert io_scheduler.plan(inputs(tree(tmp_path))).changes == ()


def test_device_without_the_attribute_does_not_hold_up_others(tmp_path: Path) -> None:
    (tmp_path / "sys/block/nvme0n1/mq").mkdir(parents=True)
    os.makedirs(tmp_path / "sys/block/nvme1n1/queue/scheduler")
    (tmp_path / "sys/block/nvme1n1/mq").mkdir()
    device(tmp_path, "sda", "[mq-deadline] none")
    assert len(io_scheduler.plan(inputs(tree(tmp_path))).changes) == 1


def test_device_that_refuses_does_not_hold_up_others(tmp_path: Path) -> None:
    first = device(tmp_path, "sda", "[mq-deadline] none")
    second = device(tmp_path, "sdb", "[mq-deadline] none")
    changes = io_scheduler.plan(inputs(tree(tmp_path))).changes
    first.unlink()
    outcome = apply_all(changes, Live(root=tmp_path))
    assert (len(outcome.failed), len(outcome.applied)) == (1, 1)
    assert second.read_text().startswith("none")


def test_io_scheduler_has_a_switch(tmp_path: Path) -> None:
    config = "[InstanceSetup]\nset_io_scheduler = false\n"
    assert not io_scheduler.enabled(inputs(tree(tmp_path), config=config)).on


@pytest.mark.parametrize(
    ("machine_type", "on"),
    [
        ("projects/1/machineTypes/e2-small", True),
        ("e2-custom-2-4096", True),
        ("projects/1/machineTypes/n2-standard-2", False),
        ("projects/e2-x/machineTypes/c3-highcpu-4", False),
        ("", False),
        (None, False),
    ],
)
def test_overcommit_is_for_e2_machines(tmp_path: Path, machine_type: str, on: bool) -> None:
    known = metadata({"machineType": machine_type})
    assert overcommit.enabled(inputs(tree(tmp_path), known)).on is on


@pytest.mark.parametrize(("current", "changes"), [("0\n", 1), ("2\n", 1), ("1\n", 0)])
def test_overcommit_is_changed_once(tmp_path: Path, current: str, changes: int) -> None:
    system = tree(tmp_path, {overcommit.OVERCOMMIT: current})
    assert len(overcommit.plan(inputs(system, metadata())).changes) == changes


def test_overcommit_has_a_switch(tmp_path: Path) -> None:
    config = "[InstanceSetup]\nset_overcommit = false\n"
    known = metadata({"machineType": "e2-small"})
    assert not overcommit.enabled(inputs(tree(tmp_path), known, config=config)).on


@pytest.mark.parametrize("feature", [local_ssd, multiqueue])
def test_platform_script_runs_when_installed(tmp_path: Path, feature: ModuleType) -> None:
    system = tree(tmp_path, programs=(feature.PROGRAM,), runner=Commands())
    assert feature.FEATURE.enabled(inputs(system)).on
    (change,) = feature.FEATURE.plan(inputs(system)).changes
    assert isinstance(change, RunCommand)
    assert change.argv == (f"/usr/bin/{feature.PROGRAM}",)


@pytest.mark.parametrize("feature", [local_ssd, multiqueue])
def test_platform_script_that_is_not_installed_is_off(tmp_path: Path, feature: ModuleType) -> None:
    assert not feature.FEATURE.enabled(inputs(tree(tmp_path))).on


@pytest.mark.parametrize(
    ("feature", "key"), [(local_ssd, "optimize_local_ssd"), (multiqueue, "set_multiqueue")]
)
def test_platform_script_has_a_switch(tmp_path: Path, feature: ModuleType, key: str) -> None:
    system = tree(tmp_path, programs=(feature.PROGRAM,))
    assert not feature.FEATURE.enabled(
        inputs(system, config=f"[InstanceSetup]\n{key} = false\n")
    ).on
