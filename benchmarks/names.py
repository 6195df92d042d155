"""Figures of OS Login: names, groups, keys and logins, of ours and of Debian's package.

Each function measures one instance in which OS Login is in force. Lookups are timed inside one
process of the instance, so that the start of a program is not part of them; helpers and logins are
timed whole, as sshd and people meet them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from support.bed import Bed
from support.guest import Key

TOP = Path(__file__).resolve().parents[1]
ENUMERATED = 50_000
FIRST_UID = 100_000
USER = "ada"
TEAM = "team"
SERVED = 100
_LOOKUPS = 200
_CACHES = ("/etc/oslogin/identity.v1.cache", "/etc/oslogin_passwd.cache")

_LOOK_UP = """
import grp, json, pwd, statistics, sys, time
kind, names = sys.argv[1], json.load(sys.stdin)
ask = grp.getgrnam if kind == "group" else pwd.getpwnam
pwd.getpwnam("root"); grp.getgrnam("root")
took, found = [], 0
for name in names:
    began = time.perf_counter()
    try:
        ask(name)
        found += 1
    except KeyError:
        pass
    took.append(time.perf_counter() - began)
print(json.dumps([statistics.median(took), found]))
"""

_ENUMERATE = """
import json, pwd, time
began = time.perf_counter()
count = len(pwd.getpwall())
print(json.dumps([time.perf_counter() - began, count]))
"""

_GROW = """
import json, os, pwd
def used():
    with open("/proc/self/smaps_rollup") as file:
        pages = {line.split()[0]: line.split()[1] for line in file if line.startswith("P")}
    with open("/proc/self/maps") as file:
        objects = {line.split()[-1] for line in file if ".so" in line}
    return int(pages["Pss:"]), objects
pwd.getpwnam("root")
before, loaded = used()
pwd.getpwnam("ada")
after, now = used()
added = sorted(os.path.basename(path) for path in now - loaded)
print(json.dumps([after - before, [name for name in added if not name.startswith("libnss_")]]))
"""

_WRITE = """
import json, resource, sys, tempfile, time
sys.path[:0] = [sys.argv[1]]
from oslogin import identity_cache
from oslogin.identities import User
users = [
    User(name=f"u{n}", uid=100000 + n, gid=100000 + n, home=f"/home/u{n}", shell="/bin/bash")
    for n in range(int(sys.argv[2]))
]
began = time.perf_counter()
data = identity_cache.build(users, (), generation=1, built_at=0, flags=1)
with tempfile.TemporaryDirectory() as folder:
    identity_cache.publish(f"{folder}/cache", data)
took = time.perf_counter() - began
print(json.dumps([took, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]))
"""


def prepare(bed: Bed, key: Key, count: int = 0) -> None:
    """Fill the directory (``ada``, her group and ``count`` further users); wait for OS Login."""
    users: list[dict[str, object]] = [
        {"username": USER, "uid": 20_000, "keys": [{"key": key.public}], "admin": True}
    ]
    users += [{"username": f"u{number}", "uid": FIRST_UID + number} for number in range(count)]
    groups = [{"name": TEAM, "gid": 30_000, "members": [USER]}]
    # Debian's does not encode the tokens of pages.
    bed.mds.set_oslogin({"users": users, "groups": groups, "plain_tokens": True})
    bed.mds.set("instance/attributes/enable-oslogin", "TRUE")
    bed.wait_until(
        lambda: "oslogin" in bed.path("/etc/nsswitch.conf").read_text(), 60, "OS Login is in force"
    )
    bed.wait_until(
        lambda: bed.run(["getent", "passwd", USER], check=False).status == 0, 60, "ada is known"
    )
    caches = [bed.path(path) for path in _CACHES]
    bed.wait_until(lambda: any(path.exists() for path in caches), 120, "there is a cache")


def refresh(bed: Bed) -> float:
    """Write the cache of all users; return the seconds that the program took."""
    began = time.monotonic()
    bed.run("/usr/bin/google_oslogin_nss_cache", timeout=300)
    return time.monotonic() - began


def served_names(run: int) -> list[str]:
    """Return names of the directory that nobody has asked for before this run."""
    return [f"u{number}" for number in range(run * SERVED, (run + 1) * SERVED)]


def spread_names(count: int) -> list[str]:
    """Return names from everywhere in a directory of ``count`` users."""
    return [f"u{number}" for number in range(0, count, count // _LOOKUPS)]


def forget(bed: Bed) -> None:
    """Remove the caches of either package."""
    bed.run("rm -f /etc/oslogin_passwd.cache* /etc/oslogin_group.cache* /etc/oslogin/*.cache")


def lookup_ms(bed: Bed, names: Sequence[str], *, kind: str = "user", found: int = -1) -> float:
    """Look the names up in one process; return the median in milliseconds.

    Raises:
        RuntimeError: another number of them than ``found`` was known.
    """
    done = bed.run(
        ["python3", "-IS", "-c", _LOOK_UP, kind], input=json.dumps(list(names)), timeout=600
    )
    median, known = json.loads(done.stdout)
    if found not in (-1, known):
        raise RuntimeError(f"{known} of {found} names were found")
    return float(median) * 1000


def repeated(name: str) -> list[str]:
    """Return one name as often as a figure's lookups need it."""
    return [name] * _LOOKUPS


def requests_of_misses(bed: Bed, name: str) -> int:
    """Look a name up that nobody has; return how many requests its second to tenth time cost."""
    lookup_ms(bed, [name])
    bed.mds.clear_requests()
    lookup_ms(bed, [name] * 9)
    return sum("oslogin" in request.path for request in bed.mds.requests())


def enumeration_seconds(bed: Bed, *, at_least: int) -> float:
    """List all users; return the seconds.

    Raises:
        RuntimeError: there were fewer than ``at_least``.
    """
    took, count = json.loads(bed.run(["python3", "-IS", "-c", _ENUMERATE], timeout=600).stdout)
    if count < at_least:
        raise RuntimeError(f"{count} of {at_least} users were listed")
    return float(took)


def growth_of_a_process(bed: Bed) -> tuple[float, list[str]]:
    """Return the KiB that a lookup adds to a process, and the libraries that it drags in."""
    kib, libraries = json.loads(bed.run(["python3", "-IS", "-c", _GROW]).stdout)
    return float(kib), list(libraries)


def helper_ms(bed: Bed) -> float:
    """Return the milliseconds of ``google_authorized_keys ada``, as its caller sees them."""
    code = (
        "import subprocess, time\n"
        "began = time.perf_counter()\n"
        "done = subprocess.run(['/usr/bin/google_authorized_keys', 'ada'], capture_output=True)\n"
        "took = time.perf_counter() - began\n"
        "assert done.stdout, done\n"
        "print(took)\n"
    )
    return float(bed.run(["python3", "-IS", "-c", code], timeout=60).stdout) * 1000


def login_ms(bed: Bed, key: Key) -> float:
    """Return the milliseconds of an ssh login that runs ``true``."""
    began = time.monotonic()
    bed.ssh(USER, key, "true")
    return (time.monotonic() - began) * 1000


def object_kib(bed: Bed) -> float:
    """Return the size of the objects that serve names, in KiB (a link counts nothing)."""
    script = "find /usr/lib /lib/ -name 'libnss*oslogin*' -type f -printf '%i %s\\n' | sort -u"
    return sum(int(line.split()[1]) for line in bed.run(script).stdout.splitlines()) / 1024


def write_figures() -> tuple[float, float]:
    """Build and publish a cache of 50,000 users here; return seconds and peak memory in MiB."""
    done = subprocess.run(
        [sys.executable, "-c", _WRITE, str(TOP / "src"), str(ENUMERATED)],
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        check=True,
        capture_output=True,
        text=True,
    )
    took, peak = json.loads(done.stdout)
    return float(took), float(peak)
