"""The description of a package, for ``installed -info`` and ``available -info``.

Programs read the ``Version`` and ``Source`` lines of it, so labels and their width are fixed.
Text is broken so that the right margin is as even as possible.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from googet.pkgspec import PackageSpec

WIDTH = 64
_LABEL_WIDTH = 13


def describe(spec: PackageSpec, repository: str) -> list[str]:
    """Return the lines about a package; ``repository`` is ``installed`` or a short name."""
    needs = [f"{name} {version}".rstrip() for name, version in sorted(spec.dependencies.items())]
    lines: list[str] = []
    for label, texts in (
        ("Name", [spec.name]),
        ("Arch", [spec.arch]),
        ("Version", [spec.version]),
        ("Repo", [repository]),
        ("Authors", [spec.authors]),
        ("Owners", [spec.owners]),
        ("Source", [spec.source]),
        ("Description", [spec.description]),
        ("Dependencies", needs or ["None"]),
        ("ReleaseNotes", list(spec.release_notes) or [""]),
    ):
        lines += _labelled(label, texts)
    return lines


def short_repository(url: str) -> str:
    """Return the last component of a repository's address."""
    return url.rstrip("/").replace("\\", "/").rpartition("/")[2]


def wrap(text: str, width: int = WIDTH) -> list[str]:
    """Break text into lines of at most ``width``, with minimum raggedness.

    Its own line breaks stay. The squares of what each line is shorter than ``width`` have the
    smallest possible sum; the last line of a paragraph does not count. A longer word has a line to
    itself.
    """
    lines: list[str] = []
    for paragraph in text.splitlines() or [""]:
        lines += _wrap_words(paragraph.split(), width)
    return lines


def _wrap_words(words: Sequence[str], width: int) -> list[str]:
    if not words:
        return [""]
    count = len(words)
    # best[i]: the smallest sum for the words from i on, and where their first line ends.
    best: list[tuple[int, int]] = [(0, count)] * (count + 1)
    for start in range(count - 1, -1, -1):
        length = -1
        choices = []
        for end in range(start + 1, count + 1):
            length += 1 + len(words[end - 1])
            if length > width and end > start + 1:
                break
            slack = max(0, width - length)
            cost = 0 if end == count else slack * slack + best[end][0]
            choices.append((cost, end))
        best[start] = min(choices)
    lines = []
    start = 0
    while start < count:
        end = best[start][1]
        lines.append(" ".join(words[start:end]))
        start = end
    return lines


def _labelled(label: str, texts: Iterable[str]) -> list[str]:
    lines = [line for text in texts for line in wrap(text)]
    labels = [label, *[""] * (len(lines) - 1)]
    return [f"{name:<{_LABEL_WIDTH}}: {line}" for name, line in zip(labels, lines)]
