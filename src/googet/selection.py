"""Which package answers a wish, and whether what is installed answers it already.

Pure functions over package specs: nothing is read or written here. An *offer* is a package that
could be installed (a repository's candidate or a ``.goo`` file named by the user); a
:class:`PackageSet` is what a machine has, or will have in the middle of a plan.

Facts: googet: client/client.go (order of candidates, locked architectures), googet:
goolib/goospec.go (conflicts, replaces, provides), googet: install/install.go (what is needed).
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Optional, Protocol

from googet.pkgspec import PackageName, PackageSpec, split_name
from googet.versions import VersionError, parse_version
from google_guest.errors import GuestError

#: Name and architecture: what one machine can have once.
Key = tuple[str, str]


class SelectionError(GuestError):
    """No package answers the wish; the message names it."""


class Offer(Protocol):
    """A package that could be installed."""

    @property
    def spec(self) -> PackageSpec:
        """What the package says about itself."""

    @property
    def priority(self) -> int:
        """The priority of where it comes from; higher wins over any version."""


def key_of(spec: PackageSpec) -> Key:
    """Return name and architecture of a package."""
    return spec.name, spec.arch


def provisions(spec: PackageSpec) -> Iterator[tuple[str, str]]:
    """Yield the names that a package provides, each with its version, "" for "any version"."""
    for text in spec.provides:
        name, _, version = text.partition("=")
        yield name.strip(), version.strip()


def is_at_least(version: str, minimum: str) -> bool:
    """Say whether ``version`` is ``minimum`` or newer; an empty minimum admits everything.

    Nothing is comparable to a text that is no version: specs may have one behind a name that they
    provide, replace or conflict with.
    """
    try:
        return not minimum or bool(sort_key(version) >= sort_key(minimum))
    except VersionError:
        return False


def provides(spec: PackageSpec, name: str, minimum: str) -> bool:
    """Say whether a package provides ``name`` in a version of at least ``minimum``."""
    return any(
        provided == name and (not version or is_at_least(version, minimum))
        for provided, version in provisions(spec)
    )


@functools.lru_cache(maxsize=65536)
def sort_key(version: str) -> Any:
    """Return the sort key of a version; raises VersionError for what is none."""
    return parse_version(version).sort_key


class Catalogue:
    """What could be installed, found by name in constant time whatever the size of an index."""

    def __init__(self, offers: Iterable[Offer]) -> None:
        self._named: dict[str, list[Offer]] = {}
        self._providers: dict[str, list[Offer]] = {}
        self.is_empty = True
        for offer in offers:
            self.is_empty = False
            self._named.setdefault(offer.spec.name, []).append(offer)
            for provided in dict.fromkeys(name for name, _ in provisions(offer.spec)):
                self._providers.setdefault(provided, []).append(offer)

    def named(self, name: str) -> Sequence[Offer]:
        """Return the offers of that very name, in the order of the repositories."""
        return self._named.get(name, ())

    def providers(self, name: str) -> Sequence[Offer]:
        """Return the offers that provide the name, in the order of the repositories."""
        return self._providers.get(name, ())

    def names(self) -> list[str]:
        """Return the names of all packages, sorted."""
        return sorted(self._named)


def ranked(
    catalogue: Catalogue,
    wanted: PackageName,
    *,
    minimum: str = "",
    architectures: Sequence[str],
    installed_arch: str = "",
    locked: bool = False,
) -> list[Offer]:
    """Return the offers that answer a wish, the best first.

    A wish with an architecture looks at no other one; with a version it takes that very version
    and no provider. ``installed_arch`` and ``locked`` describe what is installed under the name:
    a locked package is not followed by a locked one of another architecture.
    """
    order = (wanted.arch,) if wanted.arch else tuple(architectures)

    def admits(offer: Offer) -> bool:
        spec = offer.spec
        if spec.arch not in order:
            return False
        return not (locked and spec.lock_arch and spec.arch != installed_arch)

    direct = [offer for offer in catalogue.named(wanted.name) if admits(offer)]
    if wanted.version:
        return _best_first(_of_version(direct, wanted.version), order)
    direct = [offer for offer in direct if is_at_least(offer.spec.version, minimum)]
    providers = [
        offer
        for offer in catalogue.providers(wanted.name)
        if admits(offer) and offer.spec.name != wanted.name
        if provides(offer.spec, wanted.name, minimum)
    ]
    return _best_first(direct, order) + _best_first(providers, order)


def choose(
    catalogue: Catalogue,
    wanted: PackageName,
    *,
    minimum: str = "",
    architectures: Sequence[str],
    installed_arch: str = "",
    locked: bool = False,
) -> Offer:
    """Return the best offer for a wish (see :func:`ranked`); raises SelectionError."""
    offers = ranked(
        catalogue,
        wanted,
        minimum=minimum,
        architectures=architectures,
        installed_arch=installed_arch,
        locked=locked,
    )
    if not offers:
        at_least = f" of version {minimum} or newer" if minimum else ""
        raise SelectionError(f"no repository has a package {wanted}{at_least} for this machine")
    return offers[0]


def _of_version(offers: list[Offer], version: str) -> list[Offer]:
    """Return the offers written with that very version, else those equal to it."""
    written = [offer for offer in offers if offer.spec.version == version]
    if written:
        return written
    wanted = sort_key(version)
    return [offer for offer in offers if sort_key(offer.spec.version) == wanted]


def _best_first(offers: list[Offer], architectures: Sequence[str]) -> list[Offer]:
    """Sort by priority, version and preference of architecture; ties keep their order."""
    preferred = sorted(offers, key=lambda offer: architectures.index(offer.spec.arch))
    return sorted(
        preferred, key=lambda offer: (offer.priority, sort_key(offer.spec.version)), reverse=True
    )


class PackageSet:
    """Packages that are, or will be, on a machine: one of a name and architecture."""

    def __init__(self, specs: Iterable[PackageSpec] = ()) -> None:
        self._specs: dict[Key, PackageSpec] = {}
        self._named: dict[str, dict[Key, PackageSpec]] = {}
        self._providing: dict[str, dict[Key, PackageSpec]] = {}
        self._needing: dict[str, dict[Key, PackageSpec]] = {}
        self._conflicting: dict[str, dict[Key, PackageSpec]] = {}
        self._replacing: dict[str, dict[Key, PackageSpec]] = {}
        for spec in specs:
            self.add(spec)

    def __iter__(self) -> Iterator[PackageSpec]:
        return iter(self._specs.values())

    def __len__(self) -> int:
        return len(self._specs)

    def __contains__(self, key: object) -> bool:
        return key in self._specs

    def get(self, key: Key) -> Optional[PackageSpec]:
        """Return the package of that name and architecture, if there is one."""
        return self._specs.get(key)

    def add(self, spec: PackageSpec) -> Optional[PackageSpec]:
        """Add a package and return the one of its name and architecture that it displaced."""
        key = key_of(spec)
        displaced = self.remove(key) if key in self._specs else None
        self._specs[key] = spec
        for index, names in self._indexes(spec):
            for name in names:
                index.setdefault(name, {})[key] = spec
        return displaced

    def remove(self, key: Key) -> PackageSpec:
        """Take a package out and return it; raises KeyError when it is not there."""
        spec = self._specs.pop(key)
        for index, names in self._indexes(spec):
            for name in names:
                del index[name][key]
        return spec

    def named(self, name: str) -> list[PackageSpec]:
        """Return the packages of that name, of every architecture, by architecture."""
        return sorted(self._named.get(name, {}).values(), key=key_of)

    def providers(self, name: str, minimum: str = "") -> list[PackageSpec]:
        """Return the packages that provide the name."""
        found = self._providing.get(name, {}).values()
        return [spec for spec in found if provides(spec, name, minimum)]

    def needing(self, names: Iterable[str]) -> list[PackageSpec]:
        """Return the packages with a dependency on one of the names."""
        return _collected(self._needing, names)

    def conflicting(self, names: Iterable[str]) -> list[PackageSpec]:
        """Return the packages that declare a conflict with one of the names."""
        return _collected(self._conflicting, names)

    def satisfiers(self, wanted: PackageName, minimum: str = "") -> list[PackageSpec]:
        """Return the packages that satisfy a dependency, those of the very name first."""
        direct = [
            spec
            for spec in self.named(wanted.name)
            if wanted.arch in ("", spec.arch) and is_at_least(spec.version, minimum)
        ]
        return direct + self.providers(wanted.name, minimum)

    def is_satisfied(self, wanted: PackageName, minimum: str = "") -> bool:
        """Say whether a package of that name (and architecture), or a provider, is there."""
        found = self._named.get(wanted.name)
        for spec in found.values() if found else ():
            if wanted.arch in ("", spec.arch) and is_at_least(spec.version, minimum):
                return True
        return bool(self.providers(wanted.name, minimum))

    def is_needed(self, wanted: PackageSpec) -> bool:
        """Say whether a package is absent under its name and architecture, or older there."""
        present = self._specs.get(key_of(wanted))
        return present is None or sort_key(present.version) < sort_key(wanted.version)

    def conflicts_of(self, spec: PackageSpec) -> Iterator[tuple[PackageSpec, str]]:
        """Yield each other package that cannot be beside ``spec``, with the clause that says so.

        The clause may be in either of the two.
        """
        for text in spec.conflicts:
            for other in self._hit(text):
                if key_of(other) != key_of(spec):
                    yield other, text
        names = names_of(spec)
        for other in self.conflicting(names):
            if key_of(other) == key_of(spec):
                continue
            for text in other.conflicts:
                wanted = split_name(text)
                if wanted.name in names and answers(spec, wanted, wanted.version):
                    yield other, text

    def replaced_by(self, spec: PackageSpec) -> list[PackageSpec]:
        """Return the other packages that ``spec`` says it replaces; providers are not meant."""
        found: dict[Key, PackageSpec] = {}
        for text in spec.replaces:
            wanted = split_name(text)
            for other in self.named(wanted.name):
                if key_of(other) != key_of(spec) and wanted.arch in ("", other.arch):
                    if is_at_least(other.version, wanted.version):
                        found[key_of(other)] = other
        return list(found.values())

    def replacers_of(self, spec: PackageSpec) -> list[PackageSpec]:
        """Return the other packages that say they replace ``spec``."""
        found: dict[Key, PackageSpec] = {}
        for other in _collected(self._replacing, (spec.name,)):
            for text in other.replaces:
                wanted = split_name(text)
                if wanted.name == spec.name and wanted.arch in ("", spec.arch):
                    if key_of(other) != key_of(spec) and is_at_least(spec.version, wanted.version):
                        found[key_of(other)] = other
        return list(found.values())

    def _hit(self, text: str) -> list[PackageSpec]:
        wanted = split_name(text)
        return self.satisfiers(PackageName(wanted.name, wanted.arch), wanted.version)

    def _indexes(
        self, spec: PackageSpec
    ) -> Iterator[tuple[dict[str, dict[Key, PackageSpec]], Iterable[str]]]:
        yield self._named, (spec.name,)
        yield self._providing, {name for name, _ in provisions(spec)}
        yield self._needing, {split_name(text).name for text in spec.dependencies}
        yield self._conflicting, {split_name(text).name for text in spec.conflicts}
        yield self._replacing, {split_name(text).name for text in spec.replaces}


def names_of(spec: PackageSpec) -> set[str]:
    """Return the names under which a package can be wanted: its own and what it provides."""
    return {spec.name, *(name for name, _ in provisions(spec))}


def answers(spec: PackageSpec, wanted: PackageName, minimum: str) -> bool:
    """Say whether this one package satisfies a dependency or is hit by a conflict."""
    if spec.name == wanted.name and wanted.arch in ("", spec.arch):
        if is_at_least(spec.version, minimum):
            return True
    return provides(spec, wanted.name, minimum)


def answers_name(spec: PackageSpec, wanted: PackageName) -> bool:
    """Say whether this package is what a dependency is about, whatever its version."""
    if spec.name == wanted.name and wanted.arch in ("", spec.arch):
        return True
    return any(name == wanted.name for name, _ in provisions(spec))


def _collected(index: dict[str, dict[Key, PackageSpec]], names: Iterable[str]) -> list[PackageSpec]:
    found: dict[Key, PackageSpec] = {}
    for name in names:
        found.update(index.get(name, {}))
    return sorted(found.values(), key=key_of)
