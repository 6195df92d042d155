"""google_set_hostname: from a lease or metadata to name and file; what is ignored and refused."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Optional, cast

import pytest
from support.trees import Commands, place, succeed
from unit.features.test_forwarded_addresses import ETH0, ETH1, LO, KernelTable
from unit.metadata.scripted_server import ScriptedServer, answer

from google_guest.hostname import METADATA_LINE
from google_guest.metadata.client import MetadataClient
from google_guest.metadata.errors import ConnectFailed, MetadataError, NotFound
from google_guest.metadata.tree import Instance, parse_metadata
from google_guest.records import replace
from google_guest.system import System
from google_guest.system.commands import Completed
from google_guest.system.netlink import Link, Network
from system_config import set_hostname

FQDN = "vm.c.sample-proj.internal"
FOREIGN = "127.0.0.1 localhost\n"
OURS = f"10.0.0.2 {FQDN} vm  # Added by Google\n{METADATA_LINE}\n"
LEASE = {"new_host_name": FQDN, "new_ip_address": "10.0.0.2"}
CONFIG = "/etc/default/instance_configs.cfg"
INSTANCE = {
    "hostname": FQDN,
    "networkInterfaces": [
        {"mac": ETH0.mac.hex(":"), "ip": "10.0.0.2"},
        {"mac": ETH1.mac.hex(":"), "ip": "10.1.0.2"},
    ],
}
VLAN = Link(9, "eth0.5", ETH0.mac, kind="vlan")


def instance(**changes: Any) -> Instance:
    return parse_metadata({"instance": {**INSTANCE, **changes}}).instance


class Machine(System):
    """A tree that is treated as the running machine; its kernel's name is a file."""

    is_live = True
    keeps_static_name = True

    def __init__(self, root: Path, *, links: Sequence[Link] = (LO, ETH0)) -> None:
        self.commands = Commands(self.answer)
        super().__init__(root, self.commands)
        self.network = cast(Network, KernelTable(links=tuple(links)))

    def answer(self, argv: Sequence[str]) -> Completed:
        if argv[0] == "hostnamectl" and self.keeps_static_name:
            place(self.root, "/etc/hostname", f"{argv[-1]}\n")
        return succeed(argv)

    def set_hostname(self, name: str) -> None:  # type: ignore[override]
        place(self.root, "/proc/sys/kernel/hostname", f"{name}\n")

    def is_compute_engine(self) -> bool:
        return True

    @property
    def name(self) -> str:
        return (self.root / "proc/sys/kernel/hostname").read_text().strip()

    @property
    def hosts(self) -> str:
        return (self.root / "etc/hosts").read_text()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return prepared(tmp_path)


def prepared(root: Path, **options: Any) -> Machine:
    place(root, "/etc/hosts", FOREIGN)
    place(root, "/etc/hostname", "old\n")
    place(root, "/proc/sys/kernel/hostname", "old\n")
    for name in ("nmcli", "hostnamectl", "systemctl"):
        place(root, f"/usr/bin/{name}", "", mode=0o755)
    return Machine(root, **options)


class Server:
    """A metadata server that says one thing and counts who asks."""

    def __init__(self, said: object = None) -> None:
        self.said = instance() if said is None else said
        self.asked = 0

    def __call__(self) -> Instance:
        self.asked += 1
        if isinstance(self.said, Exception):
            raise self.said
        assert isinstance(self.said, Instance)
        return self.said


Log = list[tuple[int, str]]


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Log:
    """What the program logs; its own sinks are left alone."""
    lines: Log = []

    class Sink:
        def flush(self, *, everything: bool) -> None:
            assert everything

    class Collector(logging.Handler):
        def emit(self, entry: logging.LogRecord) -> None:
            lines.append((entry.levelno, entry.getMessage()))

    def configured(*_: object, **__: object) -> Sink:
        root = logging.getLogger()
        root.handlers[:] = [Collector()]
        root.setLevel(logging.INFO)
        return Sink()

    monkeypatch.setattr(set_hostname, "configure_logging", configured)
    return lines


@pytest.fixture(autouse=True)
def _root_logger(said: Log) -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def lease(machine: Machine, environ: Mapping[str, str] = LEASE, **options: Any) -> int:
    return set_hostname.main([], system=machine, environ=environ, **options)


def hook(machine: Machine, *words: str, read: Optional[Callable[[], Instance]] = None) -> int:
    given = ["--from-metadata", *words]
    return set_hostname.main(given, system=machine, environ={}, read=read or Server())


def warnings(said: Log) -> list[str]:
    return [text for level, text in said if level >= logging.WARNING]


def unchanged(machine: Machine) -> bool:
    return (machine.name, machine.hosts, machine.commands.argvs) == ("old", FOREIGN, [])


# A lease.


def test_a_lease_gives_name_and_lines(machine: Machine, said: Log) -> None:
    assert lease(machine) == 0
    assert (machine.name, machine.hosts) == ("vm", FOREIGN + OURS)
    assert machine.commands.programs() == ["nmcli", "hostnamectl", "systemctl"]
    assert said == [
        (logging.INFO, "change /etc/hosts"),
        (logging.INFO, "set the host name to vm"),
    ]


def test_a_hundred_renewals_write_start_and_say_nothing(machine: Machine, said: Log) -> None:
    assert lease(machine) == 0
    machine.commands.argvs.clear()
    said.clear()
    files = [machine.root / path.lstrip("/") for path in ("/etc/hosts", set_hostname.STATE)]
    before = [(file.stat().st_ino, file.stat().st_mtime_ns) for file in files]
    assert {lease(machine) for _ in range(100)} == {0}
    assert [(file.stat().st_ino, file.stat().st_mtime_ns) for file in files] == before
    assert (machine.commands.argvs, said) == ([], [])


@pytest.mark.parametrize("static", [FQDN, "vm", "VM"])
def test_either_form_of_the_name_is_left(machine: Machine, static: str) -> None:
    place(machine.root, "/etc/hostname", f"{static}\n")
    machine.set_hostname(static)
    assert lease(machine) == 0
    assert (machine.name, machine.commands.argvs) == (static, [])
    assert machine.hosts == FOREIGN + OURS


def test_another_machines_static_name_is_replaced(machine: Machine) -> None:
    place(machine.root, "/etc/hostname", "template-vm\n")
    machine.set_hostname("template-vm")
    assert lease(machine) == 0
    assert machine.name == "vm"


def test_a_name_that_somebody_sets_later_stays(machine: Machine) -> None:
    assert lease(machine) == 0
    place(machine.root, "/etc/hostname", "mine\n")
    machine.set_hostname("mine")
    machine.commands.argvs.clear()
    assert lease(machine) == 0
    assert (machine.name, machine.hosts, machine.commands.argvs) == ("mine", FOREIGN + OURS, [])
    # A copy of the disk in a machine of another name.
    copy = {"new_host_name": "copy.c.sample-proj.internal", "new_ip_address": "10.0.0.3"}
    assert lease(machine, copy) == 0
    assert machine.name == "copy"


def test_a_name_that_somebody_sets_meanwhile_stays(machine: Machine) -> None:
    def answer(argv: Sequence[str]) -> Completed:
        done = machine.answer(argv)
        if argv[0] == "hostnamectl":
            # Another process is faster than the end of this one.
            place(machine.root, "/etc/hostname", "mine\n")
            machine.set_hostname("mine")
        return done

    machine.commands.answer = answer
    assert lease(machine) == 0
    machine.commands.answer = machine.answer
    assert lease(machine) == 0
    assert machine.name == "mine"


def test_a_name_that_the_next_boot_does_not_know_is_set_by_its_lease(machine: Machine) -> None:
    machine.keeps_static_name = False
    assert lease(machine) == 0
    machine.set_hostname("old")
    assert lease(machine) == 0
    assert machine.name == "vm"


def test_a_name_that_could_not_be_set_is_tried_again(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(name: str) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    with monkeypatch.context() as patched:
        patched.setattr(machine, "set_hostname", refuse)
        assert lease(machine) == 1
    assert lease(machine) == 0
    assert machine.name == "vm"


@pytest.mark.parametrize("memory", ["", "[]", '{"name": 7}', '{"name": null}', "{"])
def test_damaged_memory_is_none(machine: Machine, memory: str) -> None:
    place(machine.root, set_hostname.STATE, memory)
    assert lease(machine) == 0
    assert machine.name == "vm"


def test_the_whole_name_is_set_where_that_is_configured(machine: Machine) -> None:
    place(machine.root, CONFIG, "[Unstable]\nfqdn_as_hostname = true\n")
    assert lease(machine) == 0
    assert machine.name == FQDN


@pytest.mark.parametrize("name", ["METADATA.google.internal", "x.metadata.google.internal."])
def test_name_of_the_metadata_server_is_ignored_with_one_warning(
    machine: Machine, said: Log, name: str
) -> None:
    forged = {**LEASE, "new_host_name": name}
    assert {lease(machine, forged) for _ in range(3)} == {0}
    assert (machine.name, machine.commands.argvs) == ("old", [])
    assert machine.hosts == f"{FOREIGN}{METADATA_LINE}\n"
    (warning,) = warnings(said)
    assert warning == f"ignored: the name '{name}' belongs to the metadata server"


def test_a_forged_name_does_not_displace_the_lines_of_before(machine: Machine) -> None:
    assert lease(machine) == 0
    assert lease(machine, {**LEASE, "new_host_name": "metadata.google.internal"}) == 0
    assert (machine.name, machine.hosts) == ("vm", FOREIGN + OURS)


@pytest.mark.parametrize(
    "wrong",
    [
        {"new_host_name": "a b;c"},
        {"new_host_name": "$(reboot)"},
        {"new_ip_address": "10.0.0.2; reboot"},
        {"new_ip_address": "127.0.0.2"},
        {"new_ip_address": "null"},
    ],
)
def test_what_is_no_name_or_address_is_rejected(
    machine: Machine, said: Log, wrong: Mapping[str, str]
) -> None:
    assert lease(machine, {**LEASE, **wrong}) == 1
    assert (machine.name, machine.commands.argvs) == ("old", [])
    assert machine.hosts == f"{FOREIGN}{METADATA_LINE}\n"
    assert len(warnings(said)) == 1


@pytest.mark.parametrize("environ", [{}, {"new_ip_address": "10.0.0.2"}, {"new_host_name": ""}])
def test_a_lease_without_name_changes_nothing(machine: Machine, environ: Mapping[str, str]) -> None:
    assert lease(machine, environ) == 0
    assert unchanged(machine)


def test_a_lease_without_address_leaves_the_file(machine: Machine) -> None:
    assert lease(machine, {"new_host_name": FQDN}) == 0
    assert (machine.name, machine.hosts) == ("vm", FOREIGN)


@pytest.mark.parametrize("key", ["set_hostname", "set_fqdn"])
@pytest.mark.parametrize("how", [lease, hook])
def test_while_the_agent_owns_the_name_the_program_only_says_so(
    machine: Machine, said: Log, key: str, how: Callable[[Machine], int]
) -> None:
    place(machine.root, CONFIG, f"[Unstable]\n{key} = true\n")
    assert how(machine) == 0
    assert unchanged(machine)
    text = f"nothing to do: the agent owns the host name ([Unstable] {key} = true in {CONFIG})"
    assert said == [(logging.INFO, text)]


def test_machine_with_one_interface_asks_nobody_about_its_lease(machine: Machine) -> None:
    server = Server()
    assert lease(machine, {**LEASE, "interface": "eth0"}, read=server) == 0
    assert (machine.name, server.asked) == ("vm", 0)


@pytest.mark.parametrize(("interface", "name"), [("eth0", "vm"), ("eth1", "old")])
def test_of_several_interfaces_only_the_first_gives_the_name(
    tmp_path: Path, interface: str, name: str
) -> None:
    machine = prepared(tmp_path, links=(LO, ETH0, ETH1))
    assert lease(machine, {**LEASE, "interface": interface}, read=Server()) == 0
    assert machine.name == name
    assert name == "vm" or unchanged(machine)


def test_lease_of_an_unknown_interface_changes_nothing_while_metadata_is_silent(
    tmp_path: Path,
) -> None:
    machine = prepared(tmp_path, links=(LO, ETH0, ETH1))
    silent = Server(ConnectFailed("silent"))
    assert lease(machine, {**LEASE, "interface": "eth0"}, read=silent) == 1
    assert unchanged(machine)


# Failures.


def test_a_file_that_cannot_be_written_keeps_nobody_from_the_name(
    machine: Machine, said: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(machine.files, "rewrite", full)
    assert lease(machine) == 1
    assert (machine.name, machine.hosts) == ("vm", FOREIGN)
    (error,) = warnings(said)
    assert error == "cannot change /etc/hosts: [Errno 28] No space left on device"


def test_a_failure_that_repeats_is_told_once(
    machine: Machine, said: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(machine.files, "rewrite", refuse)
    monkeypatch.setattr(machine.files, "overwrite", refuse)
    assert {lease(machine) for _ in range(3)} == {1}
    assert len(warnings(said)) == 1


def test_a_kernel_that_refuses_keeps_nobody_from_the_file(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(name: str) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(machine, "set_hostname", refuse)
    assert lease(machine) == 1
    assert (machine.name, machine.hosts) == ("old", FOREIGN + OURS)


def test_a_hook_that_was_faster_is_no_failure(
    machine: Machine, said: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    rewrite = machine.files.rewrite
    calls = []

    def overtaken(path: str, data: bytes) -> None:
        calls.append(path)
        if len(calls) == 1:
            place(machine.root, "/etc/hosts", f"10.1.1.1 new\n{FOREIGN}")
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", path)
        rewrite(path, data)

    monkeypatch.setattr(machine.files, "rewrite", overtaken)
    assert lease(machine) == 0
    assert machine.hosts == f"10.1.1.1 new\n{FOREIGN}{OURS}"
    assert warnings(said) == []


def test_unreadable_hosts_is_told(machine: Machine, said: Log) -> None:
    (machine.root / "etc/hosts").unlink()
    (machine.root / "etc/hosts").mkdir()
    assert lease(machine) == 1
    assert len(warnings(said)) == 1


def test_read_only_run_keeps_nobody_from_warning(
    machine: Machine, said: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(machine.files, "write_atomic", refuse)
    assert lease(machine, {**LEASE, "new_host_name": "metadata"}) == 0
    assert len(warnings(said)) == 1


# Metadata.


@pytest.mark.parametrize("words", [(), ("--interface", "eth0")])
def test_a_hook_takes_name_and_address_of_the_first_interface(
    tmp_path: Path, words: tuple[str, ...]
) -> None:
    machine = prepared(tmp_path, links=(LO, ETH0, ETH1, VLAN))
    assert hook(machine, *words) == 0
    assert (machine.name, machine.hosts) == ("vm", FOREIGN + OURS)


@pytest.mark.parametrize(
    ("interface", "asked"), [("eth1", 1), ("eth0.5", 1), ("lo", 0), ("gone", 0), ("--x", 0)]
)
def test_any_other_interface_changes_nothing(tmp_path: Path, interface: str, asked: int) -> None:
    machine = prepared(tmp_path, links=(LO, ETH0, ETH1, VLAN))
    server = Server()
    assert hook(machine, "--interface", interface, read=server) == 0
    assert unchanged(machine)
    assert server.asked == asked


@pytest.mark.parametrize("error", [ConnectFailed("silent"), NotFound("404"), MetadataError("x")])
def test_a_metadata_server_without_an_answer_changes_nothing(
    machine: Machine, said: Log, error: Exception
) -> None:
    assert hook(machine, read=Server(error)) == 1
    assert unchanged(machine)
    assert warnings(said) == [str(error)]


@pytest.mark.parametrize("name", [None, "", "null ", "None:", 7, "metadata.google.internal"])
def test_metadata_without_a_good_name_changes_no_name(machine: Machine, name: object) -> None:
    hook(machine, read=Server(instance(hostname=name)))
    assert machine.name == "old"
    assert machine.hosts in (FOREIGN, f"{FOREIGN}{METADATA_LINE}\n")


def test_instance_with_ipv6_alone_has_a_line_for_it(machine: Machine) -> None:
    nic = {"mac": ETH0.mac.hex(":"), "ipv6s": ["fd20:a::2"]}
    assert hook(machine, read=Server(instance(networkInterfaces=[nic]))) == 0
    assert f"fd20:a::2 {FQDN} vm  # Added by Google\n" in machine.hosts


def test_instance_without_usable_interface_gets_its_name_alone(machine: Machine) -> None:
    assert hook(machine, read=Server(instance(networkInterfaces=[]))) == 0
    assert (machine.name, machine.hosts) == ("vm", FOREIGN)


def test_first_interface_without_mac_address_is_not_the_second(tmp_path: Path) -> None:
    machine = prepared(tmp_path, links=(LO, ETH0, ETH1))
    nics = [{"ip": "10.0.0.2"}, INSTANCE["networkInterfaces"][1]]
    assert hook(machine, "--interface", "eth1", read=Server(instance(networkInterfaces=nics))) == 0
    assert unchanged(machine)


def test_elsewhere_than_on_compute_engine_nobody_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = prepared(tmp_path, links=(LO, ETH0, ETH1))
    monkeypatch.setattr(machine, "is_compute_engine", lambda: False)
    server = Server()
    assert hook(machine, read=server) == 0
    assert lease(machine, {**LEASE, "interface": "eth0"}, read=server) == 0
    assert unchanged(machine)
    assert server.asked == 0


def client(server: ScriptedServer, pauses: list[float]) -> MetadataClient:
    return MetadataClient(server.host, sleep=pauses.append)


def test_metadata_is_asked_three_times_at_most() -> None:
    pauses: list[float] = []
    with ScriptedServer(answer(status="503 Unavailable")) as server:
        asking = client(server, pauses)
        with asking, pytest.raises(MetadataError):
            set_hostname.read_instance(asking)
    assert len(server.requests) == 3
    assert pauses == [set_hostname.PAUSE] * 2
    assert server.requests[0].startswith(
        b"GET /computeMetadata/v1/instance/?recursive=true&alt=json HTTP/1.1\r\n"
    )


def test_a_later_good_answer_is_taken() -> None:
    page, document = answer(b"<html>"), answer(b'{"hostname": "vm.example"}')
    with ScriptedServer(page, document) as server, client(server, []) as asking:
        assert set_hostname.read_instance(asking).hostname == "vm.example"


@pytest.mark.parametrize("status", ["404 Not Found", "403 Forbidden"])
def test_a_refusal_is_final(status: str) -> None:
    with ScriptedServer(answer(b"null", status=status)) as server:
        asking = client(server, [])
        with asking, pytest.raises(MetadataError):
            set_hostname.read_instance(asking)
    assert len(server.requests) == 1


def test_any_document_is_read() -> None:
    with ScriptedServer(answer(b"null")) as server, client(server, []) as asking:
        assert set_hostname.read_instance(asking) == Instance()


# Arguments.


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["eth0"],
        ["--interface", "eth0"],
        ["--from-metadata", "--interface"],
        ["--from-metadata", "--interface", ""],
        ["--from-metadata", "eth0"],
        ["--from-metadata", "--interface", "eth0", "x"],
    ],
)
def test_wrong_arguments_are_told(
    machine: Machine, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert set_hostname.main(words, system=machine, environ=LEASE) == 2
    assert unchanged(machine)
    assert capsys.readouterr().err.startswith("usage: google_set_hostname ")


def test_default_is_an_unknown_interface() -> None:
    arguments = set_hostname.parse_arguments(["--from-metadata"])
    assert arguments == replace(set_hostname.Arguments(), from_metadata=True)
