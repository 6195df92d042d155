"""The interrupts that drivers have asked for: ``/proc/irq/N`` has a folder named after each asker.

Source: Linux ``kernel/irq/proc.c`` (a folder for each action); virtio ``drivers/virtio/
virtio_pci_common.c``, gve ``gve_main.c`` and idpf ``idpf_txrx.c`` for the names.
"""

from __future__ import annotations

from system_config.sysfs import Tree, numbered

IRQS = "/proc/irq"
_ATTRIBUTES = frozenset(
    (
        *("affinity_hint", "effective_affinity", "effective_affinity_list", "node"),
        *("smp_affinity", "smp_affinity_list", "spurious"),
    )
)


def interrupts(tree: Tree) -> dict[int, tuple[str, ...]]:
    """Every interrupt with the names of its actions, by number; one pass over the folder."""
    return {
        irq: tuple(name for name in tree.names(f"{IRQS}/{irq}") if name not in _ATTRIBUTES)
        for irq in numbered(tree.names(IRQS))
    }


def device_interrupts(tree: Tree, device: str) -> list[int]:
    """The message-signalled interrupts that the PCI device with this folder was given."""
    return numbered(tree.names(f"{device}/msi_irqs"))
