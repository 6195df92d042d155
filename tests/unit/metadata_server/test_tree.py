"""The tree: names, renderings, ETags, batches."""

from __future__ import annotations

import hashlib
import json
import time
from typing import Union

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metadata_server.tree import (
    BadPath,
    NoSuchPath,
    Tree,
    camel_case,
    hyphenated,
    is_directory,
    split_path,
)


@pytest.mark.parametrize(
    ("path_name", "json_name"),
    [
        ("id", "id"),
        ("ip-aliases", "ipAliases"),
        ("numeric-project-id", "numericProjectId"),
        ("forwarded-ipv6s", "forwardedIpv6s"),
        ("dhcpv6-refresh", "dhcpv6Refresh"),
        ("gateway-ipv6", "gatewayIpv6"),
        ("remaining-cpu-time", "remainingCpuTime"),
        ("vlan-network-interfaces", "vlanNetworkInterfaces"),
    ],
)
def test_platform_names_have_two_spellings(path_name: str, json_name: str) -> None:
    assert (camel_case(path_name), hyphenated(json_name)) == (json_name, path_name)


@pytest.mark.parametrize(
    "document",
    [
        {"instance": {"attributes": {"my-key": "a", "myKey": "b"}}},
        {"instance": {"guestAttributes": {"my-Name": {"a-Key": "v"}}}},
        {"instance": {"serviceAccounts": {"sa-One@p.iam.example.com": {"aliases": []}}}},
        {"project": {"attributes": {"x-Y": "1"}}},
    ],
)
def test_names_of_users_stay_verbatim(document: dict[str, object]) -> None:
    assert Tree(document).document() == document


def test_names_below_a_service_account_are_the_platforms() -> None:
    tree = Tree({"instance": {"serviceAccounts": {"a-B@x": {"someField": 1}}}})
    assert tree.text(split_path("instance/service-accounts/a-B@x/some-field")) == b"1"


def test_paths_in_json_spelling_are_understood() -> None:
    path = split_path("instance/networkInterfaces/0/ipAliases")
    assert path == ("instance", "network-interfaces", "0", "ip-aliases")


def test_listing_marks_directories_and_numbers_arrays() -> None:
    tree = Tree({"licenses": [{"id": "1"}, {"id": "2"}], "name": "x"})
    assert tree.listing(()) == b"licenses/\nname\n"
    assert tree.listing(("licenses",)) == b"0/\n1/\n"


def test_scopes_are_one_value_joined_by_newlines() -> None:
    tree = Tree({"instance": {"serviceAccounts": {"default": {"scopes": ["a", "b"]}}}})
    assert tree.text(split_path("instance/service-accounts/default/scopes")) == b"a\nb"


def test_recursive_text_has_a_line_per_leaf() -> None:
    tree = Tree({"disks": [{"deviceName": "boot", "index": 0}]})
    assert tree.text(("disks",)) == b"0/device-name boot\n0/index 0\n"


def test_large_integers_stay_exact() -> None:
    tree = Tree({"id": 2**64 - 1})
    assert tree.json(()) == b'{"id":18446744073709551615}'
    assert tree.text(("id",)) == b"18446744073709551615"


def test_bytes_that_are_not_utf8_are_served_raw_and_replaced_in_json() -> None:
    tree = Tree({"instance": {"attributes": {"b": b"caf\xe9"}}})
    assert tree.text(("instance", "attributes", "b")) == b"caf\xe9"
    assert json.loads(tree.json(("instance", "attributes", "b"))) == "caf\ufffd"


def test_different_wrong_bytes_have_different_etags() -> None:
    one, two = (Tree({"project": {"attributes": {"b": b}}}) for b in (b"\xe9", b"\xe8"))
    assert one.etag(()) != two.etag(())


def test_etag_is_sixteen_hexadecimal_digits_of_the_canonical_document() -> None:
    tree = Tree({"name": "x", "id": 1})
    assert tree.etag(()) == hashlib.sha256(b'{"id":1,"name":"x"}').hexdigest()[:16]


def test_etag_of_a_subtree_ignores_its_neighbours() -> None:
    tree = Tree({"instance": {"disks": [], "name": "x"}})
    before = tree.etag(("instance", "disks"))
    tree.set(("instance", "name"), "y")
    assert tree.etag(("instance", "disks")) == before


def test_etag_returns_with_the_content() -> None:
    tree = Tree({"name": "x"})
    before = tree.etag(())
    tree.set(("name",), "y")
    assert tree.etag(()) != before
    tree.set(("name",), "x")
    assert tree.etag(()) == before


@pytest.mark.parametrize("directory", ["credentials", "gceWorkloadCertificates"])
def test_secrets_are_not_part_of_recursive_output(directory: str) -> None:
    tree = Tree({"instance": {directory: {"leaf": "secret"}, "id": 1}})
    path = split_path(f"instance/{directory}")
    for body in (tree.json(()), tree.text(()), tree.json(path), tree.text(path)):
        assert b"secret" not in body
    assert tree.text((*path, "leaf")) == b"secret"


def test_set_makes_missing_directories_and_arrays() -> None:
    tree = Tree({})
    tree.set(split_path("instance/network-interfaces/0/access-configs/0/type"), "X")
    assert tree.document() == {
        "instance": {"networkInterfaces": [{"accessConfigs": [{"type": "X"}]}]}
    }


def test_set_converts_documents_in_json_spelling() -> None:
    tree = Tree({})
    tree.set(("instance", "virtual-clock"), {"driftToken": "7"})
    assert tree.text(("instance", "virtual-clock", "drift-token")) == b"7"


def test_set_copies_what_it_is_given() -> None:
    value = {"a": ["x"]}
    tree = Tree({})
    tree.set(("n",), value)
    value["a"].append("y")
    assert tree.document() == {"n": {"a": ["x"]}}


@pytest.mark.parametrize("path", ["list/2", "list/x", "list/-1", "name/below"])
def test_set_where_nothing_can_be_is_refused(path: str) -> None:
    tree = Tree({"list": [{}], "name": "x"})
    with pytest.raises(BadPath):
        tree.set(split_path(path), "v")


def test_a_value_that_is_not_json_is_refused() -> None:
    with pytest.raises(TypeError):
        Tree({}).set(("x",), object())


def test_deleting_an_entry_of_an_array_moves_the_later_ones_down() -> None:
    tree = Tree({"disks": [{"index": 0}, {"index": 1}]})
    tree.delete(("disks", "0"))
    assert tree.document(("disks",)) == [{"index": 1}]


@pytest.mark.parametrize("path", ["nothing", "list/1", "list/x", "name/x", "list/00"])
def test_deleting_what_is_absent_raises(path: str) -> None:
    tree = Tree({"list": [{}], "name": "x"})
    with pytest.raises(NoSuchPath):
        tree.delete(split_path(path))


def test_a_batch_is_invisible_until_it_ends() -> None:
    tree = Tree({"a": 1})
    with tree.batch():
        tree.set(("a",), 2)
        tree.set(("b",), 3)
        assert tree.json(()) == b'{"a":1}'
        assert tree.document() == {"a": 2, "b": 3}
    assert tree.json(()) == b'{"a":2,"b":3}'


def test_a_batch_that_fails_changes_nothing() -> None:
    tree = Tree({"a": 1})
    with pytest.raises(RuntimeError), tree.batch():
        tree.set(("a",), 2)
        raise RuntimeError
    assert tree.document() == {"a": 1}


@pytest.mark.parametrize("path", [(), ("instance",)])
def test_guest_writes_can_be_kept_from_the_root_etag(path: tuple[str, ...]) -> None:
    tree = Tree({"instance": {"id": 1}}, guest_writes_move_root=False)
    before = tree.etag(path)
    tree.set(("instance", "guest-attributes", "n", "k"), "v")
    assert tree.etag(path) == before


def test_thousands_of_changes_are_fast() -> None:
    tree = Tree({"instance": {"attributes": {f"k{n}": "v" for n in range(1000)}}})
    started = time.monotonic()
    for number in range(3000):
        tree.set(("instance", "attributes", f"k{number % 1500}"), str(number))
    assert time.monotonic() - started < 3


# Property: the four outputs tell the same story.

# Other work on the machine must not fail a property by its time.
_PROPERTY = settings(deadline=None, max_examples=60)

_names = st.from_regex(r"[a-z][a-z0-9]{0,5}(-[a-z][a-z0-9]{0,4}){0,2}", fullmatch=True).filter(
    lambda name: name not in ("aliases", "scopes", "tags", "attributes")
)
_one_line = st.text(st.characters(blacklist_characters="\n", blacklist_categories=("Cs",)))
_scalars = st.one_of(_one_line, st.integers(-(2**63), 2**64 - 1))
_trees = st.dictionaries(
    _names,
    st.recursive(
        _scalars,
        lambda below: st.one_of(
            st.lists(below, max_size=3), st.dictionaries(_names, below, max_size=4)
        ),
        max_leaves=12,
    ),
    max_size=5,
)
Plain = Union[str, dict[str, "Plain"]]


def _as_text(value: object) -> object:
    """A JSON value reduced to what text can carry: hyphenated names, strings, no empty parts."""
    if isinstance(value, dict):
        entries = {hyphenated(name): _as_text(child) for name, child in value.items()}
        return {name: child for name, child in entries.items() if child != {}}
    if isinstance(value, list):
        return _as_text({str(index): child for index, child in enumerate(value)})
    return value if isinstance(value, str) else json.dumps(value)


def _from_lines(text: bytes) -> object:
    root: dict[str, object] = {}
    for line in text.decode("utf-8").split("\n")[:-1]:
        path, _, value = line.partition(" ")
        *above, last = path.split("/")
        node = root
        for name in above:
            child = node.setdefault(name, {})
            assert isinstance(child, dict)
            node = child
        node[last] = value
    return root


def _from_walk(tree: Tree, path: tuple[str, ...]) -> object:
    """The tree as a client sees it that knows only listings and leaves."""
    if not is_directory(tree.node(path), path):
        return tree.text(path).decode("utf-8")
    entries: dict[str, object] = {}
    for line in tree.listing(path).decode("utf-8").split("\n")[:-1]:
        name = line.rstrip("/")
        entries[name] = _from_walk(tree, (*path, name))
        assert line.endswith("/") == isinstance(entries[name], dict)
    return {name: child for name, child in entries.items() if child != {}}


@_PROPERTY
@given(_trees)
def test_json_is_a_document_that_gives_the_same_tree(document: dict[str, object]) -> None:
    body = Tree(document).json(())
    assert Tree(json.loads(body)).json(()) == body


@_PROPERTY
@given(_trees)
def test_recursive_text_and_json_agree(document: dict[str, object]) -> None:
    tree = Tree(document)
    assert _from_lines(tree.text(())) == _as_text(json.loads(tree.json(())))


@_PROPERTY
@given(_trees)
def test_listings_with_leaves_and_json_agree(document: dict[str, object]) -> None:
    tree = Tree(document)
    assert _from_walk(tree, ()) == _as_text(json.loads(tree.json(())))


@_PROPERTY
@given(_trees)
def test_leaf_json_is_the_leaf_of_the_recursive_document(document: dict[str, object]) -> None:
    tree = Tree(document)
    whole = json.loads(tree.json(()))
    for name, value in whole.items():
        assert json.loads(tree.json((hyphenated(name),))) == value


@_PROPERTY
@given(_trees, _trees)
def test_etags_are_equal_exactly_when_documents_are(
    one: dict[str, object], two: dict[str, object]
) -> None:
    first, second = Tree(one), Tree(two)
    assert (first.etag(()) == second.etag(())) == (first.json(()) == second.json(()))
