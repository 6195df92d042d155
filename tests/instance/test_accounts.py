"""Users and SSH keys from metadata in booted instances with the packages installed.

How lines are parsed and what is planned for whom is in ``tests/unit``; here are useradd, sudo,
sshd, the name service and the file systems of a real instance.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

import pytest
from support.bed import Bed
from support.commands import run_command
from support.documents import instance_document

if TYPE_CHECKING:
    from support.debs import GuestDebs

AGENT = "google-guest-agent.service"
CONFIG = "/etc/default/instance_configs.cfg"
STATE = "/var/lib/google/managed_users.json"
USER_LIST = "/var/lib/google/google_users"
SUDOERS = "/etc/sudoers.d/google_sudoers"
MARKER = "# Added by Google"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI" + "A" * 42 + "E"
OTHER = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI" + "A" * 42 + "I"
KEYS = "instance/attributes/ssh-keys"
Boot = Callable[..., Bed]


@pytest.fixture
def boot(bed: Any, guest_debs: GuestDebs) -> Boot:
    """Boot an instance with these key lines, attributes, configuration, files."""

    def booted(
        *lines: str,
        config: str = "",
        project: Optional[dict[str, str]] = None,
        files: Optional[dict[str, str]] = None,
        suite: str = "bookworm",
        **attributes: str,
    ) -> Bed:
        values = {name.replace("_", "-"): value for name, value in attributes.items()}
        if lines:
            values["ssh-keys"] = "\n".join(lines)
        document = instance_document(attributes=values, project_attributes=project)
        given = {CONFIG: config, **(files or {})}
        made = bed(suite, debs=guest_debs, metadata=document, files=given)
        assert isinstance(made, Bed)
        return made

    return booted


def keys_path(user: str) -> str:
    return f"/home/{user}/.ssh/authorized_keys"


def content(guest: Bed, user: str) -> str:
    path = guest.path(keys_path(user))
    return path.read_text() if path.is_file() else ""


def ours(*keys: str) -> str:
    return "".join(f"{MARKER}\n{key}\n" for key in keys)


def passwd(guest: Bed, user: str) -> Optional[list[str]]:
    for line in guest.path("/etc/passwd").read_text().splitlines():
        fields = line.split(":")
        if fields[0] == user:
            return fields
    return None


def groups_of(guest: Bed, user: str) -> set[str]:
    return {
        line.split(":")[0]
        for line in guest.path("/etc/group").read_text().splitlines()
        if user in line.split(":")[3].split(",")
    }


def set_keys(guest: Bed, *lines: str) -> None:
    guest.mds.set(KEYS, "\n".join(lines))


def await_keys(guest: Bed, user: str, expected: str, *, within: float = 10.0) -> None:
    guest.wait_until(
        lambda: content(guest, user) == expected,
        timeout=within,
        what=f"keys of {user} are {expected!r} and not {content(guest, user)!r}",
    )


def await_no_sudo(guest: Bed, user: str) -> None:
    guest.wait_until(
        lambda: "google-sudoers" not in groups_of(guest, user), what=f"{user} is no sudoer"
    )


def await_settled(guest: Bed, *users: str) -> None:
    def names() -> Optional[set[str]]:
        path = guest.path(STATE)
        return set(json.loads(path.read_text())["users"]) if path.is_file() else None

    guest.wait_until(lambda: names() == set(users), what=f"remembered: {users}, not {names()}")


def await_journal(guest: Bed, text: str, *, within: float = 10.0) -> None:
    guest.wait_until(
        lambda: text in guest.journal(AGENT), timeout=within, what=f"the journal says {text!r}"
    )


def add_user(guest: Bed, user: str, *options: str) -> None:
    guest.run(["useradd", "-m", "-s", "/bin/bash", "-p", "*", *options, user])


def write_keys(guest: Bed, user: str, text: str, *, mode: str = "600") -> None:
    guest.run(["install", "-d", "-m", "700", "-o", user, "-g", user, f"/home/{user}/.ssh"])
    guest.run(
        f"cat > {keys_path(user)}; chown {user}: {keys_path(user)}; chmod {mode} {keys_path(user)}",
        input=text,
    )


# Users.


def test_a_new_user_is_complete_when_the_agent_reports_ready(boot: Boot) -> None:
    guest = boot(f"bob:{KEY} c\r")
    account = passwd(guest, "bob")
    assert account is not None and account[6] == "/bin/bash"
    shadow = guest.path("/etc/shadow").read_text()
    assert "\nbob:*:" in shadow
    assert "google-sudoers" in groups_of(guest, "bob")
    assert content(guest, "bob") == f"{MARKER}\n{KEY} c\n"
    owner = (int(account[2]), int(account[3]))
    for path, mode in ((keys_path("bob"), 0o600), ("/home/bob/.ssh", 0o700)):
        facts = guest.path(path).stat()
        assert (stat.S_IMODE(facts.st_mode), facts.st_uid, facts.st_gid) == (mode, *owner)
    rule = guest.path(SUDOERS)
    assert rule.read_text() == "%google-sudoers ALL=(ALL:ALL) NOPASSWD:ALL\n"
    assert stat.S_IMODE(rule.stat().st_mode) == 0o440


@pytest.mark.parametrize("suite", ["bullseye", "bookworm", "trixie"])
def test_a_new_user_logs_in_and_becomes_root(boot: Boot, suite: str) -> None:
    guest = boot(suite=suite)
    key = guest.new_key()
    set_keys(guest, f"bob:{key.public}", f"First.Last:{key.public}")
    for user in ("bob", "First.Last"):
        await_keys(guest, user, ours(key.public))
        assert guest.ssh(user, key, "sudo -n id -u").stdout.strip() == "0"


def test_a_user_named_like_a_group_is_made_and_may_become_root(boot: Boot) -> None:
    guest = boot()
    guest.run(["groupadd", "-g", "116", "admin"])
    key = guest.new_key()
    set_keys(guest, f"admin:{key.public}")
    await_keys(guest, "admin", ours(key.public))
    assert guest.ssh("admin", key, "sudo -n id -u").stdout.strip() == "0"


NAMES_OF_NOBODY = ("#bob", "-x", "a b", "..", "123", "", "root;id", "$(id)", "a/../b", "x" * 33)


def test_bad_names_run_no_command_and_make_no_user(boot: Boot) -> None:
    noting = (
        '#!/bin/sh\necho "$(basename "$0") $*" >>/run/commands\nexec /usr/sbin/useradd -m "$1"\n'
    )
    guest = boot(config="[Accounts]\nuseradd_cmd = mk {user}\n")
    guest.write("/usr/local/bin/mk", noting, mode=0o755)
    before = guest.path("/etc/passwd").read_text()
    homes = guest.run("ls -A /home").stdout
    set_keys(guest, *(f"{name}:{KEY}" for name in NAMES_OF_NOBODY), f"good:{KEY}")
    await_keys(guest, "good", ours(KEY))
    assert guest.path("/run/commands").read_text() == "mk good\n"
    after = guest.path("/etc/passwd").read_text()
    assert [line.split(":")[0] for line in after[len(before) :].splitlines()] == ["good"]
    assert after.startswith(before)
    assert guest.run("ls -A /home").stdout == f"{homes}good\n"


def test_the_project_is_blocked_by_the_instance_only(boot: Boot) -> None:
    project = {"ssh-keys": f"ops:{KEY}", "block-project-ssh-keys": "TRUE"}
    guest = boot(project=project)
    assert passwd(guest, "ops") is not None
    guest.mds.set("instance/attributes/block-project-ssh-keys", "TRUE")
    await_keys(guest, "ops", "")
    assert passwd(guest, "ops") is not None


def test_obsolete_instance_keys_keep_the_project_out(boot: Boot) -> None:
    guest = boot(project={"ssh-keys": f"ops:{KEY}"}, sshKeys=f"bob:{KEY}")
    assert passwd(guest, "bob") is not None and passwd(guest, "ops") is None


def test_missing_groups_are_neither_made_nor_in_the_way(boot: Boot) -> None:
    guest = boot(f"bob:{KEY}", config="[Accounts]\ngroups = adm,nosuch\n")
    assert groups_of(guest, "bob") == {"adm", "google-sudoers"}
    assert "nosuch" not in guest.path("/etc/group").read_text()


def test_no_user_no_group_and_no_rule(boot: Boot) -> None:
    guest = boot()
    assert "google-sudoers" not in guest.path("/etc/group").read_text()
    assert not guest.path(SUDOERS).exists() and not guest.path(STATE).exists()


def test_an_edited_rule_survives_a_restart(boot: Boot) -> None:
    guest = boot(f"bob:{KEY}")
    guest.write(SUDOERS, "%google-sudoers ALL=(ALL:ALL) ALL\n", mode=0o440)
    guest.run(["systemctl", "restart", AGENT])
    assert guest.path(SUDOERS).read_text() == "%google-sudoers ALL=(ALL:ALL) ALL\n"


def test_a_template_is_run_without_a_shell(boot: Boot) -> None:
    script = '#!/bin/sh\nprintf "%s\\n" "$@" >/run/arguments\nexec useradd -m "$1"\n'
    guest = boot(config='[Accounts]\nuseradd_cmd = "mk {user} ; x"\n')
    guest.write("/usr/local/bin/mk", script, mode=0o755)
    set_keys(guest, f"bob:{KEY}")
    await_keys(guest, "bob", ours(KEY))
    assert guest.path("/run/arguments").read_text() == "bob\n;\nx\n"
    guest.wait_until(lambda: "google-sudoers" in groups_of(guest, "bob"), what="bob is a sudoer")


def test_a_home_that_outlived_its_account_gives_the_ids(boot: Boot) -> None:
    guest = boot(config="[Accounts]\nreuse_homedir = true\n")
    guest.run("install -d -o 1234 -g 1234 /home/bob")
    set_keys(guest, f"bob:{KEY}")
    await_keys(guest, "bob", ours(KEY))
    account = passwd(guest, "bob")
    assert account is not None and account[2:4] == ["1234", "1234"]
    assert "\nbob:x:1234:" in guest.path("/etc/group").read_text()


def test_one_user_s_failure_costs_that_user_and_is_tried_again(boot: Boot) -> None:
    script = '#!/bin/sh\n[ "$1" = alice ] && [ ! -e /run/works ] && exit 1\nexec useradd -m "$1"\n'
    guest = boot(config="[Accounts]\nuseradd_cmd = mk {user}\n")
    guest.write("/usr/local/bin/mk", script, mode=0o755)
    set_keys(guest, f"alice:{KEY}", f"bob:{KEY}")
    await_keys(guest, "bob", ours(KEY))
    assert passwd(guest, "alice") is None
    await_settled(guest, "bob")
    await_journal(guest, "user alice cannot be created")
    guest.run(["touch", "/run/works"])
    set_keys(guest, f"alice:{KEY}", f"bob:{KEY}", f"carol:{KEY}")
    await_keys(guest, "alice", ours(KEY))


BROKEN_MODULE = """
#include <errno.h>
#include <nss.h>
#include <pwd.h>
#include <string.h>
enum nss_status _nss_broken_getpwnam_r(const char *name, struct passwd *entry, char *buffer,
                                       size_t size, int *error)
{
    *error = strcmp(name, "carol") ? ENOENT : EIO;
    return strcmp(name, "carol") ? NSS_STATUS_NOTFOUND : NSS_STATUS_UNAVAIL;
}
"""


@pytest.mark.skipif(shutil.which("gcc") is None, reason="no C compiler")
def test_an_error_of_the_name_service_is_not_absence(boot: Boot, tmp_path: Path) -> None:
    source = tmp_path / "broken.c"
    source.write_text(BROKEN_MODULE)
    library = tmp_path / "libnss_broken.so.2"
    run_command(
        ["gcc", "-shared", "-fPIC", "-o", str(library), str(source)], purpose="make a name service"
    )
    guest = boot()
    folder = f"/usr/lib/{os.uname().machine}-linux-gnu"
    shutil.copy(library, guest.path(f"{folder}/libnss_broken.so.2"))
    guest.run("sed -i 's/^passwd:.*/passwd: files broken/' /etc/nsswitch.conf")
    set_keys(guest, f"carol:{KEY}", f"dave:{KEY}")
    await_keys(guest, "dave", ours(KEY))
    await_journal(guest, "user carol cannot be looked up")
    assert passwd(guest, "carol") is None


# Keys.


@pytest.mark.parametrize("own", ["", "# mine\n\n  own   key \n\n", "own key without end"])
def test_the_user_s_own_bytes_owner_and_mode_survive(boot: Boot, own: str) -> None:
    guest = boot()
    add_user(guest, "bob")
    write_keys(guest, "bob", own, mode="640")
    before = guest.path(keys_path("bob")).stat()
    set_keys(guest, f"bob:{KEY}")
    with_lf = own if not own or own.endswith("\n") else f"{own}\n"
    await_keys(guest, "bob", f"{with_lf}{ours(KEY)}")
    set_keys(guest)
    await_settled(guest)
    assert guest.path(keys_path("bob")).read_bytes() == own.encode()
    after = guest.path(keys_path("bob")).stat()
    assert (before.st_mode, before.st_uid, before.st_gid) == (
        after.st_mode,
        after.st_uid,
        after.st_gid,
    )


def test_an_expired_key_leaves_without_the_metadata_server(boot: Boot) -> None:
    guest = boot()
    end = time.strftime("%Y-%m-%dT%H:%M:%S+0000", time.gmtime(time.time() + 4))
    comment = f'google-ssh {{"userName":"b@example.com","expireOn":"{end}"}}'
    set_keys(guest, f"bob:{KEY} {comment}", f"bob:{OTHER}")
    await_keys(guest, "bob", ours(f"{KEY} {comment}", OTHER))
    guest.mds.offline()
    await_keys(guest, "bob", ours(OTHER), within=9.0)


def test_keys_in_another_order_write_nothing(boot: Boot) -> None:
    guest = boot(f"bob:{KEY}", f"bob:{OTHER}")
    before = guest.path(keys_path("bob")).stat()
    set_keys(guest, f"bob:{OTHER}", f"bob:{KEY}", f"bob:{OTHER}", f"eve:{KEY}")
    await_keys(guest, "eve", ours(KEY))
    await_settled(guest, "bob", "eve")
    after = guest.path(keys_path("bob")).stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_a_restart_with_unchanged_metadata_starts_and_writes_nothing(boot: Boot) -> None:
    guest = boot(*(f"user{number}:{KEY}" for number in range(5)))
    files = ["/etc/passwd", "/etc/group", STATE, USER_LIST, SUDOERS]
    files += [keys_path(f"user{number}") for number in range(5)]
    before = [guest.path(path).stat().st_mtime_ns for path in files]
    drop_in = "[Service]\nType=simple\nExecStart=\nExecStart=strace -f -e trace=execve -o /var/t "
    drop_in += "/usr/bin/google_guest_agent\n"
    guest.write(f"/etc/systemd/system/{AGENT}.d/trace.conf", drop_in)
    status = guest.path("/run/google-guest-agent/status.json")

    def last_success() -> float:
        row = json.loads(status.read_text())["features"].get("accounts", {})
        return float(row.get("last_success", 0))

    def pass_is_over() -> bool:
        return guest.path("/var/t").exists() and last_success() > earlier

    earlier = last_success()
    guest.run(["systemctl", "daemon-reload"])
    guest.run(["systemctl", "restart", AGENT])
    guest.wait_until(pass_is_over, what="the first pass is over")
    trace = guest.path("/var/t").read_text()
    programs = {line.split('"')[1].rpartition("/")[2] for line in trace.splitlines() if '"' in line}
    assert "google_guest_agent" in programs
    assert not programs & {"useradd", "usermod", "gpasswd", "getent", "restorecon", "systemctl"}
    assert not any("name_lookup" in line or "home_writer" in line for line in trace.splitlines())
    assert [guest.path(path).stat().st_mtime_ns for path in files] == before


# Hostile homes.


def test_links_and_pipes_in_homes_lead_nowhere(boot: Boot) -> None:
    guest = boot()
    for user in ("linkdir", "linkfile", "pipe", "planted"):
        add_user(guest, user)
    guest.run("install -d -m 700 /root/.ssh; echo precious > /root/.ssh/authorized_keys")
    shadow = guest.path("/etc/shadow").stat()
    guest.run("ln -s /root/.ssh /home/linkdir/.ssh", user="linkdir")
    guest.run("mkdir ~/.ssh; ln -s /etc/shadow ~/.ssh/authorized_keys", user="linkfile")
    guest.run("mkdir ~/.ssh; mkfifo ~/.ssh/authorized_keys", user="pipe")
    guest.run(
        "mkdir ~/.ssh; for n in google google-00 tmp; do"
        " ln -s /etc/shadow ~/.ssh/authorized_keys.$n; ln -s /etc/shadow"
        " ~/.ssh/.authorized_keys.$n; done",
        user="planted",
    )
    users = ("linkdir", "linkfile", "pipe", "planted", "good")
    set_keys(guest, *(f"{user}:{KEY}" for user in users))
    for user in ("planted", "good"):
        await_keys(guest, user, ours(KEY))
    for user in ("linkdir", "linkfile", "pipe"):
        await_journal(guest, f"keys of user {user} are left as they are")
    assert guest.path("/root/.ssh/authorized_keys").read_text() == "precious\n"
    assert os.listdir(guest.path("/root/.ssh")) == ["authorized_keys"]
    after = guest.path("/etc/shadow").stat()
    assert (after.st_uid, after.st_mode) == (shadow.st_uid, shadow.st_mode)
    assert KEY not in guest.path("/etc/shadow").read_text()
    assert stat.S_ISFIFO(guest.path(keys_path("pipe")).stat().st_mode)


def test_accounts_that_may_not_log_in_get_no_keys(boot: Boot) -> None:
    guest = boot()
    add_user(guest, "nologin", "-s", "/usr/sbin/nologin")
    guest.run(["useradd", "-M", "-d", "/nonexistent", "-s", "/bin/bash", "nowhere"])
    set_keys(guest, f"nologin:{KEY}", f"nowhere:{KEY}", f"good:{KEY}")
    await_keys(guest, "good", ours(KEY))
    assert not guest.path(keys_path("nologin")).exists()
    assert not guest.path("/nonexistent").exists()
    await_journal(guest, "user nowhere gets no keys: its home is /nonexistent")


# Users who leave.


def test_an_existing_user_keeps_account_and_lines(boot: Boot) -> None:
    guest = boot(config="[Accounts]\ndeprovision_remove = true\n")
    add_user(guest, "ubuntu")
    write_keys(guest, "ubuntu", "# mine\n")
    set_keys(guest, f"ubuntu:{KEY}", f"root:{KEY}")
    await_keys(guest, "ubuntu", f"# mine\n{ours(KEY)}")
    guest.wait_until(
        lambda: guest.path("/root/.ssh/authorized_keys").is_file(), what="root has keys"
    )
    assert "google-sudoers" not in groups_of(guest, "root")
    set_keys(guest)
    await_settled(guest)
    assert content(guest, "ubuntu") == "# mine\n"
    assert passwd(guest, "ubuntu") is not None and passwd(guest, "root") is not None
    assert not guest.path("/root/.ssh/authorized_keys").exists()
    assert "google-sudoers" not in groups_of(guest, "ubuntu")


def test_a_user_of_ours_stays_without_keys_and_sudo(boot: Boot) -> None:
    guest = boot(f"bob:{KEY}")
    set_keys(guest)
    await_settled(guest)
    assert passwd(guest, "bob") is not None and guest.path("/home/bob").is_dir()
    assert "google-sudoers" not in groups_of(guest, "bob")
    assert content(guest, "bob") == ""


def test_a_user_of_ours_is_deleted_on_request(boot: Boot) -> None:
    guest = boot(f"bob:{KEY}", config="[Accounts]\ndeprovision_remove = true\n")
    assert passwd(guest, "bob") is not None
    set_keys(guest)
    await_settled(guest)
    assert passwd(guest, "bob") is None and not guest.path("/home/bob").exists()


def test_a_user_with_a_session_loses_keys_and_sudo_at_once(boot: Boot) -> None:
    guest = boot(f"bob:{KEY}", config="[Accounts]\ndeprovision_remove = true\n")
    guest.run("systemd-run -q --unit=session --uid=bob sleep 600")
    set_keys(guest)
    await_keys(guest, "bob", "")
    await_no_sudo(guest, "bob")
    await_journal(guest, "user bob cannot be deleted")
    assert passwd(guest, "bob") is not None
    await_settled(guest, "bob")
    guest.run(["systemctl", "stop", "session"])
    guest.run(["systemctl", "restart", AGENT])
    await_settled(guest)
    assert passwd(guest, "bob") is None


def test_oslogin_that_was_switched_on_while_off_takes_effect_at_the_next_boot(boot: Boot) -> None:
    guest = boot(f"bob:{KEY}")
    assert content(guest, "bob") == ours(KEY)
    guest.poweroff()
    guest.mds.set("instance/attributes/enable-oslogin", "yes")
    guest.boot()
    assert content(guest, "bob") == ""
    assert "google-sudoers" not in groups_of(guest, "bob")
    guest.mds.set("instance/attributes/enable-oslogin", "no")
    await_keys(guest, "bob", ours(KEY))


def test_the_users_of_an_image_s_builder_are_left_alone(boot: Boot) -> None:
    guest = boot(f"bob:{KEY}", config="[Accounts]\ndeprovision_remove = true\n")
    groups = guest.path("/etc/group").read_text()
    guest.poweroff()
    with guest.mds.batch():
        guest.mds.set("instance/id", 99)
        guest.mds.set(KEYS, "")
    guest.boot()
    await_settled(guest)
    assert content(guest, "bob") == ours(KEY) and passwd(guest, "bob") is not None
    assert guest.path("/etc/group").read_text() == groups
    assert guest.journal(AGENT).count("this disk was made from its image") == 1


def test_the_list_of_google_s_agents_is_taken_over(boot: Boot) -> None:
    guest = boot(config="[Accounts]\ndeprovision_remove = true\n")
    add_user(guest, "old")
    write_keys(guest, "old", f"mine\n{ours(KEY)}")
    guest.write(USER_LIST, "old\n", mode=0o600)
    guest.run(["systemctl", "restart", AGENT])
    await_settled(guest)
    assert content(guest, "old") == "mine\n" and passwd(guest, "old") is not None
    assert guest.path(USER_LIST).read_text() == ""


def test_a_switched_off_module_touches_nothing(boot: Boot) -> None:
    guest = boot(f"bob:{KEY}", config="[Daemons]\naccounts_daemon = false\n")
    assert passwd(guest, "bob") is None and not guest.path(STATE).exists()


# Around it.


def test_sshd_is_started_when_it_does_not_run(boot: Boot) -> None:
    guest = boot()
    guest.run(["systemctl", "stop", "ssh"])
    set_keys(guest, f"bob:{KEY}")
    guest.wait_until(
        lambda: guest.run(["systemctl", "is-active", "ssh"], check=False).status == 0,
        what="sshd runs",
    )


def test_keys_are_served_by_the_command_when_sshd_asks_it(boot: Boot) -> None:
    drop_in = (
        "AuthorizedKeysCommand /usr/bin/google_metadata_authorized_keys %u\n"
        "AuthorizedKeysCommandUser nobody\n"
    )
    guest = boot(
        config="[Accounts]\nkeys_via_command = true\n",
        files={"/etc/ssh/sshd_config.d/keys.conf": drop_in},
    )
    key = guest.new_key()
    set_keys(guest, f"bob:{key.public}")
    guest.wait_until(lambda: passwd(guest, "bob"), what="bob exists")
    assert guest.ssh("bob", key, "sudo -n id -u").stdout.strip() == "0"
    assert not guest.path(keys_path("bob")).exists()
    guest.mds.set("instance/attributes/enable-oslogin", "true")
    assert guest.ssh("bob", key, check=False).status == 255


MEASURE = """
import json, resource, time
from google_guest.config import load_config
from google_guest.features import Inputs
from google_guest.features.linux import accounts
from google_guest.metadata.client import MetadataClient
from google_guest.metadata.tree import parse_metadata
from google_guest.system import System
system = System()
metadata = parse_metadata(MetadataClient().get_metadata().document)
before = time.process_time()
plan = accounts.plan(Inputs(metadata, load_config(system.files), system, time.time()))
seconds = time.process_time() - before
children = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([len(plan.changes), seconds, children.ru_utime + children.ru_stime]))
"""


def test_a_thousand_unchanged_users_cost_less_than_a_second_and_no_process(boot: Boot) -> None:
    users = [f"u{number}" for number in range(1000)]
    guest = boot()
    for file, lines in {
        "/etc/passwd": (f"{u}:x:{n}:{n}::/home/{u}:/bin/bash" for n, u in enumerate(users, 2000)),
        "/etc/group": (f"google-sudoers:x:990:{','.join(users)}",),
    }.items():
        with guest.path(file).open("a") as stream:
            stream.writelines(f"{line}\n" for line in lines)
    for number, user in enumerate(users, 2000):
        path = guest.path(keys_path(user))
        path.parent.mkdir(parents=True)
        path.write_text(ours(KEY))
        for entry in (path, path.parent, path.parent.parent):
            os.chown(entry, number, number)
    set_keys(guest, *(f"{user}:{KEY}" for user in users))
    await_settled(guest, *users)
    changes, seconds, children = json.loads(guest.run(["python3", "-c", MEASURE]).stdout)
    print(f"1000 unchanged users: {seconds:.3f} s CPU")
    assert changes == 0 and children == 0
    assert seconds < 1.0


def test_a_stop_among_many_new_users_is_quick_and_the_next_start_goes_on(boot: Boot) -> None:
    users = [f"u{number}" for number in range(150)]
    guest = boot()
    set_keys(guest, *(f"{user}:{KEY}" for user in users))
    guest.wait_until(lambda: passwd(guest, "u5"), what="some users are there")
    began = time.monotonic()
    guest.run(["systemctl", "stop", AGENT])
    seconds = time.monotonic() - began
    print(f"stopped within {seconds:.2f} s")
    assert passwd(guest, users[-1]) is None, "all users were there already"
    # Two seconds of the agent's own, and some for a busy host.
    assert seconds < 4
    guest.run(["systemctl", "start", AGENT], timeout=90)
    guest.wait_until(lambda: content(guest, users[-1]) == ours(KEY), timeout=60, what="the rest")
    await_settled(guest, *users)
    rows = json.loads(guest.path(STATE).read_text())["users"]
    assert all(row["created_by_agent"] for row in rows.values())


def test_a_read_only_etc_still_lets_existing_users_in(boot: Boot) -> None:
    guest = boot()
    add_user(guest, "ubuntu")
    guest.run("mount --bind /etc /etc && mount -o remount,bind,ro /etc")
    set_keys(guest, f"ubuntu:{KEY}", f"bob:{KEY}")
    await_keys(guest, "ubuntu", ours(KEY))
    await_journal(guest, "/etc is read-only: no account changes for bob, ubuntu")
    assert "cannot be created" not in guest.journal(AGENT)
