"""Root trees of the beds: a distribution's base, and layers with our packages installed on it.

Reads: the host's apt sources, for the mirror it already uses; GUEST_UBUNTU_MIRROR for Ubuntu's, and
GUEST_UBUNTU_KEYRING where Debian has no package of its keys.  Writes: the artifact cache.

A base is what mmdebstrap makes of the archive: the distribution's own packages with their own
maintainer scripts, never touched by a bed (beds stack an overlay on it).  A layer is the upper
directory of a run that installed .deb files with dpkg in a base, without a running systemd; it
is stacked between the base and the bed.  Mounts made on the way live in a private mount
namespace, so that a killed builder leaves none.
"""

from __future__ import annotations

import hashlib
import os
import re
import urllib.error
import urllib.request
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Optional

from support import cache
from support.commands import run_command

DEBIAN_SUITES = ("bullseye", "bookworm", "trixie")
UBUNTU_SUITES = ("jammy", "noble")

BASE_PACKAGES = (
    # what an instance of Compute Engine has
    "systemd",
    "systemd-sysv",
    "dbus",
    "udev",
    "openssh-server",
    "iproute2",
    "python3",
    "rsyslog",
    "sudo",
    "kmod",
    "procps",
    "curl",
    "ca-certificates",
    "ifupdown",
    "isc-dhcp-client",
    "nftables",
    "libpam-systemd",
    "libnss-myhostname",
    # what our packages depend on, so that installing them needs no network
    "python3-yaml",
    "python3-urllib3",
    "nvme-cli",
    "fdisk",
    "e2fsprogs",
    # what tests look with
    "strace",
)

QUIET_UNITS = (
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "logrotate.timer",
    "man-db.timer",
    "motd-news.timer",
    "nvmf-autoconnect.service",
)
"""Housekeeping that would start at a random moment of a test, and what needs kernel modules."""

_BUILD_TIMEOUT = 900.0

_INSTALL = """
set -eu
base=$1 upper=$2 debs=$3
mount --make-rprivate /
mount -t tmpfs none "$debs/mnt"
mkdir "$debs/mnt/work" "$debs/mnt/root"
mkdir "$upper.work"
mount -t overlay none "$debs/mnt/root" \\
  -o "lowerdir=$base,upperdir=$upper,workdir=$upper.work"
root=$debs/mnt/root
mount -t proc proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys"
mount --rbind /dev "$root/dev"
mount -t tmpfs tmpfs "$root/run"
mount -t tmpfs tmpfs "$root/tmp"
mkdir "$root/tmp/debs"
mount --bind -o ro "$debs/files" "$root/tmp/debs"
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 \\
  DEBIAN_FRONTEND=noninteractive \\
  chroot "$root" sh -c 'exec dpkg -i /tmp/debs/*.deb'
"""


def base(suite: str, *, extra: Sequence[str] = ()) -> Path:
    """The root tree of `suite` with BASE_PACKAGES and `extra`; read-only for its users.

    The first call of a week takes 30 to 60 s and the archive, each later one some milliseconds.
    """
    return cache.artifact("base", _base_facts(suite, extra), _BaseBuild(suite, extra)).tree


def is_base_cached(suite: str, *, extra: Sequence[str] = ()) -> bool:
    """Whether `base` would succeed without network."""
    return cache.cached("base", _base_facts(suite, extra))


def helper(suite: str, packages: Sequence[str]) -> Path:
    """A root tree for programs alone: what apt needs and `packages`; read-only for its users."""
    return cache.artifact(
        "helper", helper_facts(suite, packages), _HelperBuild(suite, packages)
    ).tree


def is_helper_cached(suite: str, packages: Sequence[str]) -> bool:
    """Whether `helper` would succeed without network."""
    return cache.cached("helper", helper_facts(suite, packages))


def helper_facts(suite: str, packages: Sequence[str]) -> dict[str, object]:
    """What the tree of `helper` is made of."""
    return {"suite": suite, "packages": sorted(packages), "variant": "apt"}


def layer(suite: str, debs: Sequence[Path], *, extra: Sequence[str] = ()) -> Path:
    """The upper directory of a run that installed `debs` in `base(suite)`.

    Raises CommandFailed with dpkg's words when they do not install: a missing dependency belongs
    in BASE_PACKAGES or in `extra`.
    """
    root = base(suite, extra=extra)
    facts = {
        "base": cache.artifact_key(_base_facts(suite, extra)),
        "base built": os.stat(root.parent / "facts.json").st_mtime_ns,
        "debs": sorted((deb.name, _sha256(deb)) for deb in debs),
        "hooks": _INSTALL,
    }
    return cache.artifact("layer", facts, _LayerBuild(root, tuple(debs))).tree / "upper"


def archive_problem(suite: str) -> Optional[str]:
    """Why the archive of `suite` cannot be used, or None.  One small request."""
    mirror = _mirror(suite)
    if mirror is None:
        hint = " (GUEST_UBUNTU_MIRROR=URL)" if suite in UBUNTU_SUITES else ""
        return f"no package mirror is configured for {suite}{hint}"
    try:
        with urllib.request.urlopen(f"{mirror}/dists/{suite}/InRelease", timeout=10) as answer:
            answer.read(1)
    except (urllib.error.URLError, OSError) as failure:
        return f"the package archive does not answer for {suite}: {failure}"
    return None


class _BaseBuild:
    """Fills a directory with a suite's base tree."""

    def __init__(self, suite: str, extra: Sequence[str]) -> None:
        self._suite = suite
        self._extra = tuple(extra)

    def __call__(self, tree: Path) -> None:
        bootstrap(
            self._suite,
            tree,
            "--variant=important",
            "--include=" + ",".join((*BASE_PACKAGES, *self._extra)),
            *_mask_hooks(),
        )


class _HelperBuild:
    """Fills a directory with a tree for programs."""

    def __init__(self, suite: str, packages: Sequence[str]) -> None:
        self._suite = suite
        self._packages = tuple(packages)

    def __call__(self, tree: Path) -> None:
        bootstrap(self._suite, tree, "--variant=apt", "--include=" + ",".join(self._packages))


class _LayerBuild:
    """Fills a directory with what installing packages changed in a base."""

    def __init__(self, root: Path, debs: tuple[Path, ...]) -> None:
        self._root = root
        self._debs = debs

    def __call__(self, tree: Path) -> None:
        upper = tree / "upper"
        upper.mkdir()
        upper.chmod(0o755)
        parts = tree / "parts"
        (parts / "files").mkdir(parents=True)
        (parts / "mnt").mkdir()
        for deb in self._debs:
            os.link(deb, parts / "files" / deb.name) if _same_device(deb, tree) else (
                (parts / "files" / deb.name).write_bytes(deb.read_bytes())
            )
        run_command(
            [
                *("unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", _INSTALL),
                *("install-layer", str(self._root), str(upper), str(parts)),
            ],
            purpose="install " + ", ".join(deb.name for deb in self._debs),
            timeout=180,
        )
        cache.remove_tree(parts)
        cache.remove_tree(tree / "upper.work")


def bootstrap(suite: str, tree: Path, *options: str) -> None:
    """Run mmdebstrap for `suite` into the empty directory `tree`."""
    mirror = _mirror(suite)
    options = (*options, *_distribution_options(suite))
    run_command(
        [
            *("unshare", "--mount", "--pid", "--fork", "--kill-child"),
            *("mmdebstrap", "--mode=root", "--quiet"),
            '--aptopt=Apt::Install-Recommends "false"',
            *options,
            suite,
            str(tree),
            *([mirror] if mirror else []),
        ],
        purpose=f"make the {suite} tree",
        timeout=_BUILD_TIMEOUT,
    )


def _base_facts(suite: str, extra: Sequence[str]) -> dict[str, object]:
    return {
        "suite": suite,
        "packages": sorted({*BASE_PACKAGES, *extra}),
        "hooks": [_mask_hooks(), _distribution_options(suite)],
    }


def _mask_hooks() -> list[str]:
    links = "; ".join(f'ln -sf /dev/null "$1/etc/systemd/system/{unit}"' for unit in QUIET_UNITS)
    return [f"--customize-hook={links}"]


def _distribution_options(suite: str) -> list[str]:
    if suite in UBUNTU_SUITES:
        keyring = os.environ.get("GUEST_UBUNTU_KEYRING")
        return ["--components=main,universe", *([f"--keyring={keyring}"] if keyring else [])]
    return []


def _mirror(suite: str) -> Optional[str]:
    if suite in UBUNTU_SUITES:
        return os.environ.get("GUEST_UBUNTU_MIRROR") or os.environ.get("GUEST_TEST_UBUNTU_MIRROR")
    return debian_mirror(_apt_sources())


def debian_mirror(sources: Iterable[str]) -> Optional[str]:
    """The first Debian archive (not its security part) named in texts of apt sources.

    Understands one-line sources (sources.list(5)) and deb822 ones.  None: the host names none,
    and mmdebstrap's own default is right.
    """
    for text in sources:
        for line in text.splitlines():
            if line.lstrip().startswith("#"):
                continue
            match = re.match(r"(?:deb\s+(?:\[[^]]*\]\s+)?|URIs:\s*)(\S+/debian)/?(?:\s|$)", line)
            if match:
                return match.group(1)
    return None


def _apt_sources() -> list[str]:
    folder = Path("/etc/apt")
    files = [folder / "sources.list", *sorted((folder / "sources.list.d").glob("*"))]
    return [file.read_text(errors="replace") for file in files if file.is_file()]


def _same_device(first: Path, second: Path) -> bool:
    return first.stat().st_dev == second.stat().st_dev


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
