"""What a script's file is called on Windows, and what is written into it.

Windows decides by the extension what runs a file, so it is taken from the key
(``windows-startup-script-ps1``) or, for ``-url`` keys, from the path of the URL; a program without
one is known by its first bytes.

Inline values lose the white space and the byte order mark at their start. Then:

==============  ================================================================================
``.ps1``        gets a byte order mark if it holds anything but ASCII: Windows PowerShell reads
                files without one in the machine's ANSI code page
``.cmd .bat``   LF becomes CRLF: with a lone LF, ``cmd.exe`` misses the labels that ``goto`` looks
                for; no byte order mark, which would be the first command's name
==============  ================================================================================

What was fetched from a URL is left as it is, byte by byte.

Source: guest-agent ``google_metadata_script_runner/main.go`` for extensions and their order.
"""

from __future__ import annotations

import re
from typing import Optional

from google_guest.errors import GuestError
from google_guest.scripts.script_file import inline_text

EXTENSIONS = (".bat", ".cmd", ".ps1", ".exe")
"""What can be run, in the order in which they are looked for."""
BATCH, POWERSHELL, PROGRAM = (".bat", ".cmd"), ".ps1", ".exe"

_MARK = b"\xef\xbb\xbf"
_PROGRAM_START = b"MZ"
_LONE_LF = re.compile(rb"(?<!\r)\n")
_GENERATION = re.compile(r"#[0-9]+$")
_QUERY_OR_FRAGMENT = re.compile(r"[?#].*", re.DOTALL)


class UnknownKind(GuestError):
    """Nothing tells how to run a file."""

    def __init__(self) -> None:
        super().__init__(
            "what it is cannot be told: the path of its URL has to end in"
            f" {', '.join(EXTENSIONS[:-1])} or {EXTENSIONS[-1]}"
        )


def extension_of_key(key: str) -> Optional[str]:
    """Return the extension that the last word of a metadata key stands for."""
    return next((one for one in EXTENSIONS if key.endswith(f"-{one[1:]}")), None)


def extension_of_url(url: str) -> Optional[str]:
    """Return the extension of what a URL's path names, whatever its case."""
    url = url.strip()
    scheme, _, rest = url.partition(":")
    # A question mark belongs to the name of an object in gs://, a generation never does.
    cut = _GENERATION if scheme.lower() == "gs" else _QUERY_OR_FRAGMENT
    path = cut.sub("", rest).lower()
    return next((one for one in EXTENSIONS if path.endswith(one)), None)


def extension_of_content(head: bytes) -> Optional[str]:
    """Return ``.exe`` if a file that starts with ``head`` is a program."""
    return PROGRAM if head.startswith(_PROGRAM_START) else None


def prepare_inline(value: str, extension: Optional[str]) -> bytes:
    """Return what to write into the file of an inline script."""
    data = inline_text(value)
    if extension == POWERSHELL and not data.isascii():
        return _MARK + data
    if extension in BATCH:
        return _LONE_LF.sub(b"\r\n", data)
    return data
