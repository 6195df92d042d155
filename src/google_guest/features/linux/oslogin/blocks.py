"""Marked blocks in configuration files: put in, and taken out without a trace.

A block runs from its start line to its end line. A start without an end costs only the lines behind
it that we could have written. The old marker owns the line behind it.

Source: guest-agent ``google_guest_agent/oslogin.go``; google-guest-agent
``internal/textconfig`` for the texts of the marks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

START = "#### Google OS Login control. Do not edit this section. ####"
END = "#### End Google OS Login control section. ####"
OLD_MARKER = "# Added by Google Compute Engine OS Login."


def block(lines: Sequence[str]) -> str:
    """Return the text of a block; empty for no lines."""
    return "".join(f"{line}\n" for line in (START, *lines, END)) if lines else ""


def without_blocks(text: str, is_ours: Callable[[str], bool]) -> str:
    """Return ``text`` without blocks, stray ends and lines behind the old marker.

    ``is_ours`` says of a stripped line whether we could have written it.
    """
    lines = text.split("\n")
    kept = []
    position = 0
    while position < len(lines):
        mark = lines[position].strip()
        if mark == START:
            position = _behind_block(lines, position, is_ours)
        elif mark == END:
            position += 1
        elif mark == OLD_MARKER:
            # The last element is what follows the final line feed: no line to drop.
            position = min(position + 2, max(len(lines) - 1, position + 1))
        else:
            kept.append(lines[position])
            position += 1
    return "\n".join(kept)


def _behind_block(lines: Sequence[str], start: int, is_ours: Callable[[str], bool]) -> int:
    """Return the number of the first line that the block at ``start`` leaves alone."""
    marks = [line.strip() for line in lines[start:]]
    # With fewer ends than starts, the next end belongs to another block: the administrator's lines
    # stand between the two.
    if marks.count(END) >= marks.count(START) or START not in _until_end(marks[1:]):
        if END in marks:
            return start + marks.index(END) + 1
    position = start + 1
    while position < len(lines) - 1:
        line = lines[position].strip()
        if line != OLD_MARKER and not is_ours(line):
            break
        position += 1
    return position


def _until_end(marks: Sequence[str]) -> Sequence[str]:
    return marks[: marks.index(END)] if END in marks else marks


def ended(text: str) -> str:
    """Return ``text`` with a line feed at its end, unless it is empty."""
    return text if not text or text.endswith("\n") else f"{text}\n"
