"""A yum repository, for dnf and zypper: signed packages and a signed index.

    google-compute-engine-TARGET-ARCH-stable/
        Packages/*.rpm                        signed copies; what is handed in stays as it is
        repodata/repomd.xml, repomd.xml.asc   the root and its signature
        repodata/CHECKSUM-primary.xml.gz ...  indexes, also those of earlier states
        repodata/states.json                  see repository_states
        published.sha256                      sums of the packages before they were signed
        google-guest-environment.asc          the public keys
        google-compute-engine-TARGET-ARCH-stable.repo

createrepo_c writes the indexes. Their times and the packages' are set, so that the same unsigned
packages give the same bytes; signatures differ each time, which is why a package that is there
already is never signed again. There are two signatures: a package's (`gpgcheck`, for zypper also
`pkg_gpgcheck`) and the index's (`repo_gpgcheck`), and the index has the sums of the signed
packages, so packages come first.

repomd.xml and its signature are two files, and dnf reads them in the other order than zypper: a
machine that comes between their two replacements refuses the index and asks again later. One
signature file for both states would close the gap; zypper refuses that.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import repository_states as states
from repository_states import Options, RepositoryError
from signing import GPG, Signer

ROOT = "repomd.xml"
PACKAGES = "Packages"
METADATA = "repodata"
NOARCH = "noarch"
ARCHITECTURES = ("x86_64", "aarch64")
_SUSE = "google-compute-engine-sles"
_TARGET = re.compile(r"[a-z][a-z0-9]*")
_FIELDS = ("NAME", "EPOCHNUM", "VERSION", "RELEASE", "ARCH", "BUILDTIME", "SOURCERPM")


@dataclass(frozen=True)
class Rpm:
    """A package file."""

    path: Path
    name: str
    version: str
    """EPOCH:VERSION-RELEASE."""
    architecture: str
    built: int
    """Unix time."""

    @property
    def file_name(self) -> str:
        return f"{self.name}-{self.version.partition(':')[2]}.{self.architecture}.rpm"


def folder_name(target: str, architecture: str) -> str:
    if not _TARGET.fullmatch(target):
        raise RepositoryError(f"{target!r} is no target, such as el9")
    return f"google-compute-engine-{target}-{architecture}-stable"


def folder_names(top: Path, target: str) -> list[str]:
    """The repositories of a target that are there."""
    names = (folder_name(target, architecture) for architecture in ARCHITECTURES)
    return [name for name in names if (top / name).is_dir()]


def by_architecture(rpms: Iterable[Rpm], *, default: str) -> dict[str, list[Rpm]]:
    """Which packages each architecture's repository gets: those for all are in every one."""
    rpms = list(rpms)
    own = sorted({rpm.architecture for rpm in rpms} - {NOARCH})
    unknown = set(own) - set(ARCHITECTURES)
    if unknown:
        raise RepositoryError(f"there is no repository for {', '.join(sorted(unknown))}")
    return {
        architecture: [rpm for rpm in rpms if rpm.architecture in (architecture, NOARCH)]
        for architecture in own or [default]
    }


def update(top: Path, name: str, rpms: Sequence[Rpm], options: Options) -> list[str]:
    """Adds packages to the repository ``top/name`` and writes its index; a line to tell.

    Without packages the index is dated and signed anew. Raises RepositoryError and SigningError.
    """
    folder = top / name
    _check_root(folder / METADATA, options)
    ledger = states.Ledger(folder / states.LEDGER)
    for rpm in rpms:
        states.check_beats_others(
            "rpm", rpm.name, rpm.version, is_greater=states.is_greater_rpm, epoch=2
        )
        ledger.add(rpm.file_name, states.digest_of(rpm.path))
    if not (rpms or (folder / PACKAGES).is_dir()):
        raise RepositoryError(f"{name} has no package")
    ledger.save()
    with tempfile.TemporaryDirectory(prefix="yum-") as work:
        for rpm in rpms:
            _add(rpm, folder / PACKAGES, Path(work), options)
        listed = kept(_published(folder), options.keep_versions)
        made = _created(folder, listed, Path(work), options.date)
        removed = _write(folder, made, listed, options)
    _write_repo_file(folder, options)
    return [f"{name}: {len(listed)} packages, {len(removed)} files of earlier states removed"]


def read_rpm(path: Path) -> Rpm:
    """What a package file says of itself; RepositoryError if it is none, or a source package."""
    if not path.is_file():
        raise RepositoryError(f"{path}: there is no such file")
    question = "\t".join(f"%{{{field}}}" for field in _FIELDS)
    said = states.run(["rpm", "-qp", "--nosignature", "--qf", question, str(path)])
    name, epoch, version, release, architecture, built, source = said.split("\t")
    if source == "(none)":
        raise RepositoryError(f"{path} is a source package; the repository has binary ones")
    return Rpm(path, name, f"{epoch}:{version}-{release}", architecture, int(built))


def kept(rpms: Iterable[Rpm], versions: int) -> list[Rpm]:
    """The newest versions of every package for every architecture, sorted by file name."""
    rpms = list(rpms)
    by_package: dict[tuple[str, str], list[str]] = {}
    for rpm in rpms:
        by_package.setdefault((rpm.name, rpm.architecture), []).append(rpm.version)
    newest = {
        key: states.newest_first(found, states.is_greater_rpm)[:versions]
        for key, found in by_package.items()
    }
    wanted = [rpm for rpm in rpms if rpm.version in newest[(rpm.name, rpm.architecture)]]
    return sorted(wanted, key=lambda rpm: rpm.file_name)


def _check_root(metadata: Path, options: Options) -> None:
    """Refuses a date that would go backwards, and a mixture of signed and unsigned."""
    root = metadata / ROOT
    if not root.exists():
        return
    match = re.search(r"<revision>(\d+)</revision>", root.read_text())
    if match is not None and options.date < int(match[1]):
        raise RepositoryError(f"{root} would become older than it is; give --date now")
    if (options.signer is not None) != root.with_name(f"{ROOT}.asc").exists():
        was = "unsigned" if options.signer else "signed"
        raise RepositoryError(f"{metadata.parent} is {was} and stays so; make another folder")


def _add(rpm: Rpm, packages: Path, work: Path, options: Options) -> None:
    """Puts a package, or a signed copy of it, among the published ones."""
    target = packages / rpm.file_name
    if target.exists():
        return
    copy = work / rpm.file_name
    shutil.copyfile(rpm.path, copy)
    if options.signer is not None:
        sign_rpm(copy, options.signer)
    states.place(copy, target, time=rpm.built)


def sign_rpm(path: Path, signer: Signer) -> None:
    """Signs a package in its place."""
    # Debian's rpm expects gpg elsewhere than it is.
    macros = {"__gpg": GPG, "_gpg_name": signer.fingerprint, "_gpg_digest_algo": "sha256"}
    if signer.home:
        macros["_gpg_path"] = signer.home
    defines = [word for name, value in macros.items() for word in ("--define", f"{name} {value}")]
    command = ["rpmsign", "--addsign", *defines, str(path)]
    states.run(command, environment=signer.environment())


def _published(folder: Path) -> list[Rpm]:
    return [read_rpm(path) for path in sorted((folder / PACKAGES).glob("*.rpm"))]


def _created(folder: Path, rpms: Sequence[Rpm], work: Path, date: int) -> Path:
    """The folder with the indexes that createrepo_c makes of the packages."""
    for rpm in rpms:
        # A copy from elsewhere may have other times, which would be in the index.
        os.utime(rpm.path, (rpm.built, rpm.built))
    listing = work / "packages"
    listing.write_text("".join(f"{PACKAGES}/{rpm.file_name}\n" for rpm in rpms))
    command = [
        *("createrepo_c", "--quiet", "--no-database", "--unique-md-filenames"),
        *("--checksum", "sha256", "--general-compress-type", "gz"),
        *("--revision", str(date), "--set-timestamp-to-revision"),
        *("--pkglist", str(listing), "--outputdir", str(work), str(folder)),
    ]
    states.run(command)
    return work / METADATA


def _write(folder: Path, made: Path, rpms: Sequence[Rpm], options: Options) -> list[Path]:
    """Puts the indexes in place, the root last, and removes what no kept state names."""
    metadata = folder / METADATA
    indexes = sorted(path.name for path in made.iterdir() if path.name != ROOT)
    for name in indexes:
        states.write_changed(metadata / name, (made / name).read_bytes())
    root = (made / ROOT).read_bytes()
    states.write_changed(metadata / ROOT, root)
    if options.signer is not None:
        states.write_changed(metadata / f"{ROOT}.asc", options.signer.detached(root))
    before = states.read_history(metadata, ROOT)
    named = [*indexes, *(f"../{PACKAGES}/{rpm.file_name}" for rpm in rpms)]
    digest = hashlib.sha256(root).hexdigest()
    history = before.with_state(digest, named, keep=options.keep_states)
    states.write_changed(metadata / states.STATES, history.text().encode())
    return states.remove_unnamed(metadata, before, history)


def _write_repo_file(folder: Path, options: Options) -> None:
    """What a machine needs: the repository's section, and the keys that it trusts for it."""
    name = folder.name
    lines = [
        f"# {'/etc/zypp/repos.d' if name.startswith(_SUSE) else '/etc/yum.repos.d'}/{name}.repo",
        f"[{name}]",
        "name=Guest environment of Compute Engine instances",
        f"baseurl={options.url}/{name}",
        "enabled=1",
        f"gpgcheck={int(options.signer is not None)}",
        f"repo_gpgcheck={int(options.signer is not None)}",
    ]
    if options.signer is not None:
        if name.startswith(_SUSE):
            # With a signed index zypper takes unsigned packages unless it is told not to.
            lines.append("pkg_gpgcheck=1")
        lines.insert(1, f"# The key's fingerprint is {options.signer.fingerprint}.")
        lines.append(f"gpgkey={options.url}/{name}/{states.KEY_FILE}")
        keys = folder / states.KEY_FILE
        # Packages that an earlier key has signed stay.
        known = keys.read_bytes() if keys.exists() else b""
        key = options.signer.public_key()
        states.write_changed(keys, known if key in known else known + key)
    states.write_changed(folder / f"{name}.repo", ("\n".join(lines) + "\n").encode())
