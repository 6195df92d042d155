"""google_nvme_id and its twin for the initramfs: one table of disks and data for both.

The Python program runs in this process with a stubbed ioctl that reads the real command, the shell
script with a fake `nvme` program; sysfs, nodes and links lie in a temporary folder.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import shutil
import string
import struct
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Optional, Union

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from system_config import nvme_id

TOP = Path(__file__).resolve().parents[3]
TWIN = TOP / "config/common/usr/lib/dracut/modules.d/30gcp-udev-rules/google_nvme_id"
SHELLS = {"dash": ["dash"], "bash": ["bash", "--posix"]}
PROGRAMS = ("python", *SHELLS)
COMMANDS = ("tail", "tr", "sed", "ln", "mkdir", "mv")
"""What the twin calls beside nvme; there is nothing else in its PATH."""
AREA = 4096 - 384


class Outcome(NamedTuple):
    """How a run ended; what it says on standard error is compared by no test."""

    status: int
    output: str
    complaints: int


class Platform:
    """A machine's NVMe disks, seen by either program."""

    def __init__(self, root: Path) -> None:
        self.sysfs, self.nodes, self.links = root / "sys", root / "dev", root / "by-id"
        self.data = root / "data"
        for folder in (self.sysfs, self.nodes, self.data, root / "bin"):
            folder.mkdir()
        nvme = root / "bin" / "nvme"
        nvme.write_text(
            '#!/bin/sh\n[ "$1 $2" = "id-ns --raw-binary" ] || exit 2\n'
            f'exec {shutil.which("cat")} "{self.data}/${{3##*/}}"\n'
        )
        nvme.chmod(0o755)
        for name in COMMANDS:
            (root / "bin" / name).symlink_to(shutil.which(name) or "")
        text = TWIN.read_text()
        for line, changed in (
            ("PATH=/usr/sbin:/usr/bin:/sbin:/bin\n", f"PATH={root}/bin\n"),
            ("SYSFS=/sys/class/block\n", f"SYSFS={self.sysfs}\n"),
            ("LINKS=/dev/disk/by-id\n", f"LINKS={self.links}\n"),
        ):
            assert text.count(f"\n{line}") == 1
            text = text.replace(f"\n{line}", f"\n{changed}")
        self.twin = root / "google_nvme_id"
        self.twin.write_text(text)

    def add(
        self,
        node: str,
        model: Optional[str],
        area: Optional[bytes] = b"",
        *,
        nsid: Optional[int] = None,
    ) -> str:
        """A disk, or one of its partitions too, with these data (None: it does not answer)."""
        disk = node.split("p")[0]
        folder = self.sysfs / disk
        (folder / "device").mkdir(parents=True, exist_ok=True)
        # The kernel pads a model's name with blanks.
        if model is not None:
            (folder / "device/model").write_text(f"{model:<40}\n")
        if nsid is not None:
            (folder / "nsid").write_text(f"{nsid}\n")
        (self.nodes / node).touch()
        (self.data / node).unlink(missing_ok=True)
        if area is not None:
            (self.data / node).write_bytes(bytes(384) + area.ljust(AREA, b"\0")[:AREA])
        return f"{self.nodes}/{node}"

    def ioctl(self, descriptor: int, request: int, argument: Any = 0, _: bool = True) -> int:
        """The kernel's part: NVME_IOCTL_ID and NVME_IOCTL_ADMIN_CMD."""
        node = os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}"))
        if request == 0x4E40:
            return 7
        assert (request, len(argument)) == (0xC0484E41, 72)
        fields = struct.unpack("=BBHIIIQQ10I", argument)
        opcode, nsid, address, length, cdw10 = (fields[i] for i in (0, 3, 7, 9, 10))
        assert (opcode, nsid, length, cdw10) == (6, 7, 4096, 0)
        try:
            ctypes.memmove(address, (self.data / node).read_bytes(), length)
        except FileNotFoundError:
            raise OSError(errno.EIO, "Input/output error") from None
        return 0

    def run(self, program: str, *arguments: str) -> Outcome:
        if program != "python":
            done = subprocess.run(
                [*SHELLS[program], str(self.twin), *arguments],
                capture_output=True,
                check=False,
                timeout=60,
                encoding="latin-1",
            )
            return Outcome(done.returncode, done.stdout, done.stderr.count("\n"))
        output, complaints = _Writer(), _Writer()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(nvme_id, "SYSFS", str(self.sysfs))
            patch.setattr(nvme_id, "LINKS", str(self.links))
            patch.setattr(fcntl, "ioctl", self.ioctl)
            patch.setattr("sys.stdout", output)
            patch.setattr("sys.stderr", complaints)
            status = nvme_id.main(list(arguments))
        return Outcome(status, output.text, complaints.text.count("\n"))

    def name(self, program: str, area: bytes) -> Optional[str]:
        """What a program says of a persistent disk with these data; None: nothing."""
        node = self.add("nvme0n1", "nvme_card-pd", area)
        done = self.run(program, "-d", node)
        if done.status:
            assert done == Outcome(1, "", 1)
            return None
        first, second, rest = done.output.split("\n", 2)
        assert (first[:16], rest) == ("ID_SERIAL_SHORT=", "")
        assert second == f"ID_SERIAL=Google_PersistentDisk_{first[16:]}"
        return first[16:]


class _Writer:
    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> int:
        self.text += text
        return len(text)

    def flush(self) -> None:
        pass


@pytest.fixture(params=PROGRAMS)
def program(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def platform(tmp_path: Path) -> Platform:
    return Platform(tmp_path)


@pytest.fixture(scope="module")
def shared() -> Iterator[Platform]:
    """One for many examples: no test leaves anything there that another looks at."""
    folder = tempfile.mkdtemp(prefix="nvme-")
    yield Platform(Path(folder))
    shutil.rmtree(folder)


def nested(levels: int, opening: str = "[", closing: str = "]") -> bytes:
    inner = opening * levels + closing * levels
    return f'{{"x":{inner},"device_name":"a"}}'.encode()


NAMES: Mapping[str, tuple[bytes, Optional[str]]] = {
    "as the platform writes it": (b'{"device_name":"data-1","disk_type":"PERSISTENT"}', "data-1"),
    "tab after the colon": (b'{"device_name": \t"a.b_c-1"}', "a.b_c-1"),
    "blanks everywhere": (b' \t\n\r{ \n"device_name"\t:\r"d" \n, "x" : 1\t}\r\n ', "d"),
    "later member": (b'{"disk_type":"PERSISTENT","device_name":"d"}', "d"),
    "every character": (
        f'{{"device_name":"{string.ascii_letters}{string.digits}._-"}}'.encode(),
        f"{string.ascii_letters}{string.digits}._-",
    ),
    "longest": (b'{"device_name":"' + b"n" * 255 + b'"}', "n" * 255),
    "no zero byte": (b'{"device_name":"d"}'.ljust(AREA, b" "), "d"),
    "other data after zero bytes": (b'{"device_name":"d"}\0\0{"device_name":"e"}\xff', "d"),
    "all kinds of values": (
        b'{"a":-0,"b":1.5e+30,"c":true,"d":false,"e":null,"f":[],"g":{},"h":"","device_name":"d",'
        b'"i":[1,"x",[2,{"device_name":"no"}],{}],"j":{"k":{"l":["device_name"]}},"":"empty"}',
        "d",
    ),
    "name of an inner object comes first": (b'{"x":{"device_name":"no"},"device_name":"d"}', "d"),
    "name in the text of another value": (
        b'{"x":"\\"device_name\\":\\"no\\",","device_name":"d"}',
        "d",
    ),
    "brackets in texts": (b'{"x":"[1]{}],[","device_name":"d","y":"}{"}', "d"),
    "escape sequences in other values": (
        b'{"x":"\\" \\\\ \\/ \\b\\f\\n\\r\\t \\u003c \\u00e9 \\ud83d\\ude00","device_name":"d"}',
        "d",
    ),
    "eight levels": (nested(8), "a"),
    "eight levels of objects": (nested(8, '{"y":', "}").replace(b":}", b":1}"), "a"),
    "name with dots": (b'{"device_name":".."}', ".."),
    "empty": (b"", None),
    "empty object": (b"{}", None),
    "blanks alone": (b" \n", None),
    "no name": (b'{"disk_type":"PERSISTENT"}', None),
    "name of an inner object alone": (b'{"x":{"device_name":"d"}}', None),
    "name in a list": (b'[{"device_name":"d"}]', None),
    "name as a value": (b'{"x":"device_name","y":"d"}', None),
    "two names": (b'{"device_name":"d","device_name":"d"}', None),
    "longer key": (b'{"device_name2":"d","adevice_name":"d"}', None),
    "key in capitals": (b'{"DEVICE_NAME":"d"}', None),
    "empty name": (b'{"device_name":""}', None),
    "path": (b'{"device_name":"../x"}', None),
    "absolute path": (b'{"device_name":"/etc/passwd"}', None),
    "blank in the name": (b'{"device_name":"a b"}', None),
    "line's end in the name": (b'{"device_name":"a\nID_VENDOR=x"}', None),
    "line's end in another value": (b'{"x":"a\nb","device_name":"d"}', None),
    "tab in another value": (b'{"x":"a\tb","device_name":"d"}', None),
    "escaped line's end in the name": (b'{"device_name":"a\\nID_VENDOR=x"}', None),
    "substitution of udev in the name": (b'{"device_name":"$env{PATH}"}', None),
    "percent in the name": (b'{"device_name":"%k"}', None),
    "shell's characters in the name": (b'{"device_name":"$(reboot)`x`;"}', None),
    "quote in the name": (b'{"device_name":"a\\"b"}', None),
    "brackets in the name": (b'{"device_name":"a[1]b"}', None),
    "too long": (b'{"device_name":"' + b"n" * 256 + b'"}', None),
    "escaped letter in the name": (b'{"device_name":"\\u0061"}', None),
    "escaped letter in the key": (b'{"device\\u005Fname":"d"}', None),
    "escaped letter elsewhere": (b'{"x":"\\u002D","device_name":"d"}', None),
    "letters beyond ASCII": (b'{"x":"\xc3\xa9","device_name":"d"}', None),
    "name beyond ASCII": ('{"device_name":"\u0434"}'.encode(), None),
    "number as the name": (b'{"device_name":1}', None),
    "list as the name": (b'{"device_name":["d"]}', None),
    "null as the name": (b'{"device_name":null}', None),
    "cut off": (b'{"device_name":"cut', None),
    "cut off after the name": (b'{"device_name":"cut"', None),
    "rest after the object": (b'{"device_name":"d"} x', None),
    "two objects": (b'{"device_name":"d"},{"device_name":"d"}', None),
    "two objects side by side": (b'{"a":1}{"device_name":"d"}', None),
    "no braces": (b'"device_name":"d"', None),
    "text before": (b'x{"device_name":"d"}', None),
    "no quotes": (b"{device_name:d}", None),
    "single quotes": (b"{'device_name':'d'}", None),
    "comma at the end": (b'{"device_name":"d",}', None),
    "comma at the start": (b'{,"device_name":"d"}', None),
    "comma missing": (b'{"a":1 "device_name":"d"}', None),
    "colon missing": (b'{"device_name" "d"}', None),
    "value missing": (b'{"a":,"device_name":"d"}', None),
    "brackets crossed": (b'{"a":[{]},"device_name":"d"}', None),
    "bracket open": (b'{"a":[1,"device_name":"d"}', None),
    "comma in a list's end": (b'{"a":[1,],"device_name":"d"}', None),
    "octal number": (b'{"a":01,"device_name":"d"}', None),
    "number with a plus": (b'{"a":+1,"device_name":"d"}', None),
    "number without a digit": (b'{"a":1.,"device_name":"d"}', None),
    "hexadecimal number": (b'{"a":0x1,"device_name":"d"}', None),
    "no number": (b'{"a":NaN,"device_name":"d"}', None),
    "infinite number": (b'{"a":-Infinity,"device_name":"d"}', None),
    "unknown word": (b'{"a":True,"device_name":"d"}', None),
    "unknown escape sequence": (b'{"a":"\\x","device_name":"d"}', None),
    "short escape sequence": (b'{"a":"\\u00e","device_name":"d"}', None),
    "escape sequence outside a text": (b'{\\n"device_name":"d"}', None),
    "nine levels": (nested(9), None),
    "a thousand levels": (nested(1200), None),
    "zero byte in the text": (b'{"device_name":"a\0b"}', None),
    "zero byte first": (b'\0{"device_name":"d"}', None),
    "control character": (b'{"device_name":"d"\x01}', None),
    "marks of the twin": (b"{\x01device_name\x02:\x01d\x02}", None),
    "DEL": (b'{"x":"\x7f","device_name":"d"}', None),
    "not broken by latin-1": (b'{"device_name":"d\xa0"}', None),
}


@pytest.mark.parametrize(("area", "name"), NAMES.values(), ids=list(NAMES))
def test_name_of_a_persistent_disk(
    platform: Platform, program: str, area: bytes, name: Optional[str]
) -> None:
    assert platform.name(program, area) == name


def test_disk_that_does_not_answer_has_no_name(platform: Platform, program: str) -> None:
    node = platform.add("nvme0n1", "nvme_card-pd", None)
    assert platform.run(program, "-d", node) == Outcome(1, "", 1)


def test_status_of_a_refused_command_is_no_name(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = platform.add("nvme0n1", "nvme_card-pd", b'{"device_name":"d"}')
    monkeypatch.setattr(
        platform, "ioctl", lambda _descriptor, request, *_: 1 if request == 0x4E40 else 0x4002
    )
    assert platform.run("python", "-d", node) == Outcome(1, "", 1)


def test_persistent_disk_without_a_node_has_no_name(platform: Platform, program: str) -> None:
    node = platform.add("nvme0n1", "nvme_card-pd", None)
    Path(node).unlink()
    assert platform.run(program, "-d", node) == Outcome(1, "", 1)


def test_partition_has_its_disks_name(platform: Platform, program: str) -> None:
    node = platform.add("nvme12n3p15", "nvme_card-pd", b'{"device_name":"d"}')
    assert platform.run(program, "-d", node).output == (
        "ID_SERIAL_SHORT=d\nID_SERIAL=Google_PersistentDisk_d\n"
    )


LOCAL: Mapping[str, tuple[str, str, Optional[int], int]] = {
    "first": ("nvme0n1", "nvme_card", 1, 0),
    "partition of the twenty-fourth": ("nvme0n24p1", "nvme_card", 24, 23),
    "kernel without the attribute": ("nvme0n24p1", "nvme_card", None, 23),
    "namespaces found in another order": ("nvme0n2", "nvme_card", 9, 8),
    "controller of its own": ("nvme3n1", "nvme_card3", 1, 3),
    "first controller": ("nvme0n1", "nvme_card0", 1, 0),
    "controller with zeros": ("nvme0n1p9", "nvme_card08", 1, 8),
    "controller and namespace": ("nvme1n2", "nvme_card10", 3, 12),
    "large numbers": ("nvme0n1", "nvme_card999999999", 999999999, 1999999997),
}


@pytest.mark.parametrize(("node", "model", "nsid", "number"), LOCAL.values(), ids=list(LOCAL))
def test_name_of_a_local_ssd_comes_from_its_numbers(
    platform: Platform, program: str, node: str, model: str, nsid: Optional[int], number: int
) -> None:
    device = platform.add(node, model, nsid=nsid)
    assert platform.run(program, "-d", device) == Outcome(
        0,
        f"ID_SERIAL_SHORT=local-nvme-ssd-{number}\n"
        f"ID_SERIAL=Google_EphemeralDisk_local-nvme-ssd-{number}\n",
        0,
    )


def test_names_of_128_namespaces(platform: Platform, program: str) -> None:
    names = []
    for nsid in range(1, 129):
        device = platform.add(f"nvme0n{nsid}", "nvme_card", nsid=nsid)
        names.append(platform.run(program, "-d", device).output.split("\n")[0])
    assert names == [f"ID_SERIAL_SHORT=local-nvme-ssd-{number}" for number in range(128)]


def test_local_ssd_has_its_name_though_it_does_not_answer(platform: Platform, program: str) -> None:
    device = platform.add("nvme0n1", "nvme_card", None)
    Path(device).unlink()
    assert platform.run(program, "-d", device).output.startswith(
        "ID_SERIAL_SHORT=local-nvme-ssd-0\n"
    )


@pytest.mark.parametrize(
    ("area", "alias"),
    [
        (b'{"device_name":"scratch","disk_type":"LOCAL_SSD"}', "GCE_DISK_ALIAS=scratch\n"),
        (b'{"device_name":"local-nvme-ssd-0","disk_type":"LOCAL_SSD"}', ""),
        # That would be another disk's link.
        (b'{"device_name":"local-nvme-ssd-1"}', ""),
        (b'{"device_name":"../x"}', ""),
        (b'{"device_name":"cut', ""),
    ],
    ids=["other name", "same name", "another disk's name", "path", "cut off"],
)
def test_second_name_of_a_local_ssd(
    platform: Platform, program: str, area: bytes, alias: str
) -> None:
    device = platform.add("nvme0n1", "nvme_card", area)
    assert platform.run(program, "-d", device).output == (
        "ID_SERIAL_SHORT=local-nvme-ssd-0\n"
        f"ID_SERIAL=Google_EphemeralDisk_local-nvme-ssd-0\n{alias}"
    )


@pytest.mark.parametrize(
    "model",
    [
        *(None, "", "ACME", "nvme-card", "nvme_cardx", "nvme_card-pd2", "nvme_card-", "xnvme_card"),
        *("nvme_card 1", "nvme_card1234567890", "nvme_card-1", "Google nvme_card", "NVME_CARD"),
    ],
)
def test_disk_of_somebody_else_has_no_name(
    platform: Platform, program: str, model: Optional[str]
) -> None:
    device = platform.add("nvme0n1", model, b'{"device_name":"evil"}')
    assert platform.run(program, "-d", device) == Outcome(1, "", 1)


@pytest.mark.parametrize(
    "node",
    [
        *("sda", "nvme0", "nvme", "nvmen1", "nvme0n", "nvme0n1p", "nvme0n1px", "nvme0n1p1p1"),
        *("nvme0c0n1", "xnvme0n1", "nvme0n1 ", "nvme 0n1", "nvme-1n1", "nvme0n1n1", "ng0n1"),
        *("nvme0n1234567890", "nvme0n1/..", "nvme\u0663n1"),
    ],
)
def test_node_that_is_no_nvme_disk_has_no_name(platform: Platform, program: str, node: str) -> None:
    platform.add("nvme0n1", "nvme_card")
    assert platform.run(program, "-d", f"{platform.nodes}/{node}") == Outcome(1, "", 1)


def test_namespace_zero_has_no_name(platform: Platform, program: str) -> None:
    device = platform.add("nvme0n0", "nvme_card")
    assert platform.run(program, "-d", device) == Outcome(1, "", 1)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["-d"],
        ["-d", ""],
        ["-x"],
        ["-d", "/dev/nvme0n1", "-x"],
        ["/dev/nvme0n1"],
        ["-s"],
        ["--"],
    ],
)
def test_wrong_arguments_are_refused(
    platform: Platform, program: str, arguments: list[str]
) -> None:
    platform.add("nvme0n1", "nvme_card")
    assert platform.run(program, *arguments) == Outcome(1, "", 1)


def test_help_is_the_same_of_both(platform: Platform, program: str) -> None:
    assert platform.run(program, "-d", "/dev/x", "-h") == platform.run("python", "-h")
    assert platform.run(program, "-h").status == 0


@pytest.mark.parametrize(
    ("node", "links"),
    [
        ("nvme0n1", ["google-local-nvme-ssd-0", "google-scratch"]),
        ("nvme0n1p12", ["google-local-nvme-ssd-0-part12", "google-scratch-part12"]),
    ],
)
def test_links_are_made_instead_of_output(
    platform: Platform, program: str, node: str, links: list[str]
) -> None:
    device = platform.add(node, "nvme_card", b'{"device_name":"scratch"}')
    for _ in range(2):
        assert platform.run(program, "-s", "-d", device) == Outcome(0, "", 0)
        assert {link.name: os.readlink(link) for link in platform.links.iterdir()} == {
            link: f"../../{node}" for link in links
        }


def test_links_take_the_place_of_others(platform: Platform, program: str) -> None:
    platform.links.mkdir()
    (platform.links / "google-d").symlink_to("../../nvme9n9")
    device = platform.add("nvme0n1", "nvme_card-pd", b'{"device_name":"d"}')
    assert platform.run(program, "-d", device, "-s").status == 0
    assert os.readlink(platform.links / "google-d") == "../../nvme0n1"


def test_link_that_cannot_be_made_is_an_error(platform: Platform, program: str) -> None:
    platform.links.touch()
    device = platform.add("nvme0n1", "nvme_card-pd", b'{"device_name":"d"}')
    done = platform.run(program, "-d", device, "-s")
    assert (done.status, done.output) == (1, "")


@pytest.mark.parametrize("program", SHELLS)
def test_twin_without_the_nvme_program_names_local_ssds_alone(
    platform: Platform, program: str
) -> None:
    persistent = platform.add("nvme0n1", "nvme_card-pd", b'{"device_name":"d"}')
    local = platform.add("nvme1n1", "nvme_card", b'{"device_name":"scratch"}')
    (platform.data.parent / "bin/nvme").unlink()
    assert platform.run(program, "-d", persistent) == Outcome(1, "", 1)
    assert platform.run(program, "-d", local).output == (
        "ID_SERIAL_SHORT=local-nvme-ssd-0\nID_SERIAL=Google_EphemeralDisk_local-nvme-ssd-0\n"
    )


def test_program_imports_no_more_than_it_needs() -> None:
    lines = Path(nvme_id.__file__).read_text().splitlines()
    imports = {line for line in lines if line.startswith(("import ", "from "))}
    allowed = ("array", "fcntl", "json", "os", "struct", "sys")
    assert imports == {
        "from __future__ import annotations",
        *(f"import {name}" for name in allowed),
    }


# Texts that are nearly what a disk carries: mutations of good ones, and what grammars are made of.
_PIECES = st.sampled_from(
    [
        *("{", "}", "[", "]", ":", ",", '"', " ", "\t", "\n", "\r", "\\", "\0", "\x01", "\x02"),
        *('"device_name"', '"d"', '"a.b"', '"device_name":"d"', '{"device_name":"d"}', "\x03"),
        *("null", "true", "1", "-1.5e3", "01", "\\u0061", "\\u00e9", '\\"', "\xff", "\x04", "x"),
    ]
)
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=8,
)
_OBJECTS = st.dictionaries(
    st.text(max_size=4) | st.just("device_name"),
    st.from_regex(r"[-._A-Za-z0-9]{1,12}", fullmatch=True) | _VALUES,
    max_size=4,
)


@st.composite
def _areas(draw: st.DrawFn) -> bytes:
    kind = draw(st.sampled_from(("pieces", "object", "mutated")))
    if kind == "pieces":
        return "".join(draw(st.lists(_PIECES, max_size=24))).encode("latin-1")
    text = json.dumps(
        draw(_OBJECTS), ensure_ascii=draw(st.booleans()), indent=draw(st.none() | st.integers(0, 2))
    ).encode("utf-8", "surrogatepass")
    if kind == "mutated":
        place = draw(st.integers(0, len(text)))
        piece = draw(_PIECES).encode("latin-1")
        text = text[:place] + piece + text[place + draw(st.integers(0, 3)) :]
    return text


def _expected(area: bytes) -> Optional[str]:
    """What a JSON reader makes of an area; used where a program says a name."""
    found: Union[dict[str, Any], object] = json.loads(area.split(b"\0", 1)[0])
    name = found.get("device_name") if isinstance(found, dict) else None
    return name if isinstance(name, str) else None


def _python_name(area: bytes) -> Optional[str]:
    try:
        return nvme_id.device_name(area)
    except nvme_id.NoName:
        return None


@settings(max_examples=400)
@given(st.binary(max_size=AREA) | _areas())
@example(b"[" * AREA)
@example(b'{"a":' * 700)
@example(b'"' * AREA)
@example(b'{"device_name":' + b"9" * 3000 + b"}")
def test_no_data_give_a_wrong_name_or_a_trace(area: bytes) -> None:
    name = _python_name(area)
    if name is not None:
        assert name == _expected(area)
        assert set(name) <= set(string.ascii_letters + string.digits + "._-")
        assert 0 < len(name) <= 255


@settings(max_examples=200)
@given(area=_areas())
@example(area=b'{"device_name":"d"' + b"," * 3600)
@example(area=b'{"device_name":"d","x":' + b"[" * 1500 + b"]" * 1500 + b"}")
@example(area=b"\xff" * AREA)
def test_twin_says_the_same_of_any_data(shared: Platform, area: bytes) -> None:
    assert shared.name("dash", area) == _python_name(area.ljust(AREA, b"\0")[:AREA])
