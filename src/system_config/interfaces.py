"""The network interfaces with hardware below them, as sysfs shows them.

Source: Linux ``Documentation/ABI/testing/sysfs-class-net``; gve ``gve_main.c`` for its two names.
"""

from __future__ import annotations

from google_guest.records import record
from system_config.sysfs import Tree, numbered

NETWORK = "/sys/class/net"
GVNIC_DRIVERS = ("gve", "gvnic")
_PCI = "/sys/devices/pci"


@record
class Interface:
    """A network interface with a device."""

    name: str
    path: str
    """Where it lies among the devices: what interfaces are ordered by."""
    driver: str
    node: int
    """The NUMA node of its device; -1 where the platform does not say."""
    has_infiniband: bool

    @property
    def folder(self) -> str:
        """Its folder in sysfs."""
        return f"{NETWORK}/{self.name}"

    @property
    def is_pci(self) -> bool:
        """Whether it hangs on a PCI bus."""
        return self.path.startswith(_PCI)

    @property
    def is_gvnic(self) -> bool:
        """Whether it is a gVNIC."""
        return self.driver in GVNIC_DRIVERS

    @property
    def is_idpf(self) -> bool:
        """Whether it is an IDPF interface that does not serve RDMA."""
        return self.driver == "idpf" and not self.has_infiniband


def interfaces(tree: Tree) -> list[Interface]:
    """The interfaces that have a device, in the order of their places."""
    found = [
        _interface(tree, name)
        for name in tree.names(NETWORK)
        if tree.exists(f"{NETWORK}/{name}/device")
    ]
    return sorted(found, key=lambda interface: (interface.path, interface.name))


def _interface(tree: Tree, name: str) -> Interface:
    device = f"{NETWORK}/{name}/device"
    node = tree.read_number(f"{device}/numa_node")
    return Interface(
        name=name,
        path=tree.real(f"{NETWORK}/{name}"),
        driver=tree.link_name(f"{device}/driver"),
        node=-1 if node is None else node,
        has_infiniband=tree.exists(f"{device}/infiniband"),
    )


def queues(tree: Tree, interface: Interface, direction: str) -> list[int]:
    """The numbers of an interface's queues; ``direction`` is ``tx`` or ``rx``."""
    return numbered(tree.names(f"{interface.folder}/queues"), f"{direction}-")
