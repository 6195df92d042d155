"""The agent when its surroundings misbehave: the metadata server, the network, the file systems.

What takes a minute happens in instances that run beside one another, and beside the short tests,
from the first test on.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Optional

import pytest
from support import agent_service
from support.agent_service import AGENT, INFO, INSTANCE_MARKER, SETTLED, WARNING, LogLine, Resources
from support.bed import Bed
from support.debs import GuestDebs
from support.documents import instance_document, nic_document
from support.network import numbered_nics

VIP = "192.0.2.10"
OTHER_VIP = "192.0.2.11"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHRlc3R0ZXN0dGVzdHRlc3R0ZXN0dGVzdHRlc3R0ZXN0 ada"
DROP_IN = f"/etc/systemd/system/{AGENT}.d/test.conf"
FORWARDED = "instance/network-interfaces/0/forwarded-ips"
HOST_KEYS = "sha256sum /etc/ssh/ssh_host_*"
READY_BOUND = 75.0
MINUTE = 60.0
SHORT_OUTAGE = 10.0
AT_ONCE = 6
"""Instances beside one another: the kernel has room for 128 inotify users, and a system is many."""
PEAK_MEMORY = 96 << 10
"""KiB; the hostile document has 5 MiB and is parsed again with every change."""
Boot = Callable[..., Bed]

# They share the minute.
pytestmark = pytest.mark.xdist_group("resilience")


def metadata(
    *, attributes: Optional[Mapping[str, str]] = None, forwarded: Sequence[str] = (VIP,)
) -> dict[str, object]:
    nic = nic_document(numbered_nics(1)[0], forwardedIps=list(forwarded))
    return instance_document(attributes=attributes, instance={"networkInterfaces": [nic]})


def has_route(guest: Bed, address: str = VIP) -> bool:
    return address in guest.run("ip route show table local proto 66").stdout


def await_long_poll(guest: Bed) -> None:
    agent_service.await_first_passes(guest)
    guest.wait_until(lambda: guest.mds.waiting_clients, what="the agent waits for a change")


@dataclass
class Observed:
    """What came of a scenario, read before its instance was gone."""

    lines: list[LogLine] = field(default_factory=list)
    """The agent's, from the moment that the trouble began."""
    traces: list[str] = field(default_factory=list)
    requests: list[float] = field(default_factory=list)
    """Times of the requests for the tree while the trouble lasted."""
    same_process: bool = False
    is_active: bool = False
    seconds: float = 0.0
    recovered_after: float = 0.0
    host_keys_kept: bool = False
    kept_last_good: bool = False
    before: Optional[Resources] = None
    after: Optional[Resources] = None
    rounds: int = 0
    peak: int = 0
    """KiB of memory at the worst moment."""

    def texts(self, priority: int) -> list[str]:
        return [line.text for line in self.lines if line.priority == priority]


# The scenarios.


def silence_at_the_start(debs: GuestDebs) -> Observed:
    """No packet from the metadata server when the agent starts on what seems a new instance."""
    seen = Observed()
    with Bed(debs=debs, metadata=metadata(), files=dict(SETTLED)) as guest:
        guest.run(["systemctl", "stop", AGENT])
        guest.run(["rm", INSTANCE_MARKER])
        keys = guest.run(HOST_KEYS).stdout
        guest.drop_metadata_packets()
        known = len(agent_service.log_lines(guest))
        guest.run(["systemctl", "start", "--no-block", AGENT])
        guest.wait_until(
            lambda: agent_service.is_active(guest), READY_BOUND + 15, "ready", interval=0.25
        )
        seen.seconds = seconds_to_ready(guest)
        seen.is_active = agent_service.is_active(guest)
        seen.host_keys_kept = guest.run(HOST_KEYS).stdout == keys
        seen.lines = agent_service.log_lines(guest, after=known)
        guest.restore_metadata()
        back = time.monotonic()
        marker = guest.path(INSTANCE_MARKER)
        guest.wait_until(marker.exists, MINUTE, "the first boot is done after all", interval=0.25)
        seen.recovered_after = time.monotonic() - back
        seen.traces = agent_service.traces(guest)
    return seen


def trouble(
    debs: GuestDebs, *, seconds: float, kind: str, options: Mapping[str, object]
) -> Observed:
    """The metadata server answers wrongly for a while, then as it should."""
    seen = Observed()
    with Bed(debs=debs, metadata=metadata(), files=dict(SETTLED)) as guest:
        await_long_poll(guest)
        known = len(agent_service.log_lines(guest))
        pid = agent_service.main_pid(guest)
        guest.mds.fault("", kind, **options)
        began = time.time()
        for number in range(int(seconds)):
            # Ends a long poll that was asked for before.
            guest.mds.set("instance/attributes/number", str(number))
            time.sleep(1)
        ended = time.time()
        seen.kept_last_good = has_route(guest)
        guest.mds.set(FORWARDED, [OTHER_VIP])
        guest.mds.clear_faults()
        guest.wait_until(
            lambda: has_route(guest, OTHER_VIP), MINUTE, "the change is seen", interval=0.1
        )
        seen.recovered_after = time.time() - ended
        seen.requests = [
            request.time
            for request in guest.mds.requests()
            if began <= request.time <= ended and request.query.get("recursive") == "true"
        ]
        seen.lines = agent_service.log_lines(guest, after=known)
        seen.traces = agent_service.traces(guest)
        seen.same_process = agent_service.main_pid(guest) == pid
    return seen


def hostile_metadata(debs: GuestDebs) -> Observed:
    """A minute with a document in which nearly everything is of the wrong type, changing often."""
    seen = Observed()
    with Bed(debs=debs, metadata="hostile") as guest:
        pid = agent_service.main_pid(guest)
        began = time.monotonic()
        while time.monotonic() - began < MINUTE:
            seen.rounds += 1
            guest.mds.set("instance/attributes/round", str(seen.rounds))
            time.sleep(2)
        seen.is_active = agent_service.is_active(guest)
        seen.same_process = agent_service.main_pid(guest) == pid
        seen.peak = peak_memory(guest, pid)
        seen.lines = agent_service.log_lines(guest)
        seen.traces = agent_service.traces(guest)
    return seen


def many_changes(debs: GuestDebs) -> Observed:
    """A minute in which metadata changes as fast as the agent follows."""
    seen = Observed()
    with Bed(debs=debs, metadata=metadata(), files=dict(SETTLED)) as guest:
        await_long_poll(guest)
        pid = agent_service.main_pid(guest)
        warm = False
        began = time.monotonic()
        last = guest.mds.requests()[-1]
        for number in itertools.count():
            seconds = time.monotonic() - began
            if seconds > MINUTE:
                break
            if not warm and seconds > MINUTE / 5:
                # Until here everything has been needed once.
                warm, seen.rounds = True, 0
                seen.before = resources_between_passes(guest, pid)
            change(guest, number)
            seen.rounds += 1
            last = guest.mds.wait_for_request("", 10, since=last)
        seen.after = resources_between_passes(guest, pid)
        seen.same_process = agent_service.main_pid(guest) == pid
        seen.lines = agent_service.log_lines(guest)
    return seen


def change(guest: Bed, number: int) -> None:
    """One change of what features look at, now and then of the users."""
    if number % 50 == 0:
        names = ("ada", "bob") if number % 100 else ("ada",)
        guest.mds.set("instance/attributes/ssh-keys", "\n".join(f"{name}:{KEY}" for name in names))
    elif number % 2:
        guest.mds.set(FORWARDED, [VIP, f"192.0.2.{20 + number % 100}"])
    else:
        guest.mds.set("instance/attributes/number", str(number) * (1 + number % 500))


def seconds_to_ready(guest: Bed) -> float:
    """From the start of the program to its READY, by the service manager's clock."""
    names = ("ExecMainStartTimestampMonotonic", "ActiveEnterTimestampMonotonic")
    started, ready = (int(guest.unit_property(AGENT, name)) for name in names)
    return (ready - started) / 1e6


def resources_between_passes(guest: Bed, pid: int) -> Resources:
    """What the agent holds when no feature has a thread: the loop and the watch are left."""

    def held() -> Optional[Resources]:
        found = agent_service.resources(guest, pid)
        return found if found.threads == 2 else None

    await_long_poll(guest)
    found = guest.wait_until(held, what="every pass has ended")
    assert found is not None
    return found


def peak_memory(guest: Bed, pid: int) -> int:
    text = guest.path(f"/proc/{pid}/status").read_text()
    return int(text.partition("VmHWM:")[2].split()[0])


WRONG_ANSWERS: Mapping[str, tuple[str, Mapping[str, object]]] = {
    "503 page": ("status", {"status": 503}),
    "web page": ("html", {}),
    "web page of another server": ("html", {"flavor": False}),
    "half a document": ("truncate", {}),
    "no JSON": ("body", {"body": '{"instance": ', "content_type": "application/json"}),
    "JSON of something else": ("body", {"body": "[]", "content_type": "application/json"}),
    "no flavor": ("no_flavor", {}),
    "reset": ("reset", {}),
    "redirects": ("redirect_loop", {}),
}


def _scenarios() -> Mapping[str, Callable[[GuestDebs], Observed]]:
    page = {"seconds": MINUTE, "kind": "status", "options": {"status": 503}}
    return {
        "silence": silence_at_the_start,
        "outage": partial(trouble, **page),
        "hostile": hostile_metadata,
        "changes": many_changes,
        **{
            name: partial(trouble, seconds=SHORT_OUTAGE, kind=kind, options=options)
            for name, (kind, options) in WRONG_ANSWERS.items()
        },
    }


@pytest.fixture(scope="module", autouse=True)
def scenarios(
    request: pytest.FixtureRequest, guest_debs: GuestDebs
) -> Iterator[dict[str, Future[Observed]]]:
    """Every scenario that a collected test looks at, under way from the module's first test on."""
    wanted = {
        name
        for item in request.session.items
        if item.path == request.path
        for name in (*getattr(item, "fixturenames", ()), _wrong_answer(item))
    }
    with ThreadPoolExecutor(max_workers=AT_ONCE) as pool:
        under_way = {
            name: pool.submit(scenario, guest_debs)
            for name, scenario in _scenarios().items()
            if name in wanted
        }
        yield under_way
    for scenario in under_way.values():
        scenario.result()


def _wrong_answer(item: pytest.Item) -> str:
    callspec = getattr(item, "callspec", None)
    return str(callspec.params.get("answer", "")) if callspec is not None else ""


Scenarios = Mapping[str, "Future[Observed]"]


@pytest.fixture(scope="module")
def silence(scenarios: Scenarios) -> Observed:
    return scenarios["silence"].result()


@pytest.fixture(scope="module")
def outage(scenarios: Scenarios) -> Observed:
    return scenarios["outage"].result()


@pytest.fixture(scope="module")
def hostile(scenarios: Scenarios) -> Observed:
    return scenarios["hostile"].result()


@pytest.fixture(scope="module")
def changes(scenarios: Scenarios) -> Observed:
    return scenarios["changes"].result()


# What needs no minute.


@pytest.fixture
def boot(bed: Boot, guest_debs: GuestDebs) -> Boot:
    """Boot an instance that had its first boot."""

    def booted(**description: object) -> Bed:
        files = {**SETTLED, **description.pop("files", {})}
        description.setdefault("metadata", metadata())
        return bed(debs=guest_debs, files=files, **description)

    return booted


def test_an_instance_without_service_accounts_is_an_ordinary_one(boot: Boot) -> None:
    document = metadata()
    del document["instance"]["serviceAccounts"]  # type: ignore[attr-defined]
    guest = boot(metadata=document)
    await_long_poll(guest)
    assert has_route(guest)
    assert agent_service.above_info(agent_service.log_lines(guest)) == []
    asked = [request.path for request in guest.mds.requests() if "service-accounts" in request.path]
    assert len(asked) <= 1


def test_without_ipv6_everything_else_works_and_nothing_is_said(boot: Boot) -> None:
    document = metadata()
    nic = document["instance"]["networkInterfaces"][0]  # type: ignore[index]
    nic["forwardedIpv6s"] = ["2600:1900:0:1::/96"]
    guest = boot(metadata=document)
    guest.run(["systemctl", "stop", AGENT])
    guest.run("sysctl -q -w net.ipv6.conf.all.disable_ipv6=1")
    guest.run(f"ip route del local {VIP} dev eth0 table local")
    known = len(agent_service.log_lines(guest))
    guest.run(["systemctl", "start", AGENT])
    assert has_route(guest)
    assert agent_service.above_info(agent_service.log_lines(guest, after=known)) == []


def test_without_a_network_the_agent_starts_later_and_heals(boot: Boot) -> None:
    guest = boot()
    guest.run(["systemctl", "stop", AGENT])
    guest.run(f"ip route del local {VIP} dev eth0 table local")
    guest.cut_cable()
    guest.run(["systemctl", "start", "--no-block", AGENT])
    guest.wait_until(
        lambda: guest.unit_property(AGENT, "StatusText") == "waiting for metadata",
        what="the agent waits",
    )
    time.sleep(2)
    guest.plug_cable()
    guest.wait_until(lambda: agent_service.is_active(guest), 20, "the unit is active")
    assert has_route(guest)


# Read-only file systems.


@pytest.fixture(scope="module")
def read_only(guest_debs: GuestDebs) -> Iterator[Bed]:
    """A new instance whose /etc and /usr the agent cannot write to."""
    document = metadata(attributes={"ssh-keys": f"ada:{KEY}"})
    drop_in = "[Service]\nReadOnlyPaths=/etc /usr\n"
    with Bed(debs=guest_debs, metadata=document, files={DROP_IN: drop_in}) as guest:
        await_long_poll(guest)
        yield guest


def rows(guest: Bed) -> dict[str, dict[str, object]]:
    shown = json.loads(guest.run(["google-guest", "status", "--json"]).stdout)
    features = shown["features"]
    assert isinstance(features, dict)
    return features


def test_with_etc_and_usr_read_only_the_agent_is_healthy(read_only: Bed) -> None:
    assert agent_service.is_active(read_only)
    assert has_route(read_only)
    assert agent_service.above_info(agent_service.log_lines(read_only)) == []
    assert {row["state"] for row in rows(read_only).values()} <= {"on", "off", "skipped"}


def test_with_etc_read_only_the_first_boot_is_skipped_and_changes_nothing(read_only: Bed) -> None:
    row = rows(read_only)["first-boot"]
    assert row["state"] == "skipped"
    assert "read-only" in str(row["skipped"])
    fresh = read_only.run("find /etc -newer /etc/machine-id -type f").stdout
    assert fresh == ""


def test_with_etc_read_only_the_users_are_reported_as_left_out(read_only: Bed) -> None:
    row = rows(read_only)["accounts"]
    assert "read-only" in f"{row['notes']}{row['skipped']}"
    assert "ada" not in read_only.path("/etc/passwd").read_text()


def test_with_etc_and_usr_read_only_every_feature_says_so_once(read_only: Bed) -> None:
    for _ in range(2):
        known = read_only.mds.requests()[-1]
        read_only.mds.set("instance/attributes/ssh-keys", f"ada:{KEY}{known.number}")
        read_only.mds.wait_for_request("", 5, since=known)
        read_only.run(["systemctl", "reload", AGENT])
    await_long_poll(read_only)
    said: dict[str, list[str]] = {}
    for line in agent_service.log_lines(read_only):
        if "read-only" in line.text:
            said.setdefault(line.text.partition(":")[0], []).append(line.text)
    assert said
    assert {name: len(texts) for name, texts in said.items() if len(texts) > 1} == {}, said


# Wrong answers, for some seconds each.


@pytest.mark.parametrize("answer", WRONG_ANSWERS)
def test_wrong_answers_are_asked_for_once_a_second_at_most(
    scenarios: Scenarios, answer: str
) -> None:
    seen = scenarios[answer].result()
    pauses = [later - earlier for earlier, later in zip(seen.requests, seen.requests[1:])]
    # An attempt may follow redirects, or look for the server at its other addresses.
    attempts = 1 + len([pause for pause in pauses if pause > 0.2])
    assert 3 <= attempts <= SHORT_OUTAGE
    assert attempts <= len(seen.requests) <= SHORT_OUTAGE + 2
    assert [pause for pause in pauses[1:] if 0.2 < pause < 0.9] == []


@pytest.mark.parametrize("answer", WRONG_ANSWERS)
def test_wrong_answers_are_one_warning_and_one_line_when_they_are_over(
    scenarios: Scenarios, answer: str
) -> None:
    seen = scenarios[answer].result()
    assert len(seen.texts(WARNING)) == 1, seen.lines
    assert [line for line in seen.lines if line.priority < WARNING] == []
    assert len([text for text in seen.texts(INFO) if "works again" in text]) == 1


@pytest.mark.parametrize("answer", WRONG_ANSWERS)
def test_during_wrong_answers_the_last_good_one_stays_in_force(
    scenarios: Scenarios, answer: str
) -> None:
    seen = scenarios[answer].result()
    assert seen.kept_last_good
    assert (seen.same_process, seen.traces) == (True, [])


# What takes a minute.


def test_a_minute_of_503_is_no_error_and_over_with_the_next_good_answer(outage: Observed) -> None:
    assert [line for line in outage.lines if line.priority < WARNING] == []
    assert len(outage.texts(WARNING)) == 1
    assert len([text for text in outage.texts(INFO) if "works again" in text]) == 1
    assert outage.recovered_after < MINUTE


def test_a_minute_of_503_is_a_handful_of_requests(outage: Observed) -> None:
    assert len(outage.requests) <= 10
    assert (outage.same_process, outage.traces) == (True, [])


def test_a_minute_of_hostile_metadata_leaves_the_agent_alive_without_a_trace(
    hostile: Observed,
) -> None:
    assert hostile.rounds > 10
    assert (hostile.is_active, hostile.same_process, hostile.traces) == (True, True, [])


def test_a_minute_of_hostile_metadata_is_not_a_flood_of_lines(hostile: Observed) -> None:
    assert len(hostile.lines) < 100, [line.text for line in hostile.lines]
    assert len({line.text for line in hostile.lines}) == len(hostile.lines)


def test_the_memory_for_hostile_metadata_is_bounded(hostile: Observed) -> None:
    assert hostile.peak < PEAK_MEMORY, f"{hostile.peak} KiB"


def test_thousands_of_changes_leave_memory_and_descriptors_as_they_were(changes: Observed) -> None:
    assert changes.before is not None and changes.after is not None
    assert changes.rounds > 500
    assert changes.after.descriptors == changes.before.descriptors
    assert changes.after.resident - changes.before.resident < 1024, "KiB"
    assert changes.same_process
    assert agent_service.above_info(changes.lines) == []


def test_a_silent_metadata_server_delays_ready_by_75_seconds_at_most(silence: Observed) -> None:
    assert silence.seconds <= READY_BOUND
    assert silence.is_active


def test_a_silent_metadata_server_costs_no_host_key(silence: Observed) -> None:
    assert silence.host_keys_kept


def test_a_silent_metadata_server_is_told_of_in_two_lines(silence: Observed) -> None:
    assert len(silence.texts(WARNING)) == 2, silence.lines
    assert [line for line in silence.lines if line.priority < WARNING] == []
    assert silence.traces == []


def test_what_waited_for_a_silent_metadata_server_is_done_when_it_answers(
    silence: Observed,
) -> None:
    assert silence.recovered_after < MINUTE
