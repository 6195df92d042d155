"""A client of password resets: its key, its requests, and what it makes of the answers."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

LATER = "2030-01-02T03:04:05Z"
HASHES = {"sha1": hashes.SHA1(), "sha256": hashes.SHA256(), "sha512": hashes.SHA512()}


@lru_cache
def private_key(number: int = 0, bits: int = 2048) -> rsa.RSAPrivateKey:
    """The client's key; another one for another `number`."""
    return rsa.generate_private_key(65537, bits)


def modulus(number: int = 0) -> str:
    """The modulus of the client's key as requests carry it."""
    value = private_key(number).public_key().public_numbers().n
    return base64.b64encode(value.to_bytes((value.bit_length() + 7) // 8, "big")).decode()


def request(user: str = "ana", *, key: int = 0, **changes: Any) -> str:
    """A line of windows-keys; `...` leaves a field out."""
    values = {
        "userName": user,
        "modulus": modulus(key),
        "exponent": "AQAB",
        "expireOn": LATER,
        **changes,
    }
    return json.dumps({name: value for name, value in values.items() if value is not ...})


def password(answer: Mapping[str, Any], *, key: int = 0) -> str:
    """What an answer holds, decrypted with the hash that it names."""
    algorithm = HASHES[answer["hashFunction"]]
    oaep = padding.OAEP(padding.MGF1(algorithm), algorithm, None)
    return private_key(key).decrypt(base64.b64decode(answer["encryptedPassword"]), oaep).decode()
