"""What of an answer about users and groups is believed."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oslogin.identities import (
    Group,
    InvalidIdentity,
    Profile,
    User,
    is_gid,
    is_login_name,
    is_uid,
    parse_group,
    parse_profile,
    parse_user,
    self_group,
)

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDEy"


def account(**fields: object) -> dict[str, object]:
    return {"username": "ada", "uid": 20001, "gid": 20001, **fields}


def profile(*accounts: object, **fields: object) -> dict[str, object]:
    return {"name": "ada@example.com", "posixAccounts": list(accounts or [account()]), **fields}


def user_with(**fields: object) -> User:
    return parse_user(profile(account(**fields)))


@pytest.mark.parametrize(
    "name", ["user", "_", ".", "..", ".abc_", "_abc-", "ABC", "A_.-", "a" * 32, "0day"]
)
def test_names_of_the_rule_are_login_names_but_for_folders(name: str) -> None:
    assert is_login_name(name) == (name not in (".", ".."))


@pytest.mark.parametrize(
    "name",
    ["", "!#$%^", "-abc", "#abc", "^abc", "abc*xyz", "abc xyz", "xyz*", "xyz$", "a" * 33]
    + ["../../etc/shadow", "a:b", "a\n", "\n", "ä", "a\0"],
)
def test_other_names_are_no_login_names(name: str) -> None:
    assert not is_login_name(name)
    with pytest.raises(InvalidIdentity):
        user_with(username=name)


@pytest.mark.parametrize(
    ("value", "number"),
    [(1000, 1000), (1337, 1337), ("1337", 1337), (4294967294, 4294967294)],
)
def test_uid_is_a_number_or_its_text(value: object, number: int) -> None:
    assert user_with(uid=value).uid == number


@pytest.mark.parametrize(
    "value",
    [0, 999, -1, 65534, 65535, 4294967295, 4294967296, 4294968296, "4294968296", "999", "12x"]
    + ["", " 1337", "+1337", "1_337", "\u0661\u0663\u0663\u0667", "bad_stuff", None, True, 1337.0]
    + [[], {}, "1" * 5000, 10**30],
)
def test_other_uids_void_the_account(value: object) -> None:
    with pytest.raises(InvalidIdentity):
        user_with(uid=value)


def test_account_without_uid_is_void() -> None:
    with pytest.raises(InvalidIdentity):
        parse_user(profile({"username": "ada"}))


@pytest.mark.parametrize(
    ("value", "gid"),
    [(1338, 1338), ("1338", 1338), (0, 20001), (27, 20001), ("27", 20001), ("bad_stuff", 20001)]
    + [(4294967295, 20001), (None, 20001), (True, 20001), (-5, 20001), (4294967294, 4294967294)],
)
def test_gid_that_cannot_be_is_the_uid(value: object, gid: int) -> None:
    assert user_with(gid=value).gid == gid


@pytest.mark.parametrize("order", [("uid", "gid"), ("gid", "uid")])
def test_order_of_uid_and_gid_does_not_matter(order: tuple[str, str]) -> None:
    values = {"uid": 20001, "gid": 0}
    entry = {"username": "ada", **{key: values[key] for key in order}}
    assert parse_user(profile(entry)).gid == 20001


def test_absent_gid_is_the_uid() -> None:
    assert parse_user(profile({"username": "ada", "uid": 20001})).gid == 20001


def test_absent_home_and_shell_have_defaults() -> None:
    assert user_with()[3:] == ("/home/ada", "/bin/bash", "")


@pytest.mark.parametrize("key", ["homeDirectory", "shell"])
@pytest.mark.parametrize(
    "value",
    ["", "relative", "/a:b", "/a\nb", "/a\0b", "/a\x7fb", "/" + "a" * 255, "/\ud800", "/a\u2028"],
)
def test_unusable_home_or_shell_is_the_default(key: str, value: str) -> None:
    assert user_with(**{key: value})[3:5] == ("/home/ada", "/bin/bash")


@pytest.mark.parametrize("key", ["homeDirectory", "shell"])
@pytest.mark.parametrize("value", [None, 7, [], {}, True])
def test_home_or_shell_that_is_no_text_voids_the_account(key: str, value: object) -> None:
    with pytest.raises(InvalidIdentity):
        user_with(**{key: value})


def test_longest_home_is_kept() -> None:
    home = "/" + "a" * 254
    assert user_with(homeDirectory=home).home == home


def test_primary_account_is_preferred() -> None:
    other = account(username="bob", uid=20002)
    assert parse_user(profile(other, account(primary=True))).name == "ada"


@pytest.mark.parametrize("primary", ["true", 1, None])
def test_only_true_makes_an_account_primary(primary: object) -> None:
    other = account(username="bob", uid=20002)
    assert parse_user(profile(other, account(primary=primary))).name == "bob"


@pytest.mark.parametrize("document", [None, [], {}, 7, {"posixAccounts": []}, {"posixAccounts": 7}])
def test_profile_without_account_is_void(document: object) -> None:
    with pytest.raises(InvalidIdentity):
        parse_user(document)


@pytest.mark.parametrize("wrap", [True, False])
def test_profile_may_come_with_or_without_its_wrapper(wrap: bool) -> None:
    document: Any = {"loginProfiles": [profile()]} if wrap else profile()
    assert parse_profile(document, name="ada").email == "ada@example.com"


@pytest.mark.parametrize("asked", [{"name": "bob"}, {"uid": 20002}])
def test_answer_about_somebody_else_is_refused(asked: dict[str, Any]) -> None:
    with pytest.raises(InvalidIdentity):
        parse_profile({"loginProfiles": [profile()]}, **asked)


@pytest.mark.parametrize("email", [None, 7, [], "a\nb", "a" * 600, "\ud800"])
def test_unusable_address_is_empty(email: object) -> None:
    assert parse_profile(profile(name=email)).email == ""


@pytest.mark.parametrize(
    ("expiry", "microseconds"),
    [(1, 1), ("2", 2), ("junk", 0), (None, 0), (True, 0), ([], 0), ("", 0), (float("inf"), 0)]
    + [(float("nan"), 0), ("1" * 5000, 0), ("-5", -5), (1.5e15, 1500000000000000)],
)
def test_expiry_that_is_no_number_has_passed(expiry: object, microseconds: int) -> None:
    keys = {"f": {"key": KEY, "expirationTimeUsec": expiry}}
    assert parse_profile(profile(sshPublicKeys=keys)).keys[0].expires_usec == microseconds


def test_key_ends_after_its_microsecond() -> None:
    keys = {"f": {"key": KEY, "expirationTimeUsec": 10}}
    key = parse_profile(profile(sshPublicKeys=keys)).keys[0]
    assert [key.is_expired(now) for now in (9, 10, 11)] == [False, False, True]


def test_key_without_expiry_never_ends() -> None:
    key = parse_profile(profile(sshPublicKeys={"f": {"key": KEY}})).keys[0]
    assert not key.is_expired(2**63)


@pytest.mark.parametrize(
    "entry", [None, 7, {}, {"key": None}, {"key": f"{KEY}\n{KEY}"}, {"key": "junk"}, {"key": ""}]
)
def test_unusable_key_is_left_out(entry: object) -> None:
    keys = {"a": entry, "b": {"key": KEY}}
    assert [key.line for key in parse_profile(profile(sshPublicKeys=keys)).keys] == [KEY]


@pytest.mark.parametrize("broken", [None, 7, {}, {"publicKey": None}, "text"])
def test_broken_security_key_ends_the_list(broken: object) -> None:
    keys = [{"publicKey": KEY}, broken, {"publicKey": KEY}]
    assert parse_profile(profile(securityKeys=keys)).security_keys == (KEY,)


def test_cloud_run_makes_everybody_root() -> None:
    assert parse_user(profile(account(uid="x")), cloud_run=True)[:4] == ("ada", 0, 0, "/")


@pytest.mark.parametrize("gid", [1500, "1500"])
def test_group_has_a_number_or_its_text(gid: object) -> None:
    assert parse_group({"name": "team", "gid": gid}) == Group("team", 1500)


@pytest.mark.parametrize(
    "entry",
    [None, [], {}, {"name": "team"}, {"gid": 1500}, {"name": None, "gid": 1500}]
    + [{"name": "team", "gid": gid} for gid in (0, 27, 999, 4294967295, "junk", None, True)]
    + [{"name": name, "gid": 1500} for name in ("a:b", "a\nb", "-a", "", "a" * 65, "..")],
)
def test_other_groups_are_void(entry: object) -> None:
    with pytest.raises(InvalidIdentity):
        parse_group(entry)


@pytest.mark.parametrize("name", ["sudo", "wheel", "docker", "lxd", "adm", "root"])
def test_group_that_gives_root_is_left_out(name: str) -> None:
    with pytest.raises(InvalidIdentity):
        parse_group({"name": name, "gid": 1500})


@pytest.mark.parametrize("asked", [{"name": "other"}, {"gid": 1501}])
def test_answer_about_another_group_is_refused(asked: dict[str, Any]) -> None:
    with pytest.raises(InvalidIdentity):
        parse_group({"name": "team", "gid": 1500}, **asked)


def test_own_group_needs_equal_numbers() -> None:
    assert self_group(User("ada", 2000, 2000, "/", "/")) == Group("ada", 2000, ("ada",))
    assert self_group(User("ada", 2000, 2001, "/", "/")) is None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
profile_values = st.fixed_dictionaries(
    {},
    optional={
        "name": json_values,
        "sshPublicKeys": json_values
        | st.dictionaries(
            st.text(),
            st.fixed_dictionaries(
                {}, optional={"key": json_values | st.just(KEY), "expirationTimeUsec": json_values}
            ),
        ),
        "securityKeys": json_values
        | st.lists(st.fixed_dictionaries({}, optional={"publicKey": json_values})),
        "posixAccounts": json_values
        | st.lists(
            st.fixed_dictionaries(
                {},
                optional={
                    "username": json_values | st.sampled_from(["ada", "a:b"]),
                    "uid": json_values | st.integers(990, 1010),
                    "gid": json_values | st.integers(990, 1010),
                    "homeDirectory": json_values,
                    "shell": json_values,
                    "primary": json_values,
                },
            )
        ),
    },
)


@given(json_values | profile_values | st.builds(lambda p: {"loginProfiles": [p]}, profile_values))
def test_any_json_is_a_valid_profile_or_refused(document: object) -> None:
    try:
        found = parse_profile(document)
    except InvalidIdentity:
        return
    assert isinstance(found, Profile)
    user = found.user
    assert is_login_name(user.name) and is_uid(user.uid) and is_gid(user.gid)
    for text in (user.home, user.shell):
        assert text.startswith("/") and len(text.encode()) <= 255
        assert ":" not in text and "\n" not in text and "\0" not in text
    assert all("\n" not in key.line for key in found.keys)


@given(
    json_values
    | st.fixed_dictionaries(
        {}, optional={"name": json_values | st.just("team"), "gid": json_values | st.integers()}
    )
)
def test_any_json_is_a_valid_group_or_refused(document: object) -> None:
    try:
        found = parse_group(document)
    except InvalidIdentity:
        return
    assert is_gid(found.gid) and ":" not in found.name
