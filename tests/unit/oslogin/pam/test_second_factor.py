"""auth: questions and answers of the second factor, and denial whatever goes wrong."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from unit.oslogin.pam.conftest import Serve
from unit.oslogin.pam.modules import (
    HANDLE,
    IGNORE,
    PERM_DENIED,
    SECOND_MS,
    SILENT,
    SUCCESS,
    Module,
    ask,
    prompt_fields,
    result,
    status,
)

from oslogin import protocol
from oslogin.protocol import ECHO_OFF, ECHO_ON, ERROR_TEXT, INFO_TEXT, Message

PAM_ECHO_OFF, PAM_ECHO_ON, PAM_ERROR, PAM_INFO = 1, 2, 3, 4
QUESTION = (ECHO_ON, "Enter your one-time password: ")
REFUSAL = (PAM_ERROR, "OS Login did not accept this login.")


def test_right_answer_is_success(login: Module, serve: Serve) -> None:
    service = serve(ask(QUESTION), result(protocol.SUCCESS))
    run = login.call("auth", "ada", answers=["123456"])
    assert (run.result, run.prompts) == (SUCCESS, ((PAM_ECHO_ON, QUESTION[1]),))
    begin, reply = service.requests
    assert begin.opcode == protocol.CHAL_BEGIN
    texts = (begin.text(protocol.NAME), begin.text(protocol.SERVICE), begin.text(protocol.RHOST))
    assert texts == ("ada", "sshd", "192.0.2.7")
    assert reply.opcode == protocol.CHAL_REPLY
    assert (reply.raw(protocol.HANDLE), reply.text(protocol.ANSWER)) == (HANDLE, "123456")


def test_reason_of_a_denial_is_shown_literally(login: Module, serve: Serve) -> None:
    serve(ask(QUESTION), result(protocol.REFUSED, (ERROR_TEXT, "100%n%s%n wrong")))
    run = login.call("auth", "ada", answers=["0"])
    assert run.result == PERM_DENIED
    assert run.prompts == ((PAM_ECHO_ON, QUESTION[1]), (PAM_ERROR, "100%n%s%n wrong"))


def test_prompts_keep_their_styles_and_order(login: Module, serve: Serve) -> None:
    prompts = ((INFO_TEXT, "i"), (ERROR_TEXT, "e"), (ECHO_OFF, "secret: "))
    serve(ask(*prompts), result(protocol.SUCCESS))
    run = login.call("auth", "ada", answers=["x"])
    assert run.prompts == ((PAM_INFO, "i"), (PAM_ERROR, "e"), (PAM_ECHO_OFF, "secret: "))
    assert run.result == SUCCESS


def test_menu_then_question(login: Module, serve: Serve) -> None:
    service = serve(ask((ECHO_ON, "1: a\n2: b\n")), ask(QUESTION), result(protocol.SUCCESS))
    assert login.call("auth", "ada", answers=["1", "123"]).result == SUCCESS
    assert [request.text(protocol.ANSWER) for request in service.requests[1:]] == ["1", "123"]


def test_exempt_user_is_asked_nothing(login: Module, serve: Serve) -> None:
    serve(result(protocol.SUCCESS))
    run = login.call("auth", "sa_1")
    assert (run.result, run.prompts) == (SUCCESS, ())


@pytest.mark.parametrize("value", [1, 2, 3, 4, 5])
def test_other_results_deny_with_one_line(login: Module, serve: Serve, value: int) -> None:
    serve(result(value))
    run = login.call("auth", "ada")
    assert (run.result, run.prompts) == (PERM_DENIED, (REFUSAL,))


@pytest.mark.parametrize("value", range(1, 11))
def test_status_other_than_ok_denies(login: Module, serve: Serve, value: int) -> None:
    serve(status(value))
    assert login.call("auth", "ada").result == PERM_DENIED


def test_eight_rounds_are_answered(login: Module, serve: Serve) -> None:
    serve(*[ask(QUESTION)] * 8, result(protocol.SUCCESS))
    assert login.call("auth", "ada", answers=["1"] * 8).result == SUCCESS


def test_ninth_question_is_not_shown(login: Module, serve: Serve) -> None:
    service = serve(*[ask(QUESTION)] * 9, result(protocol.SUCCESS))
    run = login.call("auth", "ada", answers=["1"] * 9)
    assert run.result == PERM_DENIED
    assert [text for _, text in run.prompts].count(QUESTION[1]) == 8
    assert service.opcodes()[-1] == protocol.CHAL_ABORT


@pytest.mark.parametrize("answers", [["!"], [], ["x" * 1025]])
def test_failed_conversation_is_given_up(login: Module, serve: Serve, answers: list[str]) -> None:
    service = serve(ask(QUESTION), result(protocol.REFUSED))
    assert login.call("auth", "ada", answers=answers).result == PERM_DENIED
    assert service.opcodes() == [protocol.CHAL_BEGIN, protocol.CHAL_ABORT]
    assert service.requests[1].raw(protocol.HANDLE) == HANDLE


def test_abort_is_a_denial_whatever_the_reply(login: Module, serve: Serve) -> None:
    serve(ask(QUESTION), result(protocol.SUCCESS))
    assert login.call("auth", "ada", answers=["!"]).result == PERM_DENIED


@pytest.mark.parametrize("length", [0, 1, 1024])
def test_answer_is_sent_whole(login: Module, serve: Serve, length: int) -> None:
    service = serve(ask(QUESTION), result(protocol.SUCCESS))
    assert login.call("auth", "ada", answers=["x" * length]).result == SUCCESS
    assert service.requests[1].text(protocol.ANSWER) == "x" * length


def test_no_service_denies_with_a_line_in_the_log(login: Module) -> None:
    run = login.call("auth", "ada")
    assert (run.result, run.prompts) == (PERM_DENIED, (REFUSAL,))
    assert len(run.log) == 1 and "ada denied" in run.log[0]


def test_silent_shows_no_texts(login: Module, serve: Serve) -> None:
    serve(ask((INFO_TEXT, "i"), QUESTION), result(protocol.REFUSED, (ERROR_TEXT, "no")))
    run = login.call("auth", "ada", answers=["1"], flags=SILENT)
    assert (run.result, run.prompts) == (PERM_DENIED, ((PAM_ECHO_ON, QUESTION[1]),))


def test_service_of_another_user_is_not_believed(
    build: Callable[..., Module], serve: Serve
) -> None:
    module = build("plain", "-DOSLOGIN_SERVER_UID=54321")
    service = serve(result(protocol.SUCCESS))
    assert module.call("auth", "ada").result == PERM_DENIED
    assert service.requests == []


@pytest.mark.parametrize("name", ["-", "", "-a", "a b", "x" * 33, ".", "..", "a/b", "é", "a%n"])
def test_impossible_name_is_denied_without_asking(login: Module, serve: Serve, name: str) -> None:
    service = serve(result(protocol.SUCCESS))
    assert login.call("auth", name).result == PERM_DENIED
    assert service.requests == []


def test_local_user_is_denied_by_default(login: Module, serve: Serve) -> None:
    service = serve(result(protocol.USER_UNKNOWN))
    assert login.call("auth", "local").result == PERM_DENIED
    assert len(service.requests) == 1


@pytest.mark.parametrize("name", ["root", "local", "last"])
def test_local_user_can_be_ignored(login: Module, serve: Serve, name: str) -> None:
    service = serve(result(protocol.SUCCESS))
    run = login.call("auth", name, "local_users=ignore")
    assert (run.result, run.prompts, service.requests) == (IGNORE, (), [])


@pytest.mark.parametrize("name", ["roo", "roott", "oot", "x", "ada"])
def test_only_names_of_local_users_are_ignored(login: Module, name: str) -> None:
    assert login.call("auth", name, "local_users=ignore").result == PERM_DENIED


def test_unknown_option_is_one_line_in_the_log(login: Module, serve: Serve) -> None:
    serve(result(protocol.SUCCESS))
    run = login.call("auth", "ada", "nonsense%n")
    assert run.result == SUCCESS
    assert len(run.log) == 1 and "nonsense%n" in run.log[0]


def test_debug_logs_no_answer(login: Module, serve: Serve) -> None:
    serve(ask(QUESTION), result(protocol.SUCCESS))
    run = login.call("auth", "ada", "debug", answers=["314159"])
    assert run.log and "314159" not in "".join(run.log)


WHOLE = 12


def hostile(request: Message, change: str) -> bytes:
    """A reply of success, changed in one thing that makes it wrong."""
    success = protocol.number_field(protocol.RESULT, protocol.SUCCESS)
    fields: list[tuple[int, bytes]] = [success]
    reply = bytearray(protocol.encode(protocol.reply(request, fields=fields)))
    if change == "magic":
        reply[3] = ord("2")
    elif change == "number":
        reply[WHOLE] ^= 1
    elif change == "opcode":
        reply[8] ^= 1
    elif change == "request":
        reply[9] &= 0x7F
    elif change == "length":
        reply[4:8] = (32769).to_bytes(4, "little")
        reply += bytes(32769)
    elif change == "huge":
        reply[4:8] = b"\xff" * 4
    else:
        raw = RAW[change]
        reply = bytearray(reply[:4] + len(raw).to_bytes(4, "little") + reply[8:16] + raw)
    return bytes(reply)


def tlv(*fields: tuple[int, bytes]) -> bytes:
    return b"".join(
        tag.to_bytes(2, "little") + len(data).to_bytes(2, "little") + data for tag, data in fields
    )


GOOD = (protocol.RESULT, bytes(4))
STYLE_ON = (protocol.STYLE, ECHO_ON.to_bytes(4, "little"))
STYLE_INFO = (protocol.STYLE, INFO_TEXT.to_bytes(4, "little"))
TEXT = (protocol.PROMPT, b"t\0")
KEY = (protocol.HANDLE, HANDLE)
RAW = {
    "empty": b"",
    "two-results": tlv(GOOD, GOOD),
    "long-result": tlv((protocol.RESULT, bytes(5))),
    "short-result": tlv((protocol.RESULT, bytes(3))),
    "result-6": tlv((protocol.RESULT, b"\6\0\0\0")),
    "result-65536": tlv((protocol.RESULT, b"\0\0\1\0"), (protocol.STYLE, b"")),
    "field-too-long": tlv(GOOD) + b"\x19\0\5\0\0\0\0\0",
    "half-a-field": tlv(GOOD) + b"\x19\0\4",
    "question-with-result": tlv(STYLE_ON, TEXT, GOOD),
    "style-alone": tlv(STYLE_INFO, GOOD),
    "prompt-alone": tlv(TEXT, GOOD),
    "two-styles": tlv(STYLE_INFO, STYLE_INFO, TEXT, GOOD),
    "style-0": tlv((protocol.STYLE, bytes(4)), TEXT, GOOD),
    "style-5": tlv((protocol.STYLE, b"\5\0\0\0"), TEXT, GOOD),
    "embedded-nul": tlv(STYLE_INFO, (protocol.PROMPT, b"a\0b\0"), GOOD),
    "no-nul": tlv(STYLE_INFO, (protocol.PROMPT, b"ab"), GOOD),
    "empty-text": tlv(STYLE_INFO, (protocol.PROMPT, b""), GOOD),
    "no-handle": tlv(STYLE_ON, TEXT),
    "short-handle": tlv((protocol.HANDLE, HANDLE[:15]), STYLE_ON, TEXT),
    "two-handles": tlv(KEY, KEY, STYLE_ON, TEXT),
    "two-questions": tlv(KEY, STYLE_ON, TEXT, STYLE_ON, TEXT),
    "text-after-question": tlv(KEY, STYLE_ON, TEXT, STYLE_INFO, TEXT),
    "no-question": tlv(KEY, STYLE_INFO, TEXT),
    "seventeen-prompts": tlv(*[STYLE_INFO, TEXT] * 17, GOOD),
}


@pytest.mark.parametrize("change", ["magic", "number", "opcode", "request", "length", "huge", *RAW])
def test_wrong_reply_is_a_denial(login: Module, serve: Serve, change: str) -> None:
    serve(lambda request: hostile(request, change), result(protocol.SUCCESS))
    run = login.call("auth", "ada", answers=["1"])
    assert (run.result, run.prompts) == (PERM_DENIED, (REFUSAL,))


def test_unknown_fields_are_skipped(login: Module, serve: Serve) -> None:
    raw = tlv((999, b"later"), GOOD, (1000, b""))
    serve(
        lambda request: (
            b"GOL1"
            + len(raw).to_bytes(4, "little")
            + protocol.encode(protocol.reply(request))[8:]
            + raw
        )
    )
    assert login.call("auth", "ada").result == SUCCESS


def test_reply_cut_at_any_byte_is_a_denial(build: Callable[..., Module], serve: Serve) -> None:
    module = build("sanitized")
    prompts = prompt_fields((INFO_TEXT, "hello"))
    fields = [*prompts, protocol.number_field(protocol.RESULT, protocol.SUCCESS)]

    def cut(at: int) -> Callable[[Message], bytes]:
        return lambda request: protocol.encode(protocol.reply(request, fields=fields))[:at]

    whole = len(protocol.encode(Message(protocol.CHAL_BEGIN, fields)))
    serve(*[cut(at) for at in range(whole + 1)])
    results = [module.call("auth", "ada").result for _ in range(whole + 1)]
    assert results == [PERM_DENIED] * whole + [SUCCESS]


def test_service_that_hangs_is_left_after_the_deadline(login: Module, serve: Serve) -> None:
    serve(None)
    start = time.monotonic()
    assert login.call("auth", "ada").result == PERM_DENIED
    assert time.monotonic() - start >= 30 * SECOND_MS / 1000


def test_phone_prompt_has_90_seconds(login: Module, serve: Serve) -> None:
    def late(request: Message) -> bytes:
        time.sleep(60 * SECOND_MS / 1000)
        return result(protocol.SUCCESS)(request)

    serve(ask(QUESTION), late)
    assert login.call("auth", "ada", answers=[""]).result == SUCCESS


def test_answer_without_a_reply_is_given_up_after_90_seconds(login: Module, serve: Serve) -> None:
    serve(ask(QUESTION), None)
    start = time.monotonic()
    assert login.call("auth", "ada", answers=["1"]).result == PERM_DENIED
    assert 90 * SECOND_MS / 1000 <= time.monotonic() - start < 5
