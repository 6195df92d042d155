"""Key lines of metadata: which are used, which are not, and why."""

from __future__ import annotations

import base64
import os
import random
import struct
import threading
from datetime import datetime, timezone
from typing import Optional

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from google_guest.metadata.tree import Instance, Metadata, Project
from google_guest.ssh_keys import (
    KEY_TYPES,
    LONGEST_LINE,
    BadLine,
    KeyLine,
    Verdict,
    expiry_option,
    is_user_name,
    judge_keys,
    parse_expiry,
    parse_key_line,
    wanted_keys,
)

NOW = 1_800_000_000.0
FUTURE, PAST = "2090-01-01T00:00:00+0000", "2000-01-01T00:00:00+0000"


def key(key_type: str = "ssh-ed25519", *, seed: int = 1, inside: Optional[str] = None) -> str:
    """A key that is well-formed as far as anybody but cryptography can tell."""
    name = (inside or key_type).encode()
    blob = struct.pack(">I", len(name)) + name + struct.pack(">I", 32) + bytes([seed]) * 32
    return f"{key_type} {base64.b64encode(blob).decode()}"


KEY = key()
RSA = key("ssh-rsa")


def metadata(
    *, instance: Optional[dict[str, str]] = None, project: Optional[dict[str, str]] = None
) -> Metadata:
    return Metadata(Instance(id=1, attributes=instance or {}), Project(attributes=project or {}))


def expiring(when: str, member: str = "expireOn") -> str:
    return f'google-ssh {{"userName":"a@example.com","{member}":"{when}"}}'


ACCEPTED = {
    "plain": (f"bob:{KEY} note", f"{KEY} note"),
    "no comment": (f"bob:{KEY}", KEY),
    "options": (f"bob:restrict,pty {RSA}", f"restrict,pty {RSA}"),
    "quoted option": (f'bob:command="echo hi" {RSA}', f'command="echo hi" {RSA}'),
    "colon in an option": (f'bob:command="echo a:b" {RSA}', f'command="echo a:b" {RSA}'),
    "escaped quote": (f'bob:command="say \\"a b\\"" {RSA}', f'command="say \\"a b\\"" {RSA}'),
    "colon in the comment": (f"bob:{KEY} a:b", f"{KEY} a:b"),
    "surrounding blanks": (f" \t bob:{KEY} c \t", f"{KEY} c"),
    "blank behind the colon": (f"bob: {KEY}", KEY),
    "trailing CR": (f"bob:{KEY} c\r", f"{KEY} c"),
    "non-ASCII comment": (f"bob:{KEY} Bjørn", f"{KEY} Bjørn"),
    "future expiry": (f"bob:{KEY} {expiring(FUTURE)}", f"{KEY} {expiring(FUTURE)}"),
    "another word than google-ssh": (f"bob:{KEY} google-sshX", f"{KEY} google-sshX"),
    "google-ssh as a later word": (f"bob:{KEY} my google-ssh", f"{KEY} my google-ssh"),
    "two blanks between fields": (f"bob:{KEY.replace(' ', '  ')}", KEY.replace(" ", "  ")),
}


@pytest.mark.parametrize("case", ACCEPTED)
def test_a_good_line_is_taken_as_it_is(case: str) -> None:
    text, stored = ACCEPTED[case]
    line = parse_key_line(text)
    assert isinstance(line, KeyLine), line
    assert (line.user, line.text) == ("bob", stored)


SILENT = ["", "   ", "\t\r", "# text", "  # text", f"#bob:{KEY}"]


@pytest.mark.parametrize("text", SILENT)
def test_a_blank_line_and_a_comment_are_no_mistakes(text: str) -> None:
    assert parse_key_line(text) is None


REJECTED = {
    "no colon": KEY,
    "bare key": "ssh-rsa AAAA",
    "empty user": f":{KEY}",
    "empty key": "bob:",
    "blank key": "bob:   ",
    "white space in the user": f"a b:{KEY}",
    "white space behind the user": f"bob :{KEY}",
    "option after the user": f"user -g 27:{KEY}",
    "tab in the user": f"user\t-g:{KEY}",
    "leading hyphen": f"-x:{KEY}",
    "dot": f".:{KEY}",
    "two dots": f"..:{KEY}",
    "digits": f"123:{KEY}",
    "path": f"../a:{KEY}",
    "shell characters": f"a;b:{KEY}",
    "trailing tilde": f"bob~:{KEY}",
    "33 characters": f"{'a' * 33}:{KEY}",
    "non-ASCII user": f"bjørn:{KEY}",
    "non-ASCII option": f'bob:command="ø" {KEY}',
    "non-ASCII base64": f"bob:{KEY}ø",
    "NUL": f"bob:{KEY} a\0b",
    "escape": f"bob:{KEY} \x1b[31m",
    "CR inside": f"bob:{KEY} a\rb",
    "delete": f"bob:{KEY} \x7f",
    "C1 control": f"bob:{KEY} \x85",
    "line separator": f"bob:{KEY} \u2028",
    "lone surrogate": f"bob:{KEY} \ud800",
    "unknown type": f"bob:{key('ssh-foo')}",
    "unknown type inside the blob": f"bob:{key('ssh-ed25519', inside='ssh-foo')}",
    "type differs from the blob": f"bob:{key('ssh-rsa', inside='ssh-ed25519')}",
    "no base64": "bob:ssh-rsa",
    "bad base64": "bob:ssh-rsa AAAA*",
    "unpadded base64": f"bob:{KEY.rstrip('=')[:-1]}",
    "short blob": "bob:ssh-rsa AAAA",
    "blob length beyond the end": "bob:ssh-rsa AAAAC3NzaA==",
    "open quote": f'bob:command="echo {RSA}',
    "too long": f"bob:{KEY} {'c' * LONGEST_LINE}",
    "google-ssh without JSON": f"bob:{KEY} google-ssh",
    "google-ssh with bad JSON": f"bob:{KEY} google-ssh {{",
    "google-ssh with an array": f"bob:{KEY} google-ssh []",
    "google-ssh without expireOn": f'bob:{KEY} google-ssh {{"userName":"a"}}',
    "google-ssh with text behind": f"bob:{KEY} {expiring(FUTURE)} x",
    "unreadable date": f"bob:{KEY} {expiring('Apri 4, 2056')}",
    "soon": f"bob:{KEY} {expiring('soon')}",
    "date as a number": f'bob:{KEY} google-ssh {{"expireOn":4102444800}}',
    "deep JSON": f"bob:{KEY} google-ssh {'[' * 8000}",
}


@pytest.mark.parametrize("case", REJECTED)
def test_a_bad_line_is_rejected(case: str) -> None:
    assert isinstance(parse_key_line(REJECTED[case]), BadLine)


@pytest.mark.parametrize("case", REJECTED)
def test_the_reason_for_a_rejection_does_not_show_the_line(case: str) -> None:
    line = parse_key_line(REJECTED[case])
    assert isinstance(line, BadLine)
    shown = f"{line.reason} {line.user} {line.key_type} {line.tail}"
    assert KEY.split()[1] not in shown and shown.isprintable()


@pytest.mark.parametrize("key_type", sorted(KEY_TYPES))
def test_every_type_of_key_is_taken_plain_and_behind_options(key_type: str) -> None:
    plain = parse_key_line(f"bob:{key(key_type)} c")
    restricted = parse_key_line(f"bob:restrict {key(key_type)} c")
    assert isinstance(plain, KeyLine) and isinstance(restricted, KeyLine)
    assert (plain.options, restricted.options) == ("", "restrict")
    assert plain.key_type == restricted.key_type == key_type


def test_the_types_are_eight_and_their_certificates() -> None:
    assert len(KEY_TYPES) == 16
    assert "sk-ecdsa-sha2-nistp256-cert-v01@openssh.com" in KEY_TYPES


def test_a_key_behind_options_expires_too() -> None:
    line = parse_key_line(f'bob:command="echo a:b" {RSA} {expiring(PAST)}')
    assert isinstance(line, KeyLine) and line.is_expired(NOW)


def test_the_name_of_the_expiry_is_found_in_any_case() -> None:
    line = parse_key_line(f"bob:{KEY} {expiring(FUTURE, 'EXPIREON')}")
    assert isinstance(line, KeyLine) and line.expires_at == parse_expiry(FUTURE)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2030-01-02T03:04:05Z", 1893553445),
        ("2030-01-02T03:04:05z", 1893553445),
        ("2030-01-02T03:04:05+0000", 1893553445),
        ("2030-01-02T05:04:05+02:00", 1893553445),
        ("2030-01-01T22:04:05-0500", 1893553445),
        ("2030-01-02T03:04:05.250Z", 1893553445.25),
        ("2016-12-31T23:59:60Z", 1483228800),
        ("1969-12-31T23:59:59Z", -1),
    ],
)
def test_dates_of_rfc_3339_and_of_gcloud_are_understood(text: str, seconds: float) -> None:
    assert parse_expiry(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        "soon",
        "2030-01-02",
        "2030-01-02 03:04:05Z",
        "2030-01-02T03:04:05",
        "2030-01-02T03:04Z",
        "2030-13-02T03:04:05Z",
        "2030-02-30T03:04:05Z",
        "2030-01-02T24:04:05Z",
        "2030-01-02T03:04:61Z",
        "2030-01-02T03:04:05+2400",
        "2030-01-02T03:04:05+00:60",
        "0000-01-02T03:04:05Z",
        " 2030-01-02T03:04:05Z",
        "٢٠٣٠-01-02T03:04:05Z",
    ],
)
def test_other_dates_are_none(text: str) -> None:
    assert parse_expiry(text) is None


def test_a_key_is_valid_up_to_the_very_second() -> None:
    line = parse_key_line(f"bob:{KEY} {expiring('2030-01-02T03:04:05Z')}")
    assert isinstance(line, KeyLine)
    assert not line.is_expired(1893553445.0)
    assert line.is_expired(1893553445.1)


@pytest.mark.parametrize("name", ["bob", "first.last", "_x", "UPPER", "a", "9a", "a" * 32, "a-b"])
def test_usual_user_names_are_allowed(name: str) -> None:
    assert is_user_name(name)


@pytest.mark.parametrize(
    "name", ["", "-x", ".", "..", "0", "123", "a b", "a/b", "a\n", "a~", "a" * 33, "é", "٣", "a@b"]
)
def test_dangerous_user_names_are_not_allowed(name: str) -> None:
    assert not is_user_name(name)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (f"{KEY} c", f'expiry-time="20300101000000" {KEY} c'),
        (f"restrict {KEY}", f'expiry-time="20300101000000",restrict {KEY}'),
        (f'expiry-time="20250101" {KEY}', f'expiry-time="20250101" {KEY}'),
    ],
)
def test_the_expiry_option_comes_before_the_line_s_own_options(line: str, expected: str) -> None:
    parsed = parse_key_line(f"bob:{line}")
    assert isinstance(parsed, KeyLine)
    assert expiry_option(parsed, "20300101000000") == expected


# Precedence.


def users_of(tree: Metadata, now: float = NOW) -> list[str]:
    return list(wanted_keys(tree, now).users)


def test_instance_keys_come_before_project_keys() -> None:
    tree = metadata(
        instance={"ssh-keys": f"bob:{key(seed=1)}"},
        project={"sshKeys": f"bob:{key(seed=4)}", "ssh-keys": f"bob:{key(seed=3)}"},
    )
    lines = wanted_keys(tree, NOW).users["bob"]
    assert [line.text for line in lines] == [key(seed=seed) for seed in (1, 3, 4)]


def test_current_instance_keys_come_before_obsolete_ones() -> None:
    tree = metadata(instance={"sshKeys": f"b:{KEY}", "ssh-keys": f"a:{KEY}"})
    assert users_of(tree) == ["a", "b"]


@pytest.mark.parametrize(
    "attributes", [{"block-project-ssh-keys": "TRUE"}, {"block-project-ssh-keys": " yes "}]
)
def test_the_instance_can_block_project_keys(attributes: dict[str, str]) -> None:
    tree = metadata(
        instance={"ssh-keys": f"a:{KEY}", **attributes},
        project={"ssh-keys": f"b:{KEY}", "sshKeys": f"c:{KEY}"},
    )
    assert users_of(tree) == ["a"]


def test_obsolete_instance_keys_block_project_keys() -> None:
    tree = metadata(instance={"sshKeys": f"a:{KEY}"}, project={"ssh-keys": f"b:{KEY}"})
    assert users_of(tree) == ["a"]


@pytest.mark.parametrize("value", ["false", "maybe", ""])
def test_only_a_true_value_blocks(value: str) -> None:
    tree = metadata(
        instance={"block-project-ssh-keys": value, "sshKeys": ""},
        project={"ssh-keys": f"b:{KEY}"},
    )
    assert users_of(tree) == ["b"]


def test_the_project_cannot_block_its_own_keys() -> None:
    tree = metadata(project={"ssh-keys": f"b:{KEY}", "block-project-ssh-keys": "TRUE"})
    assert users_of(tree) == ["b"]


def test_the_same_line_at_both_levels_counts_once() -> None:
    tree = metadata(instance={"ssh-keys": f"b:{KEY}"}, project={"ssh-keys": f"b:{KEY}\nc:{KEY}"})
    assert {user: len(keys) for user, keys in wanted_keys(tree, NOW).users.items()} == {
        "b": 1,
        "c": 1,
    }


def test_an_expired_key_is_no_mistake_and_gives_no_user() -> None:
    wanted = wanted_keys(metadata(instance={"ssh-keys": f"b:{KEY} {expiring(PAST)}"}), NOW)
    assert (dict(wanted.users), wanted.bad_lines, wanted.next_expiry) == ({}, (), None)


def test_a_key_that_was_expired_by_a_wrong_clock_counts_again() -> None:
    tree = metadata(instance={"ssh-keys": f"b:{KEY} {expiring(FUTURE)}"})
    assert users_of(tree, now=4_100_000_000.0) == []
    assert users_of(tree) == ["b"]


def test_the_next_expiry_is_the_earliest_of_the_valid_keys() -> None:
    lines = [f"b:{key(seed=n)} {expiring(f'20{n}-01-01T00:00:00Z')}" for n in (99, 20, 31, 40)]
    wanted = wanted_keys(metadata(instance={"ssh-keys": "\n".join(lines)}), NOW)
    assert wanted.next_expiry == parse_expiry("2031-01-01T00:00:00Z")


def test_every_line_has_a_verdict() -> None:
    tree = metadata(
        instance={
            "block-project-ssh-keys": "1",
            "ssh-keys": f"b:{KEY}\nb:{KEY}\nb:oops\n\n# c\nc:{KEY} {expiring(PAST)}",
        },
        project={"ssh-keys": f"d:{KEY}"},
    )
    assert [judged.verdict for judged in judge_keys(tree, NOW)] == [
        Verdict.ACCEPTED,
        Verdict.DUPLICATE,
        Verdict.REJECTED,
        Verdict.EXPIRED,
        Verdict.BLOCKED,
    ]


def test_one_good_line_among_thousands_of_bad_ones_is_used() -> None:
    source = random.Random(7)
    lines = ["".join(chr(source.randrange(1, 0x250)) for _ in range(60)) for _ in range(10_000)]
    lines.insert(5_000, f"bob:{KEY}")
    text = "\n".join(lines)
    assert "bob" in wanted_keys(metadata(instance={"ssh-keys": text}), NOW).users


@given(st.text(max_size=400), st.text(max_size=400), st.sampled_from(["ssh-keys", "sshKeys"]))
@settings(max_examples=300)
def test_a_good_line_is_used_whatever_stands_around_it(
    before: str, after: str, attribute: str
) -> None:
    tree = metadata(instance={attribute: f"{before}\nbob:{KEY}\n{after}"})
    assert KEY in [line.text for line in wanted_keys(tree, NOW).users["bob"]]


def test_a_good_line_is_used_in_every_one_of_many_random_values() -> None:
    """500 values; GUEST_TEST_FUZZ_VALUES=10000 for as many as one likes."""
    source = random.Random(4815)
    for _ in range(int(os.environ.get("GUEST_TEST_FUZZ_VALUES", "500"))):
        lines = [random_line(source) for _ in range(source.randrange(12))]
        lines.insert(source.randrange(len(lines) + 1), f"bob:{KEY}")
        value = source.choice(["\n", "\r\n", "\n\n"]).join(lines)
        users = wanted_keys(metadata(instance={"ssh-keys": value}), NOW).users
        assert KEY in [line.text for line in users["bob"]], value


# Nothing raises.

_WORDS = [
    "bob",
    ":",
    "restrict",
    "command=",
    "google-ssh",
    "{",
    "}",
    "#",
    "ø",
    "AAAA",
    "ssh-rsa",
    "=",
    ",",
    "[",
    '"',
    "\\",
    "\r",
    "\x00",
]
_PIECES = st.sampled_from([*_WORDS, " ", "\t", KEY, RSA, expiring(FUTURE), expiring(PAST)])


@given(st.one_of(st.text(max_size=300), st.lists(_PIECES, max_size=12).map("".join)))
def test_no_line_raises_and_no_other_user_name_is_accepted(text: str) -> None:
    line = parse_key_line(text)
    if isinstance(line, KeyLine):
        assert is_user_name(line.user)
        assert ("\n" not in line.text and line.text.isprintable()) or not line.text.isascii()


@given(st.text(max_size=40))
def test_no_date_raises(text: str) -> None:
    parse_expiry(text)


@given(
    st.datetimes(timezones=st.just(timezone.utc)).map(lambda moment: moment.replace(microsecond=0)),
    st.sampled_from(["Z", "+00:00", "+0000", "-00:00"]),
)
def test_every_date_that_is_written_is_read(moment: datetime, zone: str) -> None:
    assert parse_expiry(f"{moment.year:04}{moment:-%m-%dT%H:%M:%S}{zone}") == moment.timestamp()


@pytest.mark.parametrize(
    ("day", "exists"),
    [
        ("2024-02-29", True),
        ("2000-02-29", True),
        ("2023-02-29", False),
        ("2100-02-29", False),
        ("2030-04-31", False),
        ("2030-00-01", False),
        ("2030-01-00", False),
        ("9999-12-31", True),
    ],
)
def test_only_days_of_the_calendar_are_dates(day: str, exists: bool) -> None:
    assert (parse_expiry(f"{day}T00:00:00Z") is not None) is exists


@given(
    st.lists(
        st.sampled_from(
            ["restrict", "pty", 'command="a b"', 'from="::1,!x"', 'environment="A=\\""']
        ),
        min_size=1,
        max_size=4,
    ),
    st.sampled_from([" ", "\t", "  "]),
)
def test_options_end_at_the_first_blank_outside_quotes(options: list[str], blank: str) -> None:
    text = ",".join(options)
    line = parse_key_line(f"bob:{text}{blank}{KEY} c")
    assert isinstance(line, KeyLine)
    assert (line.options, line.key_type, line.comment) == (text, "ssh-ed25519", "c")


def random_line(source: random.Random) -> str:
    pieces = ["bob", ":", " ", KEY, '"', "\\", "restrict", "google-ssh ", expiring(FUTURE), "a"]
    if source.random() < 0.5:
        return "".join(source.choice(pieces) for _ in range(source.randrange(8)))
    base = list(f"bob:restrict {KEY} {expiring(FUTURE)}")
    for _ in range(source.randrange(1, 4)):
        base[source.randrange(len(base))] = chr(source.randrange(0x180))
    return "".join(base)


def test_random_lines_neither_raise_nor_slip_a_name_through() -> None:
    """10^4 lines; GUEST_TEST_FUZZ_LINES=1000000 for as many as one likes."""
    source = random.Random(20261124)
    for _ in range(int(os.environ.get("GUEST_TEST_FUZZ_LINES", "10000"))):
        text = random_line(source)
        line = parse_key_line(text)
        assert not isinstance(line, KeyLine) or is_user_name(line.user), text


def test_nested_json_does_not_exhaust_the_small_stack_of_a_worker() -> None:
    before = threading.stack_size(256 << 10)
    lines = [f"bob:{KEY} google-ssh {char * 15_000}" for char in "[{"]
    results: list[object] = []
    try:
        thread = threading.Thread(target=lambda: results.extend(map(parse_key_line, lines)))
        thread.start()
        thread.join()
    finally:
        threading.stack_size(before)
    assert all(isinstance(result, BadLine) for result in results) and len(results) == 2
