"""A system that rpm, dnf and zypper install into, where calls of the service manager are recorded.

It is the root of `rpm_roots` with what an EL or SUSE system has in other places: units are disabled
unless a preset says otherwise, and the modules of the distribution lie where packages of the target
look for them.  Commands that scriptlets call (`RECORDED`) are written down; those that only change
files (presets, enabling) take place, too.  "rpm logic on a Debian userland".
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Optional

from support import rpm_roots
from support.chroot import Chroot
from support.commands import Completed, run_command

RECORDED = (
    *("udevadm", "sysctl", "semodule", "dracut", "systemd-sysusers", "systemd-tmpfiles"),
    *("restorecon", "fixfiles", "load_policy", "modprobe", "mkinitrd"),
)
"""Commands beside systemctl that scriptlets of the families' macros may call."""

_RECORDED_BY_PATH = (
    "usr/lib/systemd/systemd-sysctl",
    "usr/lib/module-init-tools/regenerate-initrd-posttrans",
)

_CALLS = "/media/calls"
MODULES_OF_DEBIAN = "/usr/lib/python3/dist-packages"
OTHERS_MODULES = ("yaml", "urllib3", "six.py")

_SYSTEMCTL = f"""#!/bin/sh
# What only changes files takes place, the rest is written down.
echo "systemctl $*" >>{_CALLS}
case " $* " in
*" is-active "*)
    for unit; do grep -qsx "$unit" /media/active && exit 0; done
    exit 3 ;;
*" is-enabled "* | *" preset "* | *" enable "* | *" disable "* | *" reenable "* | *" mask "*)
    for word; do
        shift
        [ "$word" = --now ] || set -- "$@" "$word"
    done
    SYSTEMD_OFFLINE=1 exec /run/systemctl-of-the-system "$@" ;;
esac
"""
_RECORDER = f"""#!/bin/sh
echo "${{0##*/}} $*" >>{_CALLS}
"""
RPM_FILES: Mapping[str, str] = {
    "/etc/rpm/macros": "%_dbpath /var/lib/rpm\n%_install_langs all\n",
    # An EL or SUSE system enables what its presets name; Debian enables the rest, too.
    "/usr/lib/systemd/system-preset/99-default-disable.preset": "disable *\n",
}
"""What a Debian userland needs so that rpm and units behave as on an rpm distribution."""


class RpmMachine(Chroot):
    """One such system; `folder` as for Chroot.

    `systemd`: it looks as if systemd runs, and its calls are recorded.  `without`: commands that
    the system does not have at all.
    """

    def __init__(
        self,
        folder: Path,
        *,
        layers: Sequence[Path] = (),
        python: str = "",
        systemd: bool = True,
        without: Sequence[str] = (),
    ) -> None:
        trees = [*layers, rpm_roots.rpm_base()]
        super().__init__(trees, folder, recorded_systemctl=systemd)
        (folder / "systemctl").write_text(_SYSTEMCTL)
        self._media = folder / "media"
        upper = folder / "upper"
        for name in RECORDED:
            for place in ("usr/bin", "usr/sbin") if name not in without else ():
                _put(upper / place / name, _RECORDER, mode=0o755)
        for path in _RECORDED_BY_PATH:
            if Path(path).name not in without:
                _put(upper / path, _RECORDER, mode=0o755)
        for path, text in RPM_FILES.items():
            _put(upper / path.lstrip("/"), text)
        if without:
            self.shell("rm -f " + " ".join(f"/usr/bin/{name} /usr/sbin/{name}" for name in without))
        if python:
            self.lend_modules(f"/usr/lib/python{python}/site-packages")

    def lend_modules(self, folder: str) -> None:
        """Let Debian's PyYAML and urllib3 be found where a target's packages look for them."""
        links = " ".join(f"{MODULES_OF_DEBIAN}/{name}" for name in OTHERS_MODULES)
        self.shell(f"mkdir -p {folder}; ln -sf {links} {folder}")

    def calls(self) -> list[str]:
        """The recorded commands since the last question, in order, without queries of state."""
        record = self._media / "calls"
        lines = record.read_text().splitlines() if record.exists() else []
        record.unlink(missing_ok=True)
        return [line for line in lines if not {"is-active", "is-enabled"} & set(line.split())]

    def set_active(self, *units: str) -> None:
        """What `systemctl is-active` says of units from now on."""
        (self._media / "active").write_text("".join(f"{unit}\n" for unit in units))

    def rpm(self, *arguments: str, check: bool = True, timeout: float = 120.0) -> Completed:
        return self.run(["rpm", *arguments], check=check, timeout=timeout)

    def install(self, rpms: Iterable[Path], *options: str, check: bool = True) -> Completed:
        """`rpm -U` of package files without their dependencies; returns what it said."""
        names = self.hand_over(rpms)
        plain = ("-U", "--nodeps", "--force-debian")
        return self.rpm(*plain, *options, *names, check=check)

    def erase(self, *names: str, check: bool = True) -> Completed:
        return self.rpm("-e", "--nodeps", "--force-debian", *names, check=check)

    def hand_over(self, rpms: Iterable[Path], folder: str = "rpms") -> list[str]:
        """Copy package files where the system sees them; their paths there."""
        target = self._media / folder
        target.mkdir(exist_ok=True)
        names = []
        for rpm in rpms:
            (target / rpm.name).write_bytes(rpm.read_bytes())
            names.append(f"/media/{folder}/{rpm.name}")
        return names

    def repository(self, rpms: Iterable[Path]) -> str:
        """Make an unsigned repository of package files; its address."""
        self.hand_over(rpms, "repository")
        command = ["createrepo_c", "--quiet", "--no-database", "/media/repository"]
        self.run(command)
        return "file:///media/repository"

    def dnf(self, *arguments: str, check: bool = True) -> Completed:
        """dnf with the repository of :meth:`repository` alone."""
        options = {
            "cachedir": "/var/tmp/dnf",
            "reposdir": "/nowhere",
            "plugins": "0",
            "install_weak_deps": "0",
            "gpgcheck": "0",
        }
        command = [
            "dnf",
            "-y",
            "--releasever=9",
            *(f"--setopt={k}={v}" for k, v in options.items()),
        ]
        where = "--repofrompath=ours,file:///media/repository"
        return self.run([*command, where, *arguments], check=check)

    def zypper(self, *arguments: str, check: bool = True) -> Completed:
        """zypper with the repository of :meth:`repository` alone."""
        command = ["zypper", "--non-interactive", "--no-gpg-checks", "--plus-repo"]
        return self.run([*command, "dir:/media/repository", *arguments], check=check)

    def version(self, name: str) -> Optional[str]:
        """Epoch, version and release of an installed package, or None."""
        form = "%|EPOCH?{%{EPOCH}:}|%{VERSION}-%{RELEASE}"
        done = self.rpm("-q", "--queryformat", form, name, check=False)
        return done.stdout if done.status == 0 else None


def said(done: Completed) -> list[str]:
    """What a command of rpm said, a line each, without Debian's own remark about rpm."""
    remarks = ("use Alien", "assuming you know what you are doing")
    return [
        line
        for line in f"{done.stdout}\n{done.stderr}".splitlines()
        if line.strip() and not any(remark in line for remark in remarks)
    ]


def made_rpm(
    folder: Path,
    name: str,
    version: str,
    *,
    release: str = "1",
    epoch: Optional[int] = None,
    tags: Sequence[str] = (),
    files: Optional[Mapping[str, str]] = None,
    config: Mapping[str, str] = {},
    scripts: Optional[Mapping[str, str]] = None,
) -> Path:
    """A package made of what is given.

    `tags`: further lines of the preamble ("Provides: x"); `config`: those of `files` that are
    configuration, with the word of rpm for it ("%config", "%config(noreplace)"); `scripts`: by the
    name of their section ("post").
    """
    folder.mkdir(parents=True, exist_ok=True)
    source = folder / f"{name}-content"
    listed = []
    for path, text in (files or {}).items():
        _put(source / path.lstrip("/"), text, mode=0o755 if "/bin/" in path else 0o644)
        listed.append(f"{config.get(path, '')} {path}".strip())
    lines = [
        *(f"Name: {name}", f"Version: {version}", f"Release: {release}", "BuildArch: noarch"),
        *((f"Epoch: {epoch}",) if epoch is not None else ()),
        *("Summary: made for a test", "License: none", "AutoReqProv: no", *tags),
        *("%description", "Made for a test."),
        *(
            "%install",
            f"mkdir -p %{{buildroot}}; cp -a {shlex.quote(str(source))}/. %{{buildroot}}",
        ),
        *(line for part, text in (scripts or {}).items() for line in (f"%{part}", text)),
        *("%files", *listed),
    ]
    source.mkdir(exist_ok=True)
    spec = folder / f"{name}.spec"
    spec.write_text("\n".join(lines) + "\n")
    command = ["rpmbuild", "-bb", "--quiet", "--nodeps", "--define", f"_topdir {folder}/build"]
    run_command([*command, "--define", f"_rpmdir {folder}", str(spec)], purpose="make an rpm")
    (made,) = folder.glob(f"noarch/{name}-{version}-{release}.noarch.rpm")
    return made


def stubs_for(rpms: Iterable[Path], folder: Path, *, python: str) -> list[Path]:
    """Packages that stand for a distribution with Python `python`: what `rpms` ask of others.

    All that is asked for besides Python is there in the version that is asked for.
    """
    asked: set[str] = set()
    given: set[str] = set()
    for rpm in rpms:
        asked |= set(_query(rpm, "--requires"))
        given |= {line.split()[0] for line in _query(rpm, "--provides")}
    provided = set()
    for relation in asked:
        name, _, rest = relation.partition(" ")
        own = name in given or re.fullmatch(r"(/usr/bin/)?python3[\d.]*|python\(abi\)", name)
        if relation.startswith(("(", "rpmlib(")) or own:
            continue
        operator, _, version = rest.partition(" ")
        provided.add(f"{name} = {version}" if operator in ("=", ">=") else name)
    abi = ".".join(python.split(".")[:2])
    interpreter = [
        *(f"python(abi) = {abi}", "/usr/bin/python3", f"/usr/bin/python{abi}"),
        *(f"python{abi.replace('.', '')} = {python}", f"python{abi} = {python}"),
    ]
    plain = made_rpm(
        folder, "python3", python, tags=[f"Provides: {entry}" for entry in interpreter]
    )
    tags = [f"Provides: {entry}" for entry in sorted(provided)]
    return [plain, made_rpm(folder, "distribution", "1", tags=tags)]


def _query(rpm: Path, what: str) -> list[str]:
    command = ["rpm", "-qp", "--nosignature", what, str(rpm)]
    return run_command(command, purpose="ask a package").stdout.splitlines()


def _put(path: Path, text: str, *, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
