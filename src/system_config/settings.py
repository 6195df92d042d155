"""What the tuning programs change: each setting is compared first and written only if it differs.

``Settings`` counts what became of the settings and gathers failures, so that a machine with
hundreds of interrupts has one line for each kind of failure. With ``dry_run`` it prints what it
would write instead of writing it.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable, Collection

from system_config.processors import mask_text, parse_list, parse_mask
from system_config.sysfs import Tree

log = logging.getLogger(__name__)

Print = Callable[[str], None]


class Settings:
    """The settings of one run."""

    def __init__(self, tree: Tree, *, dry_run: bool = False, say: Print = print) -> None:
        self.tree = tree
        self.dry_run = dry_run
        self.say = say
        self.changed = self.right = self.kept = self.failed = 0
        self._failures: dict[int, list[str]] = {}

    def value(self, path: str, wanted: str, *, kept: Collection[int] = ()) -> None:
        """Give an attribute a value; errors in ``kept`` are the kernel's right."""
        self._put(path, wanted, lambda current: current == wanted, kept)

    def affinity(self, irq: int, processor: int) -> None:
        """Have one processor serve an interrupt.

        EIO is how the kernel keeps an interrupt that it spreads itself (a managed one).
        """
        self._put(
            f"/proc/irq/{irq}/smp_affinity_list",
            str(processor),
            lambda current: parse_list(current) == (processor,),
            (errno.EIO,),
        )

    def mask(self, path: str, mask: int, running: Collection[int]) -> None:
        """Give an attribute a mask of processors."""
        self._put(
            path,
            mask_text(mask, running),
            lambda current: parse_mask(current) == mask,
            (errno.EIO,),
        )

    def step(self, name: str, current: str, wanted: str, act: Callable[[], None]) -> None:
        """Change by ``act`` what is no file; ``name`` and the values are for people."""
        if current == wanted:
            self.right += 1
        elif self._announces(name, current, wanted):
            self._try(name, act, ())

    def failure(self, name: str, error: OSError) -> None:
        """Note that something could not be read or done."""
        self.failed += 1
        self._failures.setdefault(error.errno or 0, []).append(name)

    def report(self) -> str:
        """Log the failures; return what happened in one line."""
        for number, names in self._failures.items():
            others = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
            # Where somebody mounted /sys read-only, nothing is wrong.
            level = logging.INFO if number == errno.EROFS else logging.WARNING
            log.log(level, "%s%s: %s", names[0], others, os.strerror(number))
        verb = "would change" if self.dry_run else "changed"
        return (
            f"{_count(self.changed)} {verb}, {self.right} as they should be,"
            f" {self.kept} kept by the kernel, {self.failed} failed"
        )

    def _put(
        self, path: str, wanted: str, same: Callable[[str], bool], kept: Collection[int]
    ) -> None:
        current = self.tree.read(path)
        if current is None:
            log.debug("%s is not there", path)
        elif same(current):
            self.right += 1
        elif self._announces(path, current, wanted):
            self._try(path, lambda: self.tree.write(path, wanted), kept)

    def _announces(self, name: str, current: str, wanted: str) -> bool:
        """Whether to act; otherwise the change was printed."""
        if not self.dry_run:
            return True
        self.say(f"{name}: {current or 'nothing'} -> {wanted}")
        self.changed += 1
        return False

    def _try(self, name: str, act: Callable[[], None], kept: Collection[int]) -> None:
        try:
            act()
        except OSError as error:
            if error.errno in kept:
                self.kept += 1
                log.debug("%s: %s", name, error.strerror)
            else:
                self.failure(name, error)
        else:
            self.changed += 1
            log.debug("%s is set", name)


def _count(number: int) -> str:
    return f"{number} setting{'' if number == 1 else 's'}"
