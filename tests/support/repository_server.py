"""A static web server on loopback whose content can be exchanged between two requests."""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


class RepositoryServer:
    """Serves `folder`; `after` maps the end of a path to what is done once it was answered."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.requests: list[str] = []
        """Paths in the order in which they were asked for."""
        self.missing: list[str] = []
        """Those that were not there."""
        self.after: dict[str, Callable[[], object]] = {}
        self._server = http.server.ThreadingHTTPServer(
            ("127.0.0.1", 0), functools.partial(_Handler, self)
        )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def show(self, folder: Path) -> None:
        """Serve another folder from the next request on."""
        self.folder = folder

    def answered(self, path: str) -> None:
        self.requests.append(path)
        for ending in [ending for ending in self.after if path.endswith(ending)]:
            self.after.pop(ending)()

    @contextmanager
    def running(self) -> Iterator[RepositoryServer]:
        thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()


class _Handler(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, owner: RepositoryServer, *arguments: object) -> None:
        self._owner = owner
        super().__init__(*arguments, directory=str(owner.folder))  # type: ignore[arg-type]

    def do_GET(self) -> None:
        # A connection lives longer than a state.
        self.directory = str(self._owner.folder)
        # Times in HTTP are whole seconds: what was exchanged within one would be "not modified".
        del self.headers["If-Modified-Since"]
        super().do_GET()
        self._owner.answered(self.path)

    def send_error(self, code: int, *rest: object, **more: object) -> None:
        if code == 404:
            self._owner.missing.append(self.path)
        super().send_error(code, *rest, **more)  # type: ignore[arg-type]

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""
