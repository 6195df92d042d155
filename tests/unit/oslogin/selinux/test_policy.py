"""The SELinux policy: it builds, names what OS Login has, and allows what it should alone."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from support.tiers import in_ci

from oslogin import paths

SOURCE = Path(__file__).resolve().parents[4] / "src" / "oslogin" / "selinux"
RULES = (SOURCE / "google_oslogin.te").read_text()
CONTEXTS = (SOURCE / "google_oslogin.fc").read_text()


def need(program: str) -> str:
    path = shutil.which(program)
    if path is None:
        if in_ci():
            pytest.fail(f"this test needs {program}", pytrace=False)
        pytest.skip(f"this test needs {program}")
    return path


def allowed() -> list[tuple[set[str], set[str], str, set[str]]]:
    """(who, whose, class, permissions) of each rule."""
    names = r"(\{[^}]*\}|\w+)"
    found = re.findall(rf"^\s*allow {names} {names}:(\w+) {names};", RULES, re.MULTILINE)
    assert len(found) == len(re.findall(r"^\s*allow ", RULES, re.MULTILINE))
    words = [[set(part.strip("{} ").split()) for part in rule] for rule in found]
    return [(who, whose, kind.pop(), may) for who, whose, kind, may in words]


def label_of(path: str) -> str:
    """The type that the file contexts give a path: of the longest pattern that matches."""
    best = ("", "")
    for line in CONTEXTS.splitlines():
        pattern, context = line.split()[0], line.split()[-1]
        if re.fullmatch(pattern, path) and len(pattern) > len(best[0]):
            best = (pattern, context.split(":")[2])
    return best[1]


@pytest.mark.parametrize("version", ["17", "19", "21"])
def test_policy_builds_for_old_and_new_targets(tmp_path: Path, version: str) -> None:
    need("checkmodule")
    need("semodule_package")
    command = [need("make"), "-C", str(SOURCE), f"OUT={tmp_path}", f"MODULE_VERSION={version}"]
    subprocess.run(command, check=True, capture_output=True)
    contexts = tmp_path / "contexts"
    unpack = [need("semodule_unpackage"), str(tmp_path / "oslogin.pp")]
    subprocess.run([*unpack, str(tmp_path / "module"), str(contexts)], check=True)
    assert contexts.read_text() == CONTEXTS


@pytest.mark.parametrize(
    ("path", "label"),
    [
        ("/usr/libexec/google-oslogind", "google_oslogin_exec_t"),
        (paths.RUNTIME_FOLDER, "google_oslogin_run_t"),
        (paths.NSS_SOCKET, "google_oslogin_run_t"),
        (paths.AUTH_SOCKET, "google_oslogin_auth_run_t"),
        (f"{paths.USERS_FOLDER}/ada", "google_t"),
        (f"{paths.SUDOERS_FOLDER}/ada", "google_t"),
        (f"{paths.RUNTIME_SUDOERS_FOLDER}/ada", "google_t"),
        (paths.CACHE_FILE, "etc_t"),
        ("/etc/ssh/oslogin_trustedca.pub", "sshd_key_t"),
    ],
)
def test_every_path_has_its_label(path: str, label: str) -> None:
    assert label_of(path) == label


def test_service_alone_connects_to_the_metadata_server() -> None:
    rules = [who for who, _, _, may in allowed() if "name_connect" in may]
    assert rules == [{"google_oslogin_t"}]


def test_service_alone_writes_who_may_log_in() -> None:
    writing = {"write", "create", "append", "unlink", "rename", "add_name", "remove_name"}
    rules = [who for who, whose, _, may in allowed() if "google_t" in whose and may & writing]
    assert rules == [{"google_oslogin_t"}] * 2


def test_socket_for_decisions_is_for_those_who_let_users_in() -> None:
    users = {
        name
        for who, whose, kind, may in allowed()
        if "google_oslogin_auth_run_t" in whose and kind == "sock_file" and "write" in may
        for name in who
    }
    service = {"init_t", "google_oslogin_t"}
    assert users - service == {"sshd_t", "sshd_session_t", "sudodomain", "su_domain_type"}


def test_whoever_uses_the_name_service_reaches_its_socket() -> None:
    rules = [(whose, kind, may) for who, whose, kind, may in allowed() if "nsswitch_domain" in who]
    assert ({"google_oslogin_t"}, "unix_stream_socket", {"connectto"}) in rules
    assert ({"google_oslogin_run_t"}, "sock_file", {"getattr", "write"}) in rules
