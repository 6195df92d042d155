"""Messages between the C modules, the helpers and the daemon."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oslogin import protocol
from oslogin.protocol import (
    GIDS,
    HANDLE,
    LINE,
    MEMBER,
    NAME,
    PROMPT,
    STYLE,
    Message,
    ProtocolError,
    bytes_field,
    number_field,
    numbers_field,
    string_field,
)


def raw(payload: bytes, opcode: int = 2, length: int | None = None) -> bytes:
    size = len(payload) if length is None else length
    return struct.pack("<4sIHHI", b"GOL1", size, opcode, 0, 7) + payload


def tlv(tag: int, data: bytes) -> bytes:
    return struct.pack("<HH", tag, len(data)) + data


def test_bytes_of_a_request_are_those_that_c_sends() -> None:
    message = Message(protocol.GETPWNAM, (string_field(NAME, "ab"),), number=7)
    expected = b"GOL1\x07\0\0\0\x02\0\0\0\x07\0\0\0\x01\0\x03\0ab\0"
    assert protocol.encode(message) == expected


def test_reply_has_the_highest_bit_and_the_number_of_its_request() -> None:
    answer = protocol.reply(Message(protocol.KEYS, number=9), protocol.DENIED)
    assert (answer.opcode, answer.status, answer.number) == (0x8021, 5, 9)


def test_unknown_tags_are_skipped() -> None:
    message = protocol.decode(raw(tlv(999, b"x") + tlv(NAME, b"a\0") + tlv(999, b"")))
    assert message.fields == ((NAME, b"a\0"),)


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(tlv(NAME, b"a\0") * 2, id="name twice"),
        pytest.param(tlv(NAME, b""), id="empty string without NUL"),
        pytest.param(tlv(NAME, b"a"), id="string without NUL"),
        pytest.param(tlv(NAME, b"a\0b\0"), id="string with a NUL inside"),
        pytest.param(tlv(protocol.ID, b"abc"), id="number of three bytes"),
        pytest.param(tlv(GIDS, b"abcde"), id="array of five bytes"),
        pytest.param(tlv(HANDLE, b"x" * 15), id="handle of 15 bytes"),
        pytest.param(tlv(protocol.ANSWER, b"x" * 1025 + b"\0"), id="answer too long"),
        pytest.param(tlv(protocol.CERT, b"x" * 60001 + b"\0"), id="certificate too long"),
        pytest.param(b"\1\0\5\0ab\0", id="field beyond the end"),
        pytest.param(b"\1\0\5", id="field header cut off"),
    ],
)
def test_malformed_field_makes_the_message_wrong(payload: bytes) -> None:
    with pytest.raises(ProtocolError):
        protocol.decode(raw(payload))


@pytest.mark.parametrize("tag", [MEMBER, LINE])
def test_list_fields_may_repeat(tag: int) -> None:
    message = protocol.decode(raw(tlv(tag, b"a\0") + tlv(tag, b"b\0")))
    assert message.texts(tag) == ("a", "b")


def test_request_over_its_limit_is_refused_by_its_header() -> None:
    header = raw(b"", length=protocol.NSS_REQUEST_LIMIT - protocol.HEADER_SIZE + 1)
    with pytest.raises(ProtocolError):
        protocol.decode_header(header, protocol.NSS_REQUEST_LIMIT)


def test_prompt_goes_with_the_style_before_it() -> None:
    message = Message(
        0x8030,
        (number_field(STYLE, 2), string_field(PROMPT, "code"))
        + (number_field(STYLE, 4), string_field(PROMPT, "info")),
    )
    assert message.prompts() == ((2, "code"), (4, "info"))


def test_prompt_without_style_is_an_error() -> None:
    with pytest.raises(ProtocolError):
        Message(0x8030, (string_field(PROMPT, "code"),)).prompts()


def test_16383_gids_fit_and_one_more_does_not() -> None:
    assert len(numbers_field(GIDS, range(16383))[1]) == 65532
    with pytest.raises(ProtocolError):
        numbers_field(GIDS, range(16384))


def test_values_do_not_show_in_a_message_that_is_printed() -> None:
    assert "secret" not in repr(Message(49, (string_field(protocol.ANSWER, "secret"),)))


TEXTS = st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), max_size=300)
FIELDS = st.one_of(
    st.builds(string_field, st.sampled_from([MEMBER, LINE, PROMPT]), TEXTS),
    st.builds(number_field, st.just(STYLE), st.integers(0, 2**32 - 1)),
)


@given(
    st.integers(0, 0xFFFF),
    st.integers(0, 0xFFFF),
    st.integers(0, 2**32 - 1),
    st.lists(FIELDS, max_size=8),
    st.lists(st.integers(0, 2**32 - 1), max_size=9),
    st.binary(min_size=16, max_size=16),
)
def test_what_is_encoded_decodes_to_itself(
    opcode: int,
    status: int,
    number: int,
    fields: list[tuple[int, bytes]],
    gids: list[int],
    handle: bytes,
) -> None:
    fields += [numbers_field(GIDS, gids), bytes_field(HANDLE, handle)]
    message = Message(opcode, fields, status=status, number=number)
    decoded = protocol.decode(protocol.encode(message))
    assert decoded == message
    assert decoded.integers(GIDS) == tuple(gids)


@given(st.one_of(st.binary(max_size=200), st.binary(max_size=200).map(raw)))
def test_decoding_anything_raises_nothing_but_protocol_errors(data: bytes) -> None:
    try:
        message = protocol.decode(data)
        message.prompts()
    except ProtocolError:
        return
    for tag, _ in message.fields:
        message.texts(tag)


@given(st.binary(min_size=1, max_size=60))
def test_text_that_is_no_utf8_comes_back_byte_by_byte(data: bytes) -> None:
    clean = data.replace(b"\0", b"x")
    field = (LINE, clean + b"\0")
    text = Message(1, (field,)).text(LINE)
    assert text is not None
    assert string_field(LINE, text) == field
