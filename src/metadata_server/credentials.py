"""The encrypted client certificate that the metadata server hands to an instance with a vTPM.

The answer of ``instance/credentials/mds-client-certificate`` is the client's certificate and key,
encrypted with AES-GCM, and that AES key wrapped for the instance's TPM.  Wrapping is a hook
(``seal``), because it needs a TPM: a software TPM's duplication in a test that has one, or
``unsealed``, which leaves the key readable for a stand-in.

Reads ``client.key`` of the TLS directory.  Facts: google-guest-agent
``cmd/core_plugin/agentcrypto/`` (fields, 12-byte nonce, 16-byte tag, no additional data), FIPS 197,
NIST SP 800-38D.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from typing import Callable

from metadata_server.tls import TlsFiles

Seal = Callable[[bytes], Mapping[str, object]]


def credentials_source(files: TlsFiles, seal: Seal) -> Callable[[], dict[str, object]]:
    """A function that makes a fresh answer, with a new AES key and nonce each time."""

    def make() -> dict[str, object]:
        with open(files.path("client.key"), "rb") as pem:
            plaintext = pem.read()
        key, nonce = os.urandom(32), os.urandom(12)
        sealed = nonce + aes_gcm_encrypt(key, nonce, plaintext)
        return {
            "encryptedCredentials": base64.b64encode(sealed).decode("ascii"),
            "keyImportBlob": dict(seal(key)),
        }

    return make


def unsealed(key: bytes) -> Mapping[str, object]:
    """An import blob whose ``duplicate`` is the key itself, for a stand-in of the TPM."""
    return {
        "duplicate": base64.b64encode(key).decode("ascii"),
        "encryptedSeed": "",
        "publicArea": "",
        "pcrs": {},
    }


def aes_gcm_encrypt(key: bytes, nonce: bytes, plaintext: bytes) -> bytes:
    """Ciphertext followed by the 16-byte tag; ``nonce`` has 12 bytes, there is no other data."""
    cipher = _Aes(key)
    first = nonce + b"\x00\x00\x00\x01"
    ciphertext = bytearray()
    for number, start in enumerate(range(0, len(plaintext), 16), 2):
        stream = cipher.encrypt_block(nonce + number.to_bytes(4, "big"))
        ciphertext += bytes(a ^ b for a, b in zip(plaintext[start : start + 16], stream))
    subkey = int.from_bytes(cipher.encrypt_block(bytes(16)), "big")
    digest = _ghash(subkey, bytes(ciphertext))
    mask = int.from_bytes(cipher.encrypt_block(first), "big")
    return bytes(ciphertext) + (digest ^ mask).to_bytes(16, "big")


def _ghash(subkey: int, ciphertext: bytes) -> int:
    blocks = [ciphertext[start : start + 16] for start in range(0, len(ciphertext), 16)]
    blocks.append((8 * len(ciphertext)).to_bytes(16, "big"))
    digest = 0
    for block in blocks:
        digest = _multiply(digest ^ int.from_bytes(block.ljust(16, b"\x00"), "big"), subkey)
    return digest


def _multiply(left: int, right: int) -> int:
    """Product in GF(2^128) with the bit order of GCM."""
    product = 0
    for bit in range(127, -1, -1):
        if left >> bit & 1:
            product ^= right
        right = (right >> 1) ^ (0xE1 << 120 if right & 1 else 0)
    return product


def _double(value: int) -> int:
    """A byte times two in the field of AES."""
    return (value << 1 ^ (0x11B if value & 0x80 else 0)) & 0xFF


def _substitution_box() -> bytes:
    """The S-box: the inverse of each byte in the field, then an affine map."""
    box = bytearray(256)
    box[0] = 0x63
    power = inverse = 1
    while True:
        power ^= _double(power)  # times three, which generates the field
        inverse ^= inverse << 1
        inverse ^= inverse << 2
        inverse ^= inverse << 4
        inverse &= 0xFF
        if inverse & 0x80:
            inverse ^= 0x09  # divided by three
        rotated = inverse
        for _ in range(4):
            rotated = (rotated << 1 | rotated >> 7) & 0xFF
            box[power] ^= rotated
        box[power] ^= inverse ^ 0x63
        if power == 1:
            return bytes(box)


_BOX = _substitution_box()


class _Aes:
    """AES encryption of single blocks; slow, for a few kilobytes of test data."""

    def __init__(self, key: bytes) -> None:
        words = [list(key[start : start + 4]) for start in range(0, len(key), 4)]
        length, round_constant = len(words), 1
        for index in range(length, 4 * (length + 7)):
            word = list(words[-1])
            if index % length == 0:
                word = [_BOX[byte] for byte in word[1:] + word[:1]]
                word[0] ^= round_constant
                round_constant = _double(round_constant)
            elif length > 6 and index % length == 4:
                word = [_BOX[byte] for byte in word]
            words.append([a ^ b for a, b in zip(words[index - length], word)])
        flat = [byte for word in words for byte in word]
        self._round_keys = [flat[start : start + 16] for start in range(0, len(flat), 16)]

    def encrypt_block(self, block: bytes) -> bytes:
        state = [a ^ b for a, b in zip(block, self._round_keys[0])]
        for number, round_key in enumerate(self._round_keys[1:], 1):
            # Byte substitution and row shift: column c, row r comes from column c + r.
            state = [_BOX[state[(4 * (c + r) + r) % 16]] for c in range(4) for r in range(4)]
            if number < len(self._round_keys) - 1:
                state = _mix_columns(state)
            state = [a ^ b for a, b in zip(state, round_key)]
        return bytes(state)


def _mix_columns(state: list[int]) -> list[int]:
    mixed = []
    for start in range(0, 16, 4):
        column = state[start : start + 4]
        total = column[0] ^ column[1] ^ column[2] ^ column[3]
        for row in range(4):
            mixed.append(column[row] ^ total ^ _double(column[row] ^ column[(row + 1) % 4]))
    return mixed
