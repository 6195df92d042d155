"""What the metadata service answers to one request: routing, permissions, renderings.

Pure with respect to connections: the server hands in a recorded request and gets an answer, or
learns that the answer has to wait for a change.  Reads the tree, writes guest attributes into it.

Facts: public Compute Engine documentation ("About VM metadata", "View and query metadata", "Set and
query guest attributes", "Verify the identity of instances"), recorded responses; cloud-image-tests
``test_suites/metadata/metadata_test.go`` for the header rules.
"""

from __future__ import annotations

import json
import re
import threading
import time
import urllib.parse
from dataclasses import dataclass
from typing import Callable, Optional, Union

from metadata_server import tokens
from metadata_server.oslogin import Directory
from metadata_server.request_log import ROOT, Request
from metadata_server.tree import (
    CREDENTIALS,
    GUEST_ATTRIBUTES,
    SECRET_DIRECTORIES,
    WORKLOAD_CERTIFICATES,
    NoSuchPath,
    Path,
    Tree,
    etag_of,
    is_directory,
)
from metadata_server.wire import JSON, TEXT, Answer, Headers, error_page

GUEST_ATTRIBUTE_VALUE_LIMIT = 256 * 1024
_GUEST_ATTRIBUTE_NAME_LIMIT = 128
_LONGEST_WAIT = 10 * 365 * 86_400.0
_WORKLOAD_DOCUMENTS = ("config-status", "workload-identities", "trust-anchors")
_TRUE = frozenset({"true", "t", "1", "yes", "y", "on"})

MISSING_HEADER = "Missing Metadata-Flavor:Google header."
GUEST_ATTRIBUTES_OFF = "Guest attributes endpoint access is disabled."


@dataclass(frozen=True)
class Target:
    """A request target taken apart.  ``names`` are decoded; ``slash``: it ended in a slash."""

    path: str
    names: Path
    slash: bool
    query: dict[str, str]
    raw_query: str


@dataclass(frozen=True)
class Wait:
    """A long poll that has to wait: answer with ``render`` when the ETag differs or time is up."""

    path: Path
    etag: str
    timeout: Optional[float]
    render: Callable[[], Answer]


class BadTarget(ValueError):
    """The request target cannot be decoded."""


class _Refused(Exception):
    """Ends the routing of a request with an error answer."""

    def __init__(self, status: int, reason: str, *, allow: str = "") -> None:
        super().__init__(reason)
        headers = (("Allow", allow),) if allow else ()
        page = error_page(status, reason)
        self.answer = Answer(status, page.body, page.content_type, headers=headers)


def parse_target(target: str) -> Target:
    """Take a request target apart; raises BadTarget for broken percent-encoding."""
    absolute = re.match(r"[A-Za-z][A-Za-z0-9+.-]*://[^/?#]*", target)
    if absolute:
        target = target[absolute.end() :] or "/"
    raw_path, _, raw_query = target.partition("#")[0].partition("?")
    if re.search(r"%(?![0-9A-Fa-f]{2})", raw_path + "?" + raw_query):
        raise BadTarget("Invalid percent-encoding.")
    names = tuple(
        urllib.parse.unquote(name, errors="surrogateescape") for name in raw_path.split("/") if name
    )
    slash = raw_path.endswith("/") or not raw_path
    absolute_path = "/" + "/".join(names) + ("/" if slash and names else "")
    inside = absolute_path.startswith(ROOT)
    query = dict(urllib.parse.parse_qsl(raw_query, keep_blank_values=True))
    path = absolute_path[len(ROOT) :] if inside else absolute_path
    return Target(path, names, slash, query, raw_query)


def header_refusal(headers: Headers, names: Path) -> Optional[Answer]:
    """403 when the headers do not prove that the request comes from the guest itself."""
    if "x-forwarded-for" in headers:
        return error_page(403, "Requests with X-Forwarded-For are not served.")
    if names[:2] != ("computeMetadata", "v1"):
        return None
    flavor = headers.get("metadata-flavor", "").strip()
    historic = headers.get("x-google-metadata-request", "").strip().lower()
    if flavor == "Google" or historic == "true":
        return None
    return error_page(403, MISSING_HEADER)


def _flag(query: dict[str, str], name: str) -> bool:
    return query.get(name, "").lower() == "true"


class _Rate:
    """A token bucket: ``per_second`` on average, bursts of one second."""

    def __init__(self, per_second: float) -> None:
        self._per_second = per_second
        self._available = max(1.0, per_second)
        self._at = time.monotonic()
        self._lock = threading.Lock()

    def take(self) -> bool:
        with self._lock:
            now = time.monotonic()
            refilled = self._available + (now - self._at) * self._per_second
            self._available, self._at = min(refilled, max(1.0, self._per_second)), now
            if self._available < 1.0:
                return False
            self._available -= 1.0
            return True


class Service:
    """The metadata service over one tree."""

    def __init__(self, tree: Tree, oslogin: Directory) -> None:
        self.tree = tree
        self.oslogin = oslogin
        self.encrypt_credentials: Optional[Callable[[], dict[str, object]]] = None
        self._tokens = tokens.AccessTokens()
        self._rate: Optional[_Rate] = None

    def limit_guest_attributes(self, per_second: Optional[float]) -> None:
        """Answer 429 above this rate of guest-attribute requests; None: no limit."""
        self._rate = _Rate(per_second) if per_second is not None else None

    def answer(self, request: Request, target: Target) -> Union[Answer, Wait]:
        """The answer to a request whose headers have been accepted."""
        try:
            return self._route(request, target)
        except _Refused as refused:
            return refused.answer
        except NoSuchPath:
            return error_page(404, "Not found.")

    def _route(self, request: Request, target: Target) -> Union[Answer, Wait]:
        names = target.names
        if not names:
            return self._fixed_listing(request, "computeMetadata/\n")
        if names == ("computeMetadata",):
            if not target.slash:
                return _redirect(target)
            return self._fixed_listing(request, "v1/\n")
        if names[:2] != ("computeMetadata", "v1"):
            raise _Refused(404, "Not found.")
        path = names[2:]
        if path[:1] == ("oslogin",) and len(path) > 1:
            return self._oslogin(request, path[1:])
        if path[:2] == GUEST_ATTRIBUTES:
            self._allow_guest_attributes()
            if request.method in ("PUT", "DELETE") and len(path) == 4:
                return self._write_guest_attribute(request, path)
        self._only_get(request, "GET, PUT, DELETE" if path[:2] == GUEST_ATTRIBUTES else "GET")
        computed = self._computed(path, target)
        if computed is not None:
            return computed
        return self._read(path, target)

    def _only_get(self, request: Request, allow: str = "GET") -> None:
        if request.method != "GET":
            raise _Refused(405, f"Method {request.method} is not allowed here.", allow=allow)

    def _fixed_listing(self, request: Request, listing: str) -> Answer:
        self._only_get(request)
        body = listing.encode("ascii")
        return Answer(200, body, TEXT, etag=etag_of(body))

    # Reading the tree

    def _read(self, path: Path, target: Target) -> Union[Answer, Wait]:
        query = target.query
        alt = query.get("alt", "").lower()
        if alt not in ("", "json", "text"):
            raise _Refused(400, "The alt parameter is json or text.")
        timeout = _timeout(query)
        path = self._known_account(path)
        node = self.tree.node(path)
        directory = is_directory(node, path)
        if directory and not target.slash:
            return _redirect(target)
        if not directory and target.slash:
            raise NoSuchPath(path)
        recursive = _flag(query, "recursive")

        def render() -> Answer:
            return self._render(path, alt=alt, recursive=recursive)

        if not _flag(query, "wait_for_change"):
            return render()
        last = query.get("last_etag")
        etag = self.tree.etag(path)
        if last is not None and last != etag:
            return render()
        return Wait(path, etag, timeout, render)

    def _render(self, path: Path, *, alt: str, recursive: bool) -> Answer:
        tree = self.tree
        # Taken first: should a change come between the two, the client gets the newer body with the
        # older ETag, and its next poll answers at once instead of missing the change.
        etag = tree.etag(path)
        directory = is_directory(tree.node(path), path)
        if directory and not recursive:
            return Answer(200, tree.listing(path), TEXT, etag=etag)
        json_by_default = recursive or (path[-1:] == ("tags",) and len(path) == 2)
        secret = path[:-1] in SECRET_DIRECTORIES
        if alt == "json" or (json_by_default and alt != "text" and not secret):
            return Answer(200, tree.json(path), JSON, etag=etag)
        return Answer(200, tree.text(path), TEXT, etag=etag)

    def _known_account(self, path: Path) -> Path:
        """The path with an account's e-mail address replaced by the name it is stored under."""
        if path[:2] != ("instance", "service-accounts") or len(path) < 3 or self.tree.exists(path):
            return path
        account = self._account(path[2])
        return path if account is None else (*path[:2], account[0], *path[3:])

    def _account(self, name: str) -> Optional[tuple[str, str]]:
        """Stored name and address of a service account, looked up by either."""
        try:
            accounts = self.tree.document(("instance", "service-accounts"))
        except NoSuchPath:
            return None
        if not isinstance(accounts, dict):
            return None
        for stored, account in accounts.items():
            email = account.get("email") if isinstance(account, dict) else None
            address = email if isinstance(email, str) else stored
            if name in (stored, address):
                return stored, address
        return None

    # What is computed for each request

    def _computed(self, path: Path, target: Target) -> Optional[Answer]:
        is_account = path[:2] == ("instance", "service-accounts") and len(path) == 4
        if is_account and path[3] in ("token", "identity") and not target.slash:
            account = self._account(path[2])
            if account is None:
                raise NoSuchPath(path)
            if path[3] == "token":
                return _json(self._tokens.next())
            return self._identity(account[1], target.query)
        if path == (*CREDENTIALS, "mds-client-certificate") and self.encrypt_credentials:
            return _json(self.encrypt_credentials())
        if path[:-1] == WORKLOAD_CERTIFICATES and path[-1] in _WORKLOAD_DOCUMENTS:
            if not self.tree.exists(path):
                raise _Refused(412, "Workload certificates are not configured for this instance.")
            return _document_leaf(self.tree.text(path))
        return None

    def _identity(self, email: str, query: dict[str, str]) -> Answer:
        audience = query.get("audience", "")
        if not audience:
            raise _Refused(400, "non-empty audience parameter required")
        form = query.get("format", "standard")
        if form not in ("standard", "full"):
            raise _Refused(400, "The format parameter is standard or full.")
        token = tokens.identity_token(
            audience=audience,
            email=email,
            instance=self._instance() if form == "full" else None,
            licenses=query.get("licenses", "").upper() == "TRUE",
        )
        body = token.encode("ascii")
        return Answer(200, body, TEXT, etag=etag_of(body))

    def _instance(self) -> tokens.Instance:
        number = self._leaf("project", "numeric-project-id")
        licenses = self._value(("instance", "licenses"))
        return tokens.Instance(
            instance_id=self._leaf("instance", "id"),
            name=self._leaf("instance", "name"),
            zone=self._leaf("instance", "zone").rpartition("/")[2],
            project_id=self._leaf("project", "project-id"),
            project_number=int(number) if number.isascii() and number.isdigit() else 0,
            licenses=_license_ids(licenses),
        )

    def _value(self, path: Path) -> object:
        try:
            return self.tree.document(path)
        except NoSuchPath:
            return None

    def _leaf(self, *path: str) -> str:
        value = self._value(path)
        return str(value) if isinstance(value, (str, int)) else ""

    # Guest attributes

    def _allow_guest_attributes(self) -> None:
        if not self.attribute_is_true("enable-guest-attributes"):
            raise _Refused(403, GUEST_ATTRIBUTES_OFF)
        if self._rate is not None and not self._rate.take():
            page = error_page(429, "Too many guest attribute requests.")
            refused = _Refused(429, "")
            refused.answer = Answer(
                429, page.body, page.content_type, headers=(("Retry-After", "1"),)
            )
            raise refused

    def attribute_is_true(self, name: str) -> bool:
        """A boolean attribute: a readable instance value, else the project's, else false."""
        for level in ("instance", "project"):
            value = self._value((level, "attributes", name))
            text = str(value).strip().lower() if isinstance(value, (str, int)) else ""
            if text in _TRUE:
                return True
            if text in ("false", "f", "0", "no", "n", "off"):
                return False
        return False

    def _write_guest_attribute(self, request: Request, path: Path) -> Answer:
        if request.method == "DELETE":
            self.tree.delete(path)
            self._drop_empty_namespace(path[:3])
            return Answer(200)
        for name in path[2:]:
            size = len(name.encode("utf-8", "surrogateescape"))
            if size > _GUEST_ATTRIBUTE_NAME_LIMIT or re.search(
                r"[\x00-\x20/\x7f\udc80-\udcff]", name
            ):
                raise _Refused(400, "Invalid guest attribute namespace or key.")
        if len(request.body) > GUEST_ATTRIBUTE_VALUE_LIMIT:
            raise _Refused(400, "The guest attribute value is too large.")
        try:
            self.tree.set(path, request.body.decode("utf-8"))
        except UnicodeDecodeError:
            self.tree.set(path, request.body)
        return Answer(200)

    def _drop_empty_namespace(self, path: Path) -> None:
        with self.tree.batch():
            try:
                if self.tree.document(path) == {}:
                    self.tree.delete(path)
            except NoSuchPath:
                pass  # another request removed it first

    # OS Login

    def _oslogin(self, request: Request, path: Path) -> Answer:
        enabled = self.oslogin.enabled
        if enabled is None:
            enabled = self.attribute_is_true("enable-oslogin")
        if not enabled:
            raise _Refused(404, "Not found.")
        status, document = self.oslogin.answer(request.method, path, request.query, request.body)
        if status == 200:
            return _json(document)
        if status == 405:
            allow = "POST" if path[0] == "authenticate" else "GET"
            raise _Refused(405, str(document), allow=allow)
        raise _Refused(status, str(document))


def _redirect(target: Target) -> Answer:
    # A path reference, so that no header but Metadata-Flavor carries the platform's name.
    location = urllib.parse.quote("/" + "/".join(target.names) + "/", errors="surrogateescape")
    if target.raw_query:
        location += "?" + target.raw_query
    page = error_page(301, "Moved permanently.")
    return Answer(301, page.body, page.content_type, headers=(("Location", location),))


def _json(document: object) -> Answer:
    body = json.dumps(document).encode("ascii")
    return Answer(200, body, JSON, etag=etag_of(body))


def _document_leaf(body: bytes) -> Answer:
    return Answer(200, body, JSON, etag=etag_of(body))


def _license_ids(licenses: object) -> list[str]:
    if not isinstance(licenses, list):
        return []
    return [str(entry.get("id")) for entry in licenses if isinstance(entry, dict)]


def _timeout(query: dict[str, str]) -> Optional[float]:
    """The wait in seconds; None without a limit."""
    text = query.get("timeout_sec")
    if text is None:
        return None
    if not re.fullmatch(r"[0-9]+(\.[0-9]*)?|\.[0-9]+", text):
        raise _Refused(400, "The timeout_sec parameter is a number of seconds.")
    return min(float(text), _LONGEST_WAIT)
