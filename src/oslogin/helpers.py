"""google_authorized_keys, google_authorized_keys_sk and google_authorized_principals.

sshd runs these as root for each attempt to log in: AuthorizedKeysCommand prints the keys a user may
log in with, AuthorizedPrincipalsCommand the name that a certificate must be for. They ask the
daemon and print what it says. No output means "denied"; sshd takes another exit status for the same
and logs it, and discards what a helper writes to standard error, so each call leaves one line in
the system log.

sshd stops reading as soon as a key matches; a helper that finds its pipe closed has done its work.

Facts: guest-oslogin ``src/authorized_keys/*.cc``, ``src/authorized_principals/*.cc`` (arguments,
exit statuses, how they log).
"""

from __future__ import annotations

import sys
import syslog

from oslogin import client, paths, protocol

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Optional

SECONDS = 20.0
_BAD_USAGE = 1
_NO_SUCH = {
    protocol.NOT_FOUND: "no OS Login user",
    protocol.DENIED: "denied",
    protocol.DISABLED: "OS Login is off",
    protocol.UNAVAILABLE: "denied: no answer from the metadata server",
    protocol.BUSY: "denied: the OS Login daemon is busy",
}


def keys() -> int:
    """Run google_authorized_keys; return the exit status."""
    return print_keys("google_authorized_keys", sys.argv[1:], protocol.MODE_KEYS)


def security_keys() -> int:
    """Run google_authorized_keys_sk; return the exit status."""
    return print_keys("google_authorized_keys_sk", sys.argv[1:], protocol.MODE_SECURITY_KEYS)


def principals() -> int:
    """Run google_authorized_principals; return the exit status."""
    return print_principals("google_authorized_principals", sys.argv[1:])


def print_keys(
    program: str,
    arguments: Sequence[str],
    mode: int,
    *,
    socket: str = paths.AUTH_SOCKET,
    owner: int = 0,
) -> int:
    """Print the keys of the one user that ``arguments`` name; return the exit status."""
    _open_log()
    if len(arguments) != 1:
        return _usage(program, "USER")
    user = arguments[0]
    try:
        fields = (
            protocol.string_field(protocol.NAME, user),
            protocol.number_field(protocol.MODE, mode),
        )
    except protocol.ProtocolError:
        _log(program, user, "denied: no name of a user")
        return 0
    reply = _answer(program, user, protocol.Message(protocol.KEYS, fields), socket, owner)
    return 0 if reply is None else _print_lines(program, user, reply)


def print_principals(
    program: str, arguments: Sequence[str], *, socket: str = paths.AUTH_SOCKET, owner: int = 0
) -> int:
    """Print the principal that a certificate is good for; return the exit status.

    A certificate that is none, or has no fingerprint of Google's, is status 1.
    """
    _open_log()
    if len(arguments) not in (2, 3) or arguments[2:] not in ([], ["--cloud_run"]):
        return _usage(program, "USER CERTIFICATE [--cloud_run]")
    user, certificate = arguments[:2]
    flags = protocol.FLAG_CLOUD_RUN if len(arguments) == 3 else 0
    try:
        fields = (
            protocol.string_field(protocol.NAME, user),
            protocol.string_field(protocol.CERT, certificate),
            protocol.number_field(protocol.FLAGS, flags),
        )
    except protocol.ProtocolError:
        _log(program, user, "denied: the name or the certificate cannot be one")
        return 1
    reply = _answer(program, user, protocol.Message(protocol.PRINCIPALS, fields), socket, owner)
    if reply is None:
        return 0
    if reply.status == protocol.BAD_REQUEST:
        _log(program, user, "denied: the certificate cannot be read or has no fingerprint")
        return 1
    return _print_lines(program, user, reply)


def _answer(
    program: str, user: str, request: protocol.Message, socket: str, owner: int
) -> Optional[protocol.Message]:
    try:
        return client.ask(socket, request, seconds=SECONDS, owner=owner)
    except client.Unreachable as error:
        _log(program, user, f"denied: {error}")
        return None


def _print_lines(program: str, user: str, reply: protocol.Message) -> int:
    lines = reply.texts(protocol.LINE) if reply.status == protocol.OK else ()
    if lines:
        _log(program, user, f"allowed, {len(lines)} lines")
    else:
        _log(program, user, _NO_SUCH.get(reply.status, f"denied (status {reply.status})"))
    data = "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape")
    try:
        # Without a buffer: nothing is left that the interpreter would try to write at its end.
        with open(1, "wb", 0, closefd=False) as output:
            while data:
                data = data[output.write(data) :]
    except BrokenPipeError:
        pass  # sshd has what it wanted.
    except OSError as error:
        _log(program, user, f"cannot print: {error}")
    return 0


def _usage(program: str, arguments: str) -> int:
    message = f"usage: {program} {arguments}"
    syslog.syslog(syslog.LOG_ERR, f"{program}: {message}")
    if sys.stderr is not None:  # It is when the program starts with it closed.
        sys.stderr.write(message + "\n")
    return _BAD_USAGE


def _open_log() -> None:
    syslog.openlog("sshd", syslog.LOG_PID, syslog.LOG_DAEMON)


def _log(program: str, user: str, decision: str) -> None:
    shown = ascii(user[:64])[1:-1]
    syslog.syslog(syslog.LOG_INFO, f"{program}: user {shown}: {decision}")
