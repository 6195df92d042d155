"""The object as it is shipped: what it exports, imports and weighs; other checkers; fuzzing."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from unit.oslogin.nss.cache_files import (
    CachedGroup,
    cache_file,
    group_payload,
    self_groups,
    user,
    user_payload,
)
from unit.oslogin.nss.name_service import HERE, SOURCE, WARNINGS, Driver, need

FUNCTIONS = (
    *("getpwnam_r", "getpwuid_r", "getpwent_r", "setpwent", "endpwent"),
    *("getgrnam_r", "getgrgid_r", "getgrent_r", "setgrent", "endgrent", "initgroups_dyn"),
)
FUZZ_SECONDS = int(os.environ.get("OSLOGIN_FUZZ_SECONDS", "4"))


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of what the package installs, stripped."""
    out = tmp_path_factory.mktemp("object")
    need("gcc")
    command = [need("make"), "-s", "-C", str(SOURCE), f"OUT={out}", "CC=gcc"]
    subprocess.run([*command, "CFLAGS=-O2 -g"], check=True)
    subprocess.run([need("strip"), str(out / "libnss_oslogin.so.2")], check=True)
    return out


def readelf(shipped: Path, *options: str) -> str:
    command = [need("readelf"), "-W", *options, str(shipped / "libnss_oslogin.so.2")]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def symbols(shipped: Path) -> tuple[set[str], set[str]]:
    """What the object exports and what it imports."""
    exported, imported = set(), set()
    for line in readelf(shipped, "--dyn-syms").splitlines():
        found = re.match(r"\s*\d+: \w+\s+\d+ \w+\s+(\w+)\s+\w+\s+(\w+) ([^@\s]+)", line)
        if found and found[2] == "UND":
            imported.add(found[3])
        elif found:
            exported.add(found[3])
    return exported, imported


def test_object_needs_libc_only(shipped: Path) -> None:
    dynamic = readelf(shipped, "-d")
    assert re.findall(r"NEEDED.*\[(.*)\]", dynamic) == ["libc.so.6"]


def test_object_bears_its_name_and_stays_loaded(shipped: Path) -> None:
    dynamic = readelf(shipped, "-d")
    assert re.findall(r"SONAME.*\[(.*)\]", dynamic) == ["libnss_oslogin.so.2"]
    assert re.search(r"FLAGS_1.*NOW.*NODELETE", dynamic)
    assert "GNU_RELRO" in readelf(shipped, "-l")
    assert "TEXTREL" not in dynamic


def test_object_exports_the_functions_of_both_services(shipped: Path) -> None:
    expected = {f"_nss_{name}_{one}" for name in ("oslogin", "cache_oslogin") for one in FUNCTIONS}
    assert symbols(shipped)[0] == expected


def test_object_imports_no_allocator_and_no_stream(shipped: Path) -> None:
    """realloc enlarges glibc's array of gids, as the interface of initgroups_dyn demands."""
    imported = symbols(shipped)[1]
    forbidden = re.compile(r"malloc|calloc|free|mmap|brk|f?open$|f?printf|pthread_mutex|^getenv")
    assert {name for name in imported if forbidden.search(name)} <= {"open"}
    assert {"realloc", "pread64", "secure_getenv", "getsockopt"} <= imported | {"pread64"}


def test_object_is_small(shipped: Path) -> None:
    assert (shipped / "libnss_oslogin.so.2").stat().st_size < 64 * 1024


def test_other_service_is_the_same_object(shipped: Path) -> None:
    assert os.readlink(shipped / "libnss_cache_oslogin.so.2") == "libnss_oslogin.so.2"


def test_clang_has_no_complaint(tmp_path: Path) -> None:
    sources = [str(path) for path in sorted(SOURCE.glob("*.c"))]
    command = [need("clang"), *WARNINGS, "-Wconversion", "-Wshadow", "-O2", "-fPIC", "-shared"]
    subprocess.run([*command, *sources, "-o", str(tmp_path / "object")], check=True)


FREEBSD = """
#include <errno.h>
#include <grp.h>
#include <nss.h>
#include <poll.h>
#include <pthread.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>
#define __FreeBSD__ 14
typedef struct {
    const char *database, *name;
    int (*method)(void *, void *, __builtin_va_list);
    void *mdata;
} ns_mtab;
typedef void (*nss_module_unregister_fn)(ns_mtab *, unsigned int);
#define NSS_METHOD_PROTOTYPE(name) int name(void *, void *, __builtin_va_list)
#define NSDB_PASSWD "passwd"
#define NSDB_GROUP "group"
ns_mtab *nss_module_register(const char *, unsigned int *, nss_module_unregister_fn *);
int issetugid(void);
int getpeereid(int, uid_t *, gid_t *);
"""


def test_freebsd_gets_a_table_of_both_databases(tmp_path: Path) -> None:
    """With declarations as in FreeBSD's nsswitch.h and unistd.h; the code after them is ours."""
    (tmp_path / "nsswitch.h").write_text("")
    (tmp_path / "declared.h").write_text(FREEBSD)
    sources = [str(path) for path in sorted(SOURCE.glob("*.c"))]
    command = [need("gcc"), *WARNINGS, "-fsyntax-only", f"-I{tmp_path}"]
    subprocess.run([*command, "-include", str(tmp_path / "declared.h"), *sources], check=True)
    text = (SOURCE / "freebsd.inc").read_text()
    listed = set(re.findall(r"METHOD\((NSDB_\w+), prefix, (\w+)\)", text))
    assert {(database, name) for database, name in listed} == {
        ("NSDB_PASSWD" if "pw" in one else "NSDB_GROUP", one)
        for one in FUNCTIONS
        if one != "initgroups_dyn"
    }


def test_valgrind_finds_nothing(
    build: Callable[[str], Path], cache: Callable[[bytes], None]
) -> None:
    checked = [need("valgrind"), "-q", "--error-exitcode=9", "--leak-check=full"]
    users = [user(f"u{place}", 2000 + place, (3000, 3001)) for place in range(50)]
    cache(cache_file(users, [*self_groups(users), CachedGroup("devs", 3000, ("u1", "u2"))]))
    driver = Driver([*checked, "--track-fds=no", str(build("plain"))])
    for service in ("oslogin", "cache_oslogin"):
        for size in (0, 1, 20, 40, 400):
            for function, argument in (("pwnam", "u7"), ("pwuid", 2049), ("grnam", "devs")):
                driver.ask(function, argument, size, service)
        driver.ask("groups", "u3,1,0,1", 0, service)
        driver.ask("pwent", "", 100, service)
        driver.ask("pwnam", "absent", 100, service)
    driver.close()


def fuzz(target: Path, corpus: Path, log: Path) -> None:
    command = [str(target), f"-max_total_time={FUZZ_SECONDS}", "-max_len=4096", "-timeout=10"]
    with log.open("w") as out:
        done = subprocess.run(
            [*command, f"-artifact_prefix={log.parent}/", str(corpus)],
            stderr=out,
            cwd=log.parent,
            timeout=FUZZ_SECONDS + 60,
            check=False,
        )
    text = log.read_text(errors="replace")
    assert done.returncode == 0, text[-2000:]
    runs = re.search(r"Done (\d+) runs", text)
    assert runs and int(runs[1]) > 100


def fuzzer(tmp_path: Path, *arguments: str) -> Path:
    target = tmp_path / "fuzzer"
    command = [need("clang"), *WARNINGS, "-O1", "-g", f"-I{SOURCE}"]
    command += ["-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=all"]
    subprocess.run([*command, *arguments, "-o", str(target)], check=True)
    return target


def test_no_cache_file_breaks_the_reader(tmp_path: Path) -> None:
    sources = [str(path) for path in sorted(SOURCE.glob("*.c"))]
    declared = tmp_path / "declared.h"
    declared.write_text("extern char fuzz_cache_file[64];\n")
    options = [f"-include{declared}", "-DOSLOGIN_CACHE_FILE=fuzz_cache_file"]
    options += [f"-DOSLOGIN_TRUSTED_UID={os.geteuid()}"]
    target = fuzzer(tmp_path, *options, str(HERE / "fuzz_cache.c"), *sources)
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    users = [user("alice", 2000, (3000, 2000)), user("bob", 2001), user("carol.d", 2002)]
    groups = [*self_groups(users), CachedGroup("devs", 3000, ("alice", "bob"))]
    for place in range(4):
        (corpus / str(place)).write_bytes(cache_file(users[:place], groups[:place]))
    (corpus / "whole").write_bytes(cache_file(users, groups))
    fuzz(target, corpus, tmp_path / "log")


def test_no_reply_breaks_the_client(tmp_path: Path) -> None:
    sources = [str(path) for path in sorted(SOURCE.glob("*.c")) if path.name != "connection.c"]
    target = fuzzer(tmp_path, str(HERE / "fuzz_reply.c"), *sources)
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for place, (opcode, payload) in enumerate(
        [
            (2, user_payload()),
            (3, user_payload()),
            (4, group_payload("alice", 2000, ["alice", "bob"])),
            (5, group_payload("alice", 2000, ["alice", "bob"])),
            (6, b"\7\0\4\0\2\0\0\0\x09\0\x08\0\xb8\x0b\0\0\xb9\x0b\0\0"),
        ]
    ):
        header = (
            b"GOL1" + len(payload).to_bytes(4, "little") + bytes([opcode, 0x80, 0, 0, 4, 3, 2, 1])
        )
        (corpus / str(place)).write_bytes(
            bytes([0xF8 | place if place < 4 else 0xFC]) + header + payload
        )
    fuzz(target, corpus, tmp_path / "log")
