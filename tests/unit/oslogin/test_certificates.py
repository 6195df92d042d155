"""OpenSSH certificates: those that ssh-keygen makes, and those that nobody should."""

from __future__ import annotations

import base64
import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oslogin.certificates import BadCertificate, Certificate, parse, read

FINGERPRINT = "b86db4d9-2e4a-4f0d-9f0a-6a3f1c2d7e55"
MARK = f"fingerprint@google.com={FINGERPRINT}"


def string(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def certificate(
    kind: str = "ssh-ed25519",
    *,
    key_fields: int = 1,
    principals: tuple[str, ...] = ("fakey",),
    extensions: tuple[str, ...] = (MARK,),
    tail: bytes = b"",
) -> str:
    data = string(f"{kind}-cert-v01@openssh.com".encode()) + string(b"nonce")
    data += string(b"key") * key_fields
    data += struct.pack(">QI", 1, 1) + string(b"key id")
    data += string(b"".join(string(name.encode()) for name in principals))
    data += struct.pack(">QQ", 0, 2**64 - 1) + string(b"")
    data += string(b"".join(string(name.encode()) + string(b"") for name in extensions))
    data += string(b"") + string(b"authority") + string(b"signature") + tail
    return base64.b64encode(data).decode()


KINDS = [
    ("ecdsa-sha2-nistp256", 2),
    ("ecdsa-sha2-nistp384", 2),
    ("ecdsa-sha2-nistp521", 2),
    ("rsa-sha2-256", 2),
    ("rsa-sha2-512", 2),
    ("ssh-dss", 4),
    ("ssh-ed25519", 1),
    ("ssh-rsa", 2),
    ("sk-ecdsa-sha2-nistp256", 3),
    ("sk-ssh-ed25519", 2),
    ("SSH-RSA", 2),
]


@pytest.mark.parametrize(("kind", "key_fields"), KINDS)
@pytest.mark.parametrize(
    "others",
    [
        pytest.param((), id="alone"),
        pytest.param(("permit-X11-forwarding", "permit-pty"), id="permits"),
        pytest.param(("login@google.com=false",), id="login false"),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_fingerprint_is_found_in_every_type_and_place(
    kind: str, key_fields: int, others: tuple[str, ...], first: bool
) -> None:
    extensions = (MARK, *others) if first else (*others, MARK)
    found = parse(certificate(kind, key_fields=key_fields, extensions=extensions))
    assert found.fingerprint == FINGERPRINT
    assert len(found.fingerprint) == 36
    assert found.principals == ("fakey",)


def test_certificate_without_extensions_has_principals_and_no_fingerprint() -> None:
    found = parse(certificate(extensions=()))
    assert (found.fingerprint, found.principals) == ("", ("fakey",))


@pytest.mark.parametrize(("kind", "key_fields"), [k for k in KINDS if not k[0].startswith("sk-")])
def test_plain_key_has_neither(kind: str, key_fields: int) -> None:
    text = base64.b64encode(string(kind.encode()) + string(b"k") * key_fields).decode()
    assert parse(text) == Certificate(kind.lower())


def test_comment_behind_the_base64_is_allowed() -> None:
    assert parse(certificate() + " somebody@host").fingerprint == FINGERPRINT


def test_second_fingerprint_does_not_count() -> None:
    other = "fingerprint@google.com=other"
    assert parse(certificate(extensions=(MARK, other))).fingerprint == FINGERPRINT


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("!!!!", id="no base64"),
        pytest.param("\N{SNOWMAN}", id="no ASCII"),
        pytest.param("A" * 65537, id="too long"),
        pytest.param(certificate("ssh-unknown"), id="unknown type"),
        pytest.param(certificate(tail=b"x"), id="something behind the end"),
        pytest.param(certificate(extensions=(MARK + " ",)), id="blank in the fingerprint"),
        pytest.param(certificate(extensions=(MARK + "x" * 128,)), id="long fingerprint"),
        pytest.param(certificate(extensions=("fingerprint@google.com=",)), id="no fingerprint"),
        pytest.param(certificate(extensions=(MARK + "&policy=x",)), id="more of a query"),
    ],
)
def test_what_is_no_certificate_is_refused(text: str) -> None:
    with pytest.raises(BadCertificate):
        parse(text)
    assert read(text) is None


def test_certificate_cut_off_anywhere_is_refused() -> None:
    text = certificate()
    for length in range(len(text) - 1):
        with pytest.raises(BadCertificate):
            parse(text[:length])


def test_certificate_whose_bytes_are_cut_off_anywhere_is_refused() -> None:
    data = base64.b64decode(certificate())
    for length in range(len(data)):
        with pytest.raises(BadCertificate):
            parse(base64.b64encode(data[:length]).decode())


@given(st.text(max_size=200))
def test_any_text_raises_nothing_else(text: str) -> None:
    read(text)


@given(st.integers(0, 200), st.binary(min_size=1, max_size=8))
def test_any_change_raises_nothing_else(place: int, noise: bytes) -> None:
    data = bytearray(base64.b64decode(certificate()))
    data[place : place + len(noise)] = noise
    read(base64.b64encode(bytes(data)).decode())


@pytest.fixture(scope="module")
def sign(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Make a key of a type and a certificate for it, and return the certificate's base64."""
    program = shutil.which("ssh-keygen")
    if program is None:
        pytest.skip("ssh-keygen is not installed (openssh-client)")
    folder = tmp_path_factory.mktemp("keys")

    def run(*arguments: str) -> None:
        subprocess.run([str(program), "-q", *arguments], cwd=folder, check=True, timeout=60)

    run("-t", "ed25519", "-N", "", "-f", "authority")

    def make(kind: str, options: tuple[str, ...], name: str) -> str:
        path = Path(folder, name)
        run("-t", kind, "-N", "", "-f", name)
        extended = [word for option in options for word in ("-O", option)]
        run("-s", "authority", "-I", "id", "-n", "fakey,other", *extended, f"{name}.pub")
        return Path(f"{path}-cert.pub").read_text().split()[1]

    return make


@pytest.mark.parametrize("kind", ["rsa", "ecdsa", "ed25519"])
def test_certificate_that_ssh_keygen_makes_is_read(sign: Callable[..., str], kind: str) -> None:
    found = parse(sign(kind, ("extension:aaa@example.com=x", "extension:zzz@example.com"), kind))
    assert (found.fingerprint, found.principals) == ("", ("fakey", "other"))
    assert found.key_type.endswith("-cert-v01@openssh.com")


def test_fingerprint_among_what_ssh_keygen_wrote_is_read(sign: Callable[..., str]) -> None:
    # ssh-keygen cuts a name at its "=", which Google's authority writes into it: the name of as
    # many bytes that was signed in its place is written over, which the parser does not check.
    stand_in = MARK.replace("=", "-")
    signed = base64.b64decode(sign("ed25519", (f"extension:{stand_in}",), "stand-in"))
    assert signed.count(stand_in.encode()) == 1
    text = base64.b64encode(signed.replace(stand_in.encode(), MARK.encode())).decode()
    assert parse(text).fingerprint == FINGERPRINT


def test_fingerprint_in_the_value_of_an_extension_does_not_count(
    sign: Callable[..., str],
) -> None:
    assert parse(sign("ed25519", (f"extension:{MARK}",), "value")).fingerprint == ""
