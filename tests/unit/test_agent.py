"""The loop: what triggers a pass, what READY waits for, how failures come back, how it stops."""

from __future__ import annotations

import errno
import logging
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Optional

import pytest

from google_guest.agent import Agent, AgentOptions
from google_guest.changes import Change, Outcome
from google_guest.config import AccountsSection, Config, Problem
from google_guest.errors import GuestError
from google_guest.features import Decision, Feature, Frequency, Inputs, Plan, Stage
from google_guest.metadata.client import MetadataClient
from google_guest.metadata.tree import Metadata, parse_metadata
from google_guest.metadata.watcher import Update, Watcher
from google_guest.reconcile import Pass
from google_guest.records import replace
from google_guest.state import read_state, status_path
from google_guest.status import StatusFile
from google_guest.system import System
from google_guest.system.service import ServiceManager
from metadata_server.emulator import Emulator

ON = Decision(True, "default")


def metadata(**attributes: str) -> Metadata:
    return parse_metadata({"instance": {"id": 1, "attributes": attributes}})


class ScriptedWatcher:
    """Yields what a test puts into it."""

    def __init__(self) -> None:
        self._queue: queue.Queue[Optional[Update]] = queue.Queue()
        self._number = 0

    def put(self, tree: Metadata, *, changed: bool = True) -> None:
        self._number += 1
        self._queue.put(Update(tree, str(self._number), changed))

    def updates(self) -> Iterator[Update]:
        while True:
            update = self._queue.get()
            if update is None:
                return
            yield update

    def cancel(self) -> None:
        self._queue.put(None)


@dataclass(frozen=True)
class Touch(Change):
    """Does nothing, or fails."""

    needs_live_system: ClassVar[bool] = False

    name: str
    error: Optional[Exception] = None

    @property
    def subject(self) -> str:
        return self.name

    def describe(self) -> str:
        return f"touch {self.name}"

    def apply(self, system: System) -> None:
        if self.error is not None:
            raise self.error


@dataclass
class Probe:
    """A feature that counts its passes and plans what the test tells it."""

    name: str = "probe"
    plans: list[Any] = field(default_factory=list)
    seen: list[Inputs] = field(default_factory=list)
    passes: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def plan(self, inputs: Inputs) -> Plan:
        self.seen.append(inputs)
        self.passes.release()
        wanted = self.plans.pop(0) if self.plans else Plan()
        if isinstance(wanted, Exception):
            raise wanted
        if callable(wanted):
            wanted = wanted()
        assert isinstance(wanted, Plan)
        return wanted

    def feature(self, **options: Any) -> Feature:
        options.setdefault("inputs_of", lambda tree: tuple(tree.instance.attributes.items()))
        return Feature(
            name=self.name, summary="test", enabled=lambda _: ON, plan=self.plan, **options
        )

    def wait(self, count: int = 1, timeout: float = 5) -> None:
        for _ in range(count):
            assert self.passes.acquire(timeout=timeout), f"{self.name}: no pass in {timeout} s"

    def expect_no_pass(self, seconds: float = 0.3) -> None:
        assert not self.passes.acquire(timeout=seconds), f"{self.name}: unexpected pass"


class Bench:
    """An agent in a thread, with everything around it scripted."""

    def __init__(
        self, root: Path, *features: Feature, watcher: Optional[Watcher] = None, **options: float
    ) -> None:
        self.watcher = ScriptedWatcher()
        self.system = System(root=root)
        self.messages: list[dict[str, str]] = []
        self.ready = threading.Event()
        self.config = Config()
        self.agent = Agent(
            self.system,
            load_config=lambda: self.config,
            watcher=watcher or self.watcher,  # type: ignore[arg-type]
            features=features,
            manager=self._manager(),
            status=StatusFile(),
            options=replace(AgentOptions(), **options),
        )
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.status: Optional[int] = None

    def _manager(self) -> ServiceManager:
        bench = self

        class Recorder(ServiceManager):
            def notify(self, **fields: str) -> None:
                bench.messages.append(fields)
                if "READY" in fields:
                    bench.ready.set()

        return Recorder({})

    def _run(self) -> None:
        self.status = self.agent.run(handle_signals=False)

    def __enter__(self) -> Bench:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self, timeout: float = 10) -> float:
        start = time.monotonic()
        self.agent.stop()
        self._thread.join(timeout)
        assert not self._thread.is_alive()
        return time.monotonic() - start


def eventually(condition: Callable[[], bool], timeout: float = 5) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "condition not met in time"
        time.sleep(0.005)


def test_first_metadata_runs_each_feature_exactly_once(tmp_path: Path) -> None:
    boot, late = Probe("boot"), Probe("late")
    with Bench(tmp_path, boot.feature(stage=Stage.BOOT), late.feature()) as bench:
        bench.watcher.put(metadata())
        boot.wait()
        late.wait()
        bench.watcher.put(metadata(), changed=False)
        boot.expect_no_pass()
        late.expect_no_pass(0)


def test_first_answer_and_first_poll_of_a_server_run_each_feature_exactly_once(
    tmp_path: Path,
) -> None:
    with Emulator(profile="linux") as mds:
        client = MetadataClient(mds.host)
        boot, late = Probe("boot"), Probe("late")
        features = (boot.feature(stage=Stage.BOOT), late.feature())
        with Bench(tmp_path, *features, watcher=Watcher(client)):
            boot.wait()
            late.wait()
            eventually(lambda: mds.waiting_clients > 0)
            mds.set("instance/tags", ["of no interest"])
            mds.wait_for_request("", 5)
            boot.expect_no_pass()
            late.expect_no_pass(0)
            mds.set("instance/attributes/a", "1")
            boot.wait()
            late.wait()
            boot.expect_no_pass()


def test_early_feature_runs_without_metadata(tmp_path: Path) -> None:
    early = Probe()
    with Bench(tmp_path, early.feature(stage=Stage.EARLY)):
        early.wait()
        assert early.seen[0].metadata is None


def test_feature_runs_again_only_when_its_own_part_of_the_metadata_changed(tmp_path: Path) -> None:
    mine, other = Probe("mine"), Probe("other")
    features = (
        mine.feature(stage=Stage.BOOT, inputs_of=lambda tree: tree.instance.attributes.get("a")),
        other.feature(stage=Stage.BOOT, inputs_of=lambda tree: tree.instance.attributes.get("b")),
    )
    with Bench(tmp_path, *features) as bench:
        bench.watcher.put(metadata(a="1"))
        mine.wait()
        other.wait()
        bench.watcher.put(metadata(a="2"))
        mine.wait()
        other.expect_no_pass()
        assert mine.seen[-1].metadata == metadata(a="2")


def test_ready_waits_for_the_first_pass_of_boot_features(tmp_path: Path) -> None:
    gate = threading.Event()

    def slow() -> Plan:
        gate.wait(5)
        return Plan()

    boot, late = Probe("boot", plans=[slow]), Probe("late")
    with Bench(tmp_path, boot.feature(stage=Stage.BOOT), late.feature()) as bench:
        bench.watcher.put(metadata())
        boot.wait()
        assert not bench.ready.wait(0.2)
        late.expect_no_pass(0)
        gate.set()
        assert bench.ready.wait(5)
        late.wait()


def test_ready_is_sent_at_its_bound_without_metadata(tmp_path: Path) -> None:
    probe = Probe()
    with Bench(tmp_path, probe.feature(stage=Stage.BOOT), ready_bound=0.2) as bench:
        assert bench.ready.wait(5)
        assert bench.messages[-1]["STATUS"] == "waiting for metadata"
        bench.watcher.put(metadata())
        probe.wait()


def test_ready_is_sent_at_its_bound_while_a_first_pass_hangs(tmp_path: Path) -> None:
    gate = threading.Event()

    def slow() -> Plan:
        gate.wait(10)
        return Plan()

    probe = Probe(plans=[slow])
    with Bench(tmp_path, probe.feature(stage=Stage.BOOT), first_pass_bound=0.2) as bench:
        bench.watcher.put(metadata())
        assert bench.ready.wait(5)
        gate.set()


def test_failed_change_is_retried_and_other_features_go_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    error = GuestError("disk is full")
    failing = Probe("failing", plans=[Plan((Touch("x", error),)), Plan((Touch("x"),))])
    sound = Probe("sound")
    features = (
        failing.feature(stage=Stage.BOOT, retry_first=0.1),
        sound.feature(stage=Stage.BOOT),
    )
    with Bench(tmp_path, *features) as bench:
        bench.watcher.put(metadata())
        failing.wait(2)
        sound.wait()
        assert bench.ready.wait(5)
    assert "failing: touch x: disk is full" in caplog.text
    assert "failing: works again" in caplog.text


def test_same_failure_is_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    plans = [Plan((Touch("x", GuestError("disk is full")),)) for _ in range(4)]
    probe = Probe(plans=plans)
    with Bench(tmp_path, probe.feature(stage=Stage.BOOT, retry_first=0.02)) as bench:
        bench.watcher.put(metadata())
        probe.wait(4)
    assert caplog.text.count("disk is full") == 1


def test_read_only_file_system_is_one_info_line_and_a_skipped_feature(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    refused = OSError(errno.EROFS, os.strerror(errno.EROFS), "/etc/x")
    plans = [Plan((Touch("x", refused), Touch("y", refused))) for _ in range(4)]
    probe = Probe(plans=plans)
    with Bench(tmp_path, probe.feature(stage=Stage.BOOT, retry_first=0.02)) as bench:
        bench.watcher.put(metadata())
        probe.wait(4)
        assert bench.ready.wait(5)
    lines = [record for record in caplog.records if record.getMessage().startswith("probe")]
    assert [(line.levelname, line.getMessage()) for line in lines] == [
        ("INFO", "probe: skipped, read-only file system: cannot touch x (and 1 more)")
    ]
    row = (read_state(bench.system, status_path(bench.system)) or {})["features"]["probe"]
    assert (row["error"], row["skipped"]) == (
        "",
        "read-only file system: cannot touch x (and 1 more)",
    )


def test_read_only_file_system_behind_another_error_is_still_one(tmp_path: Path) -> None:
    error = GuestError("no account")
    error.__cause__ = OSError(errno.EROFS, "Read-only file system")
    failed = Outcome(failed=[(Touch("x"), error)])
    result = Pass(Probe().feature(), ON, Plan(), failed)
    assert (result.ok, result.is_failure, result.errors) == (False, False, ())


def test_failure_beside_a_read_only_file_system_is_a_failure() -> None:
    refused = OSError(errno.EROFS, "Read-only file system")
    failed = Outcome(failed=[(Touch("x"), refused), (Touch("y"), GuestError("disk is full"))])
    result = Pass(Probe().feature(), ON, Plan(), failed)
    assert (result.is_failure, result.errors) == (True, ("touch y: disk is full",))


def test_exception_in_a_plan_costs_that_feature_a_pass_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broken = Probe("broken", plans=[ZeroDivisionError()])
    sound = Probe("sound")
    features = (broken.feature(stage=Stage.BOOT, retry_first=0.05), sound.feature(stage=Stage.BOOT))
    with Bench(tmp_path, *features) as bench:
        bench.watcher.put(metadata())
        broken.wait(2)
        sound.wait()
        assert bench.ready.wait(5)
    assert "broken: internal error" in caplog.text


def test_retries_are_capped_for_ever(tmp_path: Path) -> None:
    from google_guest.worker import Worker

    probe = Probe()
    feature = probe.feature(retry_first=10, retry_last=600)
    worker = Worker(
        feature, inputs=lambda: None, finished=lambda *_: None, stopping=lambda: False  # type: ignore[arg-type,return-value]
    )  # fmt: skip
    failed = Plan((Touch("x", GuestError("no")),))
    from google_guest.changes import apply_all

    outcome = apply_all(failed.changes, System(root=tmp_path))
    worker.note_result(Pass(feature, ON, failed, outcome), 0.0)
    assert 9 <= worker.time_left(0.0, 0.0) <= 11
    worker.failures = 10**6
    worker.note_result(Pass(feature, ON, failed, outcome), 0.0)
    assert 540 <= worker.time_left(0.0, 0.0) <= 660


def test_pass_is_due_when_the_plan_asked_for_it(tmp_path: Path) -> None:
    probe = Probe(plans=[lambda: Plan(recheck_at=time.time() + 0.2)])
    with Bench(tmp_path, probe.feature(stage=Stage.BOOT)) as bench:
        bench.watcher.put(metadata())
        probe.wait(2)


def test_drift_is_looked_for_at_its_interval(tmp_path: Path) -> None:
    probe = Probe()
    with Bench(tmp_path, probe.feature(stage=Stage.BOOT, drift_interval=0.05)) as bench:
        bench.watcher.put(metadata())
        probe.wait(3)


def test_jump_of_the_wall_clock_triggers_a_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    probe = Probe()
    with Bench(tmp_path, probe.feature(stage=Stage.BOOT)) as bench:
        bench.watcher.put(metadata())
        probe.wait()
        assert bench.ready.wait(5)
        monkeypatch.setattr(System, "now", staticmethod(lambda: time.time() + 86400))
        bench.watcher.put(metadata(), changed=False)
        probe.wait()


def test_follower_runs_after_the_feature_that_it_follows(tmp_path: Path) -> None:
    leader, follower = Probe("leader"), Probe("follower")
    features = (
        leader.feature(stage=Stage.BOOT, inputs_of=lambda tree: tree.instance.attributes.get("a")),
        follower.feature(inputs_of=lambda tree: 0, follows=("leader",)),
    )
    with Bench(tmp_path, *features) as bench:
        bench.watcher.put(metadata(a="1"))
        leader.wait()
        follower.wait()
        leader.plans.append(Plan((Touch("x"),)))
        bench.watcher.put(metadata(a="2"))
        leader.wait()
        follower.wait()


def test_once_per_boot_feature_is_not_repeated_after_an_agent_restart(tmp_path: Path) -> None:
    (tmp_path / "proc/sys/kernel/random").mkdir(parents=True)
    (tmp_path / "proc/sys/kernel/random/boot_id").write_text("boot-1\n")
    options = {"stage": Stage.EARLY, "frequency": Frequency.ONCE_PER_BOOT}
    first = Probe()
    with Bench(tmp_path, first.feature(**options)) as bench:
        first.wait()
        bench.watcher.put(metadata())
        assert bench.ready.wait(5)
    again = Probe()
    with Bench(tmp_path, again.feature(**options)) as bench:
        bench.watcher.put(metadata())
        assert bench.ready.wait(5)
        again.expect_no_pass(0.1)
    (tmp_path / "proc/sys/kernel/random/boot_id").write_text("boot-2\n")
    next_boot = Probe()
    with Bench(tmp_path, next_boot.feature(**options)):
        next_boot.wait()


def test_status_of_a_once_per_boot_feature_outlives_an_agent_restart(tmp_path: Path) -> None:
    (tmp_path / "proc/sys/kernel/random").mkdir(parents=True)
    (tmp_path / "proc/sys/kernel/random/boot_id").write_text("boot-1\n")
    for _ in range(2):
        probe = Probe(plans=[Plan((Touch("x"),))])
        feature = probe.feature(stage=Stage.EARLY, frequency=Frequency.ONCE_PER_BOOT)
        with Bench(tmp_path, feature) as bench:
            bench.watcher.put(metadata())
            assert bench.ready.wait(5)
        row = (read_state(bench.system, status_path(bench.system)) or {})["features"]["probe"]
        assert (row["on"], row["changes"]) == (True, ["touch x"])


def test_once_per_start_feature_runs_once(tmp_path: Path) -> None:
    probe = Probe()
    feature = probe.feature(stage=Stage.BOOT, frequency=Frequency.ONCE_PER_START)
    with Bench(tmp_path, feature) as bench:
        bench.watcher.put(metadata(a="1"))
        probe.wait()
        assert bench.ready.wait(5)
        bench.watcher.put(metadata(a="2"))
        probe.expect_no_pass()


def test_stop_ends_a_long_list_of_changes_between_two_of_them(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Slow(Touch):
        def apply(self, system: System) -> None:
            time.sleep(0.05)

    probe = Probe(plans=[Plan(tuple(Slow(str(number)) for number in range(1000)))])
    with Bench(tmp_path, probe.feature(stage=Stage.BOOT)) as bench:
        bench.watcher.put(metadata())
        probe.wait()
        assert bench.stop() < 1.0
        assert bench.status == 0
    assert {"STOPPING": "1", "STATUS": "stopping"} in bench.messages


def test_reload_applies_the_new_configuration_to_every_feature(tmp_path: Path) -> None:
    probe = Probe()
    with Bench(tmp_path, probe.feature(stage=Stage.BOOT)) as bench:
        bench.watcher.put(metadata())
        probe.wait()
        assert bench.ready.wait(5)
        bench.config = replace(bench.config, accounts=AccountsSection(groups="x"))
        bench.agent._on_signal(signal.SIGHUP)
        bench.agent._wake_up.wake()
        probe.wait()
        assert probe.seen[-1].config.accounts.groups == "x"


def test_reload_with_a_broken_file_keeps_the_configuration(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    probe = Probe()
    with Bench(tmp_path, probe.feature(stage=Stage.BOOT)) as bench:
        bench.watcher.put(metadata())
        probe.wait()
        assert bench.ready.wait(5)
        broken = AccountsSection(groups="x")
        problem = Problem("/etc/x.cfg", "skipped, syntax error", is_error=True)
        bench.config = replace(bench.config, accounts=broken, problems=(problem,))
        bench.agent._on_signal(signal.SIGHUP)
        bench.agent._wake_up.wake()
        probe.wait()
        assert probe.seen[-1].config.accounts.groups != "x"
    assert "/etc/x.cfg" in caplog.text


def test_status_tells_what_each_feature_did(tmp_path: Path) -> None:
    probe = Probe(plans=[Plan((Touch("x"),), notes=("y is skipped",))])
    with Bench(tmp_path, probe.feature(stage=Stage.BOOT)) as bench:
        bench.watcher.put(metadata())
        assert bench.ready.wait(5)
        eventually(
            lambda: bool((read_state(bench.system, status_path(bench.system)) or {}).get("ready"))
        )
    status = read_state(bench.system, status_path(bench.system)) or {}
    row = status["features"]["probe"]
    assert (row["on"], row["changes"], row["notes"]) == (True, ["touch x"], ["y is skipped"])
    assert row["last_success"] >= row["first_success"] > 0
    assert status["state"] == "stopped"


def test_switching_a_feature_off_is_one_line_that_names_the_layer(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    passes = threading.Semaphore(0)

    def enabled(inputs: Inputs) -> Decision:
        assert inputs.metadata is not None
        passes.release()
        off = inputs.metadata.instance.attributes.get("off")
        return Decision(False, "off = true", "instance metadata") if off else ON

    feature = replace(Probe().feature(stage=Stage.BOOT), enabled=enabled)
    with Bench(tmp_path, feature) as bench:
        bench.watcher.put(metadata())
        assert passes.acquire(timeout=5)
        for number in ("1", "2"):
            bench.watcher.put(metadata(off=number))
            assert passes.acquire(timeout=5)
    assert caplog.text.count("probe: off, off = true (instance metadata)") == 1
    assert "probe: on" not in caplog.text


def test_problem_in_the_metadata_is_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tree = parse_metadata({"instance": {"id": 1, "attributes": {"enable-oslogin": "maybe"}}})
    probe = Probe()
    with Bench(tmp_path, probe.feature(stage=Stage.BOOT)) as bench:
        bench.watcher.put(tree)
        probe.wait()
        bench.watcher.put(replace(tree, instance=replace(tree.instance, name="n")))
        assert bench.ready.wait(5)
    assert caplog.text.count("enable-oslogin") == 1


def _agent_process(root: Path, host: str, *options: str) -> subprocess.Popen[bytes]:
    source = str(Path(__file__).resolve().parents[2] / "src")
    script = (
        f"import sys; sys.path.insert(0, {source!r}); from google_guest.cli.agent import main; "
    )
    script += "raise SystemExit(main())"
    environment = {
        "PATH": os.environ["PATH"],
        "GCE_METADATA_HOST": host,
        "JOURNAL_STREAM": "1:1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    return subprocess.Popen(
        [sys.executable, "-c", script, "--root", str(root), *options],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def test_stop_signal_during_a_blocked_poll_ends_in_two_seconds_and_is_no_error(
    tmp_path: Path,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        process = _agent_process(tmp_path, f"127.0.0.1:{silent.getsockname()[1]}")
        connection, _ = silent.accept()
        start = time.monotonic()
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=10)
        connection.close()
    assert process.returncode == 0
    assert time.monotonic() - start < 2
    worse = [line for line in output.decode().splitlines() if line[:3] in ("<2>", "<3>", "<4>")]
    assert worse == []


def test_second_agent_ends_with_status_3(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host = f"127.0.0.1:{silent.getsockname()[1]}"
        first = _agent_process(tmp_path, host)
        connection, _ = silent.accept()
        second = _agent_process(tmp_path, host)
        output, _ = second.communicate(timeout=10)
        first.terminate()
        first.communicate(timeout=10)
        connection.close()
    assert second.returncode == 3
    assert b"another agent is running" in output
