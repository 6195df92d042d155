"""Names that a machine may have, the one it gets, and its lines in /etc/hosts."""

from __future__ import annotations

import re
from typing import Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from google_guest.hostname import (
    METADATA_LINE,
    ForbiddenName,
    RefusedName,
    chosen_hostname,
    edit_hosts,
    host_line,
    hostname_after_lease,
    is_ours,
    parse_address,
    parse_name,
    short_name,
    static_name,
    usable_alias,
)

FQDN = "vm.c.sample-proj.internal"
HOST_LINE = f"10.0.0.2 {FQDN} vm  # Added by Google"
SERVER_LINE = "169.254.169.254 metadata.google.internal  # Added by Google"
LABEL = "a" * 63


# Names.


@pytest.mark.parametrize(
    "text",
    [
        FQDN,
        "vm",
        "VM-1.Example",
        "3com.example",
        "10.c.p.internal",
        "a-b--c.d",
        LABEL,
        f"{LABEL}.{LABEL}.{LABEL}.{'a' * 61}",
        "metadata-proxy.c.p.internal",
        "localhost2",
    ],
)
def test_names_of_rfc_1123_are_taken_as_they_are(text: str) -> None:
    assert parse_name(text) == text


def test_final_dot_is_dropped() -> None:
    assert parse_name("vm.example.") == "vm.example"


@pytest.mark.parametrize(
    "text",
    [
        *("", ".", "..", "a..b", ".a", "a.b..", "-a", "a-", "a.-b", "a_b", "a b;c", "a/b", "a\n"),
        *("$(id)", "a\x00", "gr\u00fcn", "\u0661\u0662.example", "10.0.0.2", "vm.7", "7", "a%b"),
        *(LABEL + "a", f"{LABEL}.{LABEL}.{LABEL}.{'a' * 62}", "fd20::1", "null ", "a#b"),
    ],
)
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(RefusedName) as refused:
        parse_name(text)
    assert not isinstance(refused.value, ForbiddenName)
    assert str(refused.value).isprintable()


@pytest.mark.parametrize(
    "text",
    [
        *("metadata.google.internal", "METADATA.google.internal", "metadata.google.internal."),
        *("x.metadata.google.internal", "metadata.google.internal.example", "metadata"),
        *("a;metadata.google.internal", "Metadata.c.p.internal", "vm.metadata", "localhost"),
        *("localhost.localdomain", "LOCALHOST", "vm.localhost"),
    ],
)
def test_names_of_others_are_forbidden(text: str) -> None:
    with pytest.raises(ForbiddenName):
        parse_name(text)


@given(st.text() | st.from_regex(r"[A-Za-z0-9.-]{1,70}", fullmatch=True))
def test_any_text_is_a_name_that_every_resolver_takes_or_refused(text: str) -> None:
    try:
        name = parse_name(text)
    except RefusedName:
        return
    assert name == text.rstrip(".")
    assert len(name) <= 253
    assert all(re.fullmatch("(?!-)[A-Za-z0-9-]{1,63}(?<!-)", part) for part in name.split("."))
    assert "metadata.google.internal" not in name.lower()


@pytest.mark.parametrize(
    ("text", "address"),
    [("10.0.0.2", "10.0.0.2"), (" 10.0.0.2\n", "10.0.0.2"), ("FD20:A::0:2", "fd20:a::2")],
)
def test_addresses_are_taken_in_their_normal_form(text: str, address: str) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize(
    "text",
    [
        *("", "vm", "10.0.0", "10.0.0.256", "10.0.0.2/32", "010.0.0.2", "10.0.0.2 10.0.0.3"),
        *("127.0.0.1", "127.0.0.2", "::1", "0.0.0.0", "::", "224.0.0.1", "169.254.169.254"),
        *("fe80::1", "fe80::1%eth0", "fd20:a::2%eth0", "null"),
    ],
)
def test_addresses_that_no_name_may_lead_to_are_refused(text: str) -> None:
    with pytest.raises(RefusedName):
        parse_address(text)


@pytest.mark.parametrize(
    ("text", "usable"),
    [("tc2", "tc2"), ("a_b", None), ("", None), ("metadata", None), ("localhost", None)],
)
def test_an_alias_is_a_name_that_this_machine_may_have(text: str, usable: Optional[str]) -> None:
    assert usable_alias(text) == usable


# The choice.


def of_length(size: int) -> str:
    """A name of `size` bytes whose first label is `vm`."""
    return ("vm." + "abcdefghi." * 30)[: size - 1] + "z"


@pytest.mark.parametrize(
    ("fqdn", "whole", "expected"),
    [
        (FQDN, False, "vm"),
        (FQDN, True, FQDN),
        ("vm", True, "vm"),
        (of_length(63), True, of_length(63)),
        (of_length(64), True, "vm"),
        (of_length(70), True, "vm"),
    ],
)
def test_host_name_is_the_first_label_or_a_whole_name_of_63_bytes_at_most(
    fqdn: str, whole: bool, expected: str
) -> None:
    assert chosen_hostname(fqdn, fqdn_as_hostname=whole) == expected


@pytest.mark.parametrize(
    ("static", "current", "expected"),
    [
        ("", "localhost", "vm"),
        ("old-name", "old-name", "vm"),
        ("localhost", "localhost", "vm"),
        # What is in use stays.
        ("vm", "vm", "vm"),
        (FQDN, FQDN, FQDN),
        ("VM", "VM", "VM"),
        ("old-name", FQDN, FQDN),
        # The static name is what the administrator wanted.
        (FQDN, "vm", FQDN),
        ("vm", FQDN, "vm"),
        # A full name without a static one is dhclient-script's.
        ("", FQDN, "vm"),
        ("localhost", FQDN, "vm"),
        ("(none)", FQDN, "vm"),
        ("localhost.localdomain", FQDN, "vm"),
    ],
)
def test_a_lease_keeps_the_form_that_is_in_use(static: str, current: str, expected: str) -> None:
    assert hostname_after_lease(FQDN, static=static, current=current) == expected


@pytest.mark.parametrize(
    ("known_as", "static", "expected"),
    [
        (FQDN, "mine", "mine"),
        (FQDN.upper(), "mine", "mine"),
        # Another machine's disk, or one that never had a lease.
        ("template-vm.c.sample-proj.internal", "mine", "vm"),
        ("", "mine", "vm"),
        # Nobody chose these.
        (FQDN, "", "vm"),
        (FQDN, "localhost", "vm"),
        (FQDN, "vm", "vm"),
    ],
)
def test_a_name_that_somebody_chose_since_the_last_lease_stays(
    known_as: str, static: str, expected: str
) -> None:
    chosen = hostname_after_lease(FQDN, static=static, current="mine", known_as=known_as)
    assert chosen == expected


def test_a_lease_sets_the_whole_name_where_that_is_configured() -> None:
    chosen = hostname_after_lease(FQDN, static="old", current="old", fqdn_as_hostname=True)
    assert chosen == FQDN


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (None, ""),
        ("", ""),
        ("vm\n", "vm"),
        ("# comment\n\n  vm  \nother\n", "vm"),
        ("#\n", ""),
    ],
)
def test_static_name_is_the_first_line_that_is_no_comment(text: Optional[str], name: str) -> None:
    assert static_name(text) == name


# Lines.


def test_lines_have_the_form_that_others_compare() -> None:
    assert host_line("10.0.0.2", (FQDN, "vm")) == HOST_LINE
    assert METADATA_LINE == SERVER_LINE


def test_a_name_without_dot_stands_in_its_line_once() -> None:
    assert host_line("10.0.0.2", ("vm", "vm")) == "10.0.0.2 vm  # Added by Google"


def edited(text: str, *lines: str) -> str:
    return edit_hosts(text.encode(), lines).decode()


def test_both_lines_come_last() -> None:
    text = "127.0.0.1 localhost\n\n# mine\n10.1.1.1\tother  # note\n"
    assert edited(text, HOST_LINE) == f"{text}{HOST_LINE}\n{SERVER_LINE}\n"


def test_second_edit_changes_nothing() -> None:
    once = edited("127.0.0.1 localhost\n", HOST_LINE)
    assert edited(once, HOST_LINE) == once


def test_a_new_address_replaces_the_line() -> None:
    once = edited("127.0.0.1 localhost\n", HOST_LINE)
    moved = HOST_LINE.replace("10.0.0.2", "10.0.0.3")
    assert edited(once, moved) == f"127.0.0.1 localhost\n{moved}\n{SERVER_LINE}\n"


def test_marked_lines_anywhere_are_removed_and_others_keep_their_order() -> None:
    text = (
        "127.0.0.1 localhost\n"
        "10.9.9.9 old.example old  # Added by Google\n"
        "\n"
        "10.1.1.1 a\n"
        "10.9.9.8 older # Added by Google\r\n"
        "10.1.1.2 b"
    )
    kept = "127.0.0.1 localhost\n\n10.1.1.1 a\n10.1.1.2 b\n"
    assert edited(text, HOST_LINE) == f"{kept}{HOST_LINE}\n{SERVER_LINE}\n"


def test_lines_that_are_right_stay_where_they_are() -> None:
    text = f"a b\n{HOST_LINE}\n{SERVER_LINE}\n10.1.1.1 later\n"
    assert edited(text, HOST_LINE) == text


@pytest.mark.parametrize(
    "line",
    [
        "169.254.169.254 metadata.google.internal metadata",
        "169.254.169.254\tmds",
        "  169.254.169.254 metadata.google.internal # mine",
        "10.7.7.7 Metadata.Google.Internal",
    ],
)
def test_a_line_of_somebody_else_for_the_metadata_server_is_enough(line: str) -> None:
    assert edited(f"{line}\n", HOST_LINE) == f"{line}\n{HOST_LINE}\n"


@pytest.mark.parametrize(
    "line", ["#169.254.169.254 metadata.google.internal", "169.254.169.25 x", "10.0.0.1 metadata"]
)
def test_what_does_not_name_the_metadata_server_does_not_count(line: str) -> None:
    assert edited(f"{line}\n", HOST_LINE) == f"{line}\n{HOST_LINE}\n{SERVER_LINE}\n"


def test_several_addresses_have_a_line_each() -> None:
    lines = [host_line(address, (FQDN, "vm", "tc2")) for address in ("10.0.0.2", "fd20::2")]
    assert edited("", *lines).splitlines() == [
        f"10.0.0.2 {FQDN} vm tc2  # Added by Google",
        f"fd20::2 {FQDN} vm tc2  # Added by Google",
        SERVER_LINE,
    ]


def test_without_lines_ours_stay_and_the_metadata_server_is_named() -> None:
    assert edit_hosts(f"{HOST_LINE}\na b\n".encode(), None).decode() == (
        f"a b\n{HOST_LINE}\n{SERVER_LINE}\n"
    )


@pytest.mark.parametrize(
    ("line", "ours"),
    [
        (HOST_LINE, True),
        ("10.0.0.2 vm # Added by Google", True),
        ("10.0.0.2 vm", False),
        ("# lines Added by Google follow", False),
        ("10.0.0.2 vm # not added", False),
        ("", False),
    ],
)
def test_an_entry_with_the_mark_is_ours_and_a_note_is_not(line: str, ours: bool) -> None:
    assert is_ours(line.encode()) is ours


ROWS = st.sampled_from(
    [
        *(b"127.0.0.1 localhost", b"", b"  ", b"# note", b"\xff\xfe\x00", b"10.1.1.1 a\r", b"\r"),
        *(b"169.254.169.254 x", b"# Added by Google", HOST_LINE.encode(), SERVER_LINE.encode()),
        b"10.5.5.5 old # Added by Google\r",
    ]
)
CONTENTS = st.binary() | st.tuples(
    st.lists(ROWS | st.binary(max_size=12)).map(b"\n".join), st.sampled_from([b"", b"\n"])
).map(b"".join)
LINES = st.none() | st.lists(
    st.sampled_from(
        [HOST_LINE, host_line("fd20::2", (FQDN, "vm")), "10.0.0.3 b  # Added by Google"]
    ),
    max_size=3,
    unique=True,
)


def foreign(content: bytes) -> list[bytes]:
    rows = content.split(b"\n")
    # A final line feed may be added, never removed.
    return [row for row in (rows if rows[-1] else rows[:-1]) if not is_ours(row)]


@given(CONTENTS, LINES)
def test_any_content_keeps_the_bytes_of_others_and_settles_at_once(
    content: bytes, lines: Optional[list[str]]
) -> None:
    result = edit_hosts(content, lines)
    assert foreign(result) == foreign(content)
    assert edit_hosts(result, lines) == result
    ours = [row.rstrip(b"\r").decode() for row in result.split(b"\n") if is_ours(row)]
    if lines is not None:
        assert [line for line in ours if line != SERVER_LINE] == lines
    entries = [row.partition(b"#")[0].split() for row in result.split(b"\n")]
    named = [
        words
        for words in entries
        if words and (words[0] == b"169.254.169.254" or b"metadata.google.internal" in words[1:])
    ]
    assert named and (ours.count(SERVER_LINE) == 0 or len(named) == 1)


@given(st.text(), st.text(), st.from_regex(r"[a-z]{1,5}(\.[a-z]{1,5}){0,3}", fullmatch=True))
def test_a_first_lease_leads_to_a_form_of_its_name_whatever_was_in_force(
    static: str, current: str, fqdn: str
) -> None:
    chosen = hostname_after_lease(fqdn, static=static, current=current)
    assert chosen.lower() in (fqdn, short_name(fqdn))
