"""What is written into a script's file, and how its first line is understood.

Inline values: leading white space is dropped, so that an indented ``#!`` works, and so is a UTF-8
byte order mark. If the first line is a ``#!`` line that ends in CR, the kernel would look for an
interpreter whose name ends in CR (guest-agent issue 237), so line ends are converted. Everything
else is written byte by byte; so is all of a downloaded file, which may be a program.

Source: guest-agent ``google_metadata_script_runner/main.go``; execve(2) and the kernel's
``fs/binfmt_script.c`` for the ``#!`` line.
"""

from __future__ import annotations

from typing import Optional

from google_guest.records import record

_LEADING = " \n\v\f\t\r"
_MARK = "\ufeff"


@record
class PreparedScript:
    """The bytes for the file, and whether their line ends were converted."""

    data: bytes
    converted: bool = False


@record
class Shebang:
    """The interpreter of a script and at most one argument for it."""

    interpreter: str
    argument: Optional[str] = None


def inline_text(value: str) -> bytes:
    """Return an inline value without what may stand in front of its first line."""
    text = value.lstrip(_LEADING)
    while text.startswith(_MARK):
        text = text[1:].lstrip(_LEADING)
    # JSON can spell half a surrogate pair; it is written as it is instead of failing.
    return text.encode("utf-8", "surrogatepass")


def prepare_inline(value: str) -> PreparedScript:
    """Return what to write for an inline script."""
    data = inline_text(value)
    first, end, _ = data.partition(b"\n")
    if not (first.startswith(b"#!") and first.endswith(b"\r")):
        return PreparedScript(data)
    data = data.replace(b"\r\n", b"\n")
    return PreparedScript(data if end else data[:-1], converted=True)


def parse_shebang(head: bytes) -> Optional[Shebang]:
    """Return what the first line of a file says, or None if it names no interpreter.

    As in the kernel, blanks are spaces and tabs, and everything behind the interpreter is a single
    argument without the blanks around it.
    """
    if not head.startswith(b"#!"):
        return None
    line = head[2:].partition(b"\n")[0].partition(b"\0")[0].strip(b" \t")
    if not line:
        return None
    end = min((at for at in (line.find(b" "), line.find(b"\t")) if at >= 0), default=len(line))
    argument = line[end:].strip(b" \t")
    return Shebang(
        line[:end].decode("utf-8", "surrogateescape"),
        argument.decode("utf-8", "surrogateescape") if argument else None,
    )
