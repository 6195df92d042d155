"""Renaming links and asking drivers, in the kernel's own words: a stand-in's and a real one's."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from system_config import link_names
from system_config.ethtool import Driver
from system_config.link_names import rename_link

SIOCGIFFLAGS, SIOCSIFFLAGS, SIOCSIFNAME = 0x8913, 0x8914, 0x8923
UP, MULTICAST = 0x1, 0x1000
IFREQ = 40
"""Bytes of struct ifreq on machines of 64 bits."""
NO_SUCH_LINK = "no-such-link"
SOURCE = Path(link_names.__file__).parents[1]


class Kernel:
    """Links with their flags; one before Linux 6.2 renames none that is up."""

    def __init__(self, *, renames_running_links: bool, **links: int) -> None:
        self.links = links
        self.renames_running_links = renames_running_links
        self.refuses_name = ""
        self.asked: list[int] = []

    def ioctl(self, _channel: Any, request: int, data: bytes, *_: Any) -> bytes:
        assert len(data) == IFREQ
        self.asked.append(request)
        name = data[:16].split(b"\0")[0].decode()
        if name not in self.links:
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
        if request == SIOCGIFFLAGS:
            return data[:16] + struct.pack("=H", self.links[name]) + data[18:]
        if request == SIOCSIFFLAGS:
            self.links[name] = struct.unpack("=H", data[16:18])[0]
            return data
        assert request == SIOCSIFNAME
        if self.links[name] & UP and not self.renames_running_links:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        new = data[16:32].split(b"\0")[0].decode()
        if new in self.links or new == self.refuses_name:
            raise OSError(errno.EEXIST, os.strerror(errno.EEXIST))
        self.links[new] = self.links.pop(name)
        return data


def rename(monkeypatch: pytest.MonkeyPatch, kernel: Kernel, old: str, new: str) -> None:
    monkeypatch.setattr(fcntl, "ioctl", kernel.ioctl)
    rename_link(old, new)


@pytest.mark.parametrize("flags", [MULTICAST, MULTICAST | UP])
@pytest.mark.parametrize("renames_running_links", [False, True])
def test_link_has_its_new_name_and_its_flags(
    monkeypatch: pytest.MonkeyPatch, flags: int, renames_running_links: bool
) -> None:
    kernel = Kernel(renames_running_links=renames_running_links, eth0=flags)
    rename(monkeypatch, kernel, "eth0", "gpu0rdma0")
    assert kernel.links == {"gpu0rdma0": flags}


def test_link_is_not_taken_down_without_need(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel(renames_running_links=True, eth0=UP)
    rename(monkeypatch, kernel, "eth0", "gpu0rdma0")
    assert kernel.asked == [SIOCSIFNAME]


def test_link_that_keeps_its_name_is_up_again(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel(renames_running_links=False, eth0=UP | MULTICAST)
    kernel.refuses_name = "gpu0rdma0"
    with pytest.raises(OSError, match="exists") as raised:
        rename(monkeypatch, kernel, "eth0", "gpu0rdma0")
    assert raised.value.errno == errno.EEXIST
    assert kernel.links == {"eth0": UP | MULTICAST}


@pytest.mark.parametrize(("old", "new"), [("eth9", "eth1"), ("eth0", "lo")])
def test_missing_link_and_taken_name_are_errors(
    monkeypatch: pytest.MonkeyPatch, old: str, new: str
) -> None:
    kernel = Kernel(renames_running_links=False, eth0=0, lo=UP)
    with pytest.raises(OSError, match="."):
        rename(monkeypatch, kernel, old, new)
    assert kernel.links == {"eth0": 0, "lo": UP}


def test_longest_name_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel(renames_running_links=False, eth0=0)
    rename(monkeypatch, kernel, "eth0", "n" * link_names.LONGEST_NAME)
    assert kernel.links == {"n" * 15: 0}


@pytest.mark.skipif(sys.platform != "linux", reason="asks a Linux kernel")
@pytest.mark.parametrize("method", ["combined_channels", "rings", "coalescing"])
def test_real_kernel_has_no_driver_of_a_missing_link(method: str) -> None:
    with pytest.raises(OSError, match="No such device") as raised:
        getattr(Driver(NO_SUCH_LINK), method)()
    assert raised.value.errno == errno.ENODEV


@pytest.mark.skipif(sys.platform != "linux", reason="asks a Linux kernel")
def test_real_kernel_understands_the_question() -> None:
    # The loopback interface has no rings; a wrong command would be EINVAL, a wrong address EFAULT.
    with pytest.raises(OSError, match="not supported") as raised:
        Driver("lo").rings()
    assert raised.value.errno == errno.EOPNOTSUPP


_IN_A_NAMESPACE = """
import json, subprocess, sys
sys.path.insert(0, sys.argv[1])
from system_config.link_names import rename_link

def links():
    shown = subprocess.run(["ip", "-j", "link"], check=True, capture_output=True).stdout
    return {link["ifname"]: "UP" in link["flags"] for link in json.loads(shown)}

for name in ("pair0", "pair1"):
    subprocess.run(["ip", "link", "set", name, "up"], check=True)
rename_link("pair0", "gpu0rdma0")
refusals = []
for old, new in (("missing", "other"), ("gpu0rdma0", "lo")):
    try:
        rename_link(old, new)
    except OSError as error:
        refusals.append(error.errno)
print(json.dumps([links(), refusals]))
"""


def test_real_kernel_renames_a_link_that_is_up() -> None:
    if not shutil.which("unshare") or not shutil.which("ip"):
        pytest.skip("unshare and ip are not installed")
    inside = ["unshare", "--user", "--map-root-user", "--net", "sh", "-c"]
    make = "ip link add pair0 type veth peer name pair1"
    if subprocess.run([*inside, make], capture_output=True, check=False).returncode:
        pytest.skip("this kernel lets nobody make a namespace with a pair of links")
    done = subprocess.run(
        [*inside, f'{make} && exec "$@"', "sh", sys.executable, "-IS", "-c", _IN_A_NAMESPACE]
        + [str(SOURCE)],
        capture_output=True,
        text=True,
        check=True,
    )
    links, refusals = json.loads(done.stdout)
    assert links == {"lo": False, "gpu0rdma0": True, "pair1": True}
    assert refusals == [errno.ENODEV, errno.EEXIST]
