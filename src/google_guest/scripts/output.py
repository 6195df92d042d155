"""From the bytes that a script prints to lines on standard output.

Lines end at LF, one CR before it is dropped, the last one needs no end. A line is never a reason to
stop reading: what exceeds 16 KiB comes in chunks, and what waits for its end for 5 s comes without
it; continuations carry ``[+]`` after the key. Bytes that are no UTF-8 become ``\\xNN``, and so do
control characters but TAB: a terminal that shows the serial console must not obey a script.

Standard output is the only sink on Linux (``windows_console`` has those of Windows). Under systemd
the units set ``journal+console``; journald then reads the stream line by line, takes a ``<N>``
prefix (sd-daemon(3)) as the severity, removes it, stores the line and forwards the same text
without the prefix to the console, so that each line is there once and the prefix nowhere. Therefore
warnings of the runner start with ``<4>`` if, and only if, standard output is the journal's stream
(``$JOURNAL_STREAM`` names its device and inode, systemd.exec(5)); everything else is of the unit's
default severity, info, and needs none. A unit that overrides ``SyslogLevelPrefix=`` with ``no``
shows the prefix of warnings. Lines stay below journald's ``LineMax=`` of 48 KiB, which would break
them without a prefix.

Source of the messages' form: guest-agent ``google_metadata_script_runner/main.go``,
``utils/serial_port_logger.go``.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Optional

CHUNK = 16 << 10
"""Longest piece of a line, in bytes."""
FLUSH_SECONDS = 5.0
"""How long an unterminated line waits for its end."""

_CONTROL = {
    code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) != "\t"
}
_WARNING = b"<4>"


class Console:
    """Standard output, one line at a time; a sink that has gone away is no reason to stop."""

    def __init__(self, descriptor: int = 1, *, prefixed: bool = False) -> None:
        self._descriptor = descriptor
        self._warning = _WARNING if prefixed else b""

    def info(self, message: str) -> None:
        """Write one line of the runner's own."""
        self.write(one_line(message))

    def warning(self, message: str) -> None:
        """Write one line of the runner's own that a person should see."""
        self.write(self._warning + one_line(message))

    def write(self, data: bytes) -> None:
        """Write complete lines."""
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self._descriptor, view) :]
            except BlockingIOError:
                # Somebody made the terminal non-blocking; wait until it takes more.
                poller = select.poll()
                poller.register(self._descriptor, select.POLLOUT)
                poller.poll()
            except OSError:
                # The reader is gone (a restarted journal, a closed terminal): the script's pipe
                # must be emptied all the same, or the script would block or die.
                return


def console_of(environment: Mapping[str, str], descriptor: int = 1) -> Console:
    """Return the console for a process started with ``environment``."""
    return Console(descriptor, prefixed=is_journal(environment.get("JOURNAL_STREAM"), descriptor))


def is_journal(stream: Optional[str], descriptor: int = 1) -> bool:
    """Return whether ``descriptor`` is the one that ``$JOURNAL_STREAM`` (device:inode) names."""
    if not stream:
        return False
    try:
        facts = os.fstat(descriptor)
    except OSError:
        return False
    return stream == f"{facts.st_dev}:{facts.st_ino}"


def with_escapes(data: bytes) -> str:
    """Return ``data`` as text; bytes that are no UTF-8 become ``\\xNN``."""
    return data.decode("utf-8", "backslashreplace")


class LineSplitter:
    """Cuts a stream into lines and pieces of lines; how it was read does not matter."""

    def __init__(self, take: Callable[[bool, bytes], None], *, continued: bool = False) -> None:
        """``take`` receives each piece and whether it continues the line before.

        ``continued`` tells the same of the first bytes.
        """
        self._take = take
        self._buffer = bytearray()
        self._continued = continued

    @property
    def pending(self) -> bool:
        """Whether bytes wait for the end of their line."""
        return bool(self._buffer)

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the stream."""
        self._buffer += data
        start = 0
        while (end := self._buffer.find(b"\n", start)) >= 0:
            self._end_line(bytes(self._buffer[start:end]))
            start = end + 1
        del self._buffer[:start]
        # One byte more than a chunk may be the CR of a line that ends right behind it.
        while len(self._buffer) > CHUNK + 1 or (
            len(self._buffer) == CHUNK + 1 and self._buffer[-1:] != b"\r"
        ):
            self._cut(_cut_at(self._buffer))

    def flush(self) -> None:
        """Give out what there is of an unterminated line, but no half character and no last CR."""
        size = len(self._buffer) - _unfinished(self._buffer)
        if size:
            self._cut(size)

    def close(self) -> None:
        """Take note of the end of the stream."""
        if self._buffer:
            self._end_line(bytes(self._buffer))
            self._buffer.clear()

    def hand_over(self) -> bool:
        """Give out all there is; return whether the next bytes continue that line."""
        if self._buffer.endswith(b"\r"):
            # Most likely the first half of a line's end.
            del self._buffer[-1:]
        if self._buffer:
            self._cut(len(self._buffer))
        return self._continued

    def _cut(self, size: int) -> None:
        self._take(self._continued, bytes(self._buffer[:size]))
        del self._buffer[:size]
        self._continued = True

    def _end_line(self, line: bytes) -> None:
        if line.endswith(b"\r"):
            line = line[:-1]
        # Of a line that was flushed there may be nothing left.
        if line or not self._continued:
            for piece in pieces(line):
                self._take(self._continued, piece)
                self._continued = True
        self._continued = False


class ScriptOutput:
    """Writes what a script prints to the console, each line after the script's key."""

    def __init__(
        self,
        key: str,
        console: Console,
        *,
        clock: Callable[[], float] = time.monotonic,
        decode: Callable[[bytes], str] = with_escapes,
        continued: bool = False,
    ) -> None:
        """Take the key of the script; ``decode`` never fails.

        ``continued``: another process has written the start of the first line (``hand_over``).
        """
        self._first = f"{key}: ".encode()
        self._further = f"{key}[+]: ".encode()
        self._console = console
        self._clock = clock
        self._decode = decode
        self._splitter = LineSplitter(self._collect, continued=continued)
        self._lines: list[bytes] = []
        self._waiting_since: Optional[float] = None

    def feed(self, data: bytes) -> None:
        """Take the next bytes and write the lines that they complete."""
        self._splitter.feed(data)
        if not self._splitter.pending:
            self._waiting_since = None
        elif self._lines or self._waiting_since is None:
            self._waiting_since = self._clock()
        self._write()

    def due(self) -> Optional[float]:
        """Return when an unterminated line is written as it is."""
        return None if self._waiting_since is None else self._waiting_since + FLUSH_SECONDS

    def tick(self) -> None:
        """Write an unterminated line that has waited long enough."""
        due = self.due()
        if due is not None and self._clock() >= due:
            self._waiting_since = None
            self._splitter.flush()
            self._write()

    def close(self) -> None:
        """Write the last line, which may have no end."""
        self._waiting_since = None
        self._splitter.close()
        self._write()

    def hand_over(self) -> bool:
        """Write all there is; return whether what another process writes next continues a line."""
        self._waiting_since = None
        continued = self._splitter.hand_over()
        self._write()
        return continued

    def _collect(self, continued: bool, piece: bytes) -> None:
        # Escapes make a piece longer than it was.
        for part in pieces(rendered(piece, self._decode)):
            self._lines.append((self._further if continued else self._first) + part + b"\n")
            continued = True

    def _write(self) -> None:
        if self._lines:
            self._console.write(b"".join(self._lines))
            self._lines.clear()


def rendered(data: bytes, decode: Callable[[bytes], str] = with_escapes) -> bytes:
    """Return ``data`` as UTF-8 that a terminal shows and does not obey."""
    return decode(data).translate(_CONTROL).encode()


def pieces(line: bytes) -> Iterable[bytes]:
    """Return ``line`` in pieces of at most ``CHUNK`` bytes; never cuts a character."""
    while len(line) > CHUNK:
        size = _cut_at(line)
        yield line[:size]
        line = line[size:]
    yield line


def _cut_at(line: bytes | bytearray) -> int:
    """Return where to cut a line that is longer than a chunk."""
    for size in range(CHUNK, CHUNK - 4, -1):
        if line[size] & 0xC0 != 0x80:
            return size
    # Four continuation bytes in a row are no UTF-8, so nothing can be cut apart.
    return CHUNK


def _unfinished(data: bytes | bytearray) -> int:
    """Return how many bytes at the end may belong to what comes next."""
    if data.endswith(b"\r"):
        return 1
    for size in range(1, min(4, len(data)) + 1):
        byte = data[-size]
        if byte & 0xC0 != 0x80:
            length = 4 if byte >= 0xF0 else 3 if byte >= 0xE0 else 2 if byte >= 0xC0 else 1
            return size if size < length else 0
    return 0


def one_line(message: str) -> bytes:
    """Return a message of the runner's own as a complete line."""
    return rendered(" ".join(message.splitlines()).encode("utf-8", "backslashreplace")) + b"\n"
