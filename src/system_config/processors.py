"""Processors as the kernel writes them: lists (``0-51,104-155``) and masks (``00ff,ffffffff``).

Reads ``/sys/devices/system/cpu/online`` and ``/sys/devices/system/node/node*/cpulist``.

Source: Linux ``Documentation/admin-guide/cputopology.rst``; ``lib/bitmap-str.c`` for both formats.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Optional

from google_guest.records import record
from system_config.sysfs import Tree, numbered, parse_number

ONLINE = "/sys/devices/system/cpu/online"
NODES = "/sys/devices/system/node"
MOST = 16384
"""No kernel numbers a processor as high: a list that does is no list."""
_WORD = 32
_LONGEST_MASK = MOST // 4 + MOST // _WORD


@record
class Node:
    """A NUMA node that has processors: its number and theirs."""

    number: int
    processors: tuple[int, ...]


def online_processors(tree: Tree) -> tuple[int, ...]:
    """The processors that run, in order; without that attribute those of the nodes."""
    running = parse_list(tree.read(ONLINE) or "")
    if running:
        return running
    return tuple(sorted({cpu for node in _nodes(tree) for cpu in node.processors}))


def numa_nodes(tree: Tree) -> tuple[Node, ...]:
    """The nodes that have processors, in order; a kernel without NUMA has the one node 0.

    Nodes of memory alone, which accelerators bring along, serve no interrupt and no queue.
    """
    nodes = _nodes(tree)
    if nodes:
        return nodes
    running = parse_list(tree.read(ONLINE) or "")
    return (Node(0, running),) if running else ()


def _nodes(tree: Tree) -> tuple[Node, ...]:
    lists = (
        (number, parse_list(tree.read(f"{NODES}/node{number}/cpulist") or ""))
        for number in numbered(tree.names(NODES), "node")
    )
    return tuple(Node(number, processors) for number, processors in lists if processors)


def parse_list(text: str) -> tuple[int, ...]:
    """The numbers in a list, in order; none for what is no list."""
    found: set[int] = set()
    for part in text.strip().split(",") if text.strip() else ():
        first, dash, last = part.partition("-")
        low = parse_number(first)
        high = parse_number(last) if dash else low
        if low is None or high is None or not low <= high < MOST:
            return ()
        found.update(range(low, high + 1))
    return tuple(sorted(found))


def parse_mask(text: str) -> Optional[int]:
    """The bits of a mask, or None for what is no mask."""
    digits = text.strip().replace(",", "")
    if not digits or len(text) > _LONGEST_MASK or not set(digits) <= set("0123456789abcdefABCDEF"):
        return None
    return int(digits, 16)


def bits(processors: Iterable[int]) -> int:
    """The mask of some processors as a number."""
    mask = 0
    for number in processors:
        mask |= 1 << number
    return mask


def mask_text(mask: int, running: Collection[int]) -> str:
    """A mask as the kernel takes it, as wide as the highest processor needs it.

    Words of 32 bits in hexadecimal, the most significant first, with commas between.
    """
    highest = max(max(running, default=0), mask.bit_length() - 1, 0)
    words = [(mask >> shift) & 0xFFFFFFFF for shift in range(0, highest + 1, _WORD)]
    return ",".join(f"{word:08x}" for word in reversed(words))
