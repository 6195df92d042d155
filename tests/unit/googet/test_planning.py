from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.goo_machine import make_spec

from googet.database import InstalledPackage
from googet.pkgspec import PackageName, PackageSpec, split_name
from googet.planning import (
    Change,
    Plan,
    Request,
    find_updates,
    plan_install,
)
from googet.removal import leaves_first, plan_removal
from googet.selection import Catalogue, Key, Offer, PackageSet, answers_name, key_of
from google_guest.records import record

ALL = ("noarch", "x86_64", "x86_32", "arm", "arm64")


@record
class Offered:
    spec: PackageSpec
    priority: int = 500


def on_offer(*specs: PackageSpec, priority: int = 500) -> list[Offer]:
    return [Offered(spec, priority) for spec in specs]


def machine(*specs: PackageSpec) -> list[InstalledPackage]:
    return [InstalledPackage(spec) for spec in specs]


def plan(
    wanted: Sequence[str],
    available: Sequence[Offer],
    installed: Sequence[PackageSpec] = (),
    *,
    allow_downgrade: bool = False,
) -> Plan:
    requests = [Request(text, split_name(text), allow_downgrade=allow_downgrade) for text in wanted]
    return plan_install(requests, Catalogue(available), machine(*installed), architectures=ALL)


def steps(made: Plan) -> list[str]:
    return [step.spec.full_name for step in made.installations]


def removed(made: Plan) -> list[str]:
    return [removal.package.spec.name for removal in made.removals]


def errors(made: Plan) -> list[str]:
    return [goal.error for goal in made.goals if goal.error]


# What is needed.


def test_older_dependency_is_upgraded_before_the_package() -> None:
    a = make_spec("a", "1.0.0", dependencies={"b": "2"})
    made = plan(
        ["a"], on_offer(a, make_spec("b", "1.0.0"), make_spec("b", "3.0.0")), [make_spec("b", "1")]
    )
    assert steps(made) == ["b.noarch.3.0.0", "a.noarch.1.0.0"]
    assert [step.change for step in made.installations] == [Change.UPGRADE, Change.INSTALL]
    assert made.installations[1].requires == (("b", "noarch"),)


def test_satisfied_dependency_is_left_alone_even_if_no_repository_has_it() -> None:
    a = make_spec("a", dependencies={"b": "2.0.0"})
    assert steps(plan(["a"], on_offer(a), [make_spec("b", "2.0.0")])) == ["a.noarch.1.0.0@1"]


def test_dependency_on_a_provided_name_is_resolved_in_the_repositories() -> None:
    a, impl = make_spec("a", dependencies=["mta"]), make_spec("impl", provides=("mta",))
    assert steps(plan(["a"], on_offer(a, impl))) == ["impl.noarch.1.0.0@1", "a.noarch.1.0.0@1"]


def test_installed_provider_satisfies_a_dependency() -> None:
    a, impl = make_spec("a", dependencies=["mta"]), make_spec("impl", provides=("mta",))
    other = make_spec("other", "9.0.0", provides=("mta",))
    assert steps(plan(["a"], on_offer(a, other), [impl])) == ["a.noarch.1.0.0@1"]


def test_virtual_name_on_the_command_line_is_resolved() -> None:
    made = plan(["mta"], on_offer(make_spec("impl", provides=("mta",))))
    assert steps(made) == ["impl.noarch.1.0.0@1"]


def test_virtual_name_with_an_installed_provider_needs_nothing() -> None:
    there = make_spec("there", provides=("mta",))
    made = plan(["mta"], on_offer(make_spec("impl", "9.0.0", provides=("mta",))), [there])
    assert not made.installations
    assert made.goals[0].present == "there.noarch.1.0.0@1"


def test_cycle_ends() -> None:
    a, b = make_spec("a", dependencies=["b"]), make_spec("b", dependencies=["a"])
    assert sorted(steps(plan(["a"], on_offer(a, b)))) == ["a.noarch.1.0.0@1", "b.noarch.1.0.0@1"]


def test_missing_dependency_is_named_and_nothing_is_planned() -> None:
    made = plan(["a"], on_offer(make_spec("a", dependencies={"gone": "2"})))
    assert not made.installations
    assert "gone" in errors(made)[0] and "2 or newer" in errors(made)[0]
    assert made.goals[0].is_missing


def test_request_that_fails_does_not_stop_the_others() -> None:
    a = make_spec("a", dependencies=["gone"])
    made = plan(["a", "nowhere", "b"], on_offer(a, make_spec("b")))
    assert steps(made) == ["b.noarch.1.0.0@1"]
    assert [bool(goal.error) for goal in made.goals] == [True, True, False]


def test_what_only_a_failed_request_needs_is_not_planned() -> None:
    a = make_spec("a", dependencies=["b", "gone"])
    assert not plan(["a"], on_offer(a, make_spec("b"))).installations


def test_dependency_chosen_too_low_is_raised_for_a_later_package() -> None:
    low, high = make_spec("lib", "1.0.0"), make_spec("lib", "3.0.0")
    a = make_spec("a", dependencies=["lib"])
    b = make_spec("b", dependencies={"lib": "2.0.0"})
    available = on_offer(low, priority=1000) + on_offer(a, b, high)
    made = plan(["a", "b"], available)
    assert sorted(steps(made)) == ["a.noarch.1.0.0@1", "b.noarch.1.0.0@1", "lib.noarch.3.0.0"]
    assert not errors(made)


def test_long_chain_of_dependencies_is_planned_without_recursion() -> None:
    chain = [make_spec(f"p{n}", dependencies=[f"p{n + 1}"]) for n in range(5000)]
    made = plan(["p0"], on_offer(*chain, make_spec("p5000")))
    assert len(made.installations) == 5001
    assert made.installations[0].spec.name == "p5000"


# What is there already.


def test_installed_version_is_named_as_present() -> None:
    made = plan(["a"], on_offer(make_spec("a", "1.0.0")), [make_spec("a", "1.0.0")])
    assert not made.installations
    assert made.goals[0].present == "a.noarch.1.0.0"


def test_install_of_a_version_never_downgrades() -> None:
    available = on_offer(make_spec("a", "1.0.0"), make_spec("a", "2.0.0"))
    made = plan(["a.noarch.1.0.0"], available, [make_spec("a", "2.0.0")])
    assert made.goals[0].present == "a.noarch.1.0.0"
    assert not made.installations


def test_version_that_is_present_needs_no_repository() -> None:
    made = plan(["a.noarch.1.0.0"], [], [make_spec("a", "1.0.0")])
    assert made.goals[0].present


def test_allowed_downgrade_is_planned() -> None:
    available = on_offer(make_spec("a", "1.0.0"), make_spec("a", "2.0.0"))
    made = plan(["a.noarch.1.0.0"], available, [make_spec("a", "2.0.0")], allow_downgrade=True)
    assert [step.change for step in made.installations] == [Change.DOWNGRADE]


def test_downgrade_that_breaks_an_installed_package_is_warned_of() -> None:
    user = make_spec("user", dependencies={"a": "2.0.0"})
    available = on_offer(make_spec("a", "1.0.0"))
    made = plan(
        ["a.noarch.1.0.0"], available, [make_spec("a", "2.0.0"), user], allow_downgrade=True
    )
    assert any("user" in warning and "2.0.0" in warning for warning in made.warnings)


def test_dependency_never_downgrades_a_provider() -> None:
    a = make_spec("a", dependencies=["mta"])
    old = make_spec("impl", "1.0.0", provides=("mta",))
    made = plan(["a"], on_offer(a, old), [make_spec("impl", "2.0.0")])
    assert not made.installations
    assert "2.0.0 is installed" in errors(made)[0]


def test_text_that_is_no_version_is_an_error_of_its_request() -> None:
    made = plan(["a.noarch.one", "b"], on_offer(make_spec("a"), make_spec("b")))
    assert "one" in errors(made)[0]
    assert steps(made) == ["b.noarch.1.0.0@1"]


# Architectures.


def test_change_of_architecture_takes_the_old_one_over() -> None:
    made = plan(["a"], on_offer(make_spec("a", "2.0.0", "x86_64")), [make_spec("a", "1.0.0")])
    (step,) = made.installations
    assert [package.spec.arch for package in step.previous] == ["noarch"]
    assert step.change is Change.UPGRADE


def test_named_architecture_stands_beside_the_other() -> None:
    made = plan(
        ["a.x86_64"], on_offer(make_spec("a", "2.0.0", "x86_64")), [make_spec("a", "1.0.0")]
    )
    assert made.installations[0].previous == ()


def test_two_architectures_side_by_side_are_both_kept() -> None:
    there = [make_spec("a", "1.0.0", "x86_32"), make_spec("a", "1.0.0", "x86_64")]
    made = plan(["a"], on_offer(make_spec("a", "2.0.0", "x86_64")), there)
    (step,) = made.installations
    assert [package.spec.arch for package in step.previous] == ["x86_64"]


def test_architecture_that_another_package_needs_by_name_stays() -> None:
    there = [make_spec("a", "1.0.0"), make_spec("user", dependencies=["a.noarch"])]
    made = plan(["a"], on_offer(make_spec("a", "2.0.0", "x86_64")), there)
    assert made.installations[0].previous == ()


def test_other_architecture_of_an_older_version_is_no_update() -> None:
    made = plan(["a"], on_offer(make_spec("a", "1.0.0", "x86_64")), [make_spec("a", "2.0.0")])
    assert made.goals[0].present


# Conflicts and replacements.


def test_conflict_with_an_installed_package_is_named() -> None:
    made = plan(["a"], on_offer(make_spec("a", conflicts=("old",))), [make_spec("old")])
    assert not made.installations
    assert "old" in errors(made)[0] and "is installed" in errors(made)[0]


def test_conflict_with_an_installed_provider_is_named() -> None:
    there = make_spec("impl", provides=("libconflict",))
    made = plan(["a"], on_offer(make_spec("a", conflicts=("libconflict",))), [there])
    assert "libconflict" in errors(made)[0] and "impl" in errors(made)[0]


def test_conflict_declared_by_the_installed_package_counts() -> None:
    made = plan(["a"], on_offer(make_spec("a")), [make_spec("old", conflicts=("a",))])
    assert "old" in errors(made)[0]


def test_later_of_two_conflicting_requests_fails() -> None:
    made = plan(["a", "b"], on_offer(make_spec("a"), make_spec("b", conflicts=("a",))))
    assert steps(made) == ["a.noarch.1.0.0@1"]
    assert made.goals[1].error


def test_package_that_is_replaced_is_no_conflict() -> None:
    b = make_spec("b", conflicts=("a",), replaces=("a",))
    made = plan(["b"], on_offer(b), [make_spec("a")])
    assert removed(made) == ["a"]
    assert not errors(made)


def test_replaced_package_goes_with_what_needs_it_leaves_first() -> None:
    there = [make_spec("a", "5.0.0"), make_spec("c", dependencies=["a"])]
    made = plan(["b"], on_offer(make_spec("b", replaces=("a.noarch.3",))), there)
    assert removed(made) == ["c", "a"]
    assert [one.reason for one in made.removals] == ["needs a", "replaced by b"]


@pytest.mark.parametrize(("version", "hit"), [("5.0.0", True), ("0.0.2", False)])
def test_replaces_has_a_lowest_version(version: str, hit: bool) -> None:
    made = plan(
        ["b"], on_offer(make_spec("b", replaces=("a.noarch.3",))), [make_spec("a", version)]
    )
    assert removed(made) == (["a"] if hit else [])


def test_dependent_stays_if_the_new_package_provides_the_name() -> None:
    there = [make_spec("a"), make_spec("c", dependencies=["a"])]
    made = plan(["b"], on_offer(make_spec("b", replaces=("a",), provides=("a",))), there)
    assert removed(made) == ["a"]


def test_dependent_that_is_updated_away_from_it_stays() -> None:
    there = [make_spec("a"), make_spec("c", "1.0.0", dependencies=["a"])]
    made = plan(
        ["b", "c"], on_offer(make_spec("b", replaces=("a",)), make_spec("c", "2.0.0")), there
    )
    assert removed(made) == ["a"]
    assert sorted(steps(made)) == ["b.noarch.1.0.0@1", "c.noarch.2.0.0"]


def test_asked_for_package_that_another_one_replaces_is_not_installed() -> None:
    b = make_spec("b", replaces=("a",))
    made = plan(["a", "b"], on_offer(make_spec("a"), b), [make_spec("a", "1.0.0@1")])
    assert steps(made) == ["b.noarch.1.0.0@1"]
    assert removed(made) == ["a"]


def test_new_package_that_another_request_replaces_is_an_error_of_its_own() -> None:
    made = plan(["a", "b"], on_offer(make_spec("a"), make_spec("b", replaces=("a",))))
    assert steps(made) == ["b.noarch.1.0.0@1"]
    assert made.goals[0].error


def test_package_that_needs_what_another_request_replaces_fails() -> None:
    a, b = make_spec("a"), make_spec("b", replaces=("a",))
    c = make_spec("c", dependencies=["a"])
    made = plan(["b", "c"], on_offer(a, b, c), [a])
    assert steps(made) == ["b.noarch.1.0.0@1"]
    assert made.goals[1].error


def test_package_that_replaces_its_own_dependency_fails() -> None:
    a, b = make_spec("a"), make_spec("b", replaces=("a",), dependencies=["a"])
    for there in ([], [a]):
        made = plan(["b"], on_offer(a, b), there)
        assert not made.installations and made.goals[0].error


def test_removals_belong_to_the_package_that_replaces() -> None:
    b = make_spec("b", replaces=("a",), dependencies=["d"])
    made = plan(["b"], on_offer(b, make_spec("d")), [make_spec("a")])
    assert [(step.spec.name, len(step.removals)) for step in made.installations] == [
        ("d", 0),
        ("b", 1),
    ]


def test_losing_one_package_loses_what_needs_it() -> None:
    a = make_spec("a", dependencies=["b"])
    b = make_spec("b", dependencies=["c"])
    made = plan(["a", "other"], on_offer(a, b, make_spec("c"), make_spec("other")))
    assert made.lost_with([("c", "noarch")]) == {("c", "noarch"), ("b", "noarch"), ("a", "noarch")}


# Removing.


def removal(installed: Sequence[PackageSpec], *names: str) -> list[str]:
    packages = machine(*installed)
    targets = [package for package in packages if package.spec.name in names]
    return [one.package.spec.name for one in plan_removal(packages, targets)]


def test_package_is_removed_alone_if_nothing_needs_it() -> None:
    assert removal([make_spec("a"), make_spec("b")], "a") == ["a"]


def test_dependents_go_and_dependencies_stay() -> None:
    there = [
        make_spec("a", dependencies=["d"]),
        make_spec("b", dependencies=["a"]),
        make_spec("c", dependencies=["a"]),
        make_spec("d"),
    ]
    gone = removal(there, "a")
    assert sorted(gone) == ["a", "b", "c"]
    assert gone[-1] == "a"


def test_chain_of_dependents_goes_leaves_first() -> None:
    there = [
        make_spec("a"),
        make_spec("b", dependencies=["a"]),
        make_spec("c", dependencies=["b"]),
        make_spec("d", dependencies=["c"]),
    ]
    assert removal(there, "a") == ["d", "c", "b", "a"]


def test_diamond_of_dependents_goes_leaves_first() -> None:
    there = [
        make_spec("baz"),
        make_spec("foo", dependencies=["baz"]),
        make_spec("bar", dependencies=["baz", "foo"]),
    ]
    assert removal(there, "baz") == ["bar", "foo", "baz"]
    assert removal(there[:2], "baz") == ["foo", "baz"]


def test_cycle_of_dependents_ends() -> None:
    there = [make_spec("a", dependencies=["b"]), make_spec("b", dependencies=["a"])]
    assert sorted(removal(there, "a")) == ["a", "b"]


def test_versions_of_dependencies_do_not_matter_for_removal() -> None:
    there = [make_spec("a", "1.0.0"), make_spec("b", dependencies={"a": "7"})]
    assert removal(there, "a") == ["b", "a"]


def test_dependency_on_another_architecture_is_not_lost() -> None:
    there = [make_spec("a", arch="x86_64"), make_spec("b", dependencies=["a.x86_32"])]
    assert removal(there, "a") == ["a"]


def test_loss_of_the_last_provider_counts() -> None:
    user = make_spec("user", dependencies=["mta"])
    one, other = make_spec("one", provides=("mta",)), make_spec("other", provides=("mta",))
    assert removal([user, one, other], "one") == ["one"]
    assert removal([user, one], "one") == ["user", "one"]


def test_reasons_of_removals_are_told() -> None:
    packages = machine(make_spec("a"), make_spec("b", dependencies=["a"]))
    assert [one.reason for one in plan_removal(packages, packages[:1])] == ["needs a", ""]


# Updating.


def updates(installed: Sequence[PackageSpec], available: Sequence[Offer]) -> list[str]:
    return [
        one.offer.spec.full_name for one in find_updates(Catalogue(available), machine(*installed))
    ]


@pytest.mark.parametrize(
    ("installed", "offered", "priority", "is_update"),
    [
        ("1.0.0", "2.0.0", 500, True),
        ("2.0.0", "2.0.0", 500, False),
        ("2.0.0", "1.0.0", 500, False),
        ("2.0.0", "1.0.0", 1500, True),
        ("1.0.0", "2.0.0", 1500, True),
        ("1.0.0", "1.0.0", 1500, False),
        ("1.0.0", "2.0.0", 400, False),
    ],
)
def test_update_goes_by_priority_then_version(
    installed: str, offered: str, priority: int, is_update: bool
) -> None:
    available = on_offer(make_spec("foo", offered, "x86_32"), priority=priority)
    found = updates([make_spec("foo", installed, "x86_32")], available)
    assert bool(found) == is_update


def test_rollback_repository_wins_over_a_newer_version() -> None:
    available = on_offer(make_spec("foo", "2.0.0")) + on_offer(
        make_spec("foo", "1.0.0"), priority=1500
    )
    assert updates([make_spec("foo", "2.0.0")], available) == ["foo.noarch.1.0.0"]


def test_update_keeps_the_architecture() -> None:
    available = on_offer(make_spec("foo", "9.0.0", "x86_64"), make_spec("foo", "2.0.0", "x86_32"))
    assert updates([make_spec("foo", "1.0.0", "x86_32")], available) == ["foo.x86_32.2.0.0"]


def test_provider_is_no_update() -> None:
    available = on_offer(make_spec("bar", "9.0.0", provides=("foo",)))
    assert updates([make_spec("foo", "1.0.0")], available) == []


def test_updates_come_by_name() -> None:
    available = on_offer(make_spec("b", "2.0.0"), make_spec("a", "2.0.0"))
    assert updates([make_spec("b", "1.0.0"), make_spec("a", "1.0.0")], available) == [
        "a.noarch.2.0.0",
        "b.noarch.2.0.0",
    ]


# Random universes of packages.

NAMES = tuple("abcdefgh")
VIRTUAL = ("v", "w")
VERSIONS = ("1.0.0", "2.0.0", "3.0.0")


def names_of_packages() -> st.SearchStrategy[str]:
    return st.sampled_from(NAMES + VIRTUAL)


@st.composite
def specs(draw: st.DrawFn) -> PackageSpec:
    def clauses(most: int) -> tuple[str, ...]:
        wanted = st.tuples(names_of_packages(), st.sampled_from(("", ".noarch", ".x86_64")))
        return tuple("".join(one) for one in draw(st.lists(wanted, max_size=most)))

    dependencies: dict[str, str] = {
        text: draw(st.sampled_from(("", *VERSIONS))) for text in clauses(2)
    }
    provides = draw(st.lists(st.sampled_from((*VIRTUAL, "v=2.0.0", "a")), max_size=1))
    fields: dict[str, Any] = {
        "dependencies": dependencies,
        "conflicts": clauses(1) if draw(st.booleans()) else (),
        "replaces": clauses(1) if draw(st.booleans()) else (),
        "provides": tuple(provides),
        "lock_arch": draw(st.booleans()),
    }
    arch = draw(st.sampled_from(("noarch", "x86_64")))
    return make_spec(draw(st.sampled_from(NAMES)), draw(st.sampled_from(VERSIONS)), arch, **fields)


@st.composite
def universes(draw: st.DrawFn) -> tuple[list[PackageSpec], list[PackageSpec], list[str]]:
    """Return what is on offer, a consistent machine, and what is wanted."""
    offered = draw(st.lists(specs(), max_size=16))
    there = PackageSet()
    for spec in draw(st.lists(specs(), max_size=6)):
        if not list(there.conflicts_of(spec)):
            there.add(spec)
    wanted = draw(st.lists(names_of_packages(), min_size=1, max_size=4, unique=True))
    return offered, list(there), wanted


def after(made: Plan, installed: Sequence[PackageSpec]) -> PackageSet:
    """Carry a plan out in its order; every displaced package must be there at that moment."""
    world = PackageSet(installed)
    for step in made.installations:
        for package in [*step.previous, *(one.package for one in step.removals)]:
            world.remove(key_of(package.spec))
        world.add(step.spec)
    return world


@settings(max_examples=120)
@given(universes())
def test_plan_ends_in_a_consistent_machine(
    universe: tuple[list[PackageSpec], list[PackageSpec], list[str]],
) -> None:
    offered, there, wanted = universe
    made = plan(wanted, on_offer(*offered), there)
    world = after(made, there)
    for step in made.installations:
        assert not list(world.conflicts_of(step.spec))
        for text, minimum in step.spec.dependencies.items():
            assert world.is_satisfied(split_name(text), minimum)
    for goal in made.goals:
        assert bool(goal.error) + bool(goal.present) + bool(goal.key) == 1
        if goal.key:
            assert goal.key in world


@settings(max_examples=120)
@given(universes())
def test_plan_orders_dependencies_first_where_there_is_no_cycle(
    universe: tuple[list[PackageSpec], list[PackageSpec], list[str]],
) -> None:
    offered, there, wanted = universe
    made = plan(wanted, on_offer(*offered), there)
    done: set[Key] = set()
    requires = {step.key: step.requires for step in made.installations}
    for step in made.installations:
        for key in step.requires:
            assert key in done or _leads_to(requires, key, step.key)
        done.add(step.key)


@settings(max_examples=120)
@given(universes())
def test_failed_requests_leave_no_trace_in_the_plan(
    universe: tuple[list[PackageSpec], list[PackageSpec], list[str]],
) -> None:
    offered, there, wanted = universe
    made = plan(wanted, on_offer(*offered), there)
    good = [name for name, goal in zip(wanted, made.goals) if not goal.error]
    again = plan(good, on_offer(*offered), there)
    assert steps(again) == steps(made)


@settings(max_examples=80)
@given(universes())
def test_dry_installation_of_nothing_new_is_empty(
    universe: tuple[list[PackageSpec], list[PackageSpec], list[str]],
) -> None:
    offered, there, wanted = universe
    made = plan(wanted, on_offer(*offered), there)
    planned = {step.spec.name for step in made.installations}
    for step in made.installations:
        assert step.spec in offered
    assert planned <= {spec.name for spec in offered}


@settings(max_examples=80)
@given(universes())
def test_removal_order_is_leaves_first(
    universe: tuple[list[PackageSpec], list[PackageSpec], list[str]],
) -> None:
    _, there, wanted = universe
    packages = machine(*there)
    targets = [package for package in packages if package.spec.name in wanted]
    plan_of_removal = plan_removal(packages, targets)
    order = [one.package.spec for one in plan_of_removal]
    left = PackageSet(there)
    for spec in order:
        left.remove(key_of(spec))
        for later in left:
            needs_it = any(answers_name(spec, split_name(text)) for text in later.dependencies)
            if needs_it and later in order:
                assert _depends_on(order, spec, later), "only a cycle is cut"
    # Nothing that stays has lost a dependency to what went.
    before = PackageSet(there)
    for spec in left:
        for text, minimum in spec.dependencies.items():
            if before.is_satisfied(split_name(text), minimum):
                assert left.is_satisfied(split_name(text), minimum)
    assert {key_of(package.spec) for package in targets} <= {key_of(spec) for spec in order}


def test_leaves_first_orders_a_tree() -> None:
    tree = [make_spec("root"), make_spec("leaf", dependencies=["mid"])]
    tree.append(make_spec("mid", dependencies=["root"]))
    assert [name for name, _ in leaves_first(tree)] == ["leaf", "mid", "root"]


def _depends_on(specs: Sequence[PackageSpec], one: PackageSpec, other: PackageSpec) -> bool:
    """Say whether ``one`` needs ``other``, directly or not."""
    requires = {
        key_of(spec): tuple(
            key_of(answer)
            for text in spec.dependencies
            for answer in specs
            if answers_name(answer, split_name(text))
        )
        for spec in specs
    }
    return _leads_to(requires, key_of(one), key_of(other))


def _leads_to(requires: dict[Key, tuple[Key, ...]], start: Key, end: Key) -> bool:
    seen: set[Key] = set()
    waiting = [start]
    while waiting:
        key = waiting.pop()
        if key == end:
            return True
        if key not in seen:
            seen.add(key)
            waiting.extend(requires.get(key, ()))
    return False


def test_thousand_requests_of_a_large_index_are_planned_quickly() -> None:
    offered = [
        make_spec(f"p{n}", f"{v}.0.0", dependencies=[f"p{n + 1}"] if n % 3 else [])
        for n in range(3333)
        for v in (1, 2, 3)
    ]
    began = time.process_time()
    made = plan([f"p{n}" for n in range(1000)], on_offer(*offered, make_spec("p3333")))
    assert time.process_time() - began < 5.0
    assert not errors(made)


def test_request_of_an_offer_is_planned_as_it_is() -> None:
    (offer,) = on_offer(make_spec("a", "1.0.0"))
    made = plan_install(
        [Request("a", PackageName("a", "noarch"), offer, again=True, alone=True)],
        Catalogue(()),
        machine(make_spec("a", "1.0.0", dependencies=["gone"])),
        architectures=(),
    )
    assert [step.change for step in made.installations] == [Change.REINSTALL]
