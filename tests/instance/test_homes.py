"""What the agent does below homes: as whom it writes there, and what a hostile user gets out of it.

The first half reads a system-call trace of an agent that makes a home, writes keys and takes them
away again; the second lets a user change everything below its home as fast as it can meanwhile.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pytest
from support import agent_service
from support.agent_service import AGENT, SETTLED
from support.bed import Bed
from support.debs import GuestDebs
from support.documents import instance_document

KEYS = "instance/attributes/ssh-keys"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHRlc3R0ZXN0dGVzdHRlc3R0ZXN0dGVzdHRlc3R0ZXN0 k"
OWN = "# mine\nown line\n"
PROGRAM = "/usr/bin/google_guest_agent"
DROP_IN = f"/etc/systemd/system/{AGENT}.d/trace.conf"
TRACES = "/var/tmp/traces"
WRITING = (
    "creat,mkdir,mkdirat,mknod,mknodat,rename,renameat,renameat2,link,linkat,symlink,symlinkat,"
    "unlink,unlinkat,rmdir,truncate,ftruncate,chmod,fchmod,fchmodat,chown,lchown,fchown,fchownat,"
    "utimensat,setxattr,lsetxattr,fsetxattr,removexattr,lremovexattr,fremovexattr"
)
TRACED = f"open,openat,{WRITING},execve,setuid,setreuid,setresuid"


def keys_path(user: str) -> str:
    return f"/home/{user}/.ssh/authorized_keys"


def content(guest: Bed, user: str) -> str:
    path = guest.path(keys_path(user))
    return path.read_text() if path.is_file() else ""


# As whom.


@dataclass(frozen=True)
class Call:
    """A successful system call that names something below a home."""

    uid: int
    text: str
    path: str
    relative: bool
    """By the descriptor of a directory that was opened before, or of the file itself."""

    @property
    def writes(self) -> bool:
        name = self.text.partition("(")[0]
        return name not in ("open", "openat") or bool(re.search("O_(WRONLY|RDWR|CREAT)", self.text))


def calls_below_homes(traces: Sequence[str]) -> list[Call]:
    """What the agent and its own processes did, out of one trace for each process."""
    found = []
    for trace in traces:
        uid = 0
        for line in trace.splitlines():
            call, _, result = line.rpartition(" = ")
            if result.startswith(("-1", "?")):
                continue
            if call.startswith("execve(") and not re.search(r'"[^"]*(google_guest|python3)', call):
                break  # a program of the platform from here on
            change = re.match(r"setres?uid\((?:\d+, )?(\d+)", call)
            if change:
                uid = int(change[1])
            path, relative = named_path(call)
            if re.match("/home/[^/]+/.", path):
                found.append(Call(uid, call, path, relative))
    return found


def named_path(call: str) -> tuple[str, bool]:
    """The path that a call changes or opens, and whether it hangs on a descriptor."""
    places = re.findall(r'(?:\d+|AT_FDCWD)<([^>]*)>|"([^"]*)"', call)
    folder = ""
    relative = False
    path = ""
    for descriptor, text in places:
        if descriptor:
            folder, relative, path = descriptor, "AT_FDCWD<" not in call, descriptor
        elif text.startswith("/"):
            path, relative = text, False
        else:
            path = f"{folder.rstrip('/')}/{text}"
    return path, relative


@pytest.fixture(scope="module")
def traced(guest_debs: GuestDebs) -> Iterator[tuple[Bed, list[Call]]]:
    """An instance whose agent worked in two homes, one of which it had to make first."""
    document = instance_document(attributes={"ssh-keys": f"bob:{KEY}"})
    with Bed(debs=guest_debs, metadata=document, files=dict(SETTLED)) as guest:
        guest.run(["systemctl", "stop", AGENT])
        guest.run("rm -r /home/bob && useradd -m -s /bin/bash -p '*' ubuntu")
        guest.run(f"mkdir ~/.ssh && printf '{OWN}' >{keys_path('ubuntu')}", user="ubuntu")
        command = f"/usr/bin/strace -ff -y -s 512 -o {TRACES}/t -e trace={TRACED} {PROGRAM}"
        guest.write(DROP_IN, f"[Service]\nNotifyAccess=all\nExecStart=\nExecStart={command}\n")
        guest.run(f"mkdir {TRACES} && systemctl daemon-reload")
        guest.mds.set(KEYS, f"bob:{KEY}\nubuntu:{KEY}")
        guest.run(["systemctl", "start", AGENT])
        guest.wait_until(lambda: KEY in content(guest, "ubuntu"), what="the keys are written")
        guest.mds.set(KEYS, "")
        guest.wait_until(lambda: content(guest, "ubuntu") == OWN, what="the keys are taken away")
        guest.wait_until(lambda: content(guest, "bob") == "", what="those of bob too")
        # Not the unit's main process: that is strace, which would only let go of the agent.
        guest.run(["kill", str(agent_service.status(guest)["pid"])])
        guest.wait_until(lambda: not agent_service.is_active(guest), what="the agent has ended")
        traces = [file.read_text(errors="replace") for file in guest.path(TRACES).iterdir()]
        yield guest, calls_below_homes(traces)


def uid_of(guest: Bed, user: str) -> int:
    return int(guest.run(["id", "-u", user]).stdout)


@pytest.mark.parametrize("user", ["bob", "ubuntu"])
def test_every_write_below_a_home_is_the_user_s(traced: tuple[Bed, list[Call]], user: str) -> None:
    guest, calls = traced
    writes = [call for call in calls if call.writes and call.path.startswith(f"/home/{user}/")]
    assert len(writes) > 5
    assert [call for call in writes if call.uid != uid_of(guest, user)] == []


def test_every_write_of_keys_goes_by_descriptor(traced: tuple[Bed, list[Call]]) -> None:
    writes = [call for call in traced[1] if call.writes and "/.ssh" in call.path]
    assert len(writes) > 10
    assert [call for call in writes if not call.relative] == []


def test_no_link_below_a_home_is_followed(traced: tuple[Bed, list[Call]]) -> None:
    opened = [call for call in traced[1] if call.text.startswith("open") and "/.ssh" in call.path]
    assert len(opened) > 5
    assert [call for call in opened if "O_NOFOLLOW" not in call.text] == []


def test_a_made_home_belongs_to_its_user_alone(traced: tuple[Bed, list[Call]]) -> None:
    guest = traced[0]
    shown = guest.run("stat -c '%a %U %G' /home/bob; find /home/bob ! -user bob").stdout
    assert shown == "750 bob bob\n"


# A hostile user.


ATTACK = r"""
import itertools, os, random
os.chdir(os.path.expanduser("~"))
chance = random.Random(4815)
TARGETS = ["/root/.ssh", "/etc", "/home/good/.ssh", "parked", "/nonexistent", "."]
FILES = ["/etc/shadow", "/root/.ssh/authorized_keys", "/home/good/.ssh/authorized_keys", "x"]

def swap_directory():
    os.rename(".ssh", "parked")
    os.symlink(chance.choice(TARGETS), ".ssh")
    os.unlink(".ssh")
    os.rename("parked", ".ssh")

def link_file():
    os.symlink(chance.choice(FILES), ".ssh/new")
    os.rename(".ssh/new", ".ssh/authorized_keys")

def hard_link_file():
    os.link(chance.choice(["/etc/passwd", "/etc/hostname", ".bashrc"]), ".ssh/new")
    os.rename(".ssh/new", ".ssh/authorized_keys")

def pipe():
    os.mkfifo(".ssh/new")
    os.rename(".ssh/new", ".ssh/authorized_keys")

def plain():
    with open(".ssh/new", "w") as file:
        file.write("own\n")
    os.rename(".ssh/new", ".ssh/authorized_keys")

def plant():
    for name in os.listdir(".ssh"):
        if name.startswith(".authorized_keys"):
            os.unlink(".ssh/" + name)
            os.symlink("/etc/shadow", ".ssh/" + name)

def chaos():
    os.chmod(".ssh", chance.choice([0o000, 0o777, 0o700]))

MOVES = [swap_directory] * 4 + [link_file, hard_link_file, pipe, plain, plant, chaos]
for number in itertools.count():
    if number % 1000 == 0:
        with open("rounds", "w") as file:
            file.write(str(number))
    try:
        os.makedirs(".ssh", exist_ok=True)
        chance.choice(MOVES)()
    except OSError:
        for path in ("parked", ".ssh"):
            try:
                os.unlink(path) if os.path.islink(path) else os.rmdir(path)
            except OSError:
                pass
"""
PRECIOUS = (
    "sha256sum /etc/shadow /etc/passwd /etc/hostname /root/.ssh/*"
    "; stat -c '%n %a %U %G %i' /etc /etc/shadow /etc/passwd /etc/hostname /root/.ssh /root/.ssh/*"
    "; ls -A /root/.ssh /etc/ssh"
)


def test_a_user_who_swaps_everything_meanwhile_reaches_nothing(
    bed: Callable[..., Bed], guest_debs: GuestDebs
) -> None:
    guest = bed(debs=guest_debs, metadata=instance_document(), files=dict(SETTLED))
    guest.run("useradd -m -s /bin/bash -p '*' eve; useradd -m -s /bin/bash -p '*' good")
    guest.run("install -d -m 700 /root/.ssh && echo precious >/root/.ssh/authorized_keys")
    guest.mds.set(KEYS, f"eve:{KEY}\ngood:{KEY}")
    guest.wait_until(lambda: KEY in content(guest, "good"), what="the keys are written")
    guest.wait_until(lambda: "eve" in guest.run("id -nG eve").stdout, what="eve is a sudoer")
    before = guest.run(PRECIOUS).stdout
    guest.write("/usr/local/lib/attack.py", ATTACK)
    guest.run("systemd-run -q --unit=attack --uid=eve python3 /usr/local/lib/attack.py")
    rounds = guest.path("/home/eve/rounds")
    guest.wait_until(rounds.exists, what="the attack has begun")
    for number in range(12):
        guest.mds.set(KEYS, f"eve:{KEY}{number}\neve:{KEY}\ngood:{KEY}{number}")
        line = f"{KEY}{number}"
        guest.wait_until(
            lambda line=line: line in content(guest, "good"), what="another user is not held up"
        )
    guest.run(["systemctl", "stop", "attack"])
    assert int(rounds.read_text()) > 0
    assert guest.run(PRECIOUS).stdout == before
    assert content(guest, "good") == f"# Added by Google\n{KEY}11\n"
    assert agent_service.is_active(guest) and agent_service.traces(guest) == []
    guest.run("chmod -f 700 ~/.ssh ~/parked; rm -rf ~/.ssh ~/parked", user="eve")
    guest.mds.set(KEYS, f"eve:{KEY}")
    guest.wait_until(
        lambda: content(guest, "eve") == f"# Added by Google\n{KEY}\n",
        what="the user gets keys when the home is in order",
    )
