"""The record of managed users: what is read back, and what damaged documents read as."""

from __future__ import annotations

import json
from typing import Optional

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.trees import place, tree

from google_guest.managed_users import (
    DOCUMENT,
    USER_LIST,
    ManagedUser,
    encode_users,
    list_of,
    read_managed_users,
)
from google_guest.ssh_keys import is_user_name
from google_guest.system.accounts import Account

NAMES = st.sampled_from(["ada", "bob", "First.Last", "_x", "-x", "..", "a b", "0", "é", ""])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)
KEYS = st.sampled_from(
    ["created_by_agent", "creating", "keys_written", "uid", "home", "file_created", "unterminated"]
)
ROWS = st.dictionaries(KEYS, VALUES, max_size=7) | VALUES
DOCUMENTS = st.fixed_dictionaries(
    {},
    optional={
        "users": st.dictionaries(NAMES, ROWS, max_size=4) | VALUES,
        "instance": st.sampled_from(["7", "8", "", "x", "²"]) | VALUES,
    },
)
USERS = st.builds(
    ManagedUser,
    st.sampled_from(["ada", "bob", "First.Last"]),
    created_by_agent=st.booleans(),
    creating=st.booleans(),
    keys_written=st.booleans(),
    uid=st.none() | st.integers(0, 1 << 31),
    home=st.text(max_size=5),
    file_created=st.booleans(),
    unterminated=st.none() | st.integers(1, 1 << 32),
)


@given(DOCUMENTS, st.text(max_size=30), st.sampled_from([7, None]))
@example({"instance": "²"}, "", None)
@example({"instance": "9" * 5000}, "", None)
def test_any_document_and_list_are_read(
    tmp_path_factory: pytest.TempPathFactory,
    document: object,
    listed: str,
    instance_id: Optional[int],
) -> None:
    root = tmp_path_factory.mktemp("root")
    place(root, DOCUMENT, json.dumps(document))
    (root / USER_LIST.lstrip("/")).write_bytes(listed.encode("utf-8", "replace"))
    managed = read_managed_users(tree(root), instance_id)
    assert all(is_user_name(name) for name in managed.users)
    assert all(user.uid is None or isinstance(user.uid, int) for user in managed.users.values())


@given(DOCUMENTS, st.integers(0, 1 << 31))
def test_only_an_explicit_note_makes_an_account_ours(
    tmp_path_factory: pytest.TempPathFactory, document: dict[str, object], uid: int
) -> None:
    root = tmp_path_factory.mktemp("root")
    place(root, DOCUMENT, json.dumps(document))
    rows = document.get("users")
    for name, user in read_managed_users(tree(root), 7).users.items():
        assert isinstance(rows, dict)
        row = rows[name]
        is_noted = row.get("creating") is True or (
            row.get("created_by_agent") is True and row.get("uid") == uid
        )
        assert user.is_own_account(Account(name, uid, uid, "/home/x", "/bin/sh")) == is_noted


@given(st.lists(USERS, max_size=3, unique_by=lambda user: user.name))
def test_what_was_written_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, users: list[ManagedUser]
) -> None:
    root = tmp_path_factory.mktemp("root")
    document = encode_users(users, 7)
    place(root, DOCUMENT, document.decode())
    place(root, USER_LIST, "".join(f"{name}\n" for name in list_of(users)))
    managed = read_managed_users(tree(root), 7)
    assert list(managed.users.values()) == sorted(users, key=lambda user: user.name)
    assert (managed.document, managed.listed) == (document, list_of(users))
