"""The boundary to Windows, on Windows: what it reads, and what it changes where Wine lets it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.wine import Wine

MAC = "42:01:0a:80:00:02"


def ask(wine: Wine, code: str) -> Any:
    """What `code` puts into `answer`, with `system` and `windows` at hand."""
    program = f"""
import json
from google_guest.system import System
system = System()
windows = system.windows
{code}
print(json.dumps(answer))
"""
    return json.loads(wine.py(program).stdout)


def test_command_that_takes_too_long_is_ended(shared_wine: Wine) -> None:
    message = ask(
        shared_wine,
        """
import os, sys
from google_guest.system.commands import CommandError
try:
    program = [sys.executable, "-c", "import time; time.sleep(30)"]
    system.run(program, timeout=1, env=dict(os.environ))
    answer = "it ended by itself"
except CommandError as error:
    answer = str(error)
""",
    )
    assert message.endswith("was ended: no end within 1 s")


def test_adapters_have_their_mac_and_addresses(wine_bed: Any) -> None:
    wine = wine_bed(macs=(MAC,))
    rows = ask(
        wine,
        "answer = [[row.mac, sorted(row.addresses)] for row in windows.addresses.adapters()]",
    )
    assert [addresses for mac, addresses in rows if mac == MAC and "10.128.0.2" in addresses]


def test_routes_have_a_default_route(shared_wine: Wine) -> None:
    rows = ask(
        shared_wine,
        "answer = [[r.destination, r.prefix_length, r.gateway] for r in windows.routes.ipv4()]",
    )
    assert ["0.0.0.0", 0, "10.128.0.1"] in rows


def test_news_of_the_network_can_be_waited_for(shared_wine: Wine) -> None:
    answer = ask(
        shared_wine,
        """
import select
monitor = system.open_network_monitor()
answer = select.select([monitor.fileno()], [], [], 0)[0]
monitor.close()
""",
    )
    assert answer == []


def test_boot_has_one_identifier_until_the_next_one(wine: Wine) -> None:
    first, again = ask(wine, "answer = [system.boot_id(), System().boot_id()]")
    assert len(first) == 32
    assert first == again
    wine.restart_session()
    assert ask(wine, "answer = system.boot_id()") not in ("", first)


def test_processes_are_known_while_they_live(shared_wine: Wine) -> None:
    answer = ask(
        shared_wine,
        """
import os, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
other = subprocess.Popen(["cmd", "/c", "pause"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
answer = [system.is_alive(os.getpid()), system.is_alive(child.pid), system.is_alive(other.pid)]
answer.append(windows.wait_for_end(child.pid, timeout=0.1))
for program in (child, other):
    program.stdin.close()
    program.wait()
answer += [system.is_alive(child.pid), windows.wait_for_end(child.pid, timeout=5)]
""",
    )
    assert answer == [True, True, False, False, False, True]


def test_administrators_are_found_by_their_sid(shared_wine: Wine) -> None:
    code = """
from google_guest.system.windows import ADMINISTRATORS, accounts
answer = accounts._name_of(ADMINISTRATORS)
"""
    assert ask(shared_wine, code) == "Administrators"


def test_unknown_user_does_not_exist_and_a_new_one_is_made(shared_wine: Wine) -> None:
    answer = ask(
        shared_wine,
        """
accounts = windows.accounts
answer = [accounts.exists("ana"), accounts.create("ana", "Passw0rd!"), accounts.exists("ana")]
""",
    )
    assert answer == [False, None, True]


def test_firmware_tells_a_compute_engine_instance(wine: Wine) -> None:
    assert ask(wine, "answer = system.is_compute_engine()") is False
    wine.registry.set(
        r"HKLM\HARDWARE\DESCRIPTION\System\BIOS", "SystemProductName", "Google Compute Engine"
    )
    assert ask(wine, "answer = system.is_compute_engine()") is True


def test_version_of_a_program_is_read(shared_wine: Wine) -> None:
    answer = ask(
        shared_wine,
        r"""
found = windows.file_version(r"C:\py\python.exe")
answer = [found.file, found.product, windows.file_version(r"C:\no\such.exe")]
""",
    )
    assert answer[0].startswith("3.")
    assert answer[2] is None


def test_service_is_installed_twice_and_deleted_once(wine: Wine) -> None:
    answer = ask(
        wine,
        """
from google_guest.cli.windows.service import definition
services = windows.services
answer = []
for _ in range(2):
    services.install(definition(r"C:\\py\\python.exe"))
    answer.append(services.state("GCEAgent").name)
answer += [services.delete("GCEAgent"), services.delete("GCEAgent"), services.state("GCEAgent")]
""",
    )
    assert answer == ["STOPPED", "STOPPED", True, False, None]


def test_installing_enables_a_disabled_service(wine: Wine) -> None:
    install = 'windows.services.install(definition(r"C:\\\\py\\\\python.exe")); answer = 0'
    code = f"from google_guest.cli.windows.service import definition; {install}"
    ask(wine, code)
    key = r"HKLM\SYSTEM\CurrentControlSet\Services\GCEAgent"
    before = wine.registry.values(key)
    assert before is not None
    assert before["Start"] == 2
    assert before["DependOnService"] == ["samss"]
    disable = """
import ctypes
advapi = ctypes.WinDLL("advapi32")
advapi.OpenSCManagerW.restype = advapi.OpenServiceW.restype = ctypes.c_void_p
manager = ctypes.c_void_p(advapi.OpenSCManagerW(None, None, 0xF003F))
service = ctypes.c_void_p(advapi.OpenServiceW(manager, "GCEAgent", 0xF01FF))
no = 0xFFFFFFFF
answer = advapi.ChangeServiceConfigW(service, no, 4, no, None, None, None, None, None, None, None)
"""
    assert ask(wine, disable) == 1
    assert wine.registry.value(key, "Start") == 4
    ask(wine, code)
    assert wine.registry.values(key) == before


def test_folder_that_a_user_made_first_is_taken_over(wine: Wine) -> None:
    folder = r"C:\ProgramData\Google\Compute Engine\google-guest-agent"
    wine.write(rf"{folder}\run\left.json", "{}")
    ask(wine, "system.prepare(); answer = 0")
    names = sorted(path.name for path in wine.path(rf"{folder}\run").iterdir())
    assert names == ["boot-id"]


@pytest.mark.parametrize("mode", ["0o600", "0o644"])
def test_file_is_replaced_while_somebody_reads_it(shared_wine: Wine, mode: str) -> None:
    answer = ask(
        shared_wine,
        rf"""
import threading
path = r"C:\files\{mode}.json"
system.files.write_atomic(path, b"old", mode={mode})
reader = open(path, "rb")
threading.Timer(0.3, reader.close).start()
system.files.write_atomic(path, b"new", mode={mode})
names = system.files.list_directory(r"C:\files")
answer = [system.files.read_text(path), names.count("{mode}.json")]
""",
    )
    assert answer == ["new", 1]
