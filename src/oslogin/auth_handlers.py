"""The requests of auth.sock: decisions, keys, principals and second factors as messages.

Only root gets here (the socket's mode and the server's check of the peer). Nothing in a request or
reply is logged by this module.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from oslogin import protocol
from oslogin.authorization import Authorizer, Decision, Verdict
from oslogin.challenges import Sessions, Step
from oslogin.dispatch import Peer
from oslogin.keys import Keys, Lines
from oslogin.protocol import Message

if TYPE_CHECKING:
    from oslogin.dispatch import Handler


def handlers(authorizer: Authorizer, sessions: Sessions, keys: Keys) -> dict[int, Handler]:
    """Return the handler of each opcode."""

    def authorize(request: Message, _: Peer) -> Message:
        name = request.text(protocol.NAME)
        policy = request.integer(protocol.POLICY)
        if name is None or policy not in (protocol.POLICY_LOGIN, protocol.POLICY_ADMIN):
            return protocol.reply(request, protocol.BAD_REQUEST)
        admin = policy == protocol.POLICY_ADMIN
        decision = authorizer.authorize(name, admin_required=admin)
        result = _result(decision, authorizer.was_admitted(name))
        return protocol.reply(request, fields=(protocol.number_field(protocol.RESULT, result),))

    def authorized_keys(request: Message, _: Peer) -> Message:
        name = request.text(protocol.NAME)
        mode = request.integer(protocol.MODE) or protocol.MODE_KEYS
        if name is None or mode not in (protocol.MODE_KEYS, protocol.MODE_SECURITY_KEYS):
            return protocol.reply(request, protocol.BAD_REQUEST)
        wanted = mode == protocol.MODE_SECURITY_KEYS
        return _lines(request, keys.authorized_keys(name, security_keys=wanted))

    def principals(request: Message, _: Peer) -> Message:
        name, certificate = request.text(protocol.NAME), request.text(protocol.CERT)
        if name is None or certificate is None:
            return protocol.reply(request, protocol.BAD_REQUEST)
        flags = request.integer(protocol.FLAGS) or 0
        cloud_run = bool(flags & protocol.FLAG_CLOUD_RUN)
        return _lines(request, keys.principals(name, certificate, cloud_run=cloud_run))

    def begin(request: Message, peer: Peer) -> Message:
        name = request.text(protocol.NAME)
        if name is None:
            return protocol.reply(request, protocol.BAD_REQUEST)
        return _step(request, sessions.begin(name, peer.connection_id))

    def answer(request: Message, peer: Peer) -> Message:
        handle, text = request.raw(protocol.HANDLE), request.text(protocol.ANSWER)
        if handle is None or text is None:
            return protocol.reply(request, protocol.BAD_REQUEST)
        return _step(request, sessions.reply(handle, text, peer.connection_id))

    def abort(request: Message, peer: Peer) -> Message:
        handle = request.raw(protocol.HANDLE)
        if handle is None:
            return protocol.reply(request, protocol.BAD_REQUEST)
        return _step(request, sessions.abort(handle, peer.connection_id))

    return {
        protocol.AUTHORIZE: authorize,
        protocol.KEYS: authorized_keys,
        protocol.PRINCIPALS: principals,
        protocol.CHAL_BEGIN: begin,
        protocol.CHAL_REPLY: answer,
        protocol.CHAL_ABORT: abort,
    }


def _result(decision: Decision, was_admitted: bool) -> int:
    """Return what PAM is told: an outage denies those who are known here as users."""
    results: Mapping[Verdict, int] = {
        Verdict.ALLOWED: protocol.SUCCESS,
        Verdict.DENIED: protocol.REFUSED,
        Verdict.UNKNOWN_USER: protocol.USER_UNKNOWN,
        Verdict.UNAVAILABLE: protocol.REFUSED if was_admitted else protocol.RESULT_UNAVAILABLE,
    }
    return results[decision.verdict]


def _lines(request: Message, answer: Lines) -> Message:
    """Return the lines, as many as a reply can carry; for a denied login there are none."""
    if not answer.is_certificate:
        return protocol.reply(request, protocol.BAD_REQUEST)
    fields = []
    size = 0
    for line in answer.lines:
        try:
            line_field = protocol.string_field(protocol.LINE, line)
        except protocol.ProtocolError:
            continue
        size += len(line_field[1]) + 4
        if size > protocol.REPLY_LIMIT:
            break
        fields.append(line_field)
    is_known = answer.verdict is not Verdict.UNAVAILABLE
    return protocol.reply(request, protocol.OK if is_known else protocol.UNAVAILABLE, fields)


def _step(request: Message, step: Step) -> Message:
    fields = [protocol.bytes_field(protocol.HANDLE, step.handle)] if step.handle else []
    for style, text in step.prompts:
        fields.append(protocol.number_field(protocol.STYLE, style))
        fields.append(protocol.string_field(protocol.PROMPT, text))
    if step.result is not None:
        fields.append(protocol.number_field(protocol.RESULT, step.result))
    return protocol.reply(request, fields=fields)
