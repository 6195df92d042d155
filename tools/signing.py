"""The key that signs repositories and rpm packages, and what it signs, by gpg.

The key comes from the environment and never from the tree:

    GUEST_GPG_KEY        a fingerprint or user id in the caller's own keyring, whose agent has the
                         secret
    GUEST_GPG_KEY_FILE   a file with one secret key, armored or not, outside the tree; it is
                         imported into a GNUPGHOME that is removed again

A key file must not need a passphrase, because nobody is there to give one; a key that has one
belongs in a keyring, whose agent asks.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import release

sys.path.insert(0, str(release.TOP / "src"))

from google_guest.errors import GuestError

KEY = "GUEST_GPG_KEY"
KEY_FILE = "GUEST_GPG_KEY_FILE"
GPG = "/usr/bin/gpg"
_TIMEOUT = 300.0
"""Seconds; somebody may have to type a passphrase."""
_USELESS = {"e": "has expired", "r": "is revoked", "i": "is invalid", "d": "is disabled"}
_RSA = "1"


class SigningError(GuestError):
    """There is no key, or it does not sign."""


@dataclass(frozen=True)
class Signer:
    """One secret key in one keyring."""

    fingerprint: str
    is_rsa: bool
    home: str = ""
    """GNUPGHOME; empty for the caller's own."""

    def clearsigned(self, text: bytes) -> bytes:
        """The text with its signature around it, as in InRelease."""
        return self._run("--clearsign", data=text)

    def detached(self, data: bytes) -> bytes:
        """An armored signature of the data."""
        return self._run("--armor", "--detach-sign", data=data)

    def public_key(self) -> bytes:
        """The armored public key, without what others say of it."""
        return self._run("--armor", "--export-options", "export-minimal", "--export")

    def environment(self) -> dict[str, str]:
        """What gpg needs of its caller."""
        return _environment(self.home)

    def _run(self, *arguments: str, data: bytes = b"") -> bytes:
        options = ("--digest-algo", "SHA512", "--local-user", f"{self.fingerprint}!")
        names = (f"{self.fingerprint}!",) if "--export" in arguments else ()
        return _gpg((*options, *arguments, *names), home=self.home, data=data)


@contextmanager
def signer(
    *, unsigned: bool = False, environment: Mapping[str, str] = os.environ
) -> Iterator[Signer | None]:
    """The key of the environment; None when there is none and ``unsigned`` permits that.

    Raises SigningError for no key, a wrong one, more than one, or one in the tree.
    """
    key, file = environment.get(KEY, ""), environment.get(KEY_FILE, "")
    if key and file:
        raise SigningError(f"{KEY} and {KEY_FILE} are both set; only one can sign")
    if not (key or file):
        if not unsigned:
            raise SigningError(
                f"no key: set {KEY} or {KEY_FILE}, or give --unsigned for a repository that"
                " machines must be told to trust"
            )
        yield None
    elif key:
        yield _only_key(key, home="", source=f"{KEY}={key}")
    else:
        with _imported(Path(file)) as home:
            yield _only_key("", home=home, source=f"{KEY_FILE}={file}")


@contextmanager
def _imported(file: Path) -> Iterator[str]:
    """A keyring that holds the keys of a file, until the block ends."""
    if not file.is_file():
        raise SigningError(f"{KEY_FILE}={file}: there is no such file")
    if file.resolve().is_relative_to(release.TOP.resolve()):
        raise SigningError(f"{KEY_FILE}={file} is in the tree; keep secret keys elsewhere")
    # Short, because the agent's socket is in it.
    home = tempfile.mkdtemp(prefix="gpg-")
    try:
        _gpg(("--import",), home=home, data=file.read_bytes(), what=f"{KEY_FILE}={file}: no keys")
        yield home
    finally:
        kill = ["gpgconf", "--homedir", home, "--kill", "all"]
        subprocess.run(kill, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        shutil.rmtree(home, ignore_errors=True)


def _only_key(name: str, *, home: str, source: str) -> Signer:
    """The one secret key that a name means; every secret key for an empty name."""
    listing = _gpg(
        ("--with-colons", "--list-secret-keys", *([name] if name else [])),
        home=home,
        what=f"{source}: no secret key of that name",
    )
    rows = [line.split(":") for line in listing.decode("utf-8", "replace").splitlines()]
    keys = [number for number, row in enumerate(rows) if row[0] == "sec"]
    if not keys:
        raise SigningError(f"{source}: no secret key")
    if len(keys) > 1:
        raise SigningError(f"{source}: {len(keys)} secret keys; name one by its fingerprint")
    row = rows[keys[0]]
    fingerprint = next(later[9] for later in rows[keys[0] :] if later[0] == "fpr")
    if row[1] in _USELESS:
        raise SigningError(f"{source}: key {fingerprint} {_USELESS[row[1]]}")
    if "s" not in row[11]:
        raise SigningError(f"{source}: key {fingerprint} is not for signing")
    return Signer(fingerprint, row[3] == _RSA, home)


def _gpg(
    arguments: tuple[str, ...], *, home: str, data: bytes = b"", what: str = "gpg does not sign"
) -> bytes:
    """What gpg writes to its standard output."""
    # An empty keyring of a file cannot ask anybody; the caller's agent can.
    batch = ("--pinentry-mode", "error") if home else ()
    try:
        done = subprocess.run(
            [GPG, "--batch", "--no-tty", "--quiet", *batch, *arguments],
            input=data,
            capture_output=True,
            env=_environment(home),
            timeout=_TIMEOUT,
            check=False,
        )
    except FileNotFoundError:
        raise SigningError(f"{GPG} is missing: install gpg and gpg-agent") from None
    except subprocess.TimeoutExpired:
        raise SigningError(f"{what}: no answer in {_TIMEOUT:g} s") from None
    if done.returncode != 0:
        lines = done.stderr.decode("utf-8", "replace").split("\n")
        said = [line.strip() for line in lines if line.strip()] or ["no word of gpg"]
        hint = " (a key file must not need a passphrase)" if home and "sign" in what else ""
        raise SigningError(f"{what}: {said[-1]}{hint}")
    return done.stdout


def _environment(home: str) -> dict[str, str]:
    return {**os.environ, "LC_ALL": "C.UTF-8", **({"GNUPGHOME": home} if home else {})}
