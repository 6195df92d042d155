"""New passwords: what they are made of, how they are encrypted and reported."""

from __future__ import annotations

import base64
import json
import sys
from functools import lru_cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from google_guest.errors import GuestError
from google_guest.records import replace
from google_guest.windows_keys import WindowsKey
from google_guest.windows_passwords import (
    ALPHABET,
    CLASSES,
    UnusableKey,
    effective_length,
    encrypt,
    generate_password,
    reply,
)

pytest.importorskip("cryptography", reason="the library that encrypts is not installed")

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

HASHES = {"sha1": hashes.SHA1(), "sha256": hashes.SHA256(), "sha512": hashes.SHA512()}


@lru_cache
def private_key(bits: int = 2048) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, bits)


def encoded(number: int, *, padding_bytes: int = 0) -> str:
    size = (number.bit_length() + 7) // 8 + padding_bytes
    return base64.b64encode(number.to_bytes(size, "big")).decode()


def request(bits: int = 2048, **changes: str) -> WindowsKey:
    modulus = private_key(bits).public_key().public_numbers().n
    key = WindowsKey("ana", encoded(modulus), "AQAB", "2030-01-02T03:04:05Z")
    return replace(key, **changes)


def decrypt(encrypted: str, name: str = "sha1", *, bits: int = 2048) -> str:
    algorithm = HASHES[name]
    oaep = padding.OAEP(padding.MGF1(algorithm), algorithm, None)
    return private_key(bits).decrypt(base64.b64decode(encrypted), oaep).decode()


def test_alphabet_has_91_characters_and_none_that_needs_quoting() -> None:
    assert len(set(ALPHABET)) == 91
    assert not set(ALPHABET) & set("\"'` ")


def test_ten_thousand_passwords_have_all_four_classes_and_no_other_character() -> None:
    for _ in range(10_000):
        password = set(generate_password(15))
        assert all(password & set(characters) for characters in CLASSES)
        assert password <= set(ALPHABET)


@pytest.mark.parametrize(
    ("requested", "length"),
    [(0, 15), (5, 15), (-3, 15), (15, 15), (30, 30), (255, 255), (256, 255)],
)
def test_length_is_kept_within_bounds(requested: int, length: int) -> None:
    assert effective_length(requested) == length
    assert len(generate_password(length)) == length


def test_first_characters_are_not_always_of_the_same_classes() -> None:
    starts = {generate_password(15)[0] for _ in range(500)}
    assert all(starts & set(characters) for characters in CLASSES)


@pytest.mark.parametrize("name", ["sha1", "sha256", "sha512"])
def test_password_is_encrypted_with_the_hash_that_was_asked_for(name: str) -> None:
    encrypted = encrypt("Passw0rd!", request(hash_function=name))
    assert decrypt(encrypted, name) == "Passw0rd!"


def test_without_a_hash_function_it_is_sha1() -> None:
    assert decrypt(encrypt("Passw0rd!", request())) == "Passw0rd!"


def test_exponent_with_leading_zero_bytes_is_the_same_exponent() -> None:
    assert decrypt(encrypt("Passw0rd!", request(exponent="AAEAAQ=="))) == "Passw0rd!"


@pytest.mark.parametrize(("name", "longest"), [("sha1", 214), ("sha256", 190), ("sha512", 126)])
def test_longest_password_is_that_of_the_key(name: str, longest: int) -> None:
    key = request(hash_function=name)
    assert decrypt(encrypt("x" * longest, key), name) == "x" * longest
    with pytest.raises(UnusableKey, match=f"too long for the key, which with {name} takes"):
        encrypt("x" * (longest + 1), key)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"hash_function": "md5"}, 'unknown hash function requested: "md5"'),
        ({"hash_function": "SHA1"}, "unknown hash function"),
        ({"modulus": "not base64!"}, "the modulus is no base64"),
        ({"modulus": "vW0"}, "the modulus is no base64"),
        ({"modulus": "ä"}, "the modulus is no base64"),
        ({"exponent": "?"}, "the exponent is no base64"),
        ({"modulus": encoded((1 << 512) + 1)}, "the modulus has 513 bits"),
        ({"modulus": encoded((1 << 20000) + 1)}, "the modulus has 20001 bits"),
        ({"modulus": encoded(1 << 2047)}, "no RSA key"),
        ({"exponent": encoded(2)}, "no RSA key"),
        ({"exponent": encoded(1)}, "no RSA key"),
        ({"exponent": "AAAA"}, "no RSA key"),
        ({"exponent": encoded((1 << 2049) + 1)}, "no RSA key"),
    ],
)
def test_key_that_cannot_be_used_is_told(changes: dict[str, str], problem: str) -> None:
    with pytest.raises(UnusableKey, match=problem):
        encrypt("Passw0rd!", request(**changes))


def test_key_of_1024_bits_is_still_taken() -> None:
    assert decrypt(encrypt("Passw0rd!", request(1024)), bits=1024) == "Passw0rd!"


def test_missing_library_is_an_error_of_the_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives", None)
    with pytest.raises(GuestError, match="the cryptography package cannot be loaded"):
        encrypt("Passw0rd!", request())


def test_reply_of_a_success_is_one_line_with_the_fields_of_the_reference() -> None:
    key = request()
    line = reply(key, encrypted="c2VjcmV0")
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert json.loads(line) == {
        "encryptedPassword": "c2VjcmV0",
        "userName": "ana",
        "passwordFound": True,
        "exponent": "AQAB",
        "modulus": key.modulus,
        "hashFunction": "sha1",
    }


def test_reply_names_the_hash_function_that_was_asked_for() -> None:
    line = reply(request(hash_function="sha512"), encrypted="c2VjcmV0")
    assert json.loads(line)["hashFunction"] == "sha512"


def test_reply_of_a_failure_has_the_error_and_no_password() -> None:
    key = WindowsKey("ana", "vW0…", "AQAB", "x", hash_function="md5")
    assert json.loads(reply(key, error="no")) == {
        "errorMessage": "no",
        "userName": "ana",
        "exponent": "AQAB",
        "modulus": "vW0…",
    }


@given(st.text(), st.text(), st.text())
def test_any_key_is_answered_or_refused(modulus: str, exponent: str, name: str) -> None:
    key = WindowsKey("ana", modulus, exponent, "x", hash_function=name)
    with pytest.raises(UnusableKey):
        encrypt("Passw0rd!", key)
    assert reply(key, error="no").count(b"\n") == 1


@given(st.binary(min_size=128, max_size=140), st.binary(max_size=6))
def test_any_number_is_a_key_or_refused(modulus: bytes, exponent: bytes) -> None:
    key = WindowsKey(
        "ana", base64.b64encode(modulus).decode(), base64.b64encode(exponent).decode(), "x"
    )
    try:
        assert base64.b64decode(encrypt("Passw0rd!", key))
    except UnusableKey as error:
        assert "Passw0rd" not in str(error)
