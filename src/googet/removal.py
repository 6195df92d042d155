"""What goes when a package goes, and in which order.

Pure functions. A package goes with everything that loses a dependency by it, directly or not; what
nothing else needs goes first.

Facts: googet: remove/remove.go (dependents, order).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from googet.pkgspec import PackageSpec, split_name
from googet.selection import Key, PackageSet, answers_name, key_of, names_of
from google_guest.records import record

if TYPE_CHECKING:
    from googet.database import InstalledPackage


@record
class Removal:
    """An installed package that goes; ``reason`` is empty when its removal was asked for."""

    package: InstalledPackage
    reason: str = ""


def cascade(
    world: PackageSet, gone: Iterable[PackageSpec], *, spared: Iterable[Key] = ()
) -> list[tuple[PackageSpec, PackageSpec]]:
    """Take out of ``world`` what needs, directly or not, what is gone already.

    Returns each of these packages with the one that it lost. A dependency is lost when what
    answered to its name is gone, whatever its version was, and nothing that is left satisfies it.
    """
    kept = set(spared)
    waiting = deque(gone)
    lost: list[tuple[PackageSpec, PackageSpec]] = []
    while waiting:
        one = waiting.popleft()
        for dependent in world.needing(names_of(one)):
            if key_of(dependent) in kept or not _loses(world, dependent, one):
                continue
            world.remove(key_of(dependent))
            lost.append((dependent, one))
            waiting.append(dependent)
    return lost


def _loses(world: PackageSet, dependent: PackageSpec, gone: PackageSpec) -> bool:
    for text, minimum in dependent.dependencies.items():
        wanted = split_name(text)
        if answers_name(gone, wanted) and not world.is_satisfied(wanted, minimum):
            return True
    return False


def plan_removal(
    installed: Sequence[InstalledPackage], targets: Sequence[InstalledPackage]
) -> tuple[Removal, ...]:
    """Return the targets and everything that needs them, what nothing else needs first."""
    packages = {key_of(package.spec): package for package in installed}
    asked = {key_of(package.spec) for package in targets}
    world = PackageSet(package.spec for key, package in packages.items() if key not in asked)
    reasons = {key: "" for key in asked}
    for dependent, lost in cascade(world, [packages[key].spec for key in sorted(asked)]):
        reasons[key_of(dependent)] = f"needs {lost.name}"
    order = leaves_first([packages[key].spec for key in reasons])
    return tuple(Removal(packages[key], reasons[key]) for key in order)


def leaves_first(specs: Iterable[PackageSpec]) -> list[Key]:
    """Order packages for removal: each one after all that need it; cycles are cut anywhere."""
    group = PackageSet(specs)
    edges = {
        key_of(spec): [
            key_of(dependent)
            for dependent in group.needing(names_of(spec))
            if any(answers_name(spec, split_name(text)) for text in dependent.dependencies)
        ]
        for spec in group
    }
    return postorder(sorted(edges), edges)


def postorder(roots: Sequence[Key], edges: Mapping[Key, Sequence[Key]]) -> list[Key]:
    """Return every key after those that its edges lead to; a cycle is cut where it closes."""
    order: list[Key] = []
    seen: set[Key] = set()
    for root in roots:
        stack = [(root, iter(edges[root]))] if root not in seen else []
        seen.add(root)
        while stack:
            key, rest = stack[-1]
            for following in rest:
                if following not in seen:
                    seen.add(following)
                    stack.append((following, iter(edges[following])))
                    break
            else:
                order.append(key)
                stack.pop()
    return order
