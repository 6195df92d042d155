"""What a command would do: the whole of it, decided before anything is touched.

Pure functions from what is asked, what is available and what is installed to a :class:`Plan`:
which packages are installed in which order, what each of them displaces, and what came of every
argument. A plan is closed under dependencies, never puts two conflicting packages side by side,
and always comes to an end, also for packages that depend on each other.

Facts: googet: install/install.go and client/client.go (order of steps), googet: remove/remove.go
(dependents), googet: cli/update/update.go (what counts as an update).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Optional

from googet.pkgspec import PackageName, PackageSpec, split_name
from googet.removal import Removal, cascade, leaves_first, postorder
from googet.selection import (
    Catalogue,
    Key,
    Offer,
    PackageSet,
    SelectionError,
    answers,
    answers_name,
    choose,
    key_of,
    ranked,
    sort_key,
)
from googet.versions import VersionError
from google_guest.records import record

if TYPE_CHECKING:
    from googet.database import InstalledPackage

#: The priority of a repository that says nothing; what is installed counts as coming from one.
DEFAULT_PRIORITY = 500


class Change(Enum):
    """What a step does to a package of that name and architecture."""

    INSTALL = "installed"
    UPGRADE = "upgraded"
    DOWNGRADE = "downgraded"
    REINSTALL = "reinstalled"


@record
class Request:
    """One wish: a name to choose for, or an offer of that name that is chosen already."""

    text: str
    wanted: PackageName
    offer: Optional[Offer] = None
    #: Install also what is installed in this version or a newer one.
    again: bool = False
    #: Leave everything else as it is: do not look at dependencies and conflicts.
    alone: bool = False
    allow_downgrade: bool = False


@record
class Installation:
    """One package to place, and what leaves the machine in the same transaction."""

    offer: Offer
    #: The rows that it takes over: of its own name and architecture, of another architecture.
    previous: tuple[InstalledPackage, ...] = ()
    #: Packages that it replaces and what depends on them, in the order of removal.
    removals: tuple[Removal, ...] = ()
    #: Other installations of the plan without which this one must not be made.
    requires: tuple[Key, ...] = ()

    @property
    def spec(self) -> PackageSpec:
        """The package to place."""
        return self.offer.spec

    @property
    def key(self) -> Key:
        """Name and architecture of the package to place."""
        return key_of(self.offer.spec)

    @property
    def change(self) -> Change:
        """What becomes of what is installed under the name."""
        if not self.previous:
            return Change.INSTALL
        old, new = sort_key(self.previous[0].spec.version), sort_key(self.spec.version)
        if old == new:
            return (
                Change.REINSTALL if self.previous[0].spec.arch == self.spec.arch else Change.UPGRADE
            )
        return Change.UPGRADE if old < new else Change.DOWNGRADE


@record
class Goal:
    """What came of one request: a step, something that is there already, or an error."""

    text: str
    key: Optional[Key] = None
    #: "N.A.V" of what is, in this version or a newer one, installed already.
    present: str = ""
    error: str = ""
    #: The error is a package that was not found.
    is_missing: bool = False


@record
class Plan:
    """Installations in the order in which they are made, and one goal for each request."""

    installations: tuple[Installation, ...] = ()
    goals: tuple[Goal, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def removals(self) -> tuple[Removal, ...]:
        """Everything that the plan removes."""
        return tuple(removal for step in self.installations for removal in step.removals)

    def lost_with(self, broken: Iterable[Key]) -> set[Key]:
        """Return what cannot be installed if the ``broken`` ones cannot, these included."""
        lost = set(broken)
        size = -1
        while size != len(lost):
            size = len(lost)
            lost.update(
                step.key for step in self.installations if not lost.isdisjoint(step.requires)
            )
        return lost


def plan_install(
    requests: Sequence[Request],
    catalogue: Catalogue,
    installed: Sequence[InstalledPackage],
    *,
    architectures: Sequence[str],
) -> Plan:
    """Plan every request that can be fulfilled together with those before it.

    A request that cannot be fulfilled has an error in its goal, and nothing of it is planned.
    """
    failures: dict[int, _Failure] = {}
    while True:
        draft = _Draft(catalogue, installed, architectures)
        try:
            goals = [
                failures[number].goal(request)
                if number in failures
                else draft.resolve(number, request)
                for number, request in enumerate(requests)
            ]
            return draft.finish(goals)
        except _Failure as failure:
            failures[failure.number] = failure


class _Failure(Exception):
    """Request ``number`` cannot be fulfilled."""

    def __init__(self, number: int, message: str, *, is_missing: bool = False) -> None:
        super().__init__(message)
        self.number = number
        self.is_missing = is_missing

    def goal(self, request: Request) -> Goal:
        return Goal(request.text, error=str(self), is_missing=self.is_missing)


@record
class _Planned:
    offer: Offer
    #: The request for which it was planned.
    number: int
    #: Its architecture was named, so another one of the same name does not take its place.
    is_exact: bool
    is_alone: bool = False


class _Draft:
    """A plan in the making: the machine as it will be, and how it came to be so."""

    def __init__(
        self,
        catalogue: Catalogue,
        installed: Sequence[InstalledPackage],
        architectures: Sequence[str],
    ) -> None:
        self._catalogue = catalogue
        self._architectures = architectures
        self._installed = {key_of(package.spec): package for package in installed}
        self._world = PackageSet(package.spec for package in installed)
        self._planned: dict[Key, _Planned] = {}
        # What leaves, with the installation that replaces it; other architectures taken over.
        self._replaced: dict[Key, Key] = {}
        self._taken_over: dict[Key, Key] = {}
        self._tried: set[int] = set()

    # One request.

    def resolve(self, number: int, request: Request) -> Goal:
        """Plan what a request needs; raises _Failure when only its beginning could be planned."""
        self._tried.clear()
        wanted, offer = request.wanted, request.offer
        if offer is None:
            try:
                newest = self._newest_known(wanted)
                if newest is not None and not request.allow_downgrade:
                    return self._satisfied(request, str(wanted), key_of(newest))
                offer = self._choose(wanted, "")
            except (SelectionError, VersionError) as error:
                return Goal(request.text, error=str(error), is_missing=True)
        key, name = key_of(offer.spec), offer.spec.full_name
        if not request.again:
            present = self._present(offer, wanted)
            if present is not None:
                older = sort_key(offer.spec.version) < sort_key(present.version)
                if not (older and request.allow_downgrade and present.name == offer.spec.name):
                    said = name if present.name == offer.spec.name else present.full_name
                    return self._satisfied(request, said, key_of(present))
        planned = _Planned(offer, number, bool(wanted.arch), request.alone)
        if request.alone:
            self._put(planned)
        else:
            self._plan_closure(planned)
        return Goal(request.text, key=key)

    def _newest_known(self, wanted: PackageName) -> Optional[PackageSpec]:
        """Return what answers a wish for one version without a look at any repository."""
        if not (wanted.arch and wanted.version):
            return None
        present = self._world.get((wanted.name, wanted.arch))
        if present is None or sort_key(present.version) < sort_key(wanted.version):
            return None
        return present

    def _present(self, offer: Offer, wanted: PackageName) -> Optional[PackageSpec]:
        """Return what makes the offer needless unless it is a wanted downgrade."""
        spec = offer.spec
        same = self._world.get(key_of(spec))
        if same is not None:
            return None if self._world.is_needed(spec) else same
        if spec.name != wanted.name:
            for satisfier in self._world.satisfiers(wanted):
                return satisfier
            return None
        other = None if wanted.arch else self._to_take_over(spec)
        if other is not None and sort_key(other.version) > sort_key(spec.version):
            return other
        return None

    def _satisfied(self, request: Request, name: str, key: Key) -> Goal:
        if key in self._planned:
            return Goal(request.text, key=key)
        return Goal(request.text, present=name)

    def _choose(self, wanted: PackageName, minimum: str) -> Offer:
        present = self._world.named(wanted.name)
        return choose(
            self._catalogue,
            wanted,
            minimum=minimum,
            architectures=self._architectures,
            installed_arch=present[0].arch if present else "",
            locked=present[0].lock_arch if present else False,
        )

    def _plan_closure(self, planned: _Planned) -> None:
        """Plan a package and, one after the other, what it needs and is not there."""
        self._put(planned)
        number, waiting = planned.number, [planned.offer.spec]
        while waiting:
            spec = waiting.pop()
            for text, minimum in sorted(spec.dependencies.items()):
                wanted = split_name(text)
                if self._world.is_satisfied(wanted, minimum):
                    continue
                try:
                    chosen = self._choose(wanted, minimum)
                except SelectionError as error:
                    message = f"{spec.full_name} needs {wanted}, but {error}"
                    raise _Failure(number, message, is_missing=True) from None
                self._refuse_downgrade(number, spec, chosen)
                self._put(_Planned(chosen, number, bool(wanted.arch)))
                waiting.append(chosen.spec)

    def _refuse_downgrade(self, number: int, dependent: PackageSpec, chosen: Offer) -> None:
        """A dependency never takes an installed package back to an older version."""
        present = self._world.get(key_of(chosen.spec))
        if present is not None and sort_key(chosen.spec.version) < sort_key(present.version):
            raise _Failure(
                number,
                f"{dependent.full_name} needs {chosen.spec.full_name},"
                f" but version {present.version} is installed",
            )

    def _put(self, planned: _Planned) -> None:
        spec = planned.offer.spec
        key = key_of(spec)
        if id(planned.offer) in self._tried:
            raise _Failure(planned.number, f"{spec.full_name}: what is needed contradicts itself")
        self._tried.add(id(planned.offer))
        other = None if planned.is_exact else self._to_take_over(spec)
        if key in self._planned:
            self._withdraw(key)
        if other is not None:
            if key_of(other) in self._planned:
                self._withdraw(key_of(other))
            if key_of(other) in self._world:
                self._world.remove(key_of(other))
                self._taken_over[key] = key_of(other)
        self._world.add(spec)
        self._planned[key] = planned
        if not planned.is_alone:
            self._replace(spec)

    def _replace(self, spec: PackageSpec) -> None:
        """Take out what a planned package replaces, be it installed or planned."""
        for replaced in self._world.replaced_by(spec):
            if key_of(replaced) in self._planned:
                self._withdraw(key_of(replaced))
            if key_of(replaced) in self._world:
                self._world.remove(key_of(replaced))
                self._replaced[key_of(replaced)] = key_of(spec)

    def _to_take_over(self, spec: PackageSpec) -> Optional[PackageSpec]:
        """Return the package of another architecture whose place ``spec`` takes, if any.

        Two architectures side by side were asked for by name: then none is given up, nor one
        that another package needs by name.
        """
        others = self._world.named(spec.name)
        if len(others) != 1 or others[0].arch == spec.arch:
            return None
        (other,) = others
        planned = self._planned.get(key_of(other))
        if planned is not None and planned.is_exact:
            return None
        needed = PackageName(other.name, other.arch)
        for dependent in self._world.needing([other.name]):
            if str(needed) in dependent.dependencies:
                return None
        return other

    def _withdraw(self, key: Key) -> None:
        """Undo the planning of one package, as far as it changed the machine."""
        del self._planned[key]
        self._world.remove(key)
        released = [key, self._taken_over.pop(key, key)]
        released += [replaced for replaced, owner in self._replaced.items() if owner == key]
        for one in released:
            self._replaced.pop(one, None)
            if one in self._installed and one not in self._world:
                self._world.add(self._installed[one].spec)

    # The whole plan.

    def finish(self, goals: Sequence[Goal]) -> Plan:
        """Return the plan of all requests; raises _Failure when they do not go together."""
        self._keep_only_reachable([goal.key for goal in goals if goal.key is not None])
        for planned in list(self._planned.values()):
            # What was withdrawn may have replaced what this one replaces, too.
            if not planned.is_alone:
                self._replace(planned.offer.spec)
        reasons = self._remove_dependents()
        for key in self._planned:
            self._check(key)
        for number, goal in enumerate(goals):
            if goal.key is not None and goal.key not in self._planned:
                name = ".".join(goal.key)
                raise _Failure(number, f"{name} is replaced by what else is to be installed")
        requires = {key: self._requires(key) for key in self._planned}
        return Plan(
            tuple(
                self._installation(key, requires[key], reasons)
                for key in postorder(list(requires), requires)
            ),
            tuple(goals),
            tuple(self._warnings()),
        )

    def _keep_only_reachable(self, roots: Sequence[Key]) -> None:
        """Withdraw what only a package needed that was itself replaced in the plan."""
        waiting = [key for key in roots if key in self._planned]
        reached = set(waiting)
        while waiting:
            for key in self._requires(waiting.pop()):
                if key not in reached:
                    reached.add(key)
                    waiting.append(key)
        for key in list(self._planned):
            if key not in reached:
                self._withdraw(key)

    def _remove_dependents(self) -> dict[Key, str]:
        """Remove what needs a replaced package; return why each package is removed."""
        reasons = {
            replaced: f"replaced by {owner[0]}" for replaced, owner in self._replaced.items()
        }
        gone = [self._installed[key].spec for key in self._replaced]
        for dependent, lost in cascade(self._world, gone, spared=self._planned):
            key = key_of(dependent)
            self._replaced[key] = self._replaced[key_of(lost)]
            reasons[key] = f"needs {lost.name}"
        return reasons

    def _check(self, key: Key) -> None:
        planned = self._planned[key]
        spec = planned.offer.spec
        if planned.is_alone:
            return
        for other, clause in self._world.conflicts_of(spec):
            number, there = self._blame(planned, key_of(other))
            raise _Failure(
                number,
                f"{spec.full_name} and {other.full_name}, which {there}, conflict ({clause})",
            )
        for other in self._world.replacers_of(spec):
            if key_of(other) in self._planned:
                number, _ = self._blame(planned, key_of(other))
                raise _Failure(
                    number, f"{other.full_name} replaces {spec.full_name}: ask for one of the two"
                )
        for text, minimum in sorted(spec.dependencies.items()):
            wanted = split_name(text)
            if self._world.is_satisfied(wanted, minimum):
                continue
            number, loser = planned.number, ""
            for lost, owner in self._replaced.items():
                if answers_name(self._installed[lost].spec, wanted):
                    number = max(number, self._planned[owner].number)
                    loser = f", which {self._planned[owner].offer.spec.full_name} replaces"
            at_least = f" {minimum} or newer" if minimum else ""
            raise _Failure(number, f"{spec.full_name} needs {wanted}{at_least}{loser}")

    def _blame(self, planned: _Planned, other: Key) -> tuple[int, str]:
        """Return which request has to yield to the other package, and what that one is."""
        if other in self._planned:
            return max(planned.number, self._planned[other].number), "is to be installed"
        return planned.number, "is installed"

    def _requires(self, key: Key) -> tuple[Key, ...]:
        """Return the planned packages without which a dependency would be unsatisfied."""
        found: dict[Key, None] = {}
        for text, minimum in sorted(self._planned[key].offer.spec.dependencies.items()):
            wanted = split_name(text)
            satisfiers = [key_of(spec) for spec in self._world.satisfiers(wanted, minimum)]
            if key in satisfiers or any(
                one in self._installed and answers(self._installed[one].spec, wanted, minimum)
                for one in satisfiers
            ):
                continue
            found.update(dict.fromkeys(satisfiers))
        return tuple(found)

    def _installation(
        self, key: Key, requires: tuple[Key, ...], reasons: Mapping[Key, str]
    ) -> Installation:
        previous = [self._installed[key]] if key in self._installed else []
        if key in self._taken_over:
            previous.append(self._installed[self._taken_over[key]])
        leaving = [replaced for replaced, owner in self._replaced.items() if owner == key]
        return Installation(
            self._planned[key].offer,
            tuple(previous),
            tuple(
                Removal(self._installed[one], reasons[one])
                for one in leaves_first([self._installed[one].spec for one in leaving])
            ),
            requires,
        )

    def _warnings(self) -> Iterable[str]:
        """Name the installed packages that lose a dependency by a change of version."""
        before = PackageSet(package.spec for package in self._installed.values())
        for key, package in sorted(self._installed.items()):
            if key in self._planned or key not in self._world:
                continue
            for text, minimum in sorted(package.spec.dependencies.items()):
                wanted = split_name(text)
                if self._world.is_satisfied(wanted, minimum):
                    continue
                if before.is_satisfied(wanted, minimum):
                    at_least = f" {minimum} or newer" if minimum else ""
                    yield f"{package.spec.full_name} needs {wanted}{at_least}, which will be gone"


@record
class Update:
    """An installed package and what a repository has instead of it."""

    package: InstalledPackage
    offer: Offer


def find_updates(
    catalogue: Catalogue,
    installed: Sequence[InstalledPackage],
    *,
    default_priority: int = DEFAULT_PRIORITY,
) -> tuple[Update, ...]:
    """Return what ``update`` changes: the best direct offer of each package's own architecture.

    A repository above the default priority may take a package back to an older version, one below
    it never updates; the version that is installed is never an update.
    """
    updates = []
    for package in sorted(installed, key=lambda one: key_of(one.spec)):
        spec = package.spec
        wanted = PackageName(spec.name, spec.arch)
        offers = ranked(
            catalogue,
            wanted,
            architectures=(spec.arch,),
        )
        direct = [offer for offer in offers if offer.spec.name == spec.name]
        if not direct:
            continue
        best = direct[0]
        old, new = sort_key(spec.version), sort_key(best.spec.version)
        if new != old and (best.priority, new) > (default_priority, old):
            updates.append(Update(package, best))
    return tuple(updates)
