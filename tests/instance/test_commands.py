"""google-guest in a running instance: what it shows, what it does, and what it never touches."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from support import agent_service
from support.agent_service import AGENT, CONFIG, SETTLED
from support.bed import Bed
from support.debs import GuestDebs
from support.documents import instance_document, nic_document
from support.network import numbered_nics

VIP = "192.0.2.10"
OTHER_VIP = "192.0.2.11"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHRlc3R0ZXN0dGVzdHRlc3R0ZXN0dGVzdHRlc3R0ZXN0 ada"
EXPIRED = (
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHRlc3R0ZXN0dGVzdHRlc3R0ZXN0dGVzdHRlc3R0ZXN0 google-ssh"
    ' {"userName":"ada@example.com","expireOn":"2020-01-01T00:00:00+0000"}'
)
COMMANDS = ("plan", "status", "config", "keys", "version", "image-clean --dry-run")
STATES = {"on", "off", "skipped"}
FILES = (
    # Everything but the kernel's trees, the journal and what the observer itself leaves.
    "find / -xdev \\( -path /proc -o -path /sys -o -path /dev -o -path /var/log -o -path /tmp"
    " -o -path /run \\) -prune -o"
    " -printf '%p %y %m %U %G %T@ %C@ %l %s\\n';"
    " find /run /tmp \\( -path /run/systemd -o -path /run/log -o -path /run/udev"
    " -o -name agetty.reload \\) -prune -o"
    " -type f -printf '%p %m %U %G %T@\\n'"
)
CONTENTS = "find /etc /home /root /usr/local /var/lib -xdev -type f -exec sha256sum {} +"
KERNEL = "ip route show table all; ip -6 route show table all; ip address; ip rule; ip -d link"
PROCESSES = "ps -eo pid,ppid,lstart,args --no-headers | grep -v -e 'ps -eo' -e 'sh -c' -e grep"

# They share instances.
pytestmark = pytest.mark.xdist_group("commands")


def document(*addresses: str, keys: Sequence[str] = (KEY,)) -> dict[str, object]:
    nic = nic_document(numbered_nics(1)[0], forwardedIps=list(addresses))
    attributes = {"ssh-keys": "\n".join(f"ada:{key}" for key in keys)}
    return instance_document(attributes=attributes, instance={"networkInterfaces": [nic]})


@pytest.fixture(scope="module")
def guest(guest_debs: GuestDebs) -> Iterator[Bed]:
    """An instance whose agent has done everything and idles."""
    tree = document(VIP, keys=(KEY, EXPIRED))
    files = {**SETTLED, CONFIG: "[Accounts]\ngroups = video\n[Nonsense]\nx = y\n"}
    with Bed(debs=guest_debs, metadata=tree, files=files) as running:
        agent_service.await_first_passes(running)
        yield running


@pytest.fixture(scope="module")
def wanting(guest_debs: GuestDebs) -> Iterator[Bed]:
    """A new instance whose agent never ran: there is much to do."""
    condition = "[Unit]\nConditionPathExists=/run/agent-may-run\n"
    files = {f"/etc/systemd/system/{AGENT}.d/test.conf": condition}
    with Bed(debs=guest_debs, metadata=document(VIP), files=files) as running:
        running.wait_until(
            lambda: "tentative" not in running.run("ip -6 address").stdout,
            what="the kernel is done with its own addresses",
        )
        yield running


def run_json(guest: Bed, command: str) -> dict[str, Any]:
    shown = json.loads(guest.run(f"google-guest {command} --json").stdout)
    assert isinstance(shown, dict)
    return shown


def on_a_terminal(guest: Bed, command: str) -> str:
    shown = guest.run(["script", "-qec", f"TERM=xterm google-guest {command}", "/dev/null"])
    return shown.stdout.replace("\r\n", "\n")


# Every command.


@pytest.mark.parametrize("command", COMMANDS)
def test_a_pipe_gets_neither_colours_nor_control_characters(guest: Bed, command: str) -> None:
    shown = guest.run(f"google-guest {command}").stdout
    assert shown
    assert re.search(r"[\x00-\x08\x0b-\x1f\x7f]", shown) is None


@pytest.mark.parametrize("command", COMMANDS)
def test_json_is_one_document_and_nothing_else(guest: Bed, command: str) -> None:
    assert run_json(guest, command)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_broken_python_of_somebody_else_is_harmless(guest: Bed, command: str) -> None:
    guest.write("/usr/local/bin/python3", "#!/bin/sh\nexit 77\n", mode=0o755)
    guest.write("/usr/local/lib/python3.11/dist-packages/yaml.py", "raise SystemExit(78)\n")
    done = guest.run(f"PYTHONPATH=/nonexistent google-guest {command} --json", check=False)
    guest.path("/usr/local/bin/python3").unlink()
    guest.path("/usr/local/lib/python3.11/dist-packages/yaml.py").unlink()
    assert done.status == 0


@pytest.mark.parametrize("command", ["status", "config"])
def test_a_terminal_gets_columns_and_a_pipe_gets_tabs(guest: Bed, command: str) -> None:
    piped = guest.run(f"google-guest {command}").stdout
    shown = on_a_terminal(guest, command)
    assert "\t" in piped
    assert "\t" not in shown
    assert "\x1b[" in shown
    plain = re.sub(r"\x1b\[[0-9;]*m", "", shown).splitlines()
    head = next(line for line in plain if re.match("FEATURE|SECTION", line))
    rows = plain[plain.index(head) + 1 :][:5]
    starts = [match.start() for match in re.finditer(r"\S+(?: \S+)*", head)]
    # Where a column begins, every row has a gap before it.
    assert [row for row in rows for start in starts[1:3] if row[start - 1 : start] != " "] == []


def test_wrong_arguments_end_with_status_2(guest: Bed) -> None:
    assert guest.run("google-guest dance", check=False).status == 2


def test_an_ordinary_user_may_look_at_the_status(guest: Bed) -> None:
    shown = guest.run(["google-guest", "status"], user="ada").stdout
    assert "forwarded-addresses\ton" in shown


# status


def test_status_names_state_layer_and_last_change_of_every_feature(guest: Bed) -> None:
    shown = run_json(guest, "status")
    assert (shown["state"], shown["pid"]) == ("running", agent_service.main_pid(guest))
    rows = shown["features"]
    assert {name: row["state"] for name, row in rows.items() if row["state"] not in STATES} == {}
    assert [name for name, row in rows.items() if not (row["reason"] and row["layer"])] == []
    addresses = rows["forwarded-addresses"]
    assert f"add local route {VIP} on eth0" in addresses["changes"]
    assert addresses["last_change"] <= addresses["last_pass"]


def test_status_in_words_has_a_line_for_every_feature(guest: Bed) -> None:
    lines = guest.run("google-guest status").stdout.splitlines()
    assert re.match(r"google_guest_agent \d+\.\d+: running, ready, started .* ago", lines[0])
    rows = {line.split("\t")[0]: line.split("\t") for line in lines if "\t" in line}
    assert rows.keys() == run_json(guest, "status")["features"].keys()
    assert rows["accounts"][1:3] == ["on", "built-in: on by default"]
    assert re.fullmatch(r"\S.* \(\+\d+ more\)", rows["accounts"][3])
    assert rows["accounts"][4].endswith(" ago")


def test_status_of_a_stopped_agent_says_stopped(
    guest_debs: GuestDebs, bed: Callable[..., Bed]
) -> None:
    stopped = bed(debs=guest_debs, files=dict(SETTLED))
    stopped.run(["systemctl", "stop", AGENT])
    assert run_json(stopped, "status")["state"] == "stopped"
    assert "stopped, ready" in stopped.run("google-guest status").stdout


def test_status_of_a_killed_agent_says_stopped(
    guest_debs: GuestDebs, bed: Callable[..., Bed]
) -> None:
    drop_in = "[Service]\nRestart=no\n"
    files = {**SETTLED, f"/etc/systemd/system/{AGENT}.d/test.conf": drop_in}
    killed = bed(debs=guest_debs, files=files)
    killed.run(["kill", "-KILL", str(agent_service.main_pid(killed))])
    killed.wait_until(lambda: not agent_service.is_active(killed), what="the agent is gone")
    assert run_json(killed, "status")["state"] == "stopped"


# config, keys, version


def test_config_says_where_every_value_comes_from(guest: Bed) -> None:
    shown = run_json(guest, "config")
    origins = {(row["section"], row["key"]): row["origin"] for row in shown["settings"]}
    assert origins["Accounts", "groups"] == CONFIG
    assert origins["Accounts", "deprovision_remove"] == "built-in"
    assert any("Nonsense" in problem for problem in shown["problems"])


def test_keys_tells_the_accepted_from_the_expired(guest: Bed) -> None:
    rows = run_json(guest, "keys ada")["keys"]
    assert [(row["user"], row["accepted"]) for row in rows] == [("ada", True), ("ada", False)]
    assert "expired" in guest.run("google-guest keys ada").stdout


def test_keys_of_somebody_else_are_none(guest: Bed) -> None:
    assert run_json(guest, "keys nobody") == {"keys": []}


def test_every_program_tells_the_version_of_its_package(guest: Bed) -> None:
    shown = guest.run(["dpkg-query", "-W", "-f", "${Version}", "google-guest-agent"]).stdout
    version = shown.rpartition("-")[0]
    for program in (
        "google-guest version",
        "google-guest --version",
        "google_guest_agent --version",
    ):
        assert (program, guest.run(program).stdout.strip()) == (program, version)


# plan


@pytest.mark.parametrize(
    "command",
    ["plan", "plan --json", "apply --dry-run", "image-clean --dry-run --host-keys"],
)
def test_looking_ahead_changes_nothing(wanting: Bed, command: str) -> None:
    def state() -> dict[str, set[str]]:
        looks = {"files": FILES, "contents": CONTENTS, "kernel": KERNEL, "processes": PROCESSES}
        return {
            name: set(wanting.run(look, timeout=60, check=False).stdout.splitlines())
            for name, look in looks.items()
        }

    wanting.run("google-guest plan")
    before = state()
    wanting.run(f"google-guest {command}")
    after = state()
    assert {name: before[name] ^ after[name] for name in before} == {name: set() for name in before}


def test_plan_names_what_is_to_do_with_its_difference(wanting: Bed) -> None:
    shown = wanting.run("google-guest plan").stdout
    assert f"  * add local route {VIP} on eth0\n" in shown
    assert "  * create user ada" in shown
    assert "    +%google-sudoers ALL=(ALL:ALL) NOPASSWD:ALL\n" in shown
    assert "changes would be made; nothing was changed." in shown


def test_plan_of_one_feature_leaves_the_others_out(wanting: Bed) -> None:
    shown = run_json(wanting, "plan --feature accounts")
    assert [row["name"] for row in shown["features"]] == ["accounts"]


def test_plan_in_json_is_the_plan_in_words(wanting: Bed) -> None:
    words = wanting.run("google-guest plan").stdout
    for row in run_json(wanting, "plan")["features"]:
        for change in row["changes"]:
            assert f"  * {change['description']}\n" in words


def test_plan_on_an_instance_that_is_in_line_is_empty(guest: Bed) -> None:
    open_rows = {
        row["name"]: [change["description"] for change in row["changes"]]
        for row in run_json(guest, "plan")["features"]
        # A bed's /sys and /proc/sys are read-only.
        if row["changes"] and row["name"] not in ("io-scheduler", "overcommit")
    }
    assert open_rows == {}


def test_plan_for_a_tree_needs_no_server_and_changes_nothing(
    guest: Bed, guest_debs: GuestDebs
) -> None:
    guest.run("mkdir -p /srv/tree && cp -a /etc /srv/tree/etc && mkdir /srv/tree/home")
    guest.write("/srv/document.json", json.dumps(document(OTHER_VIP)))
    guest.run("sed -i /^ada:/d /srv/tree/etc/passwd /srv/tree/etc/shadow /srv/tree/etc/group")
    look = "find /srv/tree -printf '%p %y %m %T@ %l %s\\n' | sort"
    before, asked = guest.run(look).stdout, guest.mds.request_count
    shown = guest.run(
        "google-guest plan --root /srv/tree --metadata /srv/document.json", timeout=60
    ).stdout
    assert guest.run(look).stdout == before
    targets = [request.target for request in guest.mds.requests() if request.number > asked]
    # The running agent's own question may come round meanwhile.
    assert [target for target in targets if "wait_for_change" not in target] == []
    assert "create user ada" in shown
    assert OTHER_VIP not in shown
    guest.run("rm -r /srv/tree /srv/document.json")


# apply


def test_apply_leaves_the_work_to_a_running_agent(guest: Bed) -> None:
    done = guest.run("google-guest apply", check=False)
    assert done.status == 3
    assert "systemctl reload google-guest-agent" in done.stderr
    assert done.stdout == ""


def test_apply_does_what_plan_said_and_then_nothing_is_left(
    bed: Callable[..., Bed], guest_debs: GuestDebs
) -> None:
    drop_in = "[Unit]\nConditionPathExists=/nonexistent\n"
    files = {**SETTLED, f"/etc/systemd/system/{AGENT}.d/test.conf": drop_in}
    stopped = bed(debs=guest_debs, metadata=document(VIP), files=files)
    planned = changes_by_feature(run_json(stopped, "plan"))
    done = run_json(stopped, "apply")
    assert [row["failed"] for row in done["features"] if row["failed"]] == []
    applied = {row["name"]: row["applied"] for row in done["features"] if not row["skipped"]}
    assert applied["accounts"] == planned["accounts"] != []
    assert applied["forwarded-addresses"] == planned["forwarded-addresses"] != []
    assert KEY in stopped.path("/home/ada/.ssh/authorized_keys").read_text()
    left = changes_by_feature(run_json(stopped, "plan"))
    assert (left["accounts"], left["forwarded-addresses"]) == ([], [])


def changes_by_feature(plan: dict[str, Any]) -> dict[str, list[str]]:
    return {
        row["name"]: [change["description"] for change in row["changes"]]
        for row in plan["features"]
    }


# image-clean


def test_image_clean_lists_first_and_then_removes_what_it_listed(
    bed: Callable[..., Bed], guest_debs: GuestDebs
) -> None:
    running = bed(debs=guest_debs, metadata=document(VIP), files=dict(SETTLED))
    agent_service.await_first_passes(running)
    running.run(["systemctl", "stop", AGENT])
    listed = [row["description"] for row in run_json(running, "image-clean --dry-run")["changes"]]
    assert any("/etc/google_instance_id" in text for text in listed)
    done = run_json(running, "image-clean")
    assert [row["description"] for row in done["changes"]] == listed
    assert (done["applied"], done["failed"]) == (True, [])
    assert not running.path("/etc/google_instance_id").exists()
    assert running.path("/etc/ssh/ssh_host_ed25519_key").exists()
    again = run_json(running, "image-clean --dry-run")["changes"]
    assert again == []
