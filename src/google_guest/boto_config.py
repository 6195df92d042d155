"""The configuration file of boto and gsutil, edited line by line.

``/etc/boto.cfg`` is read by Python's ConfigParser (sections in brackets, ``key = value`` or
``key: value``, continuation lines that start with a blank, comment lines). The file belongs to the
administrator: comments, blank lines, the order and everything that is not set here stay byte for
byte, which ConfigParser itself would not grant.

Source of the keys that instances set: compute-image-packages,
``google_compute_engine/instance_setup``; guest-agent, ``google_guest_agent/instance_setup.go``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from google_guest.records import record

_HEADER = re.compile(r"\[([^\]\n]+)\].*")
_ENTRY = re.compile(r"([^\s#;:=\[][^:=]*?)[ \t]*[:=][ \t]*(.*)")


@record
class BotoSetting:
    """One key of one section; ``value`` may have further lines, indented as in the file."""

    section: str
    key: str
    value: str


def parse_boto(text: str) -> tuple[BotoSetting, ...]:
    """Return the settings of a file in their order; lines that are none are left out."""
    lines = text.split("\n")
    return tuple(
        BotoSetting(entry.section, entry.key, "\n".join([entry.value, *lines[entry.tail]]))
        for entry in _entries(lines)
    )


def merge_boto(text: str, settings: tuple[BotoSetting, ...]) -> str:
    """Return ``text`` with every one of ``settings`` in force; the rest unchanged.

    The last of several settings of one key wins. Merging the same settings again changes nothing.
    """
    for setting in settings:
        text = _with_setting(text, setting)
    return text


@record
class _Entry:
    section: str
    key: str
    value: str
    """The value's first line."""
    line: int
    end: int
    """The line after the value's last one."""

    @property
    def tail(self) -> slice:
        return slice(self.line + 1, self.end)


def _entries(lines: list[str]) -> Iterator[_Entry]:
    section = ""
    for number, line in enumerate(lines):
        header = _HEADER.fullmatch(line)
        if header is not None:
            section = header[1]
            continue
        match = _ENTRY.fullmatch(line)
        if match is None or not section:
            continue
        end = number + 1
        while end < len(lines) and lines[end][:1] in (" ", "\t") and lines[end].strip():
            end += 1
        yield _Entry(section, match[1], match[2].strip(), number, end)


def _with_setting(text: str, setting: BotoSetting) -> str:
    lines = text.split("\n")
    new = f"{setting.key} = {setting.value}".split("\n")
    found = [
        entry
        for entry in _entries(lines)
        if entry.section == setting.section and entry.key.lower() == setting.key.lower()
    ]
    if found:
        last = found[-1]
        if "\n".join([last.value, *lines[last.tail]]) == setting.value:
            return text
        lines[last.line : last.end] = new
        return "\n".join(lines)
    headers = [
        number
        for number, line in enumerate(lines)
        if (match := _HEADER.fullmatch(line)) and match[1] == setting.section
    ]
    if headers:
        position = _section_end(lines, headers[-1])
        lines[position:position] = new
        return "\n".join(lines)
    body = "\n".join([f"[{setting.section}]", *new, ""])
    if not text.strip():
        return body
    return text.rstrip("\n") + "\n\n" + body


def _section_end(lines: list[str], header: int) -> int:
    """Return where a line belongs that is appended to the section: after its last full line."""
    end = header + 1
    for number in range(header + 1, len(lines)):
        if _HEADER.fullmatch(lines[number]):
            break
        if lines[number].strip():
            end = number + 1
    return end
