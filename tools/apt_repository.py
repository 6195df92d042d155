"""An apt repository with signed, dated indexes that can be replaced while machines read them.

    pool/CODENAME/*.deb                                  packages of a suite
    dists/google-compute-engine-CODENAME-stable/
        Release, Release.gpg, InRelease                  the root
        main/binary-ARCH/Packages, .gz, .xz              indexes
        main/binary-ARCH/by-hash/{SHA256,SHA512}/...     the same, and those of earlier states
        states.json                                      see repository_states
    google-compute-engine-CODENAME-stable.sources        what a machine needs to use it
    google-guest-environment.asc                         the public key
    published.sha256                                     see repository_states

apt-ftparchive writes the entries of Packages: it is apt's own reader of packages and knows fields
and their order. It gets the whole pool and its answer is divided here, because it lists packages
for all architectures apart from those of one, where arm64 machines would not look, and knows
nothing of keeping some versions. The Release file is written here, because apt-ftparchive dates it
with the clock, so that no two would be equal, and its by-hash folders forget by the clock, too.

A Release that lists SHA512 makes apt ask for by-hash/SHA512 (the strongest sum counts), so both are
there. Facts of the formats: apt's documentation, DebianRepository/Format.
"""

from __future__ import annotations

import datetime
import email.utils
import gzip
import hashlib
import lzma
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import repository_states as states
from repository_states import Options, RepositoryError

NAME = "google-guest-environment"
COMPONENT = "main"
ARCHITECTURES = ("amd64", "arm64")
LIFETIME = 14 * 24 * 3600
"""Seconds from Date to Valid-Until."""
ROOT = "Release"
_ALL = "all"
_SUMS = {"SHA256": hashlib.sha256, "SHA512": hashlib.sha512}
_CODENAME = re.compile(r"[a-z][a-z0-9.-]*")


@dataclass(frozen=True)
class Deb:
    """A package file."""

    path: Path
    name: str
    version: str
    architecture: str

    @property
    def file_name(self) -> str:
        """Its name in a pool; dpkg leaves the epoch out."""
        return (
            f"{self.name}_{self.version.partition(':')[2] or self.version}_{self.architecture}.deb"
        )


def suite_of(codename: str) -> str:
    if not _CODENAME.fullmatch(codename):
        raise RepositoryError(f"{codename!r} is no release's code name, such as bookworm")
    return f"google-compute-engine-{codename}-stable"


def codenames(top: Path) -> list[str]:
    """The releases that a repository has suites for; RepositoryError if there is none."""
    found = [path.name for path in (top / "dists").glob("google-compute-engine-*-stable")]
    if not found:
        raise RepositoryError(f"{top} has no suite")
    return sorted(name[len("google-compute-engine-") : -len("-stable")] for name in found)


def update(top: Path, codename: str, files: Sequence[Path], options: Options) -> list[str]:
    """Adds packages to a suite and writes its indexes; what to tell, a line each.

    Without packages the suite is only dated and signed anew. What is published under a name already
    must be the same; an older state stays readable. Raises RepositoryError and SigningError.
    """
    suite = suite_of(codename)
    check_signing(top / "dists" / suite, options)
    check_date(top / "dists" / suite / ROOT, options.date)
    debs = [read_deb(path) for path in files]
    ledger = states.Ledger(top / states.LEDGER)
    for deb in debs:
        _check(deb)
        ledger.add(deb.file_name, states.digest_of(deb.path))
    # First: what is interrupted here has promised the names.
    ledger.save()
    for deb in debs:
        states.place(deb.path, top / "pool" / codename / deb.file_name, time=options.date)
    entries = kept(pool_entries(top, codename), options.keep_versions)
    if not entries:
        raise RepositoryError(f"{suite} has no package")
    removed = _write(top, suite, entries, options)
    _write_snippet(top, suite, options)
    listed = {entry.file_name for entry in entries}
    left_out = sorted(deb.file_name for deb in debs if deb.file_name not in listed)
    return [
        f"{suite}: {len(entries)} packages, {len(removed)} files of earlier states removed",
        *(f"{name}: older than the {options.keep_versions} versions kept" for name in left_out),
    ]


def read_deb(path: Path) -> Deb:
    """What a package file says of itself; RepositoryError if it is none."""
    if not path.is_file():
        raise RepositoryError(f"{path}: there is no such file")
    said = states.run(["dpkg-deb", "-f", str(path), "Package", "Version", "Architecture"])
    fields = dict(line.split(": ", 1) for line in said.splitlines() if ": " in line)
    try:
        return Deb(path, fields["Package"], fields["Version"], fields["Architecture"])
    except KeyError as missing:
        raise RepositoryError(f"{path}: the package has no field {missing}") from None


def _check(deb: Deb) -> None:
    if deb.architecture not in (_ALL, *ARCHITECTURES):
        raise RepositoryError(
            f"{deb.path} is for {deb.architecture}; the repository has {', '.join(ARCHITECTURES)}"
        )
    states.check_beats_others(
        "deb", deb.name, deb.version, is_greater=states.is_greater_deb, epoch=1
    )


def check_signing(folder: Path, options: Options) -> None:
    """A repository that was signed stays signed: machines that trust its key take nothing else."""
    if options.signer is None and (folder / "InRelease").exists():
        raise RepositoryError(f"{folder} is signed; it cannot become unsigned")


def check_date(release: Path, date: int) -> None:
    """apt keeps what it has when a Release is older than that, without a word."""
    if not release.exists():
        return
    match = re.search(r"^Date: (.*)$", release.read_text(), re.MULTILINE)
    if match is None:
        raise RepositoryError(f"{release} has no Date")
    before = int(email.utils.parsedate_to_datetime(match[1]).timestamp())
    if date < before:
        raise RepositoryError(
            f"{release} is of {match[1]} and would become older, which apt ignores; give --date now"
        )


@dataclass(frozen=True)
class Entry:
    """A paragraph of Packages."""

    text: str
    name: str
    version: str
    architecture: str
    path: str
    """Of the package, below the top."""

    @property
    def file_name(self) -> str:
        return self.path.rpartition("/")[2]


def pool_entries(top: Path, codename: str) -> list[Entry]:
    """Every package of a pool, sorted by path."""
    pool = top / "pool" / codename
    pool.mkdir(parents=True, exist_ok=True)
    without = [f"APT::FTPArchive::{name}=false" for name in ("MD5", "SHA1")]
    options = [word for setting in without for word in ("-o", setting)]
    said = states.run(["apt-ftparchive", *options, "packages", f"pool/{codename}"], folder=top)
    entries = [_entry(text) for text in said.split("\n\n") if text.strip()]
    files = {path.relative_to(top).as_posix() for path in pool.glob("*.deb")}
    unread = files - {entry.path for entry in entries}
    if unread:
        raise RepositoryError(f"apt-ftparchive does not read {', '.join(sorted(unread))}")
    return sorted(entries, key=lambda entry: entry.path)


def _entry(text: str) -> Entry:
    fields = dict(re.findall(r"^([\w-]+): (.*)$", text, re.MULTILINE))
    return Entry(
        text.strip("\n") + "\n",
        fields["Package"],
        fields["Version"],
        fields["Architecture"],
        fields["Filename"],
    )


def kept(entries: Iterable[Entry], versions: int) -> list[Entry]:
    """The newest versions of every package for every architecture, in the same order."""
    entries = list(entries)
    by_package: dict[tuple[str, str], list[str]] = {}
    for entry in entries:
        by_package.setdefault((entry.name, entry.architecture), []).append(entry.version)
    newest = {
        key: states.newest_first(found, states.is_greater_deb)[:versions]
        for key, found in by_package.items()
    }
    return [e for e in entries if e.version in newest[(e.name, e.architecture)]]


def indexes(entries: Sequence[Entry]) -> dict[str, bytes]:
    """Every index of a suite by its path below the suite's folder.

    Packages for all architectures are in every index, which the Release says: machines then read
    one index, and old ones find them.
    """
    made = {}
    for architecture in (_ALL, *ARCHITECTURES):
        wanted = [e.text for e in entries if e.architecture in (architecture, _ALL)]
        text = "\n".join(wanted).encode()
        path = f"{COMPONENT}/binary-{architecture}/Packages"
        made[path] = text
        made[f"{path}.gz"] = gzip.compress(text, mtime=0)
        made[f"{path}.xz"] = lzma.compress(text)
    return made


def release_text(suite: str, files: dict[str, bytes], *, date: int) -> str:
    """The Release file of a suite with these indexes."""
    lines = [
        f"Origin: {NAME}",
        f"Label: {NAME}",
        f"Suite: {suite}",
        f"Codename: {suite}",
        f"Date: {_date(date)}",
        f"Valid-Until: {_date(date + LIFETIME)}",
        "Acquire-By-Hash: yes",
        f"No-Support-for-Architecture-{_ALL}: Packages",
        f"Architectures: {' '.join((_ALL, *ARCHITECTURES))}",
        f"Components: {COMPONENT}",
        "Description: Guest environment of Compute Engine instances",
    ]
    for sum_name, digest in _SUMS.items():
        lines.append(f"{sum_name}:")
        lines += [
            f" {digest(files[path]).hexdigest()} {len(files[path]):>8} {path}"
            for path in sorted(files)
        ]
    return "\n".join(lines) + "\n"


def _date(moment: int) -> str:
    when = datetime.datetime.fromtimestamp(moment, datetime.timezone.utc)
    return email.utils.format_datetime(when.replace(tzinfo=None)).replace("-0000", "UTC")


def by_hash_paths(path: str, data: bytes) -> list[str]:
    """Where an index is under names made of its content."""
    folder = path.rpartition("/")[0]
    return [f"{folder}/by-hash/{name}/{make(data).hexdigest()}" for name, make in _SUMS.items()]


def _write(top: Path, suite: str, entries: Sequence[Entry], options: Options) -> list[Path]:
    """Writes a suite, its root last, then removes what no kept state names."""
    folder = top / "dists" / suite
    files = indexes(entries)
    by_hash = {name: data for path, data in files.items() for name in by_hash_paths(path, data)}
    for path, data in (*by_hash.items(), *files.items()):
        states.write_changed(folder / path, data)
    text = release_text(suite, files, date=options.date).encode()
    states.write_changed(folder / ROOT, text)
    if options.signer is not None:
        states.write_changed(folder / "Release.gpg", options.signer.detached(text))
        states.write_changed(folder / "InRelease", options.signer.clearsigned(text))
    before = states.read_history(folder, ROOT)
    named = {*by_hash, *(f"../../{entry.path}" for entry in entries)}
    digest = hashlib.sha256(text).hexdigest()
    history = before.with_state(digest, named, keep=options.keep_states)
    states.write_changed(folder / states.STATES, history.text().encode())
    return states.remove_unnamed(folder, before, history)


def _write_snippet(top: Path, suite: str, options: Options) -> None:
    """The source that machines use, and the key that they trust for this repository alone."""
    keyring = f"/usr/share/keyrings/{states.KEY_FILE}"
    trust = [f"Signed-By: {keyring}"]
    first = [
        f"# The key comes first, as {keyring}:",
        f"#   curl -fsSLo {keyring} {options.url}/{states.KEY_FILE}",
    ]
    if options.signer is None:
        first, trust = ["# This repository is not signed: for trials only."], ["Trusted: yes"]
    else:
        first.append(f"# Its fingerprint is {options.signer.fingerprint}.")
        states.write_changed(top / states.KEY_FILE, options.signer.public_key())
    lines = [
        f"# /etc/apt/sources.list.d/{suite}.sources",
        *first,
        "Types: deb",
        f"URIs: {options.url}",
        f"Suites: {suite}",
        f"Components: {COMPONENT}",
        *trust,
    ]
    states.write_changed(top / f"{suite}.sources", ("\n".join(lines) + "\n").encode())
