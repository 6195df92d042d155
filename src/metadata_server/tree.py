"""The metadata tree: one document, its four renderings, its ETags and its waiters.

The tree is kept with the names that paths use (``network-interfaces``, ``ip-aliases``).  It renders
as the text of one leaf, the JSON of one leaf, the listing of a directory, and a recursive document
in JSON or text.  JSON spells the names of the platform in camelCase (``networkInterfaces``); names
that users choose (attributes, guest attributes, service accounts) stay as they are.

Published nodes are never changed in place: a change copies the directories along its path and
publishes a new root.  So readers need no lock, an unchanged subtree keeps its identity, and its
rendering and ETag can be remembered for as long as the node is the same object.

Reads and writes nothing outside the process.  Facts: the public documentation of the Compute Engine
metadata server; guest-agent ``metadata/metadata.go`` and google-guest-agent
``internal/metadata/unmarshal.go`` for the names that agents read.
"""

from __future__ import annotations

import contextlib
import enum
import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from typing import Callable, Optional, Union

Scalar = Union[str, int, float, bool, bytes, None]
Node = Union[Scalar, dict[str, "Node"], list["Node"]]
Path = tuple[str, ...]

GUEST_ATTRIBUTES: Path = ("instance", "guest-attributes")
WORKLOAD_CERTIFICATES: Path = ("instance", "gce-workload-certificates")
CREDENTIALS: Path = ("instance", "credentials")

# Served when asked for by name, never part of a recursive answer.
SECRET_DIRECTORIES = (CREDENTIALS, WORKLOAD_CERTIFICATES)

# Lists that are one value, not a directory of numbered entries.
_LIST_LEAVES = frozenset({"aliases", "scopes", "tags"})

# Directories whose names below are the user's own words, at any depth.
_VERBATIM = frozenset({"attributes", "guest-attributes", "partner-attributes"})

# Names whose missing container is made as a list when an entry of it is set.
_NUMBERED = frozenset(
    {
        "access-configs",
        "disks",
        "dns-servers",
        "forwarded-ips",
        "forwarded-ipv6s",
        "ip-aliases",
        "ipv6",
        "ipv6s",
        "licenses",
        "network-interfaces",
        "target-instance-ips",
    }
)

_RENDERINGS_KEPT = 128


class NoSuchPath(KeyError):
    """Nothing is at this path."""

    def __init__(self, path: Path) -> None:
        super().__init__("/".join(path))


class BadPath(ValueError):
    """The path cannot be written: it leads through a value, or past the end of a list."""


class _Place(enum.Enum):
    """Who chose the names in a directory, which decides how JSON spells them."""

    PLATFORM = "platform"
    ACCOUNTS = "accounts"  # one level of verbatim names, the platform's names below
    USER = "user"

    def below(self, name: str) -> _Place:
        if self is _Place.USER or (self is _Place.PLATFORM and name in _VERBATIM):
            return _Place.USER
        if self is _Place.PLATFORM and name == "service-accounts":
            return _Place.ACCOUNTS
        return _Place.PLATFORM


def camel_case(name: str) -> str:
    """The JSON spelling of a path name: ``gateway-ipv6`` is ``gatewayIpv6``."""
    return re.sub(r"-([a-z])", lambda match: match.group(1).upper(), name)


def hyphenated(name: str) -> str:
    """The path spelling of a JSON name: ``gatewayIpv6`` is ``gateway-ipv6``."""
    return re.sub(r"(?<!^)[A-Z]", lambda match: "-" + match.group(0), name).lower()


def split_path(path: str) -> Path:
    """The names of a path below ``/computeMetadata/v1/``; empty names are dropped.

    The spelling of JSON is accepted too (``instance/networkInterfaces/0``), because people copy
    paths out of documents.
    """
    place, names = _Place.PLATFORM, []
    for name in path.split("/"):
        if not name:
            continue
        spelled = hyphenated(name) if place is _Place.PLATFORM else name
        names.append(spelled)
        place = place.below(spelled)
    return tuple(names)


def node_from_document(value: object, path: Path = ()) -> Node:
    """A tree node from a JSON-like value in either spelling; always a fresh copy."""
    return _node(value, path, _place_of(path))


def _node(value: object, path: Path, place: _Place) -> Node:
    if path[:-1] in SECRET_DIRECTORIES and isinstance(value, (Mapping, list)):
        # These leaves are documents of their own; their names belong to whoever wrote them.
        return json.dumps(value)
    if isinstance(value, Mapping):
        node: dict[str, Node] = {}
        for key, child in value.items():
            name = hyphenated(str(key)) if place is _Place.PLATFORM else str(key)
            node[name] = _node(child, (*path, name), place.below(name))
        return node
    if isinstance(value, (list, tuple)):
        return [_node(child, (*path, str(i)), place) for i, child in enumerate(value)]
    if value is None or isinstance(value, (str, int, float, bool, bytes)):
        return value
    raise TypeError(f"metadata values are JSON values or bytes, not {type(value).__name__}")


def _place_of(path: Path) -> _Place:
    place = _Place.PLATFORM
    for name in path:
        place = place.below(name)
    return place


def is_directory(node: Node, path: Path) -> bool:
    if isinstance(node, dict):
        return True
    if not isinstance(node, list):
        return False
    listed_value = path and path[-1] in _LIST_LEAVES and _place_of(path[:-1]) is _Place.PLATFORM
    return not (listed_value and not any(isinstance(item, (dict, list)) for item in node))


def _children(node: Node) -> list[tuple[str, Node]]:
    if isinstance(node, dict):
        return sorted(node.items())
    if isinstance(node, list):
        return [(str(index), child) for index, child in enumerate(node)]
    return []


def _child(node: Node, name: str) -> Node:
    """The entry of a directory; KeyError when it has none of this name."""
    if isinstance(node, dict):
        return node[name]
    if isinstance(node, list) and re.fullmatch(r"0|[1-9][0-9]{0,8}", name):
        try:
            return node[int(name)]
        except IndexError:
            raise KeyError(name) from None
    raise KeyError(name)


def _encode(text: str) -> bytes:
    # Lone surrogates come from JSON given to the control interface; a wrong byte sequence is then
    # what the writer asked for.
    return text.encode("utf-8", "surrogatepass")


def scalar_text(value: Node) -> bytes:
    """The bytes of one leaf, nothing added."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return _encode(value)
    if value is None:
        return b""
    if isinstance(value, list):
        return b"\n".join(scalar_text(item) for item in value)
    return json.dumps(value).encode("ascii")


class Renderer:
    """Turns nodes into documents."""

    def __init__(self, *, hidden: tuple[Path, ...] = SECRET_DIRECTORIES) -> None:
        self._hidden = hidden

    def document(self, node: Node, path: Path, errors: str = "replace") -> object:
        """The JSON value of a subtree; bytes that are not UTF-8 are decoded with ``errors``."""
        return self._document(node, path, _place_of(path), errors)

    def _document(self, node: Node, path: Path, place: _Place, errors: str) -> object:
        if isinstance(node, bytes):
            return node.decode("utf-8", errors)
        if isinstance(node, dict):
            if path in self._hidden:
                return {}
            answer = {}
            for name, child in node.items():
                child_path = (*path, name)
                if child_path not in self._hidden:
                    key = camel_case(name) if place is _Place.PLATFORM else name
                    answer[key] = self._document(child, child_path, place.below(name), errors)
            return answer
        if isinstance(node, list):
            return [
                self._document(child, (*path, str(index)), place, errors)
                for index, child in enumerate(node)
            ]
        return node

    def canonical(self, node: Node, path: Path) -> str:
        """Sorted, compact ASCII JSON that keeps different byte strings different."""
        return _compact(self.document(node, path, "surrogateescape"))

    def json(self, node: Node, path: Path) -> bytes:
        text = self.canonical(node, path)
        if "\\udc" in text:  # perhaps an escaped wrong byte: those become U+FFFD in the answer
            text = _compact(self.document(node, path, "replace"))
        return text.encode("ascii")

    def lines(self, node: Node, path: Path, relative: str = "") -> Iterator[bytes]:
        """``relative/path value`` for each leaf; a list value gives one line per element."""
        if path in self._hidden:
            return
        if is_directory(node, path):
            for name, child in _children(node):
                below = f"{relative}/{name}" if relative else name
                yield from self.lines(child, (*path, name), below)
            return
        for value in node if isinstance(node, list) else [node]:
            yield _encode(relative) + b" " + scalar_text(value) + b"\n"

    def text(self, node: Node, path: Path) -> bytes:
        if not is_directory(node, path):
            return scalar_text(node)
        return b"".join(self.lines(node, path))

    def listing(self, node: Node, path: Path) -> bytes:
        """One name per line, directories with a final slash."""
        lines = []
        for name, child in _children(node):
            slash = "/" if is_directory(child, (*path, name)) else ""
            lines.append(f"{name}{slash}\n")
        if len(path) == 3 and path[:2] == ("instance", "service-accounts"):
            lines = sorted([*lines, "identity\n", "token\n"])
        return _encode("".join(lines))


def _compact(document: object) -> str:
    return json.dumps(document, sort_keys=True, separators=(",", ":"))


def etag_of(body: bytes) -> str:
    """Sixteen lowercase hexadecimal digits."""
    return hashlib.sha256(body).hexdigest()[:16]


class Waiter:
    """One thread that waits for something to happen; any thread may wake it."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def wake(self) -> None:
        self._event.set()

    def wait(self, timeout: Optional[float]) -> None:
        """Return after ``wake`` or ``timeout`` seconds; then ready to wait again."""
        self._event.wait(timeout)
        self._event.clear()


class Tree:
    """The published document.  All methods may be called from any thread."""

    def __init__(self, document: object = None, *, guest_writes_move_root: bool = True) -> None:
        self._root: Node = node_from_document(document if document is not None else {})
        self._writing = threading.RLock()
        self._draft: Optional[Node] = None
        self._batch_owner: Optional[int] = None
        self._waiting: dict[Path, list[Waiter]] = {}
        self._waiting_lock = threading.Lock()
        self._rendered: dict[tuple[str, Path], tuple[Node, bytes]] = {}
        self._rendering = threading.RLock()
        self._renderer = Renderer()
        self._guest_writes_move_root = guest_writes_move_root
        self._quiet = Renderer(hidden=(*SECRET_DIRECTORIES, GUEST_ATTRIBUTES))

    # Reading

    def node(self, path: Path) -> Node:
        """The node at a path; raises NoSuchPath."""
        return _find(self._root, path)

    def exists(self, path: Path) -> bool:
        try:
            self.node(path)
        except NoSuchPath:
            return False
        return True

    def document(self, path: Path = ()) -> object:
        """The value at a path in the spelling of JSON, secrets left out; raises NoSuchPath.

        Inside a batch its own thread sees the changes made so far.
        """
        mine = self._batch_owner == threading.get_ident() and self._draft is not None
        node = _find(self._draft if mine else self._root, path)
        if isinstance(node, bytes):
            return node
        return self._renderer.document(node, path)

    def etag(self, path: Path) -> str:
        return self._remembered("etag", path, self._etag).decode("ascii")

    def json(self, path: Path) -> bytes:
        return self._remembered("json", path, self._renderer.json)

    def text(self, path: Path) -> bytes:
        return self._remembered("text", path, self._renderer.text)

    def listing(self, path: Path) -> bytes:
        return self._remembered("listing", path, self._renderer.listing)

    def _etag(self, node: Node, path: Path) -> bytes:
        above_guest_attributes = path in ((), GUEST_ATTRIBUTES[:1])
        quiet = above_guest_attributes and not self._guest_writes_move_root
        renderer = self._quiet if quiet else self._renderer
        return etag_of(renderer.canonical(node, path).encode("ascii")).encode("ascii")

    def _remembered(self, form: str, path: Path, render: Callable[[Node, Path], bytes]) -> bytes:
        node = self.node(path)
        with self._rendering:
            known = self._rendered.pop((form, path), None)
            if known is None or known[0] is not node:
                known = (node, render(node, path))
            self._rendered[(form, path)] = known
            if len(self._rendered) > _RENDERINGS_KEPT:
                del self._rendered[next(iter(self._rendered))]
            return known[1]

    # Writing

    def set(self, path: Path, value: object) -> None:
        """Put a value or a whole subtree at a path, making directories on the way."""
        node = node_from_document(value, path)
        self._edit(lambda root: _put(root, path, node, ()))

    def delete(self, path: Path) -> None:
        """Remove a value or a subtree; raises NoSuchPath."""
        self._edit(lambda root: _without(root, path, path))

    def replace(self, document: object) -> None:
        node = node_from_document(document)
        self._edit(lambda root: node)

    @contextlib.contextmanager
    def batch(self) -> Iterator[None]:
        """Publish everything written inside at once, or nothing if the block raises."""
        with self._writing:
            if self._draft is not None:  # nested: the outer block publishes
                yield
                return
            self._draft = self._root
            self._batch_owner = threading.get_ident()
            try:
                yield
                self._publish(self._draft)
            finally:
                self._draft = None
                self._batch_owner = None

    def _edit(self, change: Callable[[Node], Node]) -> None:
        with self._writing:
            if self._draft is not None:
                self._draft = change(self._draft)
            else:
                self._publish(change(self._root))

    def _publish(self, root: Node) -> None:
        before, self._root = self._root, root
        with self._waiting_lock:
            for path, waiters in self._waiting.items():
                if _find_or_none(before, path) is not _find_or_none(root, path):
                    for waiter in waiters:
                        waiter.wake()

    # Waiting

    @contextlib.contextmanager
    def watched(self, path: Path, waiter: Waiter) -> Iterator[None]:
        """Wake ``waiter`` whenever the subtree at ``path`` may have changed."""
        with self._waiting_lock:
            self._waiting.setdefault(path, []).append(waiter)
        try:
            yield
        finally:
            with self._waiting_lock:
                waiters = self._waiting[path]
                waiters.remove(waiter)
                if not waiters:
                    del self._waiting[path]


_ABSENT: dict[str, Node] = {}


def _find(root: Node, path: Path) -> Node:
    node = root
    for depth, name in enumerate(path):
        if not is_directory(node, path[:depth]):
            raise NoSuchPath(path)
        try:
            node = _child(node, name)
        except KeyError:
            raise NoSuchPath(path) from None
    return node


def _find_or_none(root: Node, path: Path) -> Node:
    try:
        return _find(root, path)
    except NoSuchPath:
        return _ABSENT


def _put(node: Optional[Node], rest: Path, value: Node, above: Path) -> Node:
    if not rest:
        return value
    name, path = rest[0], (*above, rest[0])
    if isinstance(node, list):
        items = list(node)
        index = int(name) if re.fullmatch(r"[0-9]{1,6}", name) else -1
        if not 0 <= index <= len(items):
            raise BadPath(f"{'/'.join(above)} has {len(items)} entries: no place for {name!r}")
        if index == len(items):
            items.append({})
        items[index] = _put(items[index], rest[1:], value, path)
        return items
    if isinstance(node, dict):
        entries = dict(node)
        missing: Node = [] if name in _NUMBERED and _place_of(path) is _Place.PLATFORM else {}
        entries[name] = _put(entries.get(name, missing), rest[1:], value, path)
        return entries
    raise BadPath(f"{'/'.join(above)} is a value, not a directory")


def _without(node: Node, rest: Path, whole: Path) -> Node:
    if not rest:
        return {}
    try:
        child = _child(node, rest[0])
    except KeyError:
        raise NoSuchPath(whole) from None
    if isinstance(node, list):
        items = list(node)
        if len(rest) == 1:
            del items[int(rest[0])]
        else:
            items[int(rest[0])] = _without(child, rest[1:], whole)
        return items
    assert isinstance(node, dict)
    entries = dict(node)
    if len(rest) == 1:
        del entries[rest[0]]
    else:
        entries[rest[0]] = _without(child, rest[1:], whole)
    return entries
