"""The modules as they are shipped: what they export and need; both compilers; fuzzing."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from unit.oslogin.pam.modules import HERE, SOURCE, ask, need, need_pam_headers, result

from oslogin import protocol

FUNCTIONS = {
    *("pam_sm_authenticate", "pam_sm_setcred", "pam_sm_acct_mgmt"),
    *("pam_sm_open_session", "pam_sm_close_session", "pam_sm_chauthtok"),
}
NAMES = ("pam_oslogin_login.so", "pam_oslogin_admin.so")
FUZZ_SECONDS = int(os.environ.get("OSLOGIN_FUZZ_SECONDS", "4"))


@pytest.fixture(scope="module", params=["gcc", "clang"])
def shipped(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    need_pam_headers()
    folder = tmp_path_factory.mktemp("modules")
    command = [need("make"), "-C", str(SOURCE), f"OUT={folder}", f"CC={need(request.param)}"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_every_function_ever_named_is_exported_and_nothing_else(shipped: Path, name: str) -> None:
    table = subprocess.run(
        [need("nm"), "-D", "--defined-only", str(shipped / name)],
        check=True,
        capture_output=True,
        text=True,
    )
    assert {line.split()[-1] for line in table.stdout.splitlines()} == FUNCTIONS


@pytest.mark.parametrize("name", NAMES)
def test_only_libc_and_libpam_are_needed(shipped: Path, name: str) -> None:
    dynamic = subprocess.run(
        [need("readelf"), "-d", str(shipped / name)], check=True, capture_output=True, text=True
    ).stdout
    libraries = set(re.findall(r"\(NEEDED\).*\[(.*)\]", dynamic))
    assert libraries <= {"libc.so.6", "libpam.so.0"}
    assert "BIND_NOW" in dynamic and "NODELETE" in dynamic


def test_no_reply_breaks_the_reader(tmp_path: Path, paths_header: Path) -> None:
    need_pam_headers()
    target = tmp_path / "fuzzer"
    command = [need("clang"), "-std=c11", "-D_GNU_SOURCE", "-O1", "-g", "-Wall", "-Wextra"]
    command += ["-Werror", "-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=all"]
    command += [f"-I{SOURCE}", f"-I{paths_header}", str(HERE / "fuzz_reply.c"), "-lpam"]
    subprocess.run([*command, "-o", str(target)], check=True)
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    request = protocol.Message(protocol.CHAL_BEGIN, number=1)
    for number, reply in enumerate(
        [
            ask((protocol.ECHO_ON, "code: ")),
            ask((protocol.INFO_TEXT, "i"), (protocol.ECHO_OFF, "code: ")),
            result(protocol.SUCCESS),
            result(protocol.REFUSED, (protocol.ERROR_TEXT, "no")),
        ]
    ):
        (corpus / str(number)).write_bytes(reply(request))
    options = [f"-max_total_time={FUZZ_SECONDS}", "-max_len=4096", "-timeout=10"]
    done = subprocess.run(
        [str(target), *options, f"-artifact_prefix={tmp_path}/", str(corpus)],
        capture_output=True,
        timeout=FUZZ_SECONDS + 60,
        check=False,
    )
    text = done.stderr.decode(errors="replace")
    assert done.returncode == 0, text[-2000:]
    runs = re.search(r"Done (\d+) runs", text)
    assert runs and int(runs[1]) > 1000, text[-2000:]
