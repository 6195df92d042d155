"""gce-nic-naming on trees of accelerator machines: what is printed, what is renamed."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.machine_trees import FakeSysfs

from system_config import nic_naming
from system_config.link_names import rename_link
from system_config.nic_naming import NoName, device_id, function_of_port, valid_name

CX7, CX8, H100 = "15b3:101e", "15b3:1023", "10de:2330"
IDPF, IDPF_RDMA = "8086:1452", "8086:145c"
GVNIC = "1ae0:0042"


class Run:
    """What a run printed and renamed."""

    def __init__(self, status: int, output: str, renamed: list[tuple[str, str]]) -> None:
        self.status, self.output, self.renamed = status, output, renamed

    @property
    def name(self) -> str:
        assert self.status == 0
        assert self.output.endswith("\n")
        return self.output[:-1]

    @property
    def is_refusal(self) -> bool:
        return (self.status, self.output, self.renamed) == (1, "", [])


class Bus:
    """The machine that a test builds, and its udev."""

    def __init__(self, root: Path, capsys: pytest.CaptureFixture[str] | None = None) -> None:
        self.machine = FakeSysfs(root)
        self._capsys = capsys
        self.refuse_renames = False
        self.complaint = ""

    def gpu(self, place: str) -> None:
        self.machine.pci(place, identity=H100)

    def nic(self, place: str, name: str, identity: str = CX7) -> str:
        """A network interface; returns its path as udev has it."""
        device = self.machine.pci(place, identity=identity)
        return self.machine.interface(name, device)[len("/sys") :]

    def run(self, devpath: str, *words: str, subsystem: str = "net", **environ: str) -> Run:
        assert self._capsys is not None
        renamed: list[tuple[str, str]] = []

        def rename(old: str, new: str) -> None:
            if self.refuse_renames:
                raise OSError(errno.EPERM, "Operation not permitted")
            renamed.append((old, new))

        event = {
            "DEVPATH": devpath,
            "SUBSYSTEM": subsystem,
            "GCE_NIC_NAMING_FAKEROOT": str(self.machine.root),
            **environ,
        }
        self._capsys.readouterr()
        status = nic_naming.main(words, environ=event, rename=rename)
        captured = self._capsys.readouterr()
        self.complaint = captured.err
        return Run(status, captured.out, renamed)


@pytest.fixture
def bus(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Bus:
    return Bus(tmp_path, capsys)


def equal_machine(bus: Bus, nics: int, gpus: int, identity: str = CX7) -> list[str]:
    """A machine of four switches, with its NICs and GPUs evenly below them."""
    paths = []
    for switch in range(4):
        base = f"0000:{switch + 1:x}0:00.0"
        for position in range(gpus // 4):
            bus.gpu(f"{base}/0000:{switch + 1:x}{position + 1:x}:00.0")
        for position in range(nics // 4):
            number = switch * (nics // 4) + position
            paths.append(
                bus.nic(
                    f"{base}/0000:{switch + 1:x}{position + 8:x}:00.0", f"eth{number}", identity
                )
            )
    return paths


# Acceptance.


@pytest.mark.parametrize("identity", [CX7, CX8])
def test_8_gpus_with_8_interfaces(bus: Bus, identity: str) -> None:
    paths = equal_machine(bus, 8, 8, identity)
    assert [bus.run(path).name for path in paths] == [f"gpu{number}rdma0" for number in range(8)]


def test_4_gpus_with_8_interfaces(bus: Bus) -> None:
    paths = equal_machine(bus, 8, 4)
    assert [bus.run(path).name for path in paths] == [
        *("gpu0rdma0", "gpu0rdma1", "gpu1rdma0", "gpu1rdma1"),
        *("gpu2rdma0", "gpu2rdma1", "gpu3rdma0", "gpu3rdma1"),
    ]


def test_more_gpus_than_interfaces(bus: Bus) -> None:
    paths = equal_machine(bus, 4, 8)
    assert [bus.run(path).name for path in paths] == [
        "gpu0_1rdma0",
        "gpu2_3rdma0",
        "gpu4_5rdma0",
        "gpu6_7rdma0",
    ]


def test_no_gpu_means_no_name(bus: Bus) -> None:
    path = equal_machine(bus, 4, 0)[0]
    assert bus.run(path).is_refusal


def test_unknown_vendor_means_no_name(bus: Bus) -> None:
    equal_machine(bus, 4, 4)
    assert bus.run(bus.nic("0000:00:05.0", "eth9", GVNIC)).is_refusal


def test_machine_without_such_devices_names_nothing(bus: Bus) -> None:
    bus.gpu("0000:00:04.0")
    assert bus.run(bus.nic("0000:00:05.0", "eth9", GVNIC)).is_refusal


# Interfaces that serve GPUs.


def test_gpu_is_the_one_beside_the_interface_and_not_the_one_of_the_same_rank(bus: Bus) -> None:
    # The first switch has the GPUs with the higher addresses.
    bus.gpu("0000:10:00.0/0000:90:00.0")
    first = bus.nic("0000:10:00.0/0000:11:00.0", "eth0")
    bus.gpu("0000:20:00.0/0000:21:00.0")
    second = bus.nic("0000:20:00.0/0000:22:00.0", "eth1")
    assert (bus.run(first).name, bus.run(second).name) == ("gpu1rdma0", "gpu0rdma0")


def test_search_goes_on_where_the_ratio_is_another(bus: Bus) -> None:
    # Below the first switch are two interfaces and one GPU; the machine has one for one.
    inner = "0000:10:00.0/0000:11:00.0"
    bus.gpu(f"{inner}/0000:12:00.0")
    paths = [bus.nic(f"{inner}/0000:13:00.0", "eth0"), bus.nic(f"{inner}/0000:14:00.0", "eth1")]
    bus.gpu("0000:10:00.0/0000:15:00.0")
    assert [bus.run(path).name for path in paths] == ["gpu0rdma0", "gpu1rdma0"]


def test_part_with_too_many_interfaces_does_not_say_which_gpu_is_next(bus: Bus) -> None:
    # The other GPU comes first on the bus, and the first interface is its.
    bus.gpu("0000:10:00.0/0000:11:00.0")
    inner = "0000:10:00.0/0000:12:00.0"
    paths = [bus.nic(f"{inner}/0000:13:00.0", "eth0"), bus.nic(f"{inner}/0000:14:00.0", "eth1")]
    bus.gpu(f"{inner}/0000:15:00.0")
    assert [bus.run(path).name for path in paths] == ["gpu0rdma0", "gpu1rdma0"]


def test_interfaces_with_their_gpus_on_one_bus_count_on_by_two(bus: Bus) -> None:
    for number in range(4):
        bus.gpu(f"0000:10:00.0/0000:1{number + 1}:00.0")
    paths = [bus.nic(f"0000:10:00.0/0000:2{number}:00.0", f"eth{number}") for number in (1, 2)]
    assert [bus.run(path).name for path in paths] == ["gpu0_1rdma0", "gpu2_3rdma0"]


def test_bus_whose_name_only_begins_the_same_is_another(bus: Bus) -> None:
    path = bus.nic("0000:1:00.0", "eth0")
    bus.gpu("0000:10:00.0")
    bus.gpu("0000:05:00.0")
    bus.nic("0000:05:01.0", "eth1")
    assert bus.run(path).name == "gpu0rdma0"


def test_one_interface_more_than_gpus_has_no_name_beyond_the_last_one(bus: Bus) -> None:
    bus.gpu("0000:10:00.0")
    bus.gpu("0000:11:00.0")
    paths = [bus.nic(f"0000:1{n}:00.0", f"eth{n}") for n in (2, 3, 4)]
    assert [bus.run(path).status for path in paths] == [0, 0, 1]


def test_ethernet_interfaces_do_not_count_as_those_of_gpus(bus: Bus) -> None:
    bus.nic("0000:00:03.0", "ens3", IDPF)
    paths = equal_machine(bus, 8, 8)
    assert bus.run(paths[0]).name == "gpu0rdma0"
    assert bus.run(paths[7]).name == "gpu7rdma0"


@pytest.mark.parametrize(
    ("port", "name"),
    [("pf0vf0", "gpu2rdma2_rep"), ("pf0vf3", "gpu2rdma5_rep"), ("c1pf0vf12", "gpu2rdma14_rep")],
)
def test_representors(bus: Bus, port: str, name: str) -> None:
    path = equal_machine(bus, 8, 8)[2]
    bus.machine.file(f"/sys{path}/phys_port_name", port)
    assert bus.run(path).name == name


def test_port_of_the_interface_itself_is_no_representor(bus: Bus) -> None:
    path = equal_machine(bus, 8, 8)[2]
    bus.machine.file(f"/sys{path}/phys_port_name", "p0")
    assert bus.run(path).name == "gpu2rdma0"


def test_representor_whose_name_would_be_too_long(bus: Bus) -> None:
    path = equal_machine(bus, 8, 8)[2]
    bus.machine.file(f"/sys{path}/phys_port_name", "pf0vf1000")
    assert bus.run(path).is_refusal


def test_virtual_function_is_named_after_its_adapter_and_counts_for_nothing(bus: Bus) -> None:
    paths = equal_machine(bus, 8, 8)
    adapter = paths[2].rpartition("/net/")[0]
    function = bus.nic("0000:20:00.0/0000:28:00.3", "eth20")
    bus.machine.link(f"/sys{function.rpartition('/net/')[0]}/physfn", f"/sys{adapter}")
    assert bus.run(function).name == "gpu2rdma3"
    assert [bus.run(path).name for path in paths] == [f"gpu{number}rdma0" for number in range(8)]


def test_virtual_function_of_an_unknown_adapter(bus: Bus) -> None:
    equal_machine(bus, 8, 8)
    bus.machine.pci("0000:70:00.0", identity="15b3:ffff")
    function = bus.nic("0000:70:00.1", "eth20")
    bus.machine.link(
        "/sys/devices/pci0000:70/0000:70:00.1/physfn", "/sys/devices/pci0000:70/0000:70:00.0"
    )
    assert bus.run(function).is_refusal


# IDPF.


def test_ordinary_interfaces_are_counted_by_their_addresses(bus: Bus) -> None:
    paths = [bus.nic(f"0000:{n}0:00.0", f"enp{n}", IDPF) for n in (2, 1)]
    assert [bus.run(path, "idpf").output for path in paths] == ["eth1\n", "eth0\n"]


def test_holder_of_the_name_makes_room(bus: Bus) -> None:
    first = bus.nic("0000:10:00.0", "eth1", IDPF)
    bus.nic("0000:20:00.0", "eth0", IDPF)
    done = bus.run(first)
    assert (done.name, done.renamed) == ("eth0", [("eth0", "eth0tmp")])


def test_holder_of_its_own_name_makes_no_room(bus: Bus) -> None:
    done = bus.run(bus.nic("0000:10:00.0", "eth0", IDPF))
    assert (done.name, done.renamed) == ("eth0", [])


def test_name_that_is_not_free_is_not_given(bus: Bus) -> None:
    first = bus.nic("0000:10:00.0", "eth1", IDPF)
    bus.nic("0000:20:00.0", "eth0", IDPF)
    bus.refuse_renames = True
    assert bus.run(first).is_refusal
    assert "eth0 cannot be renamed" in bus.complaint


def test_virtual_function_with_rdma(bus: Bus) -> None:
    bus.nic("0000:10:00.0", "eth0", IDPF)
    path = bus.nic("0000:20:00.0", "eth1", IDPF_RDMA)
    bus.machine.folder("/sys/devices/pci0000:20/0000:20:00.0/infiniband")
    assert bus.run(path, "idpf", ID_NET_NAME_PATH="enp32s0").name == "rdma1"


def test_virtual_function_without_rdma_is_named_after_its_path(bus: Bus) -> None:
    path = bus.nic("0000:20:00.0", "eth1", IDPF_RDMA)
    assert bus.run(path, "idpf", ID_NET_NAME_PATH="enp32s0").name == "enp32s0"


@pytest.mark.parametrize("name", ["", "x" * 16, "a b", "a/b", "..", "n\u00e4me", "a\nb"])
def test_path_name_that_is_none(bus: Bus, name: str) -> None:
    path = bus.nic("0000:20:00.0", "eth1", IDPF_RDMA)
    assert bus.run(path, ID_NET_NAME_PATH=name).is_refusal


def test_interface_that_is_gone(bus: Bus) -> None:
    path = bus.nic("0000:20:00.0", "eth1", IDPF_RDMA)
    shutil.rmtree(f"{bus.machine.root}/sys{path}")
    assert bus.run(path, ID_NET_NAME_PATH="enp32s0").is_refusal


# RDMA after the interface.


def test_rdma_after_its_interface_renames_it(bus: Bus) -> None:
    bus.nic("0000:20:00.0", "enp32s0", IDPF_RDMA)
    path = "/devices/pci0000:20/0000:20:00.0/idpf.8086.rdma.vdev.0"
    done = bus.run(path, subsystem="auxiliary")
    assert (done.status, done.output, done.renamed) == (0, "", [("enp32s0", "rdma0")])


def test_rdma_after_an_interface_with_its_name_changes_nothing(bus: Bus) -> None:
    bus.nic("0000:20:00.0", "rdma0", IDPF_RDMA)
    path = "/devices/pci0000:20/0000:20:00.0/idpf.8086.rdma.vdev.0"
    done = bus.run(path, subsystem="auxiliary")
    assert (done.status, done.output, done.renamed) == (0, "", [])


def test_rdma_before_its_interface_waits_for_that_event(bus: Bus) -> None:
    bus.machine.pci("0000:20:00.0", identity=IDPF_RDMA)
    path = "/devices/pci0000:20/0000:20:00.0/idpf.8086.rdma.vdev.0"
    done = bus.run(path, subsystem="auxiliary")
    assert (done.status, done.output, done.renamed) == (0, "", [])


# Switches and refusals.


@pytest.mark.parametrize("environ", [{"GCE_NIC_NAMING": "disable"}, {"TEST": "test"}])
def test_switched_off(bus: Bus, environ: dict[str, str]) -> None:
    path = equal_machine(bus, 8, 8)[0]
    assert bus.run(path, **environ).is_refusal


@pytest.mark.parametrize(
    "path",
    ["", "/", "devices", "/devices/virtual/net/lo", "/devices/pci0000:99/0000:99:00.0/net/eth0"],
)
def test_path_of_no_device(bus: Bus, path: str) -> None:
    equal_machine(bus, 8, 8)
    assert bus.run(path).is_refusal
    assert bus.complaint.startswith("gce-nic-naming: ")


@pytest.mark.parametrize("words", [["--bad"], ["a", "b"], ["--root"]])
def test_wrong_arguments(bus: Bus, words: list[str]) -> None:
    assert bus.run("/x", *words).status == 2


def test_tree_below_another_root_is_never_renamed_in(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bus = Bus(tmp_path)
    first = bus.nic("0000:10:00.0", "eth1", IDPF)
    bus.nic("0000:20:00.0", "eth0", IDPF)
    environ = {"DEVPATH": first, "SUBSYSTEM": "net"}
    assert nic_naming.main(["--root", str(tmp_path), "idpf"], environ=environ) == 0
    assert capsys.readouterr() == ("eth0\n", "would rename eth0 to eth0tmp\n")


# Parts.


@pytest.mark.parametrize(
    ("path", "number"),
    [
        ("/devices/pci0000:88/0000:88:00.0/0000:8e:00.0/net/eth9", 0x00008E000),
        ("0000:8e:00.3", 0x00008E003),
        ("/devices/pci0000:88/0000:88:1f.7", 0x0000881F7),
        ("/devices/pci0000:88/x", None),
        ("0000:8e:00", None),
        ("0000:8e:00.0.0", None),
        ("0000:zz:00.0", None),
        ("::.", None),
        ("f" * 20 + ":8e:00.0", None),
        ("", None),
    ],
)
def test_device_ids(path: str, number: int | None) -> None:
    assert device_id(path) == number


@given(st.text(max_size=30))
@example("vf")
@example("vf\u0663")
@example("vf" + "9" * 5000)
def test_any_port_name(text: str) -> None:
    number = function_of_port(text)
    assert number is None or 0 <= number < 2**31


@given(st.text(max_size=20))
def test_any_name_is_one_for_an_interface_or_refused(text: str) -> None:
    try:
        name = valid_name(text)
    except NoName:
        return
    assert name == text
    assert name.isascii()
    assert 1 <= len(name) <= 15
    assert not set(name) & set("/ \n\t:")


@settings(max_examples=40)
@given(data=st.data())
def test_any_tree_gives_a_name_or_none(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    bus = Bus(tmp_path_factory.mktemp("tree"))
    kinds = st.sampled_from([CX7, CX8, H100, IDPF, IDPF_RDMA, "garbage:\xff", ":"])
    paths = []
    for number in range(data.draw(st.integers(0, 5))):
        place = f"0000:0{number // 2}:00.0/0000:0{number}:01.0"
        folder = bus.machine.pci(place, identity=data.draw(kinds))
        paths.append(bus.machine.interface(f"eth{number}", folder)[len("/sys") :])
        for name in ("physfn", "infiniband"):
            if data.draw(st.booleans()):
                place = Path(f"{bus.machine.root}{folder}/{name}")
                place.symlink_to(data.draw(st.sampled_from([name, "..", "/dev/null"])))
        if data.draw(st.booleans()):
            bus.machine.file(
                f"/sys{paths[-1]}/phys_port_name",
                data.draw(st.sampled_from(["pf0vf1", "vf", "vf999999999999", "p0", "\xff"])),
            )
    chosen = data.draw(st.sampled_from([*paths, "", "/devices/x", "/devices/0000:00:00.0/net/a"]))
    environ = {
        "DEVPATH": chosen,
        "SUBSYSTEM": data.draw(st.sampled_from(["net", "auxiliary", ""])),
        "ID_NET_NAME_PATH": data.draw(st.text(max_size=17)),
    }
    naming = nic_naming.Naming(nic_naming.Tree(str(bus.machine.root)), environ, lambda *_: None)
    try:
        name = naming.run()
    except NoName:
        return
    assert name == "" or valid_name(name) == name
    assert name or environ["SUBSYSTEM"] != "net"


# The kernel itself.


def test_kernel_refuses_to_rename_what_does_not_exist() -> None:
    with pytest.raises(OSError):
        rename_link("no-such-device", "other-device")
