"""google_nvme_id: says the name of one of the platform's NVMe disks; udev asks for each of them.

    google_nvme_id -d /dev/nvme0n1      prints ID_SERIAL_SHORT=NAME and ID_SERIAL=KIND_NAME
    google_nvme_id -d /dev/nvme0n1 -s   makes the link in /dev/disk/by-id instead

Reads ``device/model`` and ``nsid`` of the disk in sysfs and, by one administration command to the
disk, its Identify Namespace data: there a persistent disk (model ``nvme_card-pd``) has its name. A
local SSD's (model ``nvme_card``, ``nvme_card3``) follows from the numbers of its controller and
namespace; where its data have another name as well, that one is printed as GCE_DISK_ALIAS.

Exit statuses: 0 with the name, and for -h; otherwise 1, with one line on standard error and nothing
on standard output, so that udev makes no link. There is a twin of this program for the initramfs,
where there is no Python: config/common/usr/lib/dracut/modules.d/30gcp-udev-rules/google_nvme_id.
What one accepts the other accepts: the limits of ``device_name`` are theirs.

Started for every NVMe disk and partition at boot: it imports what it needs and no more.

Source: guest-configs ``src/lib/udev/google_nvme_id`` (options, output, names); NVM Express Base
Specification 2.0, figures 86 (Admin command 06h) and 273 (CNS); Linux ``include/uapi/linux/
nvme_ioctl.h`` (struct nvme_passthru_cmd) and ``drivers/nvme/host/`` (the number in a node's name is
counted up as namespaces are found and need not be the namespace's identifier).
"""

from __future__ import annotations

import array
import fcntl
import json
import os
import struct
import sys

SYSFS = "/sys/class/block"
LINKS = "/dev/disk/by-id"

_USAGE = """usage: google_nvme_id [-s] -d DEVICE
Says the name of an NVMe disk of Compute Engine.
  -d DEVICE  the disk or partition, such as /dev/nvme0n1
  -s         make the link in /dev/disk/by-id instead
  -h         print this text
"""
_NVME_IOCTL_ID = 0x4E40
_NVME_IOCTL_ADMIN_CMD = 0xC0484E41
_IDENTIFY = 0x06
_CNS_NAMESPACE = 0
_COMMAND = struct.Struct("=BBHIIIQQ10I")
"""opcode, flags, reserved, nsid, cdw2, cdw3, metadata, address, metadata length, data length,
cdw10 to cdw15, timeout, result."""
_DATA_LENGTH = 4096
_VENDOR_AREA = 384
"""Where the part of Identify Namespace data begins that NVMe leaves to vendors."""

_DIGITS = frozenset("0123456789")
_NAME_CHARACTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")
_TEXT_CHARACTERS = frozenset(range(0x20, 0x7F)) | {0x09, 0x0A, 0x0D}
_LONGEST_NAME = 255
_LONGEST_NUMBER = 9
"""Digits: more are no number of a controller or a namespace, and too much for a shell."""
_DEEPEST = 8
"""Levels of objects and lists below the outermost object."""
_LOCAL = "local-nvme-ssd-"
_ESCAPED = "\\u00"


class NoName(Exception):
    """Why there is no name to tell; the text is for people."""


class _Object:
    """A JSON object as its pairs, in order: two pairs may have one key."""

    def __init__(self, pairs: list[tuple[str, object]]) -> None:
        self.pairs = pairs


def main(argv: list[str] | None = None) -> int:
    """The program; see the module's text."""
    try:
        arguments = _parse(sys.argv[1:] if argv is None else argv)
        if arguments is None:
            sys.stdout.write(_USAGE)
            return 0
        device, link = arguments
        disk, partition = _node(device)
        serial, names = disk_names(disk, device)
        if link:
            for name in names:
                _make_link(
                    device, f"google-{name}-part{partition}" if partition else f"google-{name}"
                )
            return 0
        lines = [f"ID_SERIAL_SHORT={names[0]}", f"ID_SERIAL={serial}"]
        lines += [f"GCE_DISK_ALIAS={name}" for name in names[1:]]
        sys.stdout.write("\n".join(lines) + "\n")
        sys.stdout.flush()
        return 0
    except NoName as reason:
        sys.stderr.write(f"google_nvme_id: {reason}\n")
        return 1


def disk_names(disk: str, device: str) -> tuple[str, list[str]]:
    """The serial number of a disk, and its name followed by a second one that some have.

    ``disk`` is the kernel's name of the whole disk, ``device`` the path of its node or of a
    partition's. Raises ``NoName`` when it is no disk of the platform or its name is no good one.
    """
    model = (_attribute(disk, "device/model") or "").rstrip(" ")
    if model == "nvme_card-pd":
        name = device_name(identify_namespace(device))
        return f"Google_PersistentDisk_{name}", [name]
    card, _, number = model.partition("nvme_card")
    if card or not model or (number and not _is_number(number)):
        raise NoName(f"{device} is no disk of Compute Engine: its model is {model!a}")
    nsid = _attribute(disk, "nsid") or disk.rpartition("n")[2]
    if not _is_number(nsid) or int(nsid) == 0:
        raise NoName(f"{device} has no number of a namespace")
    name = f"{_LOCAL}{int(number or '0') + int(nsid) - 1}"
    return f"Google_EphemeralDisk_{name}", [name, *_second_name(device)]


def device_name(area: bytes) -> str:
    """The name in the vendor's part of Identify Namespace data.

    That is a JSON object in ASCII, up to the first zero byte, with the name as ``device_name``,
    which must be there once and be made of letters, digits, ``.``, ``_`` and ``-``. Raises
    ``NoName`` otherwise, also for what nobody writes and the twin would have to work for: these
    characters written as ``\\u0061``, and more than eight levels below the object.
    """
    carried = area.split(b"\0", 1)[0]
    if not carried:
        raise NoName("the disk carries no name")
    if not _TEXT_CHARACTERS.issuperset(carried):
        raise NoName("what the disk carries is no text")
    text = carried.decode("ascii")
    if _has_needless_escape(text):
        raise NoName("what the disk carries is written in escape sequences")
    try:
        found = json.loads(text, object_pairs_hook=_Object, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise NoName("what the disk carries is no JSON") from None
    if not isinstance(found, _Object) or _is_deeper(found, _DEEPEST):
        raise NoName("what the disk carries is no object")
    names = [value for key, value in found.pairs if key == "device_name"]
    if len(names) != 1 or not isinstance(names[0], str) or not names[0]:
        raise NoName("the disk carries no name")
    name = names[0]
    if len(name) > _LONGEST_NAME or not _NAME_CHARACTERS.issuperset(name):
        raise NoName(f"the disk's name is no good one: {name!a}")
    return name


def identify_namespace(device: str) -> bytes:
    """The vendor's part of the Identify Namespace data of a disk or partition.

    Raises ``NoName`` when the node cannot be opened, or the disk does not answer or not well.
    """
    buffer = array.array("B", bytes(_DATA_LENGTH))
    try:
        descriptor = os.open(device, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            nsid = fcntl.ioctl(descriptor, _NVME_IOCTL_ID)
            command = bytearray(
                _COMMAND.pack(
                    *(_IDENTIFY, 0, 0, nsid, 0, 0, 0, buffer.buffer_info()[0], 0, _DATA_LENGTH),
                    *(_CNS_NAMESPACE, 0, 0, 0, 0, 0, 0, 0),
                )
            )
            status = fcntl.ioctl(descriptor, _NVME_IOCTL_ADMIN_CMD, command, True)
        finally:
            os.close(descriptor)
    except OSError as failure:
        raise NoName(f"cannot ask {device}: {failure.strerror}") from None
    if status != 0:
        raise NoName(f"{device} does not identify itself: NVMe status {status:#x}")
    return buffer.tobytes()[_VENDOR_AREA:]


def _parse(argv: list[str]) -> tuple[str, bool] | None:
    """The device and whether to make a link; None: help is wanted."""
    device, link = "", False
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        if word == "-h":
            return None
        if word == "-s":
            link = True
        elif word == "-d" and rest:
            device = rest.pop(0)
        else:
            raise NoName(f"{word!a} is not understood; -h prints the usage")
    if not device:
        raise NoName("-d DEVICE is missing; -h prints the usage")
    return device, link


def _node(device: str) -> tuple[str, str]:
    """The name of a node's whole disk, and the number of its partition or nothing."""
    base = device.rpartition("/")[2]
    controller, _, rest = base[len("nvme") :].partition("n")
    namespace, separator, partition = rest.partition("p")
    numbers = [controller, namespace, *([partition] if separator else [])]
    if not base.startswith("nvme") or not all(map(_is_number, numbers)):
        raise NoName(f"{device!a} is no NVMe disk")
    return f"nvme{controller}n{namespace}", partition


def _is_number(text: str) -> bool:
    return 0 < len(text) <= _LONGEST_NUMBER and _DIGITS.issuperset(text)


def _attribute(disk: str, name: str) -> str | None:
    """The first line of an attribute in sysfs; None without one."""
    try:
        with open(f"{SYSFS}/{disk}/{name}", encoding="ascii", errors="replace") as file:
            return file.readline().rstrip("\n")
    except OSError:
        return None


def _second_name(device: str) -> list[str]:
    """What the data of a local SSD say, unless that is a name that numbers give to one."""
    try:
        carried = device_name(identify_namespace(device))
    except NoName:
        return []
    return [] if carried.startswith(_LOCAL) else [carried]


def _has_needless_escape(text: str) -> bool:
    """Whether a character that names are made of is written as an escape sequence."""
    start = text.find(_ESCAPED)
    while start >= 0:
        digits = text[start + len(_ESCAPED) : start + len(_ESCAPED) + 2]
        try:
            if chr(int(digits, 16)) in _NAME_CHARACTERS:
                return True
        except ValueError:
            pass  # no escape sequence: the parser will say so
        start = text.find(_ESCAPED, start + 1)
    return False


def _refuse_constant(name: str) -> None:
    """Python's parser takes NaN and Infinity, JSON does not have them."""
    raise ValueError(name)


def _is_deeper(value: object, levels: int) -> bool:
    """Whether more than so many levels of objects and lists lie below a value."""
    if isinstance(value, _Object):
        inner = [below for _, below in value.pairs]
    elif isinstance(value, list):
        inner = value
    else:
        return False
    nested = [below for below in inner if isinstance(below, (_Object, list))]
    return any(levels == 0 or _is_deeper(below, levels - 1) for below in nested)


def _make_link(device: str, name: str) -> None:
    """Make or replace a link in the folder of links, at once."""
    target = f"../../{device.rpartition('/')[2]}"
    fresh = f"{LINKS}/.{name}.{os.getpid()}"
    try:
        os.makedirs(LINKS, exist_ok=True)
        os.symlink(target, fresh)
        os.replace(fresh, f"{LINKS}/{name}")
    except OSError as failure:
        raise NoName(f"cannot make {LINKS}/{name}: {failure.strerror}") from None
