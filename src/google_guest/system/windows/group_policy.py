r"""The local group policy, as far as shutdown scripts of the machine are concerned.

Two files say what there is: ``Machine\Scripts\scripts.ini`` lists the scripts, ``gpt.ini`` has the
version of the policy (low half: the machine's, high half: the users') and the extensions that
process it. Windows reads the scripts from index 0 to the first index that is missing, and processes
the policy anew when the version has grown.

An existing file keeps its encoding (the policy editor writes UTF-16), its order and everything that
is not ours. Removing takes our entry away, moves those behind it up, and deletes the files when
there is nothing in them but what we wrote.

Source: guest-agent ``packaging/googet`` (install script of the metadata scripts); [MS-GPSCR] 2.2.2
and [MS-GPREG] for the files.
"""

from __future__ import annotations

import ntpath
import os
import re
from collections.abc import Sequence
from typing import Optional

from google_guest.records import record
from google_guest.system.files import Files
from google_guest.system.windows.environment import windows_folder

SCRIPTS_EXTENSION = "{42B5FAAE-6536-11D2-AE5A-0000F87571E3}"
SCRIPTS_TOOL = "{40B6664F-4972-11D1-A7CA-0000F87571E3}"
"""The extension that runs scripts, and the part of the editor that lists them."""

_NEW_LINE = "\r\n"
_LINE_END = re.compile(r"\r\n|\n|\r")
_SECTION = re.compile(r"\s*\[(.*)\]\s*")
_ENTRY = re.compile(r"\s*([0-9]+)(CmdLine|Parameters)\s*=(.*)", re.IGNORECASE)
_SETTING = re.compile(r"\s*([^=;\[\]]+?)\s*=(.*)")
_GROUP = re.compile(r"\[([^\[\]]*)\]")
_GUID = re.compile(r"\{[0-9A-Fa-f-]+\}")
_NAMES, _VERSION = "gPCMachineExtensionNames", "Version"
_LARGEST = 0xFFFF


@record
class PolicyFiles:
    """Where the two files are."""

    gpt: str
    scripts: str


def policy_files() -> PolicyFiles:
    """Return the files of this machine's own policy."""
    folder = rf"{windows_folder()}\System32\GroupPolicy"
    return PolicyFiles(rf"{folder}\gpt.ini", rf"{folder}\Machine\Scripts\scripts.ini")


def add_shutdown_script(files: Files, command: str) -> bool:
    """Have Windows run ``command`` when it shuts down; return whether it did not yet.

    Raises:
        OSError: a file cannot be read or written.
    """
    places = policy_files()
    scripts, gpt = _read(files, places.scripts), _read(files, places.gpt)
    changed = with_shutdown_script(scripts.text, command)
    announced = with_scripts_extension(gpt.text)
    if changed == scripts.text and announced == gpt.text:
        return False
    # The version is raised last: whoever reads it then finds the script.
    _write(files, places.scripts, scripts, changed)
    _write(files, places.gpt, gpt, with_raised_version(announced))
    return changed != scripts.text


def remove_shutdown_script(files: Files, command: str) -> bool:
    """Take ``command`` out of the policy; return whether it was there.

    Raises:
        OSError: a file cannot be read or written.
    """
    places = policy_files()
    scripts, gpt = _read(files, places.scripts), _read(files, places.gpt)
    changed = without_shutdown_script(scripts.text, command)
    if changed == scripts.text:
        return False
    if changed.strip():
        _write(files, places.scripts, scripts, changed)
    else:
        files.remove(places.scripts)
        _remove_empty_folders(files, places.scripts)
    rest = gpt.text if _has_scripts(changed) else without_scripts_extension(gpt.text)
    if _is_ours_alone(gpt.text, rest):
        files.remove(places.gpt)
    elif gpt.text:
        _write(files, places.gpt, gpt, with_raised_version(rest))
    return True


# --- scripts.ini ---


def with_shutdown_script(text: str, command: str) -> str:
    """Return the list of scripts with ``command`` behind the shutdown scripts, once."""
    lines = _lines(text)
    start, end = _section(lines, "Shutdown")
    if start is None:
        lines += ["[Shutdown]"]
        start = end = len(lines)
    entries = _entries(lines[start:end])
    if any(_is_same(command, found) for found in entries.values()):
        return text
    index = next(number for number in range(len(entries) + 1) if number not in entries)
    while end > start and not lines[end - 1].strip():
        end -= 1
    lines[end:end] = [f"{index}CmdLine={command}", f"{index}Parameters="]
    return _joined(lines)


def without_shutdown_script(text: str, command: str) -> str:
    """Return the list without ``command``; later scripts move up, an empty section goes."""
    lines = _lines(text)
    start, end = _section(lines, "Shutdown")
    if start is None:
        return text
    entries = _entries(lines[start:end])
    ours = {index for index, found in entries.items() if _is_same(command, found)}
    if not ours:
        return text
    kept = []
    for line in lines[start:end]:
        match = _ENTRY.fullmatch(line)
        if match is None:
            kept.append(line)
        elif int(match[1]) not in ours:
            index = int(match[1]) - sum(1 for one in ours if one < int(match[1]))
            kept.append(f"{index}{match[2]}={match[3]}")
    if any(line.strip() for line in kept):
        lines[start:end] = kept
    else:
        del lines[start - 1 : end]
    return _joined(lines)


def _has_scripts(text: str) -> bool:
    return any(_ENTRY.fullmatch(line) for line in _lines(text))


def _entries(lines: Sequence[str]) -> dict[int, str]:
    """Return the command of each index of a section."""
    matches = (_ENTRY.fullmatch(line) for line in lines)
    return {
        int(match[1]): match[3].strip()
        for match in matches
        if match is not None and match[2].lower() == "cmdline"
    }


def _is_same(command: str, found: str) -> bool:
    return command.strip('" ').casefold() == found.strip('" ').casefold()


# --- gpt.ini ---


def with_scripts_extension(text: str) -> str:
    """Return the policy's head with the scripts' extension among those of the machine."""
    groups = _groups(_setting(text, _NAMES) or "")
    for number, group in enumerate(groups):
        if group[:1] == [SCRIPTS_EXTENSION]:
            if SCRIPTS_TOOL in group:
                return text
            groups[number] = [group[0], *sorted([*group[1:], SCRIPTS_TOOL])]
            break
    else:
        groups = sorted([*groups, [SCRIPTS_EXTENSION, SCRIPTS_TOOL]])
    return _with_setting(text, _NAMES, _names(groups))


def without_scripts_extension(text: str) -> str:
    """Return the policy's head without the scripts' extension."""
    groups = _groups(_setting(text, _NAMES) or "")
    kept = [group for group in groups if group[:1] != [SCRIPTS_EXTENSION]]
    return text if kept == groups else _with_setting(text, _NAMES, _names(kept) or None)


def with_raised_version(text: str) -> str:
    """Return the policy's head with a higher version of the machine's half."""
    version = _version(text)
    machine = version & _LARGEST
    # Zero means "never edited": beyond the largest number comes one.
    raised = machine + 1 if machine < _LARGEST else 1
    return _with_setting(text, _VERSION, str(version - machine + raised))


def _is_ours_alone(before: str, rest: str) -> bool:
    """Whether the head is the one that we wrote for a machine without a policy."""
    if _version(before) != 1:
        return False
    settings = [_SETTING.fullmatch(line) for line in _lines(rest)]
    return {match[1].lower() for match in settings if match is not None} <= {_VERSION.lower()}


def _version(text: str) -> int:
    value = (_setting(text, _VERSION) or "").strip()
    return int(value) if value.isascii() and value.isdigit() and len(value) <= 10 else 0


def _groups(names: str) -> list[list[str]]:
    """Return the GUIDs of each bracket, the extension's own first."""
    return [[guid.upper() for guid in _GUID.findall(group)] for group in _GROUP.findall(names)]


def _names(groups: Sequence[Sequence[str]]) -> str:
    return "".join(f"[{''.join(group)}]" for group in groups)


def _setting(text: str, name: str) -> Optional[str]:
    lines = _lines(text)
    start, end = _section(lines, "General")
    for line in lines[start:end] if start is not None else ():
        match = _SETTING.fullmatch(line)
        if match is not None and match[1].lower() == name.lower():
            return match[2]
    return None


def _with_setting(text: str, name: str, value: Optional[str]) -> str:
    """Return the text with a setting of [General] changed, added, or (None) taken away."""
    lines = _lines(text)
    start, end = _section(lines, "General")
    if start is None:
        lines[:0] = ["[General]"]
        start = end = 1
    for number in range(start, end):
        match = _SETTING.fullmatch(lines[number])
        if match is not None and match[1].lower() == name.lower():
            lines[number : number + 1] = [] if value is None else [f"{match[1]}={value}"]
            return _joined(lines)
    if value is not None:
        while end > start and not lines[end - 1].strip():
            end -= 1
        lines.insert(end, f"{name}={value}")
    return _joined(lines)


# --- both ---


@record
class _PolicyText:
    text: str
    encoding: str
    mark: bytes


def _read(files: Files, path: str) -> _PolicyText:
    """Return a file's text; an absent one is empty and will be ASCII."""
    data = files.read_bytes(path) or b""
    for mark, encoding in ((b"\xff\xfe", "utf-16-le"), (b"\xef\xbb\xbf", "utf-8")):
        if data.startswith(mark):
            return _PolicyText(data[len(mark) :].decode(encoding, "surrogatepass"), encoding, mark)
    # Every byte of an ANSI file comes back as it was.
    return _PolicyText(data.decode("latin-1"), "latin-1", b"")


def _write(files: Files, path: str, before: _PolicyText, text: str) -> None:
    if text != before.text:
        files.write_atomic(path, before.mark + text.encode(before.encoding, "surrogatepass"))


def _remove_empty_folders(files: Files, scripts: str) -> None:
    """Remove the folders above the list of scripts, up to the policy's own."""
    folder = ntpath.dirname(scripts)
    while ntpath.basename(folder).lower() != "grouppolicy":
        try:
            os.rmdir(files.host_path(folder))
        except OSError:
            # Something of others is in it.
            return
        folder = ntpath.dirname(folder)


def _section(lines: Sequence[str], name: str) -> tuple[Optional[int], int]:
    """Return where the lines of a section start (behind its name) and end; None: there is none."""
    start: Optional[int] = None
    for number, line in enumerate(lines):
        match = _SECTION.fullmatch(line)
        if match is None:
            continue
        if start is not None:
            return start, number
        if match[1].strip().lower() == name.lower():
            start = number + 1
    return start, len(lines)


def _lines(text: str) -> list[str]:
    """Return the lines; other than with ``splitlines``, those of Windows' text files."""
    lines = _LINE_END.split(text)
    return lines if lines[-1] else lines[:-1]


def _joined(lines: Sequence[str]) -> str:
    return "".join(f"{line}{_NEW_LINE}" for line in lines)
