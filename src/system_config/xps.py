"""XPS: which processors send through which queue of an interface, on accelerator machines.

Each NUMA node gets an equal share of the queues, and each of these an equal share of the node's
processors. Pure: numbers in, masks out.

Source: guest-configs ``src/usr/bin/google_set_multiqueue``; Linux ``Documentation/networking/
scaling.rst``.
"""

from __future__ import annotations

from collections.abc import Sequence

from system_config.processors import Node, bits


def masks(queues: int, nodes: Sequence[Node], current: Sequence[int]) -> dict[int, int]:
    """The mask of each queue by its number; a queue that is not in it stays as it is.

    ``queues`` is how many there are, ``current`` their masks: where nodes share a queue, it keeps
    the processors that it has. No queue, no node: nothing.
    """
    if queues <= 0 or not nodes:
        return {}
    if len(nodes) > queues:
        shared = {queue: current[queue] for queue in range(queues)}
        for position, node in enumerate(nodes):
            shared[position % queues] |= bits(node.processors)
        return shared
    share = queues // len(nodes)
    return {
        position * share + queue: bits(processors)
        for position, node in enumerate(nodes)
        for queue, processors in enumerate(_split(node.processors, share))
    }


def _split(processors: Sequence[int], parts: int) -> list[Sequence[int]]:
    """Equal runs of the processors; the last one has what is left over."""
    size = len(processors) // parts
    runs = [processors[part * size : (part + 1) * size] for part in range(parts - 1)]
    return [*runs, processors[(parts - 1) * size :]]
