"""The control interface: steering an emulator that runs in another process or network namespace.

``POST /_emulator/CALL`` with a JSON object of arguments answers ``{"result": ...}``, or
``{"error": message, "kind": name}`` with a 4xx status.  On the TCP port a request must carry the
emulator's token in ``X-Emulator-Token``; on the Unix socket the file's mode (0600) is the
permission.  Byte strings travel as ``{"$base64": "..."}``.

Reads and writes the emulator it belongs to; ``ControlClient`` is the other end.
"""

from __future__ import annotations

import base64
import contextlib
import hmac
import http.client
import json
import socket
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Callable, Optional, Union

from metadata_server import tokens
from metadata_server.request_log import Request
from metadata_server.wire import JSON, Answer, Headers, Message

if TYPE_CHECKING:
    from metadata_server.emulator import Emulator
    from metadata_server.service import Target

TOKEN_HEADER = "X-Emulator-Token"
_ERRORS: Mapping[str, type[Exception]] = {
    "KeyError": KeyError,
    "TimeoutError": TimeoutError,
    "TypeError": TypeError,
    "ValueError": ValueError,
}
Arguments = Mapping[str, object]


class ControlError(RuntimeError):
    """The emulator cannot be reached, or refused a call."""


def to_json(value: object) -> object:
    """A value with its byte strings made fit for JSON."""
    if isinstance(value, bytes):
        return {"$base64": base64.b64encode(value).decode("ascii")}
    if isinstance(value, Mapping):
        return {str(key): to_json(child) for key, child in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(child) for child in value]
    return value


def from_json(value: object) -> object:
    """The reverse of ``to_json``."""
    if isinstance(value, dict):
        if set(value) == {"$base64"}:
            return base64.b64decode(str(value["$base64"]), validate=True)
        return {key: from_json(child) for key, child in value.items()}
    if isinstance(value, list):
        return [from_json(child) for child in value]
    return value


def request_document(request: Request) -> dict[str, object]:
    headers = request.headers
    pairs = headers.fields if isinstance(headers, Headers) else tuple(headers.items())
    return {
        "method": request.method,
        "path": request.path,
        "query": dict(request.query),
        "headers": [list(pair) for pair in pairs],
        "body": base64.b64encode(request.body).decode("ascii"),
        "time": request.time,
        "number": request.number,
        "target": request.target,
        "client": request.client,
        "tls": request.tls,
    }


def request_from_document(document: Mapping[str, object]) -> Request:
    fields = dict(document)
    pairs = fields["headers"]
    assert isinstance(pairs, list)
    fields["headers"] = Headers(tuple((str(name), str(value)) for name, value in pairs))
    fields["body"] = base64.b64decode(str(fields["body"]))
    return Request(**fields)  # type: ignore[arg-type]


class ControlInterface:
    """Turns control requests into calls of the emulator."""

    def __init__(self, emulator: Emulator, token: str) -> None:
        self._emulator = emulator
        self._token = token

    def answer(self, message: Message, target: Target, trusted: bool) -> Answer:
        given = message.headers.get(TOKEN_HEADER, "")
        if not trusted and not hmac.compare_digest(given.encode(), self._token.encode()):
            return _reply(403, {"error": f"{TOKEN_HEADER} is missing or wrong"})
        call = CALLS.get("/".join(target.names[1:]))
        if call is None:
            return _reply(404, {"error": "no such call", "calls": sorted(CALLS)})
        if message.method != "POST":
            return _reply(405, {"error": "calls are made with POST"}, headers=(("Allow", "POST"),))
        try:
            document = json.loads(message.body or b"{}")
            if not isinstance(document, dict):
                raise ValueError("arguments are a JSON object")
            arguments = from_json(document)
            assert isinstance(arguments, dict)
            return _reply(200, {"result": to_json(call(self._emulator, arguments))})
        except (KeyError, TimeoutError, TypeError, ValueError, RecursionError) as problem:
            kind = next((k for k, known in _ERRORS.items() if isinstance(problem, known)), "")
            text = str(problem.args[0]) if problem.args else type(problem).__name__
            status = 408 if kind == "TimeoutError" else 404 if kind == "KeyError" else 400
            return _reply(status, {"error": text, "kind": kind or "ValueError"})


def _reply(
    status: int, document: Mapping[str, object], headers: tuple[tuple[str, str], ...] = ()
) -> Answer:
    return Answer(status, json.dumps(document).encode("ascii"), JSON, headers=headers)


# The calls


def _text(arguments: Arguments, name: str) -> str:
    value = arguments.get(name)
    if not isinstance(value, str):
        raise ValueError(f"the argument {name} is a string")
    return value


def _object(arguments: Arguments, name: str) -> dict[str, object]:
    value = arguments.get(name)
    if not isinstance(value, dict):
        raise ValueError(f"the argument {name} is an object")
    return value


def _optional_number(arguments: Arguments, name: str) -> Optional[float]:
    value = arguments.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"the argument {name} is a number")
    return value


def _set(emulator: Emulator, arguments: Arguments) -> None:
    if "value" not in arguments:
        raise ValueError("the argument value is required")
    emulator.set(_text(arguments, "path"), arguments["value"])


def _get(emulator: Emulator, arguments: Arguments) -> object:
    absent = object()
    value = emulator.get(_text(arguments, "path"), absent)
    return {"found": False} if value is absent else {"found": True, "value": value}


def _batch(emulator: Emulator, arguments: Arguments) -> None:
    changes = arguments.get("changes")
    if not isinstance(changes, list):
        raise ValueError("the argument changes is a list")
    with emulator.batch():
        for change in changes:
            if not isinstance(change, dict) or change.get("call") not in _CHANGES:
                raise ValueError(f"a change is one of {', '.join(sorted(_CHANGES))}")
            CALLS[str(change["call"])](emulator, change)


def _requests(emulator: Emulator, arguments: Arguments) -> object:
    prefix = str(arguments.get("path_prefix", ""))
    return [request_document(request) for request in emulator.requests(prefix)]


def _wait_for_request(emulator: Emulator, arguments: Arguments) -> object:
    method = arguments.get("method")
    number = arguments.get("since_number")
    since: Optional[Union[float, Request]] = _optional_number(arguments, "since")
    if isinstance(number, int):
        since = Request("", "", {}, {}, b"", 0.0, number)
    request = emulator.wait_for_request(
        _text(arguments, "path_prefix"),
        _optional_number(arguments, "timeout") or 0.0,
        method=method if isinstance(method, str) else None,
        since=since,
    )
    return request_document(request)


def _fault(emulator: Emulator, arguments: Arguments) -> object:
    rest = {key: value for key, value in arguments.items() if key not in ("path_prefix", "kind")}
    fault = emulator.fault(
        _text(arguments, "path_prefix"),
        _text(arguments, "kind"),
        **rest,  # type: ignore[arg-type]
    )
    return fault.number


def _remove_fault(emulator: Emulator, arguments: Arguments) -> None:
    number = arguments.get("number")
    for fault in emulator.faults():
        if fault.number == number:
            emulator.remove_fault(fault)
            return
    raise KeyError(f"fault {number}")


def _oslogin_user(emulator: Emulator, arguments: Arguments) -> None:
    settings = {key: value for key, value in arguments.items() if key != "username"}
    username = _text(arguments, "username")
    try:
        emulator.oslogin.change_user(username, **settings)
    except KeyError:
        uid = settings.pop("uid", None)
        if isinstance(uid, bool) or not isinstance(uid, (int, str)):
            raise ValueError("a new user needs a uid") from None
        emulator.oslogin.add_user(username, uid, **settings)


def _oslogin_group(emulator: Emulator, arguments: Arguments) -> None:
    members, gid = arguments.get("members", ()), arguments.get("gid")
    if not isinstance(members, (list, tuple)):
        raise ValueError("the argument members is a list")
    if isinstance(gid, bool) or not isinstance(gid, (int, str)):
        raise ValueError("the argument gid is a number")
    emulator.oslogin.add_group(_text(arguments, "name"), gid, [str(name) for name in members])


def _oslogin_remove_user(emulator: Emulator, arguments: Arguments) -> None:
    emulator.oslogin.remove_user(_text(arguments, "username"))


def _oslogin_remove_group(emulator: Emulator, arguments: Arguments) -> None:
    emulator.oslogin.remove_group(_text(arguments, "name"))


def _oslogin_enabled(emulator: Emulator, arguments: Arguments) -> None:
    enabled = arguments.get("enabled")
    if enabled is not None and not isinstance(enabled, bool):
        raise ValueError("the argument enabled is true, false or null")
    emulator.oslogin.enabled = enabled


def _oslogin_answers(emulator: Emulator, arguments: Arguments) -> None:
    emulator.oslogin.answers = _object(arguments, "answers")


def _preset(emulator: Emulator, arguments: Arguments) -> None:
    options = {key: value for key, value in arguments.items() if key != "name"}
    emulator.preset(_text(arguments, "name"), **options)


def _describe(emulator: Emulator, arguments: Arguments) -> object:
    return {"hosts": emulator.hosts, "url": emulator.url}


Call = Callable[["Emulator", Arguments], object]
CALLS: dict[str, Call] = {
    "batch": _batch,
    "clear_faults": lambda emulator, _: emulator.clear_faults(),
    "clear_requests": lambda emulator, _: emulator.clear_requests(),
    "delete": lambda emulator, a: emulator.delete(_text(a, "path")),
    "describe": _describe,
    "etag": lambda emulator, a: emulator.etag(_text(a, "path")),
    "failures": lambda emulator, _: [repr(failure) for failure in emulator.failures],
    "fault": _fault,
    "faults": lambda emulator, _: [fault.describe() for fault in emulator.faults()],
    "get": _get,
    "guest_attributes": lambda emulator, _: emulator.guest_attributes(),
    "limit_guest_attributes": lambda emulator, a: emulator.limit_guest_attributes(
        _optional_number(a, "per_second")
    ),
    "offline": lambda emulator, a: emulator.offline(_optional_number(a, "seconds")),
    "online": lambda emulator, _: emulator.online(),
    "oslogin_answers": _oslogin_answers,
    "oslogin_enabled": _oslogin_enabled,
    "oslogin_group": _oslogin_group,
    "oslogin_remove_group": _oslogin_remove_group,
    "oslogin_remove_user": _oslogin_remove_user,
    "oslogin_user": _oslogin_user,
    "preset": _preset,
    "public_keys": lambda emulator, _: tokens.public_keys(),
    "remove_fault": _remove_fault,
    "replace": lambda emulator, a: emulator.replace(_object(a, "document")),
    "request_count": lambda emulator, _: emulator.request_count,
    "requests": _requests,
    "set": _set,
    "set_oslogin": lambda emulator, a: emulator.set_oslogin(_object(a, "document")),
    "use_profile": lambda emulator, a: emulator.use_profile(_text(a, "name")),
    "wait_for_request": _wait_for_request,
    "waiting_clients": lambda emulator, _: emulator.waiting_clients,
}
_CHANGES = frozenset({"delete", "replace", "set", "use_profile"})


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class ControlClient:
    """The emulator's methods, for an emulator in another process.

    ``ControlClient("/run/mds.sock")`` uses the control socket;
    ``ControlClient(host="127.0.0.1:8080", token="...")`` the TCP port.
    """

    def __init__(
        self,
        socket_path: Optional[str] = None,
        *,
        host: Optional[str] = None,
        token: str = "",
        timeout: float = 30.0,
    ) -> None:
        if (socket_path is None) == (host is None):
            raise ValueError("give either a socket path or a host")
        self._socket_path = socket_path
        self._host = host
        self._token = token
        self._timeout = timeout
        self._changes: Optional[list[dict[str, object]]] = None

    def call(
        self, name: str, arguments: Optional[Arguments] = None, *, extra_time: float = 0.0
    ) -> object:
        """One call; raises what the emulator raised, or ControlError."""
        timeout = self._timeout + extra_time
        connection: http.client.HTTPConnection
        if self._socket_path is not None:
            connection = _UnixConnection(self._socket_path, timeout)
        else:
            assert self._host is not None
            connection = http.client.HTTPConnection(self._host, timeout=timeout)
        body = json.dumps(to_json(arguments or {})).encode("utf-8")
        try:
            connection.request(
                "POST",
                f"/_emulator/{name}",
                body,
                {"Content-Type": "application/json", TOKEN_HEADER: self._token},
            )
            response = connection.getresponse()
            document = json.loads(response.read())
        except (OSError, http.client.HTTPException, ValueError) as problem:
            where = self._socket_path or self._host
            raise ControlError(f"emulator at {where}: {name}: {problem}") from problem
        finally:
            connection.close()
        if response.status == 200:
            return from_json(document["result"])
        error = str(document.get("error", response.status))
        raise _ERRORS.get(str(document.get("kind")), ControlError)(error)

    def _change(self, name: str, arguments: Arguments) -> None:
        if self._changes is not None:
            self._changes.append({**arguments, "call": name})
        else:
            self.call(name, arguments)

    def set(self, path: str, value: object) -> None:
        self._change("set", {"path": path, "value": value})

    def delete(self, path: str) -> None:
        self._change("delete", {"path": path})

    def replace(self, document: Mapping[str, object]) -> None:
        self._change("replace", {"document": document})

    def use_profile(self, name: str) -> None:
        self._change("use_profile", {"name": name})

    @contextlib.contextmanager
    def batch(self) -> Iterator[None]:
        """Send the changes made inside together when the block ends without an error."""
        if self._changes is not None:
            yield
            return
        changes: list[dict[str, object]] = []
        self._changes = changes
        try:
            yield
        finally:
            self._changes = None
        self.call("batch", {"changes": changes})

    def get(self, path: str = "", default: object = None) -> object:
        answer = self.call("get", {"path": path})
        assert isinstance(answer, dict)
        return answer["value"] if answer["found"] else default

    def etag(self, path: str = "") -> str:
        return str(self.call("etag", {"path": path}))

    def guest_attributes(self) -> dict[str, dict[str, str]]:
        answer = self.call("guest_attributes")
        assert isinstance(answer, dict)
        return answer

    def requests(self, path_prefix: str = "") -> list[Request]:
        answer = self.call("requests", {"path_prefix": path_prefix})
        assert isinstance(answer, list)
        return [request_from_document(document) for document in answer]

    @property
    def request_count(self) -> int:
        answer = self.call("request_count")
        assert isinstance(answer, int)
        return answer

    @property
    def waiting_clients(self) -> int:
        answer = self.call("waiting_clients")
        assert isinstance(answer, int)
        return answer

    def clear_requests(self) -> None:
        self.call("clear_requests")

    def wait_for_request(
        self,
        path_prefix: str,
        timeout: float,
        *,
        method: Optional[str] = None,
        since: Optional[Union[float, Request]] = None,
    ) -> Request:
        arguments: dict[str, object] = {
            "method": method,
            "path_prefix": path_prefix,
            "timeout": timeout,
        }
        if isinstance(since, Request):
            arguments["since_number"] = since.number
        else:
            arguments["since"] = since
        answer = self.call("wait_for_request", arguments, extra_time=timeout)
        assert isinstance(answer, dict)
        return request_from_document(answer)

    @property
    def failures(self) -> list[str]:
        answer = self.call("failures")
        assert isinstance(answer, list)
        return answer

    def fault(self, path_prefix: str, kind: str, **settings: object) -> int:
        """As Emulator.fault; returns the fault's number."""
        answer = self.call("fault", {"path_prefix": path_prefix, "kind": kind, **settings})
        assert isinstance(answer, int)
        return answer

    def faults(self) -> list[dict[str, object]]:
        answer = self.call("faults")
        assert isinstance(answer, list)
        return answer

    def remove_fault(self, number: int) -> None:
        self.call("remove_fault", {"number": number})

    def clear_faults(self) -> None:
        self.call("clear_faults")

    def offline(self, seconds: Optional[float] = None) -> None:
        self.call("offline", {"seconds": seconds})

    def online(self) -> None:
        self.call("online")

    def preset(self, name: str, **options: object) -> None:
        self.call("preset", {"name": name, **options})

    def set_oslogin(self, document: Mapping[str, object]) -> None:
        self.call("set_oslogin", {"document": document})

    def oslogin_user(self, username: str, **settings: object) -> None:
        """Change these settings of a user (fields of ``oslogin.User``); a new one needs a uid."""
        self.call("oslogin_user", {"username": username, **settings})

    def oslogin_remove_user(self, username: str) -> None:
        self.call("oslogin_remove_user", {"username": username})

    def oslogin_group(self, name: str, gid: Union[int, str], members: Sequence[str] = ()) -> None:
        """Add a group, or replace the one of this name."""
        self.call("oslogin_group", {"name": name, "gid": gid, "members": list(members)})

    def oslogin_remove_group(self, name: str) -> None:
        self.call("oslogin_remove_group", {"name": name})

    def oslogin_enabled(self, enabled: Optional[bool]) -> None:
        """Answer (True), answer 404 to everything (False), or follow the attribute (None)."""
        self.call("oslogin_enabled", {"enabled": enabled})

    def oslogin_answers(self, answers: Mapping[str, object]) -> None:
        """Serve these documents whatever is asked: first name of the path to document."""
        self.call("oslogin_answers", {"answers": answers})

    def limit_guest_attributes(self, per_second: Optional[float]) -> None:
        self.call("limit_guest_attributes", {"per_second": per_second})

    def public_keys(self) -> dict[str, object]:
        answer = self.call("public_keys")
        assert isinstance(answer, dict)
        return answer

    @property
    def hosts(self) -> list[str]:
        answer = self.call("describe")
        assert isinstance(answer, dict)
        return list(answer["hosts"])

    @property
    def host(self) -> str:
        return self.hosts[0]

    @property
    def url(self) -> str:
        return f"http://{self.host}/computeMetadata/v1/"
