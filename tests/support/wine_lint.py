"""Finds tests under Wine that prove nothing: they run a program that does nothing there.

Wine has netsh, icacls, dism, certutil, powershell and others as empty programs that exit with 0.  A
test that runs one of them passes whatever it is given, so none may: what they would do is tested
with a double on Linux, and by its arguments.  `inside_wine/features.py` may, to find out.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

EMPTY_PROGRAMS = (
    *("netsh", "icacls", "dism", "certutil", "powershell", "pwsh"),
    *("wevtutil", "secedit", "shutdown", "arp"),
)
RUNNING = ("run", "cmd", "begin", "py")
"""Methods of a Wine bed that run programs."""

_PROGRAM = re.compile(
    rf"(?:^|[\s\"'&|(\[\\/])({'|'.join(EMPTY_PROGRAMS)})(?:\.exe)?(?=$|[\s\"'&|)\],])",
    re.IGNORECASE,
)


def empty_proofs(source: str, name: str) -> Iterator[str]:
    """One line for each call in a Python text that runs a program that is empty under Wine."""
    tree = ast.parse(source, name)
    texts = _assigned_texts(tree)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        if node.func.attr not in RUNNING:
            continue
        for argument in node.args:
            found = _PROGRAM.search(_text(argument, texts))
            if found:
                yield (
                    f"{name}:{node.lineno}: {found.group(1)} does nothing under Wine and exits "
                    "with 0: its success is no proof"
                )
                break


def empty_proofs_below(folder: Path) -> list[str]:
    """The same for every Python file of a folder."""
    return [
        line
        for path in sorted(folder.rglob("*.py"))
        for line in empty_proofs(path.read_text(encoding="utf-8"), str(path))
    ]


def _assigned_texts(tree: ast.AST) -> dict[str, str]:
    """The texts in what is assigned to each plain name, wherever."""
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    found[target.id] = f"{found.get(target.id, '')} {_text(node.value, {})}"
    return found


def _text(node: ast.AST, names: dict[str, str]) -> str:
    """The texts in an expression, each as a word, with those of names that it uses."""
    words = []
    for part in ast.walk(node):
        if isinstance(part, ast.Constant) and isinstance(part.value, str):
            words.append(part.value)
        elif isinstance(part, ast.Name):
            words.append(names.get(part.id, ""))
    return " ".join(words)
