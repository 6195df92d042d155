"""Signatures of an index: keys, encoded messages, statements, rollback, and any bytes."""

from __future__ import annotations

import base64
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.googet import keys

from googet.signing import (
    OtherIndex,
    PublicKey,
    SigningError,
    Statement,
    check_signature,
    check_statement,
    parse_public_key,
    read_public_key,
    sign_index,
    sign_with_openssl,
    verify,
)
from google_guest.errors import GuestError

KEY = PublicKey(keys.MODULUS, keys.EXPONENT)
INDEX = b'[\n  {"Checksum": "..."}\n]\n'

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")


def der(tag: int, content: bytes) -> bytes:
    if len(content) < 0x80:
        return bytes([tag, len(content)]) + content
    length = len(content).to_bytes((len(content).bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 + len(length)]) + length + content


def number(value: int) -> bytes:
    return der(2, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def pem(content: bytes, label: str = "RSA PUBLIC KEY") -> bytes:
    body = base64.encodebytes(content).decode()
    return f"-----BEGIN {label}-----\n{body}-----END {label}-----\n".encode()


def rsa_pem(modulus: int = keys.MODULUS, exponent: int = keys.EXPONENT) -> bytes:
    return pem(der(0x30, number(modulus) + number(exponent)))


# --- keys --------------------------------------------------------------------------------------


def test_public_key_in_both_forms() -> None:
    assert parse_public_key(keys.PUBLIC_PEM) == KEY
    assert parse_public_key(rsa_pem()) == KEY


def test_text_around_the_key_and_windows_line_ends() -> None:
    text = b"my key:\r\n" + keys.PUBLIC_PEM.replace(b"\n", b"\r\n") + b"more\r\n"
    assert parse_public_key(text) == KEY


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "no RSA public key"),
        (b"-----BEGIN PUBLIC KEY-----\n", "no RSA public key"),
        (keys.PUBLIC_PEM.replace(b"PUBLIC", b"PRIVATE"), "no RSA public key"),
        (pem(b"x"), "malformed"),
        (pem(der(0x30, number(keys.MODULUS))), "malformed"),
        (pem(der(0x30, number(keys.MODULUS) + number(3) + number(3))), "malformed"),
        (pem(der(0x30, number(keys.MODULUS) + number(3)) + b"\0"), "malformed"),
        (pem(der(0x30, der(2, b"\x80" * 256) + number(3))), "malformed"),
        (
            pem(der(0x30, der(2, b"\0" + keys.MODULUS.to_bytes(257, "big")) + number(3))),
            "malformed",
        ),
        (pem(der(0x30, number(keys.MODULUS) + der(2, b""))), "malformed"),
        (pem(b"\x30\x84\xff\xff\xff\xff" + b"x" * 300), "malformed"),
        (pem(b"\x30\x81\x05" + b"x" * 5), "malformed"),
        (rsa_pem(exponent=65536), "malformed"),
        (rsa_pem(exponent=1), "malformed"),
        (rsa_pem(exponent=(1 << 40) + 1), "malformed"),
        (rsa_pem(modulus=keys.MODULUS + 1), "malformed"),
        (rsa_pem(modulus=(1 << 1023) + 1), "a key of 1024 bits"),
        (rsa_pem(modulus=(1 << 2046) + 1), "a key of 2047 bits"),
        (rsa_pem(modulus=(1 << 16383) + 1), "a key of 16384 bits"),
    ],
)
def test_what_is_no_acceptable_key(data: bytes, why: str) -> None:
    with pytest.raises(SigningError, match=why):
        parse_public_key(data)


def test_key_of_another_algorithm_is_refused() -> None:
    content = base64.b64decode(b"".join(keys.PUBLIC_PEM.split(b"\n")[1:-2]))
    other = content.replace(
        bytes.fromhex("2a864886f70d010101"), bytes.fromhex("2a864886f70d01010a")
    )
    with pytest.raises(SigningError, match="malformed"):
        parse_public_key(pem(other, "PUBLIC KEY"))


def test_key_file_that_is_missing_or_no_key(tmp_path: Path) -> None:
    with pytest.raises(SigningError, match=r"none\.pem cannot be read"):
        read_public_key(tmp_path / "none.pem")
    (tmp_path / "a.pem").write_bytes(b"x")
    with pytest.raises(SigningError, match=r"a\.pem: no RSA public key"):
        read_public_key(tmp_path / "a.pem")


# --- signatures --------------------------------------------------------------------------------


def test_valid_signature() -> None:
    assert verify(KEY, INDEX, keys.sign(INDEX))


@pytest.mark.parametrize("position", [0, 1, 100, 255])
def test_changed_signature(position: int) -> None:
    signature = bytearray(keys.sign(INDEX))
    signature[position] ^= 1
    assert not verify(KEY, INDEX, bytes(signature))


def test_changed_message() -> None:
    assert not verify(KEY, INDEX + b" ", keys.sign(INDEX))


@pytest.mark.parametrize(
    "block",
    [
        # Each of them has the right digest somewhere, and is not the encoded message.
        keys.encoded(INDEX).replace(b"\xff\x00\x30", b"\x00\x00\x30"),
        b"\x00\x02" + keys.encoded(INDEX)[2:],
        b"\x00\x01" + b"\xff" * 8 + b"\x00" + keys.encoded(INDEX)[-51:] + b"\x00" * 194,
        b"\x00\x01" + b"\xfe" * 202 + b"\x00" + keys.encoded(INDEX)[-51:],
        # DigestInfo without the NULL parameters.
        b"\x00\x01"
        + b"\xff" * 204
        + b"\x00"
        + bytes.fromhex("302f300b0609608648016503040201" + "0420")
        + keys.encoded(INDEX)[-32:],
    ],
)
def test_other_encodings_are_refused(block: bytes) -> None:
    assert len(block) == 256
    assert not verify(KEY, INDEX, keys.sign_encoded(block))


@pytest.mark.parametrize(
    "signature",
    [
        b"",
        b"\0",
        keys.sign(INDEX)[1:],
        b"\0" + keys.sign(INDEX),
        keys.sign(INDEX) + b"\0",
        (int.from_bytes(keys.sign(INDEX), "big") + keys.MODULUS).to_bytes(257, "big")[-256:],
        b"\xff" * 256,
        b"\0" * 256,
        b"\0" * 255 + b"\1",
    ],
)
def test_signatures_of_another_size_or_value(signature: bytes) -> None:
    assert not verify(KEY, INDEX, signature)


# --- index.sig ---------------------------------------------------------------------------------


def test_statement_is_returned() -> None:
    signature = keys.statement(INDEX, serial=5, expires=9)
    found = check_signature(KEY, INDEX, signature)
    assert found is not None
    assert (found.serial, found.expires) == (5, 9)


@pytest.mark.parametrize("form", [bytes, base64.b64encode, base64.encodebytes])
def test_bare_signature(form: object) -> None:
    assert callable(form)
    assert check_signature(KEY, INDEX, form(keys.sign(INDEX))) is None


def test_statement_about_another_index() -> None:
    signature = keys.statement(b"[]", serial=5, expires=9)
    with pytest.raises(OtherIndex, match="another index"):
        check_signature(KEY, INDEX, signature)


def test_bare_signature_of_another_index() -> None:
    with pytest.raises(OtherIndex, match="not valid"):
        check_signature(KEY, INDEX, keys.sign(b"[]"))


def test_changed_statement() -> None:
    signature = keys.statement(INDEX, serial=5, expires=9).replace(b": 5", b": 6")
    with pytest.raises(SigningError, match="not valid"):
        check_signature(KEY, INDEX, signature)


def test_statement_by_another_key() -> None:
    other = PublicKey(keys.MODULUS - 2, keys.EXPONENT)
    with pytest.raises(SigningError, match="not valid"):
        check_signature(other, INDEX, keys.statement(INDEX, serial=5, expires=9))


@pytest.mark.parametrize(
    "signature",
    [b"{", b"{}", b'{"Signed": "{}"}', b'{"Signed": 1, "Signature": "a"}', b"{" + b"[" * 99999]
    + [b'{"Signed": "{}", "Signature": "\xff"}', b'{"Signed": "\\ud800", "Signature": "\\ud800"}'],
)
def test_malformed_envelopes(signature: bytes) -> None:
    with pytest.raises(SigningError):
        check_signature(KEY, INDEX, signature)


@pytest.mark.parametrize(
    ("sha256", "serial", "expires"),
    [(None, -1, 9), (None, 5, "9"), (None, True, 9), (None, 5.5, 9), (7, 5, 9)]
    + [(None, 10**30, 9)],
)
def test_incomplete_statements(sha256: object, serial: object, expires: object) -> None:
    signature = keys.statement(INDEX, serial=serial, expires=expires, sha256=sha256)  # type: ignore[arg-type]
    with pytest.raises(SigningError, match="incomplete"):
        check_signature(KEY, INDEX, signature)


def test_expired_statement() -> None:
    statement = Statement("", 5, 100)
    check_statement(statement, now=99.9, highest_serial=None)
    with pytest.raises(SigningError, match="expired"):
        check_statement(statement, now=100.0, highest_serial=None)


def test_older_statement() -> None:
    statement = Statement("", 5, 100)
    check_statement(statement, now=1, highest_serial=5)
    with pytest.raises(SigningError, match=r"older \(serial 5\) than one seen before \(serial 6\)"):
        check_statement(statement, now=1, highest_serial=6)


def test_bare_signature_after_a_statement() -> None:
    check_statement(None, now=1, highest_serial=None)
    with pytest.raises(SigningError, match="no serial any more"):
        check_statement(None, now=1, highest_serial=0)


# --- openssl -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def private_key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("key") / "key.pem"
    subprocess.run(
        ["openssl", "genrsa", "-out", str(path), "2048"], check=True, capture_output=True
    )
    return path


def public_key_of(private_key: Path) -> PublicKey:
    argv = ["openssl", "pkey", "-in", str(private_key), "-pubout"]
    return parse_public_key(subprocess.run(argv, check=True, capture_output=True).stdout)


@needs_openssl
def test_signed_index_is_verified(private_key: Path) -> None:
    signature = sign_index(INDEX, private_key, serial=1000, lifetime=60)
    statement = check_signature(public_key_of(private_key), INDEX, signature)
    assert statement is not None
    assert (statement.serial, statement.expires) == (1000, 1060)
    assert signature == sign_index(INDEX, private_key, serial=1000, lifetime=60)


@needs_openssl
def test_signature_by_openssl_alone(private_key: Path, tmp_path: Path) -> None:
    (tmp_path / "index").write_bytes(INDEX)
    argv = ["openssl", "dgst", "-sha256", "-sign", str(private_key), str(tmp_path / "index")]
    signature = subprocess.run(argv, check=True, capture_output=True).stdout
    assert check_signature(public_key_of(private_key), INDEX, signature) is None


@needs_openssl
def test_openssl_accepts_our_signature(private_key: Path, tmp_path: Path) -> None:
    (tmp_path / "sig").write_bytes(sign_with_openssl(INDEX, private_key.read_bytes()))
    (tmp_path / "index").write_bytes(INDEX)
    argv = ["openssl", "dgst", "-sha256", "-prverify", str(private_key)]
    argv += ["-signature", str(tmp_path / "sig"), str(tmp_path / "index")]
    assert subprocess.run(argv, capture_output=True).returncode == 0


@needs_openssl
def test_key_that_cannot_sign(tmp_path: Path) -> None:
    with pytest.raises(SigningError, match="openssl does not accept the private key"):
        sign_with_openssl(INDEX, b"no key")
    path = tmp_path / "ec.pem"
    command = "openssl ecparam -name prime256v1 -genkey -noout -out"
    subprocess.run([*command.split(), str(path)], check=True, capture_output=True)
    with pytest.raises(SigningError, match="malformed"):
        sign_with_openssl(INDEX, path.read_bytes())
    with pytest.raises(SigningError, match="cannot be read"):
        sign_index(INDEX, tmp_path / "none.pem", serial=1)


def test_without_openssl_signing_is_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("googet.signing.shutil.which", lambda name: None)
    with pytest.raises(SigningError, match="needs the program openssl"):
        sign_with_openssl(INDEX, b"key")


# --- any bytes ---------------------------------------------------------------------------------

_DER = st.recursive(
    st.binary(max_size=8),
    lambda inner: st.builds(
        lambda tag, parts: der(tag, b"".join(parts)),
        st.sampled_from([0x30, 0x02, 0x03, 0x05, 0x06]),
        st.lists(inner, max_size=3),
    ),
    max_leaves=6,
)


@given(st.one_of(st.binary(), _DER.map(pem), _DER.map(lambda data: pem(data, "PUBLIC KEY"))))
def test_no_key_bytes_crash(data: bytes) -> None:
    with pytest.raises(SigningError):
        parse_public_key(data)


@given(st.one_of(st.binary(), st.binary().map(lambda tail: b'{"Signed":"{}","Signature":"' + tail)))
def test_no_signature_bytes_crash_or_verify(data: bytes) -> None:
    with pytest.raises(GuestError):
        check_signature(KEY, INDEX, data)
