"""The agent as a service: when it is ready, what it says, how it reloads and stops, what it makes.

One instance idles beside the others from the first test on; what a quiet minute looks like is read
from it at the end.
"""

from __future__ import annotations

import re
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Optional

import pytest
from support import agent_service
from support.agent_service import AGENT, CONFIG, INFO, SETTLED, STATUS, LogLine, Resources
from support.bed import Bed
from support.debs import GuestDebs
from support.documents import instance_document, nic_document
from support.network import numbered_nics
from support.timing import quickest, seconds_of

VIP = "192.0.2.10"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHRlc3R0ZXN0dGVzdHRlc3R0ZXN0dGVzdHRlc3R0ZXN0 ada"
MINUTE = 61.0
PROGRAM = "/usr/bin/google_guest_agent"
DROP_IN = f"/etc/systemd/system/{AGENT}.d/test.conf"
Boot = Callable[..., Bed]

# The quiet minute passes once, beside the other tests.
pytestmark = pytest.mark.xdist_group("agent")


@pytest.fixture
def boot(bed: Boot, guest_debs: GuestDebs) -> Boot:
    """Boot an instance that had its first boot, with these attributes and configuration."""

    def booted(
        *,
        attributes: Optional[Mapping[str, str]] = None,
        forwarded: Sequence[str] = (),
        config: str = "",
        files: Optional[Mapping[str, str]] = None,
        **description: object,
    ) -> Bed:
        written = {**SETTLED, CONFIG: config, **(files or {})}
        document = metadata(attributes=attributes, forwarded=forwarded)
        return bed(debs=guest_debs, metadata=document, files=written, **description)

    return booted


def metadata(
    *, attributes: Optional[Mapping[str, str]] = None, forwarded: Sequence[str] = ()
) -> dict[str, object]:
    nic = nic_document(numbered_nics(1)[0], forwardedIps=list(forwarded))
    return instance_document(attributes=attributes, instance={"networkInterfaces": [nic]})


def has_route(guest: Bed, address: str = VIP) -> bool:
    return address in guest.run("ip route show table local proto 66").stdout


# A quiet minute.


@dataclass(frozen=True)
class Moment:
    """What there is to compare after a while in which nothing happens."""

    began: float
    lines: int
    request: int
    resources: Resources


@dataclass(frozen=True)
class QuietMinute:
    """What an agent did that had nothing to do."""

    lines: list[LogLine]
    requests: list[str]
    before: Resources
    after: Resources


def moment(guest: Bed) -> Moment:
    return Moment(
        time.monotonic(),
        len(agent_service.log_lines(guest)),
        guest.mds.request_count,
        agent_service.resources(guest, agent_service.main_pid(guest)),
    )


@pytest.fixture(scope="module")
def idle(guest_debs: GuestDebs) -> Iterator[tuple[Bed, Moment]]:
    """An instance that nobody changes, and what it looked like when it had settled."""
    document = metadata(attributes={"enable-guest-attributes": "TRUE"}, forwarded=[VIP])
    with Bed(debs=guest_debs, metadata=document, files=dict(SETTLED)) as guest:
        agent_service.await_first_passes(guest)
        guest.wait_until(
            lambda: "sshable" in guest.mds.guest_attributes().get("guest-agent", {}),
            what="everything is published",
        )
        guest.wait_until(lambda: guest.mds.waiting_clients, what="the agent waits for a change")
        yield guest, moment(guest)


@pytest.fixture(scope="module")
def quiet_minute(idle: tuple[Bed, Moment]) -> QuietMinute:
    """A minute of the idle instance, from when it settled."""
    guest, start = idle
    time.sleep(max(0.0, start.began + MINUTE - time.monotonic()))
    return QuietMinute(
        agent_service.log_lines(guest, after=start.lines),
        [
            request.target
            for request in guest.mds.requests()
            # That one is the certificates' timer.
            if request.number > start.request and "workload-certificate" not in request.path
        ],
        start.resources,
        agent_service.resources(guest, agent_service.main_pid(guest)),
    )


def test_the_status_file_describes_the_running_agent(idle: tuple[Bed, Moment]) -> None:
    guest, _ = idle
    document = agent_service.status(guest)
    boot_id = guest.run("cat /proc/sys/kernel/random/boot_id").stdout.strip()
    assert document["pid"] == agent_service.main_pid(guest)
    assert document["state"] == "running"
    assert document["boot_id"] == boot_id
    assert document["started"] <= document["ready"] <= time.time()
    assert document["version"] == guest.run("google-guest version").stdout.strip()


def test_the_status_file_has_a_reason_for_every_feature(idle: tuple[Bed, Moment]) -> None:
    guest, _ = idle
    rows = agent_service.status(guest)["features"]
    assert {"accounts", "first-boot", "forwarded-addresses", "guest-attributes"} <= rows.keys()
    for name, row in rows.items():
        assert (name, isinstance(row["on"], bool)) == (name, True)
        assert (name, row["reason"] != "", row["layer"] != "") == (name, True, True)
        assert (name, row["last_pass"] > 0, row["error"]) == (name, True, "")


def test_everybody_may_read_the_status_file_and_nobody_else_may_write_it(
    idle: tuple[Bed, Moment],
) -> None:
    facts = idle[0].path(STATUS).stat()
    assert (stat.S_IMODE(facts.st_mode), facts.st_uid, facts.st_gid) == (0o644, 0, 0)


@pytest.mark.parametrize("name", ["PartOf", "BindsTo", "Requires", "Requisite", "ConsistsOf"])
def test_the_unit_is_bound_to_no_network_unit(idle: tuple[Bed, Moment], name: str) -> None:
    assert not re.search("network|Network|ifup|dhc", idle[0].unit_property(AGENT, name))


def test_the_unit_waits_for_no_addresses(idle: tuple[Bed, Moment]) -> None:
    after = idle[0].unit_property(AGENT, "After").split()
    assert "network-online.target" not in after
    assert not [unit for unit in after if "wait-online" in unit]


# Ready.


def test_ready_comes_after_the_first_pass_over_the_accounts(boot: Boot) -> None:
    slow = "sleep 1\nexec useradd -m -s /bin/bash -p '*' \"$1\"\n"
    guest = boot(
        attributes={"ssh-keys": f"ada:{KEY}"},
        config="[Accounts]\nuseradd_cmd = sh /usr/local/bin/slow-useradd {user}\n",
        files={"/usr/local/bin/slow-useradd": slow},
    )
    assert KEY in guest.run("cat ~ada/.ssh/authorized_keys").stdout


def test_ready_comes_with_the_routes_of_the_first_metadata(boot: Boot) -> None:
    guest = boot(forwarded=[VIP])
    guest.run(["systemctl", "stop", AGENT])
    guest.run(f"ip route del local {VIP} dev eth0 table local")
    guest.run(["systemctl", "start", AGENT])
    assert has_route(guest)


def test_without_an_answer_the_unit_is_starting_and_says_what_it_waits_for(boot: Boot) -> None:
    guest = boot()
    guest.run(["systemctl", "stop", AGENT])
    guest.mds.fault("", "hang")
    guest.run(["systemctl", "start", "--no-block", AGENT])
    guest.wait_until(
        lambda: guest.unit_property(AGENT, "StatusText") == "waiting for metadata",
        what="the unit says what it waits for",
    )
    assert guest.unit_property(AGENT, "ActiveState") == "activating"
    guest.mds.clear_faults()
    guest.wait_until(lambda: agent_service.is_active(guest), what="the unit is active")
    assert guest.unit_property(AGENT, "StatusText") == "running"


# Reload.


def test_a_reload_brings_a_changed_configuration_into_force(boot: Boot) -> None:
    guest = boot(forwarded=[VIP])
    pid = agent_service.main_pid(guest)
    guest.write(CONFIG, "[NetworkInterfaces]\nip_forwarding = false\n")
    guest.run(["systemctl", "reload", AGENT])
    guest.wait_until(lambda: not has_route(guest), what="the route is taken away")
    assert agent_service.main_pid(guest) == pid


def test_a_broken_file_leaves_the_configuration_in_force(boot: Boot) -> None:
    guest = boot(forwarded=[VIP], config="[NetworkInterfaces]\nip_forwarding = false\n")
    before = len(agent_service.log_lines(guest))
    guest.write(CONFIG, "[NetworkInterfaces\nip_forwarding = true\n")
    guest.run(["systemctl", "reload", AGENT])
    lines = guest.wait_until(
        lambda: [
            line for line in agent_service.log_lines(guest, after=before) if CONFIG in line.text
        ],
        what="the journal names the file",
    )
    assert [line.priority for line in lines] == [3]
    guest.wait_until(
        lambda: guest.unit_property(AGENT, "StatusText") == "running", what="the reload is over"
    )
    assert not has_route(guest)
    assert agent_service.is_active(guest)


def test_a_configuration_that_is_mended_is_in_force_at_the_next_reload(boot: Boot) -> None:
    guest = boot(forwarded=[VIP], config="[NetworkInterfaces]\nip_forwarding = false\n")
    for text in ("[broken\n", "[NetworkInterfaces]\nip_forwarding = true\n"):
        guest.write(CONFIG, text)
        guest.run(["systemctl", "reload", AGENT])
    guest.wait_until(lambda: has_route(guest), what="the route is there")


# One agent, on instances alone.


def test_a_second_agent_ends_with_status_3_and_leaves_the_first_alone(boot: Boot) -> None:
    guest = boot()
    pid = agent_service.main_pid(guest)
    assert guest.run([PROGRAM], check=False, timeout=5).status == 3
    assert "another agent is running" in guest.journal()
    assert agent_service.main_pid(guest) == pid


def test_on_other_machines_the_agent_ends_well_and_asks_nobody(boot: Boot) -> None:
    guest = boot(dmi=False)
    facts = ("ActiveState", "SubState", "Result", "ExecMainStatus", "NRestarts")
    guest.wait_until(
        lambda: guest.unit_property(AGENT, "ActiveState") == "inactive", what="the agent ended"
    )
    # Longer than the pause before a restart.
    time.sleep(6)
    assert [guest.unit_property(AGENT, name) for name in facts] == [
        *("inactive", "dead", "success", "0", "0")
    ]
    agents = [
        request.target
        for request in guest.mds.requests()
        if request.headers.get("User-Agent") == "google-guest" and "attributes/" not in request.path
    ]
    assert agents == []


def test_on_other_machines_the_program_says_why_it_ends(boot: Boot) -> None:
    guest = boot(dmi=False)
    lines = agent_service.log_lines(guest)
    assert [line.text for line in lines] == [
        "this machine is no Compute Engine instance: nothing to do"
    ]


# Stop.


def test_a_stop_during_the_long_poll_is_quick_clean_and_quiet(boot: Boot) -> None:
    guest = boot(forwarded=[VIP])
    agent_service.await_first_passes(guest)
    before = 0

    def stop() -> float:
        nonlocal before
        guest.run(["systemctl", "start", AGENT])
        guest.wait_until(lambda: guest.mds.waiting_clients, what="the agent waits for a change")
        before = len(agent_service.log_lines(guest))
        return seconds_of(lambda: guest.run(["systemctl", "stop", AGENT]))

    assert quickest(stop, bound=1.0) < 1.0
    assert guest.unit_property(AGENT, "Result") == "success"
    assert guest.unit_property(AGENT, "ExecMainStatus") == "0"
    lines = agent_service.log_lines(guest, after=before)
    assert agent_service.above_info(lines) == []
    assert agent_service.status(guest)["state"] == "stopped"


def test_a_stop_while_the_metadata_server_is_silent_takes_less_than_five_seconds(
    boot: Boot,
) -> None:
    guest = boot()
    guest.drop_metadata_packets()
    guest.run(["systemctl", "restart", "--no-block", AGENT])
    guest.wait_until(
        lambda: guest.unit_property(AGENT, "StatusText") == "waiting for metadata",
        what="the new agent waits",
    )
    began = time.monotonic()
    guest.run(["systemctl", "stop", AGENT])
    assert time.monotonic() - began < 5.0
    assert guest.unit_property(AGENT, "ExecMainStatus") == "0"


def test_a_restart_of_the_network_service_leaves_the_agent_running(boot: Boot) -> None:
    guest = boot(forwarded=[VIP])
    pid = agent_service.main_pid(guest)
    for service in ("systemd-networkd", "networking"):
        guest.run(["systemctl", "restart", service], check=False, timeout=60)
    assert agent_service.is_active(guest)
    assert agent_service.main_pid(guest) == pid


# Surroundings.


def test_proxy_variables_change_nothing(boot: Boot) -> None:
    names = ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy")
    settings = "".join(f"Environment={name}=http://127.0.0.1:9\n" for name in names)
    guest = boot(forwarded=[VIP], files={DROP_IN: f"[Service]\n{settings}"})
    environment = guest.path(f"/proc/{agent_service.main_pid(guest)}/environ").read_text()
    assert "HTTP_PROXY=" in environment
    assert has_route(guest)
    assert agent_service.above_info(agent_service.log_lines(guest)) == []


@pytest.fixture(scope="module")
def traced(guest_debs: GuestDebs) -> Iterator[tuple[Bed, list[str]]]:
    """An instance whose agent ran its first boot, made users and stopped under strace."""
    trace = "/var/tmp/agent.strace"
    calls = "creat,open,openat,mkdir,mkdirat,mknod,mknodat,chmod,fchmod,fchmodat,execve"
    command = f"/usr/bin/strace -f --seccomp-bpf -o {trace} -e trace={calls} -s 256 {PROGRAM}"
    # The modes must not be the umask's doing.
    settings = ("UMask=0000", "NotifyAccess=all", "KillMode=control-group", "ExecStart=")
    drop_in = "\n".join(["[Service]", *settings, f"ExecStart={command}", ""])
    attributes = {
        "ssh-keys": f"ada:{KEY}",
        "enable-guest-attributes": "TRUE",
    }
    document = metadata(attributes=attributes, forwarded=[VIP])
    with Bed(debs=guest_debs, metadata=document, files={DROP_IN: drop_in}) as guest:
        agent_service.await_first_passes(guest)
        guest.run(["systemctl", "stop", AGENT])
        yield guest, guest.path(trace).read_text(errors="replace").splitlines()


def own_calls(trace: Sequence[str], names: str) -> list[str]:
    """The successful calls of the project's own code: not of the platform's programs."""
    others: set[str] = set()
    found = []
    for line in trace:
        pid, _, call = line.partition(" ")
        call = call.strip()
        if call.startswith("execve("):
            ours = "google_guest" in call
            others = others - {pid} if ours else others | {pid}
        elif pid not in others and re.match(f"(?:{names})\\(", call) and "= -1" not in call:
            found.append(call)
    return found


def test_the_agent_makes_no_file_wider_than_0644_even_for_a_moment(
    traced: tuple[Bed, list[str]],
) -> None:
    made = [call for call in own_calls(traced[1], "openat|open|creat") if "O_CREAT" in call]
    modes = [int(match[1], 8) for call in made if (match := re.search(r", (0[0-7]{3})\b", call))]
    assert len(modes) == len(made) > 5, made
    assert [call for call, mode in zip(made, modes) if mode & ~0o644] == []


def test_the_agent_makes_no_directory_wider_than_0755_even_for_a_moment(
    traced: tuple[Bed, list[str]],
) -> None:
    made = own_calls(traced[1], "mkdir|mkdirat")
    modes = [int(match[1], 8) for call in made if (match := re.search(r", (0[0-7]{3})\b", call))]
    assert len(modes) == len(made) > 0, made
    assert [call for call, mode in zip(made, modes) if mode & ~0o755] == []


def test_the_agent_gives_nobody_a_right_to_write_or_to_run_later(
    traced: tuple[Bed, list[str]],
) -> None:
    changed = own_calls(traced[1], "chmod|fchmod|fchmodat")
    modes = [int(match[1], 8) for call in changed if (match := re.search(r", (0[0-7]{3})\b", call))]
    assert len(modes) == len(changed) > 0
    assert [call for call, mode in zip(changed, modes) if mode & ~0o755] == []


def test_what_the_agent_leaves_is_for_root_to_write(traced: tuple[Bed, list[str]]) -> None:
    guest = traced[0]
    folders = "/etc /run/google-guest-agent /var/lib/google-guest-agent /var/lib/google /home/ada"
    shown = guest.run(f"find {folders} ! -type l -perm /022 -newer /etc/machine-id -ls").stdout
    assert shown == ""


@pytest.mark.parametrize(
    ("path", "mode"),
    [
        ("/run/google-guest-agent", 0o755),
        ("/run/google-guest-agent/agent.lock", 0o600),
        (STATUS, 0o644),
        ("/etc/google_instance_id", 0o644),
        ("/etc/sudoers.d/google_sudoers", 0o440),
        ("/etc/ssh/ssh_host_ed25519_key", 0o600),
        ("/etc/ssh/ssh_host_ed25519_key.pub", 0o644),
        ("/home/ada/.ssh", 0o700),
        ("/home/ada/.ssh/authorized_keys", 0o600),
        ("/var/lib/google", 0o755),
        ("/var/lib/google/google_users", 0o600),
        ("/var/lib/google/managed_users.json", 0o600),
    ],
)
def test_modes_whatever_the_umask_is(traced: tuple[Bed, list[str]], path: str, mode: int) -> None:
    found = stat.S_IMODE(traced[0].path(path).stat().st_mode)
    assert oct(found) == oct(mode)


# The quiet minute's end; these come last, so that nobody waits for it alone.


def test_an_idle_agent_writes_no_line(quiet_minute: QuietMinute) -> None:
    assert [line.text for line in quiet_minute.lines if line.priority <= INFO] == []


def test_an_idle_agent_asks_twice_a_minute_at_most(quiet_minute: QuietMinute) -> None:
    assert len(quiet_minute.requests) <= 2, quiet_minute.requests
    assert all("wait_for_change=true" in target for target in quiet_minute.requests)


def test_an_idle_agent_needs_next_to_no_processor_time(quiet_minute: QuietMinute) -> None:
    assert quiet_minute.after.ticks - quiet_minute.before.ticks <= 10, "hundredths of a second"


def test_an_idle_agent_holds_no_more_than_before(quiet_minute: QuietMinute) -> None:
    assert quiet_minute.after.descriptors <= quiet_minute.before.descriptors
    assert quiet_minute.after.resident - quiet_minute.before.resident < 512, "KiB"
