from __future__ import annotations

from typing import Any, Optional

import pytest
from support.goo_machine import make_spec

from googet.architectures import default_architectures
from googet.pkgspec import PackageSpec, split_name
from googet.selection import Catalogue, Offer, PackageSet, SelectionError, choose, ranked
from google_guest.records import record

ALL = ("noarch", "x86_64", "x86_32", "arm", "arm64")


@record
class Offered:
    spec: PackageSpec
    priority: int = 500


def offers(*texts: str, **fields: Any) -> list[Offer]:
    """Return offers written as ``foo.noarch.1.2.3@4`` or, with a priority, ``1500:foo...``."""
    found: list[Offer] = []
    for text in texts:
        priority, _, name = text.rpartition(":")
        package = split_name(name)
        spec = make_spec(package.name, package.version, package.arch, **fields)
        found.append(Offered(spec, int(priority or 500)))
    return found


def chosen(
    found: list[Offer],
    wanted: str,
    *,
    minimum: str = "",
    architectures: tuple[str, ...] = ALL,
    installed_arch: str = "",
    locked: bool = False,
) -> Optional[str]:
    try:
        offer = choose(
            Catalogue(found),
            split_name(wanted),
            minimum=minimum,
            architectures=architectures,
            installed_arch=installed_arch,
            locked=locked,
        )
    except SelectionError:
        return None
    return offer.spec.full_name


FOUR = ("foo.noarch.1.2.3@4", "foo.noarch.1.0.0@1", "foo.x86_64.2.0.0@1", "foo.arm64.3.0.0@1")


@pytest.mark.parametrize(
    ("available", "wanted", "got"),
    [
        (FOUR, "foo.noarch", "foo.noarch.1.2.3@4"),
        (FOUR, "foo", "foo.arm64.3.0.0@1"),
        (FOUR[:2], "foo.x86_64", None),
        (("500:foo.noarch.1.2.3@4", "500:foo.noarch.2.4.5@1"), "foo", "foo.noarch.2.4.5@1"),
        (("1500:foo.noarch.1.2.3@4", "500:foo.noarch.2.4.5@1"), "foo", "foo.noarch.1.2.3@4"),
        (("1000:foo.noarch.1.0.0@1", "500:foo.noarch.2.0.0@1"), "foo", "foo.noarch.1.0.0@1"),
        (
            ("1000:foo.noarch.1.0.0", "500:foo.noarch.3.0.0", "100:foo.noarch.4.0.0"),
            "foo",
            "foo.noarch.1.0.0",
        ),
        (("foo.noarch.1.0.0@1", "foo.x86_64.2.0.0@1"), "foo", "foo.x86_64.2.0.0@1"),
        (FOUR, "foo.noarch.1.0.0@1", "foo.noarch.1.0.0@1"),
        (FOUR, "foo.noarch.1.0.0@2", None),
        (FOUR, "bar", None),
    ],
)
def test_package_is_chosen_by_priority_then_version(
    available: tuple[str, ...], wanted: str, got: Optional[str]
) -> None:
    assert chosen(offers(*available), wanted) == got


@pytest.mark.parametrize(
    ("architectures", "available", "got"),
    [
        (("x86_64", "x86_32"), ("foo.x86_64.1.0.0", "foo.x86_32.2.0.0"), "foo.x86_32.2.0.0"),
        (("x86_64", "x86_32"), ("foo.x86_32.1.0.0", "foo.x86_64.1.0.0"), "foo.x86_64.1.0.0"),
        (("x86_32", "x86_64"), ("foo.x86_32.1.0.0", "foo.x86_64.2.0.0"), "foo.x86_64.2.0.0"),
        (("x86_64",), ("foo.arm64.2.0.0",), None),
    ],
)
def test_architecture_breaks_ties_only(
    architectures: tuple[str, ...], available: tuple[str, ...], got: Optional[str]
) -> None:
    assert chosen(offers(*available), "foo", architectures=architectures) == got


@pytest.mark.parametrize(
    ("machine", "preferred"), [("x86_64", "x86_64"), ("arm64", "arm64"), ("x86_32", "x86_32")]
)
def test_windows_prefers_its_native_architecture_at_equal_versions(
    machine: str, preferred: str
) -> None:
    architectures = default_architectures("windows", machine)
    equal = offers(*(f"foo.{arch}.1.0.0@1" for arch in reversed(architectures)))
    assert chosen(equal, "foo", architectures=architectures) == f"foo.{preferred}.1.0.0@1"


@pytest.mark.parametrize("machine", ["x86_64", "arm64", "x86_32"])
def test_windows_takes_the_less_preferred_architecture_if_it_is_newer(machine: str) -> None:
    architectures = default_architectures("windows", machine)
    for newer in architectures:
        found = offers(
            *(f"foo.{arch}.{'2' if arch == newer else '1'}.0.0@1" for arch in architectures)
        )
        assert chosen(found, "foo", architectures=architectures) == f"foo.{newer}.2.0.0@1"


def test_equal_offers_are_taken_in_the_order_of_the_repositories() -> None:
    first, second = offers("foo.noarch.1.0.0@1"), offers("foo.noarch.1.0.0@1")
    best = choose(Catalogue(first + second), split_name("foo"), architectures=ALL)
    assert best is first[0]


@pytest.mark.parametrize(
    ("minimum", "got"), [("1.0.0@1", "foo.noarch.1.2.3@4"), ("1.2.3@4", "foo.noarch.1.2.3@4")]
)
def test_minimum_admits_what_is_as_new(minimum: str, got: str) -> None:
    assert chosen(offers(*FOUR[:2]), "foo", minimum=minimum) == got


def test_minimum_looks_past_a_higher_priority() -> None:
    found = offers("1500:foo.noarch.1.0.0@1", "500:foo.noarch.2.0.0@1")
    assert chosen(found, "foo", minimum="2.0.0@1") == "foo.noarch.2.0.0@1"


# Names that packages provide.


def test_package_of_that_name_wins_over_a_newer_provider() -> None:
    found = offers("lib.noarch.1.0.0@1") + offers("other.noarch.9.0.0@1", provides=("lib",))
    assert chosen(found, "lib") == "lib.noarch.1.0.0@1"


def test_newest_provider_is_chosen_where_the_name_itself_is_missing() -> None:
    found = offers("a.noarch.1.0.0", "b.noarch.2.0.0", provides=("lib",))
    assert chosen(found, "lib") == "b.noarch.2.0.0"


def test_provider_without_a_version_satisfies_any() -> None:
    assert chosen(offers("a.noarch.1.0.0", provides=("lib",)), "lib", minimum="7") is not None


@pytest.mark.parametrize(("minimum", "found"), [("1.0.0", True), ("2.0.0", False), ("", True)])
def test_provided_version_has_to_be_as_new(minimum: str, found: bool) -> None:
    available = offers("a.noarch.5.0.0", provides=("lib=1.0.0",))
    assert (chosen(available, "lib", minimum=minimum) is not None) == found


def test_provider_does_not_answer_a_wish_for_one_version() -> None:
    assert chosen(offers("a.noarch.1.0.0", provides=("lib",)), "lib.noarch.1.0.0") is None


# Locked architectures.


LOCKED = offers("foo.x86_64.2.0.0@1", lock_arch=True) + offers("foo.noarch.1.0.0@1")


def test_locked_package_is_not_followed_by_a_locked_one_of_another_architecture() -> None:
    assert chosen(LOCKED, "foo", installed_arch="noarch", locked=True) == "foo.noarch.1.0.0@1"


def test_locked_package_is_followed_by_an_unlocked_one() -> None:
    found = LOCKED + offers("foo.x86_64.3.0.0@1")
    assert chosen(found, "foo", installed_arch="noarch", locked=True) == "foo.x86_64.3.0.0@1"


def test_package_that_is_not_locked_is_followed_by_a_locked_one() -> None:
    assert chosen(LOCKED, "foo", installed_arch="noarch") == "foo.x86_64.2.0.0@1"


def test_ranked_offers_end_with_the_providers() -> None:
    found = offers("lib.noarch.1.0.0") + offers("1500:a.noarch.1.0.0", provides=("lib",))
    names = [
        one.spec.name for one in ranked(Catalogue(found), split_name("lib"), architectures=ALL)
    ]
    assert names == ["lib", "a"]


# What is installed.


INSTALLED = PackageSet(
    [
        make_spec("foo", "1.2.3@4"),
        make_spec("bar", "0.1.0@1"),
        make_spec("impl", "9.0.0", provides=("libfoo", "libbar=1.5.0")),
    ]
)


@pytest.mark.parametrize(
    ("wanted", "minimum", "is_satisfied"),
    [
        ("foo.noarch", "1.0.0@1", True),
        ("foo", "1.0.0@1", True),
        ("foo", "1.2.3@4", True),
        ("foo", "1.2.3@5", False),
        ("foo.x86_64", "1.0.0@1", False),
        ("foo.arm64", "1.0.0@1", False),
        ("bar", "1.0.0@1", False),
        ("bar", "", True),
        ("baz", "1.0.0@1", False),
        ("libfoo", "1.0.0", True),
        ("libbar", "1.0.0", True),
        ("libbar", "2.0.0", False),
        ("libbaz", "", False),
    ],
)
def test_dependency_is_satisfied(wanted: str, minimum: str, is_satisfied: bool) -> None:
    assert INSTALLED.is_satisfied(split_name(wanted), minimum) == is_satisfied
    assert bool(INSTALLED.satisfiers(split_name(wanted), minimum)) == is_satisfied


@pytest.mark.parametrize(
    ("spec", "is_needed"),
    [
        (make_spec("foo", "1.2.3@4"), False),
        (make_spec("foo", "1.2.3@5"), True),
        (make_spec("foo", "1.0.0@1"), False),
        (make_spec("foo", "1.0.0@1", "x86_64"), True),
        (make_spec("baz", "1.0.0@1"), True),
    ],
)
def test_package_is_needed_if_it_is_absent_or_older(spec: PackageSpec, is_needed: bool) -> None:
    assert INSTALLED.is_needed(spec) == is_needed


@pytest.mark.parametrize(
    ("clause", "hit"),
    [
        ("foo", "foo"),
        ("foo.noarch", "foo"),
        ("foo.noarch.1.2.3@4", "foo"),
        ("foo.noarch.1.0.0", "foo"),
        ("foo.noarch.2.0.0", None),
        ("foo.x86_64", None),
        ("libfoo", "impl"),
        ("libbar.noarch.1.5.0", "impl"),
        ("libbar.noarch.1.6.0", None),
        ("foo.noarch.no-version-at-all!", None),
    ],
)
def test_conflict_hits_packages_and_providers(clause: str, hit: Optional[str]) -> None:
    spec = make_spec("new", conflicts=(clause,))
    found = [other.name for other, said in INSTALLED.conflicts_of(spec) if said == clause]
    assert found == ([hit] if hit else [])


def test_conflict_of_what_is_there_counts_as_well() -> None:
    there = PackageSet([make_spec("old", conflicts=("virtual",))])
    new = make_spec("new", provides=("virtual",))
    assert [other.name for other, _ in there.conflicts_of(new)] == ["old"]


def test_package_does_not_conflict_with_what_it_provides_itself() -> None:
    spec = make_spec("a", provides=("mta",), conflicts=("mta",))
    assert not list(PackageSet([spec]).conflicts_of(spec))


@pytest.mark.parametrize(
    ("clause", "hit"),
    [
        ("foo", True),
        ("foo.noarch.1.2.3@4", True),
        ("foo.noarch.3.0.0", False),
        ("foo.x86_64", False),
        ("libfoo", False),
    ],
)
def test_replaces_hits_packages_of_that_name_and_no_providers(clause: str, hit: bool) -> None:
    assert bool(INSTALLED.replaced_by(make_spec("new", replaces=(clause,)))) == hit


def test_package_set_forgets_what_is_removed() -> None:
    spec = make_spec("a", provides=("virtual",), dependencies=["b"], conflicts=("c",))
    packages = PackageSet([spec])
    packages.remove(("a", "noarch"))
    assert not packages.is_satisfied(split_name("a"))
    assert not packages.is_satisfied(split_name("virtual"))
    assert not packages.needing(["b"])
    assert not packages.conflicting(["c"])
    assert len(packages) == 0


def test_package_set_has_one_of_a_name_and_architecture() -> None:
    packages = PackageSet([make_spec("a", "1"), make_spec("a", "2"), make_spec("a", "1", "arm64")])
    assert [(one.arch, one.version) for one in packages.named("a")] == [
        ("arm64", "1"),
        ("noarch", "2"),
    ]
