"""Names of OS Login in a booted instance: everything that asks the C library for users and groups.

The name service object is built as the package builds it and stands where the package installs it;
the cache is the project's own file; on the other end of its socket a script counts questions.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest
from support.bed import Bed
from support.commands import run_command
from unit.oslogin.nss.name_service import SOURCE, need

from oslogin import identity_cache
from oslogin.identities import Group, User

SERVICE = "nss-questions.service"

PEOPLE = [
    User(name=f"person{number}", uid=5000 + number, gid=5000 + number, home=home, shell="/bin/sh")
    for number, home in ((number, f"/home/person{number}") for number in range(300))
]
TEAM = Group(name="team", gid=7000, members=("person1", "person2"))

# Answers as the real service would; keeps what it was asked in a file.
QUESTIONS = """
import json, os, socket, struct
PATH = "/run/google-oslogin/nss.sock"
os.makedirs(os.path.dirname(PATH), exist_ok=True)
listener = socket.socket(socket.AF_UNIX)
listener.bind(PATH)
os.chmod(PATH, 0o666)
listener.listen(128)
text = lambda tag, value: struct.pack("<HH", tag, len(value) + 1) + value + b"\\0"
number = lambda tag, value: struct.pack("<HHI", tag, 4, value)
while True:
    connection, _ = listener.accept()
    request = connection.recv(4096)
    if not request:
        continue
    opcode, _, number_of = struct.unpack_from("<HHI", request, 8)
    value = request[20:].rstrip(b"\\0")
    with open("/run/questions", "a") as log:
        log.write(json.dumps([opcode, request[20:].hex()]) + "\\n")
    status, payload = 1, b""
    if opcode == 2 and value == b"outage":
        status = 2
    if (opcode, request[20:]) in ((2, b"remote\\0"), (3, struct.pack("<I", 6000))):
        status = 0
        payload = text(1, b"remote") + number(2, 6000) + number(3, 6000) + text(4, b"")
        payload += text(5, b"/home/remote") + text(6, b"/bin/sh")
    if opcode == 6 and value == b"remote":
        status, payload = 0, number(7, 2) + struct.pack("<HHII", 9, 8, 6000, 7000)
    header = struct.pack("<IHHI", len(payload), opcode | 0x8000, status, number_of)
    connection.sendall(b"GOL1" + header + payload)
    connection.close()
"""


class Instance(NamedTuple):
    """The bed, and what its script was asked."""

    guest: Bed

    def getent(self, database: str, key: str) -> str:
        """What getent prints; nothing when there is no such entry."""
        done = self.guest.run(["getent", "--", database, key], check=False)
        assert done.status in (0, 2), done.stderr
        return done.stdout

    def questions(self) -> list[tuple[int, str]]:
        """What was asked since the last call, and forgets it."""
        text = self.guest.run("cat /run/questions 2>/dev/null; rm -f /run/questions", check=False)
        return [tuple(json.loads(line)) for line in text.stdout.splitlines()]


@pytest.fixture(scope="module")
def instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Instance]:
    compiler = need("gcc")
    folder = run_command([compiler, "-print-multiarch"], purpose="name the libraries' folder")
    built = tmp_path_factory.mktemp("nss")
    command = [need("make"), "-s", "-C", str(SOURCE), f"OUT={built}", f"CC={compiler}"]
    run_command(command, purpose="build the name service object")
    with Bed("bookworm", packages=("nscd", "cron"), metadata=False) as guest:
        guest.run(
            "systemctl stop nscd.service nscd.socket; systemctl mask --runtime nscd.service",
            check=False,
        )
        for name in ("libnss_oslogin.so.2", "libnss_cache_oslogin.so.2"):
            shutil.copy(built / name, guest.path(f"/usr/lib/{folder.stdout.strip()}/{name}"))
        guest.run("sed -i -E 's/^(passwd|group):.*/& cache_oslogin oslogin/' /etc/nsswitch.conf")
        guest.run("mkdir -p -m 0755 /etc/oslogin")
        data = identity_cache.build(
            PEOPLE,
            [TEAM],
            {one.name: (one.gid, *((7000,) if one.name in TEAM.members else ())) for one in PEOPLE},
            generation=1,
            built_at=1700000000,
            flags=7,
        )
        cache = guest.path("/etc/oslogin/identity.v1.cache")
        cache.write_bytes(data)
        cache.chmod(0o644)
        guest.write("/usr/local/lib/questions.py", QUESTIONS)
        guest.write(
            f"/etc/systemd/system/{SERVICE}",
            "[Service]\nEnvironment=GOOGLE_OSLOGIN_NSS_BYPASS=1\n"
            "ExecStartPre=/bin/rm -rf /run/google-oslogin\n"
            "ExecStart=/usr/bin/python3 /usr/local/lib/questions.py\n",
        )
        guest.run("systemctl daemon-reload")
        yield Instance(guest)


@pytest.fixture
def asked(instance: Instance) -> Iterator[Instance]:
    """With the script on the socket."""
    instance.guest.run(f"systemctl start {SERVICE}")
    instance.guest.run(
        "timeout 5 sh -c 'until test -S /run/google-oslogin/nss.sock; do sleep 0.05; done'"
    )
    instance.questions()
    yield instance
    instance.guest.run(f"systemctl stop {SERVICE}")


def test_user_and_group_are_found_by_name_and_number(instance: Instance) -> None:
    line = "person7:*:5007:5007::/home/person7:/bin/sh\n"
    assert instance.getent("passwd", "person7") == line
    assert instance.getent("passwd", "5007") == line
    assert instance.getent("group", "team") == "team:x:7000:person1,person2\n"
    assert instance.getent("group", "7000") == "team:x:7000:person1,person2\n"
    assert instance.getent("group", "5007") == "person7:x:5007:person7\n"
    assert instance.getent("passwd", "__invalid_user__") == ""


def test_full_listing_has_local_and_os_login_users_once(instance: Instance) -> None:
    names = [line.split(":")[0] for line in instance.guest.run("getent passwd").stdout.split("\n")]
    assert {"root", "nobody", *(one.name for one in PEOPLE)} <= set(names)
    assert all(names.count(one.name) == 1 for one in PEOPLE)
    groups = instance.guest.run("getent group").stdout
    assert "\nteam:x:7000:person1,person2\n" in groups and groups.startswith("root:x:0:")


def test_id_has_every_group_of_a_user(instance: Instance) -> None:
    assert instance.guest.run("id -Gn person1").stdout.split() == ["person1", "team"]
    assert instance.guest.run("id -G person3").stdout.split() == ["5003"]
    assert instance.guest.run("id -Gn www-data").stdout.split() == ["www-data"]


def test_program_with_root_s_rights_serves_an_os_login_user(instance: Instance) -> None:
    assert instance.guest.run("su person1 -c 'id -un; id -Gn'").stdout == "person1\nperson1 team\n"
    assert instance.guest.run("sudo -u person2 id -un").stdout == "person2\n"
    # su is set-user-ID: what it finds as an ordinary user's child it finds as root.
    nested = instance.guest.run(
        ["su", "person1", "-c", "su person2 -c true </dev/null"], check=False
    )
    assert "does not exist" not in nested.stderr


def test_cron_runs_the_job_of_an_os_login_user(instance: Instance) -> None:
    """A job of the time of boot: cron runs it at once when its mark of this boot is gone."""
    instance.guest.write(
        "/etc/cron.d/person",
        "@reboot person1 id -un > /tmp/cron.new && mv /tmp/cron.new /tmp/cron\n",
    )
    instance.guest.run("rm -f /run/crond.reboot; systemctl restart cron")
    instance.guest.wait_until(
        lambda: instance.guest.run("cat /tmp/cron", check=False).stdout == "person1\n",
        30,
        "the job ran",
    )


def test_root_folder_without_cache_and_socket_answers_at_once(instance: Instance) -> None:
    instance.guest.run(
        "mkdir -p /srv/jail && for f in usr lib lib64 bin; do"
        " mkdir -p /srv/jail/$f && mount --bind -o ro /$f /srv/jail/$f; done;"
        " mkdir -p /srv/jail/etc && cp /etc/nsswitch.conf /etc/passwd /etc/group /srv/jail/etc"
    )
    try:
        script = "import time; s=time.time(); import pwd\n"
        script += "try: pwd.getpwnam('person1'); print('found')\n"
        script += "except KeyError: print(time.time() - s < 0.1)"
        done = instance.guest.run(["chroot", "/srv/jail", "/usr/bin/python3", "-c", script])
        assert done.stdout == "True\n"
    finally:
        instance.guest.run("umount /srv/jail/usr /srv/jail/lib /srv/jail/lib64 /srv/jail/bin")


def micros(instance: Instance, call: str, *, times: int = 200) -> float:
    """The median microseconds of a call in the guest, failures of lookups included."""
    script = f"""
import pwd, grp, os, time
took = []
for _ in range({times}):
    began = time.perf_counter()
    try: {call}
    except KeyError: pass
    took.append(time.perf_counter() - began)
print(sorted(took)[len(took) // 2] * 1e6)
"""
    return float(instance.guest.run(["/usr/bin/python3", "-c", script]).stdout)


def test_stopped_service_delays_nobody(
    instance: Instance, record_property: Callable[[str, object], None]
) -> None:
    for call in (
        "pwd.getpwnam('person77')",
        "pwd.getpwuid(5077)",
        "grp.getgrgid(7000)",
        "pwd.getpwnam('absent')",
        "pwd.getpwnam('root')",
        "os.getgrouplist('www-data', 33)",
    ):
        took = micros(instance, call)
        record_property(call, took)
        assert took < 1000, call


def test_user_of_the_service_is_found(
    asked: Instance, record_property: Callable[[str, object], None]
) -> None:
    assert asked.getent("passwd", "remote") == "remote:*:6000:6000::/home/remote:/bin/sh\n"
    assert asked.getent("passwd", "6000") == "remote:*:6000:6000::/home/remote:/bin/sh\n"
    assert asked.guest.run("id -G remote").stdout.split() == ["6000", "7000"]
    record_property("answer of the service, us", micros(asked, "pwd.getpwnam('remote')"))


def test_miss_costs_one_question(asked: Instance) -> None:
    assert asked.getent("passwd", "absent") == ""
    assert asked.questions() == [(2, b"absent\0".hex())]


def test_cached_local_and_impossible_names_cost_no_question(asked: Instance) -> None:
    for database, key in (
        ("passwd", "person1"),
        ("passwd", "root"),
        ("passwd", "*"),
        ("passwd", "-x"),
        ("passwd", "n" * 33),
        ("passwd", "0"),
        ("passwd", "65534"),
        ("group", "team"),
        ("group", "root"),
        ("initgroups", "www-data"),
        ("initgroups", "person1"),
    ):
        asked.getent(database, key)
    asked.guest.run("bash -c 'echo ~*; ls -d /root ~root' >/dev/null")
    assert asked.questions() == []


def test_outage_is_no_answer(asked: Instance) -> None:
    """The C library tells an outage from an absent user: EAGAIN."""
    script = (
        "import ctypes; c = ctypes.CDLL(None, use_errno=True); print(c.getpwnam(b'outage'),"
        " ctypes.get_errno())"
    )
    done = asked.guest.run(["/usr/bin/python3", "-c", script])
    assert done.stdout == "0 11\n"


def test_name_service_cache_daemon_answers_the_same(asked: Instance) -> None:
    """Last of all: nscd stays between the programs and the object from here on."""
    guest = asked.guest
    guest.run("systemctl unmask --runtime nscd.service; systemctl start nscd")
    try:
        for _ in range(2):
            assert asked.getent("passwd", "person7").startswith("person7:*:5007:")
            assert asked.getent("group", "team") == "team:x:7000:person1,person2\n"
            assert guest.run("id -G remote").stdout.split() == ["6000", "7000"]
            assert asked.getent("passwd", "absent") == ""
        assert guest.unit_property("nscd.service", "ActiveState") == "active"
    finally:
        guest.run("systemctl stop nscd.service nscd.socket", check=False)
