"""Faults on demand: what a metadata server, or something between it and the guest, can do wrong.

A fault names a path prefix and a kind, and may be limited by a count, a probability, a method, a
lifetime, or to long polls.  Reads and writes nothing outside the process.

Kinds and their options:

=============== ====================================================================
``status``      answer ``status=`` (500), with ``retry_after=`` seconds if given
``delay``       answer ``seconds=`` (1.0) late
``hang``        never answer; ends with the fault, with the client or with the server
``reset``       TCP reset instead of an answer
``truncate``    announce the whole body, send ``bytes=`` of it (default half), close
``html``        200 with a web page instead of the answer; ``flavor=False``: not even
                the Metadata-Flavor header
``body``        200 with ``body=`` and ``content_type=`` instead of the answer
``no_flavor``   the right answer without Metadata-Flavor
``wrong_etag``  the right answer with ETag ``etag=``, by default another one each time
``redirect_loop`` 302 to ``location=``, by default to the same URL
=============== ====================================================================
"""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Optional

from metadata_server.request_log import Request, matches_prefix
from metadata_server.wire import HTML, TEXT, Answer, error_page

_NUMBER = (int, float)
# What an option's value may be, for those that are computed with.
_TYPES: Mapping[str, tuple[type, ...]] = {
    "path_prefix": (str,),
    "count": (int,),
    "probability": _NUMBER,
    "method": (str,),
    "watch": (bool,),
    "exact": (bool,),
    "lifetime": _NUMBER,
    "status": (int,),
    "seconds": _NUMBER,
    "bytes": (int,),
}

_OPTIONS: Mapping[str, frozenset[str]] = {
    "status": frozenset({"status", "retry_after"}),
    "delay": frozenset({"seconds"}),
    "hang": frozenset(),
    "reset": frozenset(),
    "truncate": frozenset({"bytes"}),
    "html": frozenset({"flavor"}),
    "body": frozenset({"body", "content_type"}),
    "no_flavor": frozenset(),
    "wrong_etag": frozenset({"etag"}),
    "redirect_loop": frozenset({"location"}),
}
KINDS = tuple(_OPTIONS)
# These still give the right answer, late or altered; the others take its place.
_ALTERING = frozenset({"delay", "truncate", "no_flavor", "wrong_etag"})

_PORTAL_PAGE = (
    b"<!DOCTYPE html>\n<html><head><title>Sign in to the network</title></head>\n"
    b"<body><h1>Welcome</h1><p>Please accept the terms of use.</p></body></html>\n"
)


@dataclass
class Fault:
    """One fault in force.  ``hits`` counts the requests it has met."""

    path_prefix: str
    kind: str
    count: Optional[int] = None
    probability: float = 1.0
    method: Optional[str] = None
    watch: Optional[bool] = None  # True: only long polls, False: all but long polls
    exact: bool = False
    expires: Optional[float] = None  # monotonic seconds
    options: Mapping[str, object] = field(default_factory=dict)
    hits: int = 0
    removed: bool = False
    number: int = 0

    def concerns(self, request: Request) -> bool:
        if self.method is not None and request.method != self.method.upper():
            return False
        if self.watch is not None and request.is_watch != self.watch:
            return False
        if self.exact and request.path.strip("/") != self.path_prefix.strip("/"):
            return False
        return matches_prefix(request.path, self.path_prefix)

    @property
    def replaces_answer(self) -> bool:
        return self.kind not in _ALTERING

    @property
    def in_force(self) -> bool:
        if self.removed or (self.count is not None and self.hits >= self.count):
            return False
        return self.expires is None or time.monotonic() < self.expires

    def numeric_option(self, name: str, default: float) -> float:
        value = self.options.get(name, default)
        return float(value) if isinstance(value, (int, float)) else default

    def answer(self, request: Request) -> Answer:
        """What a fault that replaces the answer sends (hang and reset send nothing)."""
        if self.kind == "status":
            page = error_page(int(self.numeric_option("status", 500)), "Injected fault.")
            retry_after = self.options.get("retry_after")
            if retry_after is None:
                return page
            return replace(page, headers=(("Retry-After", str(retry_after)),))
        if self.kind == "redirect_loop":
            location = str(self.options.get("location", request.target))
            return replace(error_page(302, "Moved."), headers=(("Location", location),))
        if self.kind == "body":
            body = self.options.get("body", b"")
            data = body if isinstance(body, bytes) else str(body).encode("utf-8")
            return Answer(200, data, str(self.options.get("content_type", TEXT)))
        return Answer(200, _PORTAL_PAGE, HTML, flavor=bool(self.options.get("flavor", True)))

    def alter(self, answer: Answer) -> Answer:
        """The right answer made wrong."""
        if self.kind == "no_flavor":
            return replace(answer, flavor=False)
        if self.kind == "wrong_etag":
            etag = self.options.get("etag", f"{random.getrandbits(64):016x}")
            return replace(answer, etag=str(etag) if etag else None)
        if self.kind == "truncate":
            kept = int(self.numeric_option("bytes", len(answer.body) // 2))
            return replace(answer, body_sent=max(0, kept), close=True)
        return answer

    def describe(self) -> dict[str, object]:
        return {
            "number": self.number,
            "path_prefix": self.path_prefix,
            "kind": self.kind,
            "count": self.count,
            "probability": self.probability,
            "hits": self.hits,
            "in_force": self.in_force,
        }


def _check_types(settings: Mapping[str, object]) -> None:
    """Refuse now what would fail when the fault strikes."""
    for name, value in settings.items():
        if value is None or name not in _TYPES:
            continue
        is_wrong_boolean = isinstance(value, bool) and bool not in _TYPES[name]
        if is_wrong_boolean or not isinstance(value, _TYPES[name]):
            raise ValueError(f"fault setting {name} cannot be {value!r}")
    status = settings.get("status")
    if isinstance(status, int) and not 200 <= status <= 599:
        raise ValueError(f"fault setting status cannot be {status}")


class FaultBook:
    """The faults in force; every method may be called from any thread."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)

    def add(
        self,
        path_prefix: str,
        kind: str,
        *,
        count: Optional[int] = None,
        probability: float = 1.0,
        method: Optional[str] = None,
        watch: Optional[bool] = None,
        exact: bool = False,
        lifetime: Optional[float] = None,
        **options: object,
    ) -> Fault:
        """Put a fault in force; raises ValueError for an unknown kind or option."""
        if kind not in _OPTIONS:
            raise ValueError(f"unknown fault {kind!r}; known: {', '.join(KINDS)}")
        unknown = set(options) - _OPTIONS[kind]
        if unknown:
            raise ValueError(f"fault {kind} has no option {', '.join(sorted(unknown))}")
        settings = {
            "path_prefix": path_prefix,
            "count": count,
            "probability": probability,
            "method": method,
            "watch": watch,
            "exact": exact,
            "lifetime": lifetime,
        }
        _check_types({**settings, **options})
        expires = None if lifetime is None else time.monotonic() + lifetime
        fault = Fault(
            path_prefix, kind, count, probability, method, watch, exact, expires, dict(options)
        )
        with self._lock:
            fault.number = next(self._numbers)
            self._faults.append(fault)
        return fault

    def remove(self, fault: Fault) -> None:
        with self._lock:
            fault.removed = True
            if fault in self._faults:
                self._faults.remove(fault)

    def clear(self) -> None:
        with self._lock:
            for fault in self._faults:
                fault.removed = True
            self._faults.clear()

    def faults(self) -> list[Fault]:
        with self._lock:
            return list(self._faults)

    def strike(self, request: Request) -> list[Fault]:
        """The faults this request meets, oldest first, at most one that replaces the answer."""
        struck: list[Fault] = []
        with self._lock:
            self._faults = [fault for fault in self._faults if fault.in_force]
            for fault in self._faults:
                if not fault.concerns(request):
                    continue
                if fault.probability < 1.0 and random.random() >= fault.probability:
                    continue
                fault.hits += 1
                struck.append(fault)
                if fault.replaces_answer:
                    break
        return struck
