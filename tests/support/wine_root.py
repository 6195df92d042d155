"""What every Wine bed stands on: a root tree with Wine, and a Windows prefix made once.

Reads: the package archive; CPython and wheels as `windows_python` obtains and verifies them.
Writes: the artifact cache (about 1.1 GB for the tree, 1 GB for the prefix).

The prefix is a layer on the tree, at /prefix.  Its C:\\py is CPython without the `._pth` file that
would isolate it, so PYTHONPATH counts, with the wheels of `googet/requirements-windows.txt` and
those of the tests.  COM1 to COM4 are /dev/com1 to /dev/com4.  Windows calls itself Server 2022, as
the platform's images do.

Facts: Wine 10.0 of Debian 13, measured; wineboot(1); the embeddable distribution's documentation.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import windows_python

from support import cache, roots, tiers
from support.commands import run_command

SUITE = "trixie"
PACKAGES = ("wine64", "wine", "ca-certificates", "mount", "procps", "wixl")
"""wixl makes the .msi files of tests: it runs in the tree, as a Linux program."""

SOURCES = Path(__file__).resolve().parents[2]
INSIDE = Path(__file__).with_name("inside_wine")
TEST_REQUIREMENTS = windows_python.TEST_REQUIREMENTS

CAPABILITIES = "-sys_time,-sys_module,-sys_rawio"
ENVIRONMENT = (
    "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME=/root",
    "LC_ALL=C.UTF-8",
    "WINEPREFIX=/prefix",
    "WINEDEBUG=-all",
    # No debugger at a crash: one line instead of 150; no offer to download Mono and Gecko.
    "WINEDLLOVERRIDES=winedbg.exe=d;mscoree=d;mshtml=d",
)

_TIMEOUT = 300.0
_PROGRAMS = (
    *("unshare", "nsenter", "setpriv", "mount", "umount", "pivot_root", "ip"),
    *("mmdebstrap", "osslsigncode", "openssl"),
)

_SETTINGS = r"""Windows Registry Editor Version 5.00

[HKEY_LOCAL_MACHINE\Software\Wine\Ports]
"COM1"="/dev/com1"
"COM2"="/dev/com2"
"COM3"="/dev/com3"
"COM4"="/dev/com4"

[HKEY_CURRENT_USER\Software\Wine]
"Version"=-

[HKEY_LOCAL_MACHINE\Software\Microsoft\Windows NT\CurrentVersion]
"CurrentBuild"="20348"
"CurrentBuildNumber"="20348"
"InstallationType"="Server"
"ProductName"="Windows Server 2022 Datacenter"
"EditionID"="ServerDatacenter"
"UBR"=dword:00000a7c

[HKEY_LOCAL_MACHINE\System\CurrentControlSet\Control\ProductOptions]
"ProductType"="ServerNT"
"""

_MAKE = f"""
set -eu
base=$1 upper=$2 parts=$3
mount --make-rprivate /
mount -t tmpfs none "$parts/mnt"
mkdir "$parts/mnt/root" "$upper.work"
root=$parts/mnt/root
mount -t overlay none "$root" -o "lowerdir=$base,upperdir=$upper,workdir=$upper.work"
mount -t proc proc "$root/proc"
mount -t tmpfs tmpfs "$root/dev"
for device in null zero full random urandom tty; do
    : >"$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
mkdir "$root/dev/shm"
mount -t tmpfs tmpfs "$root/run"
mount -t tmpfs tmpfs "$root/tmp"
mkdir "$root/tmp/parts"
mount --bind -o ro "$parts/files" "$root/tmp/parts"
exec setpriv --bounding-set={CAPABILITIES} env -i {" ".join(f"'{e}'" for e in ENVIRONMENT)} \\
  chroot "$root" sh -eu -c '
    wine wineboot -i
    wineserver -w
    cp -a /tmp/parts/py /prefix/drive_c/py
    rm /prefix/drive_c/py/python313._pth
    wine regedit /S "Z:\\tmp\\parts\\settings.reg"
    wineserver -w
    wine "C:\\py\\python.exe" "Z:\\tmp\\parts\\prepare.py"
    wineserver -w
    mkdir /bed
    wineserver -k || :
    wineserver -w
  '
"""


def root() -> Path:
    """The tree with Wine; read-only for its users.  The first call of a week takes a minute."""
    return roots.helper(SUITE, PACKAGES)


def template() -> Path:
    """The layer that holds the prefix; to be stacked on `root()`.

    Raises CommandFailed or ProvenanceError with what is missing.
    """
    return cache.artifact("wine", template_facts(), _build_template).tree / "upper"


def is_cached() -> bool:
    """Whether `root` and `template` would succeed without network."""
    return roots.is_helper_cached(SUITE, PACKAGES) and cache.cached("wine", template_facts())


def bytecode() -> Path:
    """A folder for what Windows Python makes of this tree's modules: beds start faster with it.

    One for each place of a tree, so that no tree meets the byte code of another one.
    """
    key = cache.artifact_key({"sources": str(SOURCES)})
    folder = cache.cache_directory() / f"bytecode-{key[:24]}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "use").touch()  # the cache forgets what nobody uses
    return folder


def problems() -> tuple[str, ...]:
    """What this machine lacks for Wine beds; fetches Python and the wheels when they are due."""
    found = list(tiers.namespace_problems(_PROGRAMS))
    if found or is_cached():
        return tuple(found)
    if not roots.is_helper_cached(SUITE, PACKAGES):
        problem = roots.archive_problem(SUITE)
        found += [problem] if problem else []
    try:
        windows_python.python_archive()
        windows_python.wheels(windows_python.RUNTIME_REQUIREMENTS, TEST_REQUIREMENTS)
    except windows_python.ProvenanceError as failure:
        found.append(f"Python for Windows ({failure})")
    return tuple(found)


def template_facts() -> dict[str, object]:
    """What the prefix is made of."""
    files = [INSIDE / "prepare.py", windows_python.RUNTIME_REQUIREMENTS, TEST_REQUIREMENTS]
    return {
        "tree": roots.helper_facts(SUITE, PACKAGES),
        "settings": _SETTINGS,
        "script": _MAKE,
        "pins": [str(pin) for pin in windows_python.pins()],
        "python": os.environ.get("GUEST_WINDOWS_PYTHON", ""),
        "files": {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files},
    }


def _build_template(tree: Path) -> None:
    base = root()
    upper = tree / "upper"
    upper.mkdir()
    upper.chmod(0o755)
    parts = tree / "parts"
    files = parts / "files"
    files.mkdir(parents=True)
    (parts / "mnt").mkdir()
    windows_python.unpack_python(files / "py")
    packages = files / "py" / "Lib" / "site-packages"
    wheels = windows_python.wheels(windows_python.RUNTIME_REQUIREMENTS, TEST_REQUIREMENTS)
    windows_python.install_wheels(wheels, packages)
    (files / "settings.reg").write_text(_SETTINGS.replace("\n", "\r\n"), encoding="ascii")
    shutil.copyfile(INSIDE / "prepare.py", files / "prepare.py")
    run_command(
        [
            *("unshare", "--mount", "--pid", "--net", "--uts", "--ipc", "--fork", "--kill-child"),
            *("sh", "-c", _MAKE, "make-prefix", str(base), str(upper), str(parts)),
        ],
        purpose="make the Windows prefix of the Wine beds",
        timeout=_TIMEOUT,
    )
    cache.remove_tree(parts)
    cache.remove_tree(tree / "upper.work")
