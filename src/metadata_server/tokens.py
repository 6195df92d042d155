"""Access tokens and identity tokens of a service account, made up but verifiable.

Access tokens are ``fake-1``, ``fake-2``, ...  Identity tokens are JSON web tokens signed with RS256
by a key that exists only for tests and is published here, so that a client's verification can be
exercised; nothing real trusts it.

Facts: RFC 7515 and 7517 (JWS, JWK), RFC 8017 section 9.2 (EMSA-PKCS1-v1_5), the public
documentation of the identity endpoint for the claims.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Optional

ISSUER = "https://accounts.google.com"
LIFETIME = 3600

PUBLIC_EXPONENT = 65537
MODULUS = int(
    "a0227664d2f0690f77b77bf08bb3542cdd39a46fc298a9e3c77b684f94a3a5b87273dfb6a82c380a59dea097"
    "7c1c4f6f6b8b45ec1bfbf32a84ccde9536e39447a4a13c5e80f55b111f30f128484c058ff10659419ad46a22"
    "40c1953b041181784854850ef831831694febe3430dfeb83cc8c2195f25d10ea208a1eb213983481e116c88a"
    "c01a729eb194a425a56822f5deccfc871d7597ddd24cc1368efdb5fd8366af30e917078ea320ca8fd4fd9566"
    "b8d6f96537fb8382da0be561a30a2c5d46e2dcc9449f5a7c44f65f2ed34fedab6c80e2a2c19324f124a291b0"
    "5f878b1426afc73eee351fa62f6dca8bd170bda2f4153b2e303e2dfbef8b5a59e6913007",
    16,
)
# Published on purpose: this key signs for nobody but tests.
_PRIVATE_EXPONENT = int(
    "3dec15a5c418afd4702b9203474eff85d359487b4f12e9abe972c3eb5baa32ccb1e899ae7036692ed781b0ce"
    "49a4af4c81cb47c6972bab1774662465c54be53948980a5820ef8c8c4d9b6dbf3df5b4841ffe3948c9fb3022"
    "984b1001d3cc1df630753e785037aec46e4f8d40a485a55b40527630b732f5c2acf5bc0c239dffbc15f9601b"
    "943e61d3a8d8fe5d3236b65c2238f1c57829fb4353b8d1a60600041b13b018e499806d88a77d595dbc5b164d"
    "d50f558441361b14a70fd004eebbb79347a4a1333d67f605feb2c00f73ef85c111630fa2f945a51690afb33b"
    "5dc45b771e58cb74e0296c5d042dd3de5def47b010f5b967a3d9c84ccf67b6efab4cf25",
    16,
)
KEY_ID = "metadata-server-emulator-test-key"
# DER of SEQUENCE { SEQUENCE { OID sha256, NULL }, OCTET STRING (32 bytes follow) }
_SHA256_PREFIX = bytes.fromhex("3031300d060960864801650304020105000420")


@dataclass(frozen=True)
class Instance:
    """The facts about the instance that a full identity token states."""

    instance_id: str
    name: str
    zone: str
    project_id: str
    project_number: int
    licenses: list[str]


class AccessTokens:
    """Counts out access tokens."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)

    def next(self) -> dict[str, object]:
        return {
            "access_token": f"fake-{next(self._numbers)}",
            "expires_in": 3599,
            "token_type": "Bearer",
        }


def identity_token(
    *, audience: str, email: str, instance: Optional[Instance], licenses: bool = False
) -> str:
    """A signed token for one audience; with the instance's facts in its full form."""
    now = int(time.time())
    subject = str(int.from_bytes(hashlib.sha256(email.encode("utf-8")).digest()[:8], "big"))
    claims: dict[str, object] = {
        "aud": audience,
        "azp": subject,
        "exp": now + LIFETIME,
        "iat": now,
        "iss": ISSUER,
        "sub": subject,
    }
    if instance is not None:
        engine: dict[str, object] = {
            "instance_creation_timestamp": 1_600_000_000,
            "instance_id": instance.instance_id,
            "instance_name": instance.name,
            "project_id": instance.project_id,
            "project_number": instance.project_number,
            "zone": instance.zone,
        }
        if licenses:
            engine["license_id"] = instance.licenses
        claims.update(email=email, email_verified=True, google={"compute_engine": engine})
    return sign(claims)


def sign(claims: Mapping[str, object]) -> str:
    header = {"alg": "RS256", "kid": KEY_ID, "typ": "JWT"}
    signed = f"{_segment(_json(header))}.{_segment(_json(claims))}"
    length = (MODULUS.bit_length() + 7) // 8
    digest = _SHA256_PREFIX + hashlib.sha256(signed.encode("ascii")).digest()
    block = b"\x00\x01" + b"\xff" * (length - len(digest) - 3) + b"\x00" + digest
    signature = pow(int.from_bytes(block, "big"), _PRIVATE_EXPONENT, MODULUS)
    return f"{signed}.{_segment(signature.to_bytes(length, 'big'))}"


def public_keys() -> dict[str, object]:
    """The JSON web key set that verifies the identity tokens."""
    modulus = MODULUS.to_bytes((MODULUS.bit_length() + 7) // 8, "big")
    exponent = PUBLIC_EXPONENT.to_bytes(3, "big")
    key = {
        "alg": "RS256",
        "e": _segment(exponent),
        "kid": KEY_ID,
        "kty": "RSA",
        "n": _segment(modulus),
        "use": "sig",
    }
    return {"keys": [key]}


def _json(value: Mapping[str, object]) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode("utf-8")


def _segment(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")
