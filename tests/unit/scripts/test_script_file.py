"""What is written for an inline script, and how a first line names its interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from google_guest.scripts.script_file import Shebang, parse_shebang, prepare_inline


@pytest.mark.parametrize(
    ("value", "data", "converted"),
    [
        ("echo x\n", b"echo x\n", False),
        (" \n\v\f\t\r#!/bin/sh\n", b"#!/bin/sh\n", False),
        ("\ufeff#!/bin/sh\n", b"#!/bin/sh\n", False),
        ("\n\ufeff\n#!/bin/sh\n", b"#!/bin/sh\n", False),
        ("\u00a0x", b"\xc2\xa0x", False),
        ("#!/bin/sh\r\necho x\r\n", b"#!/bin/sh\necho x\n", True),
        ("#!/bin/sh\r\nprintf 'a\rb'\r\n", b"#!/bin/sh\nprintf 'a\rb'\n", True),
        ("#!/bin/sh\r", b"#!/bin/sh", True),
        ("#!/bin/sh\necho x\r\n", b"#!/bin/sh\necho x\r\n", False),
        ("echo x\r\n", b"echo x\r\n", False),
        ("x  \n\n", b"x  \n\n", False),
        ("grün", "grün".encode(), False),
        ("\ud800", b"\xed\xa0\x80", False),
        ("", b"", False),
    ],
)
def test_inline_script_is_written(value: str, data: bytes, converted: bool) -> None:
    prepared = prepare_inline(value)
    assert (prepared.data, prepared.converted) == (data, converted)


@given(st.text())
def test_any_text_can_be_written(value: str) -> None:
    assert not prepare_inline(value).data.startswith((b" ", b"\n", b"\xef\xbb\xbf"))


@pytest.mark.parametrize(
    ("head", "shebang"),
    [
        (b"#!/bin/sh\n", Shebang("/bin/sh")),
        (b"#! /bin/sh", Shebang("/bin/sh")),
        (b"#!\t/bin/sh \t\nx", Shebang("/bin/sh")),
        (b"#!/usr/bin/env python3\n", Shebang("/usr/bin/env", "python3")),
        (b"#!/usr/bin/env  -S a b \n", Shebang("/usr/bin/env", "-S a b")),
        (b"#!/bin/sh\r\n", Shebang("/bin/sh\r")),
        (b"#!/bin/sh\0x y\n", Shebang("/bin/sh")),
        (b"#!\n", None),
        (b"#!  \n/bin/sh", None),
        (b" #!/bin/sh\n", None),
        (b"\x7fELF", None),
        (b"", None),
    ],
)
def test_first_line_names_the_interpreter(head: bytes, shebang: Shebang) -> None:
    assert parse_shebang(head) == shebang


@given(st.binary(max_size=300))
def test_any_head_is_understood_or_not(head: bytes) -> None:
    found = parse_shebang(head)
    assert found is None or found.interpreter


ARGUMENT = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=12)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no #! lines")
@given(blanks=st.text(" \t", max_size=3), words=st.lists(ARGUMENT, max_size=3))
def test_kernel_splits_the_line_the_same_way(
    tmp_path_factory: pytest.TempPathFactory, blanks: str, words: list[str]
) -> None:
    folder = tmp_path_factory.getbasetemp() / "shebang"
    folder.mkdir(exist_ok=True)
    interpreter = folder / "interpreter"
    interpreter.write_text('#!/bin/sh\nfor word; do printf "%s\\n" "<$word>"; done\n')
    interpreter.chmod(0o755)
    line = f"#!{blanks}{interpreter} {' '.join(words)}{blanks}\n".encode()
    if len(line) > 250:
        return
    script = Path(folder, f"script-{os.getpid()}")
    script.write_bytes(line)
    script.chmod(0o755)
    told = subprocess.run([str(script)], capture_output=True, check=True, text=True).stdout
    found = parse_shebang(line)
    assert found is not None
    wanted = [found.argument] if found.argument is not None else []
    assert told.splitlines() == [f"<{word}>" for word in (*wanted, str(script))]
