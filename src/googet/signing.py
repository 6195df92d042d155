"""``index.sig``: who vouches for an index, for repositories that ``signedrepos`` pins to a key.

The reference trusts TLS alone; it ignores this file. For a pinned repository the client requires it
beside the index, and takes no index without a valid one. It has one of two forms.

A *statement*, which protects against an old index being served again, too:

    {"Signed": "{\\"Sha256\\":\\"9f86...\\",\\"Serial\\":1767225600,\\"Expires\\":1769817600}",
     "Signature": "base64"}

``Signature`` is RSA with SHA-256 (PKCS #1 v1.5) over the UTF-8 bytes of the text ``Signed``, which
is JSON itself: the SHA-256 of the plain ``index`` in hexadecimal, a serial that grows from
signature to signature (Unix time does), and the Unix time from which on it is not valid. A client
never accepts a serial below the highest it has accepted for that repository and key.

A *bare* signature: RSA with SHA-256 over the plain ``index``, binary or in base64, as
``openssl dgst -sha256 -sign KEY.pem -out index.sig index`` makes it. It does not expire, so a
client that has once seen a statement does not take it any more.

Public keys are PEM files, ``PUBLIC KEY`` (RFC 5280) or ``RSA PUBLIC KEY`` (RFC 8017), of 2048 to
8192 bits. Verification is pure Python: the whole encoded message is computed and compared, nothing
is parsed out of it. Signing uses the program ``openssl``.

Source: RFC 8017 sections 8.2.2 and 9.2, appendix A.1.1; RFC 5280 section 4.1; X.690 for DER.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any, Optional, Union

from google_guest.errors import GuestError
from google_guest.records import record
from google_guest.system.commands import CommandError, CommandMissing, run_command

SIGNATURE_LIMIT = 64 << 10
"""Largest ``index.sig``, in bytes."""
LIFETIME = 30 * 86400
"""Seconds for which a statement is valid unless the signer says otherwise."""
_KEY_LIMIT = 64 << 10
_SMALLEST_KEY, _LARGEST_KEY = 2048, 8192
_LARGEST_EXPONENT = 1 << 32
_MOST_DIGITS = 18
_PEM = re.compile(
    rb"-----BEGIN (?P<label>(?:RSA )?PUBLIC KEY)-----\s*(?P<body>[A-Za-z0-9+/=\s]+?)"
    rb"-----END (?P=label)-----"
)
_RSA_ALGORITHM = bytes.fromhex("06092a864886f70d010101")
"""DER of the object identifier rsaEncryption; NULL parameters follow it."""
_SHA256_INFO = bytes.fromhex("3031300d060960864801650304020105000420")
"""DER of the DigestInfo of SHA-256 up to the digest (RFC 8017 section 9.2, note 1)."""
_SEQUENCE, _INTEGER, _BITS, _NULL = 0x30, 0x02, 0x03, b"\x05\x00"


class SigningError(GuestError):
    """An index is not signed, not validly signed, or cannot be signed."""


class OtherIndex(SigningError):
    """The signature is not about this index, as when a repository was published in between."""


@record
class PublicKey:
    """An RSA public key."""

    modulus: int
    exponent: int

    @property
    def size(self) -> int:
        """Length of the modulus in bytes."""
        return (self.modulus.bit_length() + 7) // 8

    @property
    def fingerprint(self) -> str:
        """What tells keys apart: SHA-256 of modulus and exponent, hexadecimal."""
        return hashlib.sha256(f"{self.modulus:x}:{self.exponent:x}".encode()).hexdigest()


@record
class Statement:
    """What a signature says about an index; times and serials are Unix times."""

    sha256: str
    serial: int
    expires: int


def read_public_key(path: Path) -> PublicKey:
    """Return the key in a PEM file.

    Raises:
        SigningError: there is none, or none that is strong enough.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_KEY_LIMIT)
    except OSError as error:
        raise SigningError(f"{path} cannot be read: {error.strerror}") from error
    try:
        return parse_public_key(data)
    except SigningError as error:
        raise SigningError(f"{path}: {error}") from error


def parse_public_key(pem: bytes) -> PublicKey:
    """Return the first public key in a PEM text; raise ``SigningError``."""
    match = _PEM.search(pem)
    if match is None:
        raise SigningError("no RSA public key in PEM form")
    try:
        der = base64.b64decode(b"".join(match["body"].split()), validate=True)
        numbers = der if match["label"].startswith(b"RSA") else _subject_public_key(der)
        key = PublicKey(*_two_integers(numbers))
    except (binascii.Error, _DerError) as error:
        raise SigningError("the RSA public key is malformed") from error
    bits = key.modulus.bit_length()
    if not _SMALLEST_KEY <= bits <= _LARGEST_KEY:
        raise SigningError(f"a key of {bits} bits; {_SMALLEST_KEY} to {_LARGEST_KEY} are accepted")
    if not key.modulus % 2 or not key.exponent % 2 or not 3 <= key.exponent < _LARGEST_EXPONENT:
        raise SigningError("the RSA public key is malformed")
    return key


def verify(key: PublicKey, message: bytes, signature: bytes) -> bool:
    """Return whether ``signature`` is the key's over ``message`` (RSASSA-PKCS1-v1_5, SHA-256)."""
    if len(signature) != key.size:
        return False
    number = int.from_bytes(signature, "big")
    if number >= key.modulus:
        return False
    info = _SHA256_INFO + hashlib.sha256(message).digest()
    padding = b"\xff" * (key.size - len(info) - 3)
    wanted = b"\x00\x01" + padding + b"\x00" + info
    found = pow(number, key.exponent, key.modulus).to_bytes(key.size, "big")
    return hmac.compare_digest(found, wanted)


def check_signature(key: PublicKey, index: bytes, signature: bytes) -> Optional[Statement]:
    """Return the statement that a valid ``index.sig`` makes about an index; None: it is bare.

    Whether the statement is still valid and new enough is not checked: see :func:`check_statement`.

    Raises:
        SigningError: the signature is malformed or not the key's, or is for another index.
    """
    if not signature.lstrip().startswith(b"{"):
        if not verify(key, index, signature) and not verify(key, index, _unbased(signature)):
            raise OtherIndex("the signature of the index is not valid")
        return None
    envelope = _object(signature, "index.sig")
    signed, text = envelope.get("Signed"), envelope.get("Signature")
    if not isinstance(signed, str) or not isinstance(text, str):
        raise SigningError("index.sig lacks Signed or Signature")
    if not verify(
        key, signed.encode("utf-8", "replace"), _unbased(text.encode("ascii", "replace"))
    ):
        raise SigningError("the signature of the index is not valid")
    statement = _statement(signed)
    if statement.sha256 != hashlib.sha256(index).hexdigest():
        raise OtherIndex("index.sig is about another index")
    return statement


def check_statement(
    statement: Optional[Statement], *, now: float, highest_serial: Optional[int]
) -> None:
    """Raise ``SigningError`` if a statement has expired or is older than one seen before."""
    if statement is None:
        if highest_serial is not None:
            raise SigningError("index.sig has no serial any more; an earlier one had")
        return
    if statement.expires <= now:
        raise SigningError("the signature of the index has expired")
    if highest_serial is not None and statement.serial < highest_serial:
        raise SigningError(
            f"the index is older (serial {statement.serial}) than one seen before"
            f" (serial {highest_serial})"
        )


def sign_index(index: bytes, key_file: Path, *, serial: int, lifetime: int = LIFETIME) -> bytes:
    """Return the ``index.sig`` of an index: a statement that is valid for ``lifetime`` seconds.

    Raises:
        SigningError: the key is no usable RSA key, or there is no ``openssl``.
    """
    try:
        private_key = key_file.read_bytes()
    except OSError as error:
        raise SigningError(f"{key_file} cannot be read: {error.strerror}") from error
    facts = {
        "Sha256": hashlib.sha256(index).hexdigest(),
        "Serial": serial,
        "Expires": serial + lifetime,
    }
    signed = json.dumps(facts, separators=(",", ":"))
    signature = sign_with_openssl(signed.encode(), private_key)
    envelope = {"Signed": signed, "Signature": base64.b64encode(signature).decode()}
    return f"{json.dumps(envelope, indent=2)}\n".encode()


def sign_with_openssl(message: bytes, private_key: bytes) -> bytes:
    """Return the RSA signature (PKCS #1 v1.5, SHA-256) over ``message``; the key is PEM.

    The signature is verified before it is returned, so that a key of another kind is an error here.

    Raises:
        SigningError: as the message says.
    """
    program = shutil.which("openssl")
    if program is None:
        raise SigningError("signing needs the program openssl, which is not installed")
    with tempfile.TemporaryDirectory(prefix="googet-") as name:
        folder = Path(name)
        key, data, public, result = (folder / part for part in ("key", "data", "public", "result"))
        key.write_bytes(private_key)
        data.write_bytes(message)
        common = [program, "dgst", "-sha256", "-sign", str(key)]
        try:
            run_command([program, "pkey", "-in", str(key), "-pubout", "-out", str(public)])
            public_key = parse_public_key(public.read_bytes())
            run_command([*common, "-out", str(result), str(data)])
            signature = result.read_bytes()
        except (CommandError, CommandMissing) as error:
            raise SigningError(f"openssl does not accept the private key: {error}") from error
    if not verify(public_key, message, signature):
        raise SigningError("the private key does not make RSA signatures")
    return signature


def _statement(text: str) -> Statement:
    values = _object(text, "the statement in index.sig")
    sha256, serial, expires = (values.get(name) for name in ("Sha256", "Serial", "Expires"))
    numbers = all(type(value) is int and value >= 0 for value in (serial, expires))
    if not isinstance(sha256, str) or not numbers:
        raise SigningError("the statement in index.sig is incomplete")
    return Statement(sha256.lower(), int(str(serial)), int(str(expires)))


def _object(text: Union[bytes, str], name: str) -> dict[str, Any]:
    try:
        value = json.loads(text, parse_int=_integer)
    except (ValueError, RecursionError) as error:
        raise SigningError(f"{name} is no JSON") from error
    if not isinstance(value, dict):
        raise SigningError(f"{name} is no JSON object")
    return value


def _integer(text: str) -> int:
    # Python refuses to read thousands of digits; no time and no serial has more than these.
    return int(text) if len(text) <= _MOST_DIGITS else -1


def _unbased(text: bytes) -> bytes:
    try:
        return base64.b64decode(b"".join(text.split()), validate=True)
    except binascii.Error:
        return b""


class _DerError(Exception):
    """The bytes are not the DER that was expected."""


def _subject_public_key(der: bytes) -> bytes:
    """Return the key inside a SubjectPublicKeyInfo for RSA."""
    content, rest = _take(der, _SEQUENCE)
    algorithm, bits_and_rest = _take(content, _SEQUENCE)
    bits, after = _take(bits_and_rest, _BITS)
    if rest or after or algorithm != _RSA_ALGORITHM + _NULL or not bits.startswith(b"\x00"):
        raise _DerError("no RSA key")
    return bits[1:]


def _two_integers(der: bytes) -> tuple[int, int]:
    content, rest = _take(der, _SEQUENCE)
    first, remaining = _take(content, _INTEGER)
    second, after = _take(remaining, _INTEGER)
    if rest or after:
        raise _DerError("something follows")
    return _natural(first), _natural(second)


def _natural(content: bytes) -> int:
    # A leading zero is there exactly when the number would be negative without it.
    minimal = content[:1] != b"\x00" or content[1:2] >= b"\x80"
    if not content or content[0] >= 0x80 or not minimal:
        raise _DerError("no minimal positive integer")
    return int.from_bytes(content, "big")


def _take(der: bytes, tag: int) -> tuple[bytes, bytes]:
    """Return the content of the element with this tag at the beginning, and what follows it."""
    if len(der) < 2 or der[0] != tag:
        raise _DerError("another element was expected")
    length, start = der[1], 2
    if length >= 0x80:
        count = length - 0x80
        start += count
        length = int.from_bytes(der[2:start], "big")
        if not 1 <= count <= 3 or len(der) < start or length < max(0x80, 1 << 8 * (count - 1)):
            raise _DerError("the length is not minimal")
    if len(der) < start + length:
        raise _DerError("the element is truncated")
    return der[start : start + length], der[start + length :]
