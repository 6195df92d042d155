"""New passwords: how they are made, encrypted for whoever asked, and reported.

A password is encrypted with the public key of the request (RSA-OAEP, the request's hash also for
the mask) *before* an account gets it: a request that cannot be answered must not change anything.
The reply is one line of JSON on a serial port; clients scan that port's output from its end for the
modulus that they sent.

Source: guest-agent ``google_guest_agent/windows_accounts.go``; public GCE documentation, "Automate
Windows password generation"; RFC 8017 section 7.1.1 for the longest message.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import Optional

from google_guest.errors import GuestError
from google_guest.windows_keys import WindowsKey

SYMBOLS = r"~!@#$%^&*_-+=|\(){}[]:;<>,.?/"
CLASSES = (
    "abcdefghijklmnopqrstuvwxyz",
    "ABCDEFGHIJKLMNOPQRSTUVWXYZ",
    "0123456789",
    SYMBOLS,
)
ALPHABET = "".join(CLASSES)
SHORTEST, LONGEST = 15, 255
HASHES = {"sha1": 20, "sha256": 32, "sha512": 64}
"""The hash functions that a request may name, with their sizes in bytes."""
DEFAULT_HASH = "sha1"
SMALLEST_KEY, RECOMMENDED_KEY, LARGEST_KEY = 1024, 2048, 16384
"""Bits of a modulus."""


class UnusableKey(GuestError):
    """The request's public key, or its hash function, cannot be used."""


def effective_length(requested: int) -> int:
    """Return the length of the password for a request; 0 means that it names none."""
    return min(max(requested, SHORTEST), LONGEST)


def generate_password(length: int) -> str:
    """Return a random password with at least one character of each class."""
    # Only here: hardly any start of the agent makes a password.
    from secrets import SystemRandom

    random = SystemRandom()
    characters = [random.choice(characters) for characters in CLASSES]
    characters += random.choices(ALPHABET, k=length - len(characters))
    random.shuffle(characters)
    return "".join(characters)


def effective_hash(key: WindowsKey) -> str:
    """Return the name of the hash function that ``key`` asks for.

    Raises:
        UnusableKey: there is no such function here.
    """
    name = key.hash_function or DEFAULT_HASH
    if name not in HASHES:
        raise UnusableKey(f'unknown hash function requested: "{name}"')
    return name


def public_numbers(key: WindowsKey) -> tuple[int, int]:
    """Return modulus and exponent.

    Raises:
        UnusableKey: they are no public RSA key of a usable size.
    """
    modulus, exponent = _number(key.modulus, "modulus"), _number(key.exponent, "exponent")
    bits = modulus.bit_length()
    if not SMALLEST_KEY <= bits <= LARGEST_KEY:
        raise UnusableKey(f"the modulus has {bits} bits, not {SMALLEST_KEY} to {LARGEST_KEY}")
    if exponent < 3 or exponent % 2 == 0 or exponent >= modulus or modulus % 2 == 0:
        raise UnusableKey("modulus and exponent are no RSA key")
    return modulus, exponent


def encrypt(password: str, key: WindowsKey) -> str:
    """Return ``password`` encrypted for ``key``, in base64.

    Raises:
        UnusableKey: the key does not work, or is too small for the password.
        GuestError: the package that encrypts is not installed.
    """
    name = effective_hash(key)
    modulus, exponent = public_numbers(key)
    longest = (modulus.bit_length() + 7) // 8 - 2 * HASHES[name] - 2
    if len(password) > longest:
        raise UnusableKey(
            f"a password of {len(password)} characters is too long for the key, which with"
            f" {name} takes {max(longest, 0)}"
        )
    try:
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import padding, rsa
    except ImportError as error:
        raise GuestError(f"the cryptography package cannot be loaded: {error}") from error
    algorithms = {"sha1": hashes.SHA1(), "sha256": hashes.SHA256(), "sha512": hashes.SHA512()}
    algorithm: hashes.HashAlgorithm = algorithms[name]
    try:
        public_key = rsa.RSAPublicNumbers(exponent, modulus).public_key()
        encrypted = public_key.encrypt(
            password.encode("ascii"),
            padding.OAEP(mgf=padding.MGF1(algorithm), algorithm=algorithm, label=None),
        )
    except ValueError as error:
        raise UnusableKey(f"the RSA key cannot be used: {error}") from error
    return base64.b64encode(encrypted).decode("ascii")


def reply(key: WindowsKey, *, encrypted: Optional[str] = None, error: str = "") -> bytes:
    """Return the line that answers a request: with a password, or with why there is none."""
    document: dict[str, object] = {}
    if encrypted is None:
        document["errorMessage"] = error
    else:
        document["encryptedPassword"] = encrypted
    document["userName"] = key.user_name
    if encrypted is not None:
        document["passwordFound"] = True
    document["exponent"] = key.exponent
    document["modulus"] = key.modulus
    if encrypted is not None:
        document["hashFunction"] = effective_hash(key)
    return json.dumps(document, separators=(",", ":")).encode("ascii") + b"\n"


def _number(text: str, name: str) -> int:
    """Return the number whose big-endian bytes ``text`` is the base64 of."""
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except (UnicodeEncodeError, binascii.Error) as error:
        raise UnusableKey(f"the {name} is no base64") from error
    return int.from_bytes(data, "big")
