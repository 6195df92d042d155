"""An RSA key that signs for nobody but these tests, and signatures by it in pure Python."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Optional

MODULUS = int(
    "cd17f87aab40f7c5aea54796fbc14f0300af8088ed9257f99c5535335c3fbd96cd7d1fd0a8e4629dda60f748"
    "8270ee9101225389bdb8e1c1154f3e9f89c832b5f3b0f33b273b1c9730f5ef711102824b56b8a3c02d3f9a98"
    "46d6a4327f3059a13f1c97e2af674139447c1134e91026f645d762cea1b80b96fc766b26e0e92974420c9c4f"
    "6571d979188603052fb9f3bb0c5d564dc7e8475e209b0e8d8d6b1c3a3c0da7cff3f8ca4601affe1b6f9a6b8f"
    "0b216ce29ed9d5b062b10dd1c8d9e600328181f6191293b5a00e0112955cda04629a3a31892a853ccf282b21"
    "4699e968b6a7f95c60939aa3a89e26686c67d280e30d8a319f1b4c893f959207473cb663",
    16,
)
EXPONENT = 65537
_PRIVATE = int(
    "29c8c06efd84f6f5e766f4f6e5c3b47d401e8169643d747efe42bddc00e75b90e5bca046baa20d156bf06570"
    "f86259b8612ac52a42e4efd98ea5de745275df1f02cf023f02f720140d7d8d92d38c574f5213bc08e32f1a27"
    "fc06aedd3adc76e64b1d603466d7fa89d8520e8f610c5163cb46de728ab01c6c5e7321d181f0fee8bb450b0f"
    "eed8762da30c8bfdf53adeaff0802475dec08b5dd60295dcf8b610986bdbef93ed02915c6d625dab3f5e53e7"
    "b84b78d690f37524bb94bf844625dc5dd2d15f9290b41fb1ca63863bdf330cf63fa8fc4be40e22ca733b7e7c"
    "7c90dc48222a8b6da536bed225ba23b62b1a117583fc01d6c8d32a0e3e9f4567fc51989",
    16,
)
PUBLIC_PEM = b"""-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAzRf4eqtA98WupUeW+8FP
AwCvgIjtklf5nFU1M1w/vZbNfR/QqORindpg90iCcO6RASJTib244cEVTz6ficgy
tfOw8zsnOxyXMPXvcRECgktWuKPALT+amEbWpDJ/MFmhPxyX4q9nQTlEfBE06RAm
9kXXYs6huAuW/HZrJuDpKXRCDJxPZXHZeRiGAwUvufO7DF1WTcfoR14gmw6NjWsc
OjwNp8/z+MpGAa/+G2+aa48LIWzintnVsGKxDdHI2eYAMoGB9hkSk7WgDgESlVza
BGKaOjGJKoU8zygrIUaZ6Wi2p/lcYJOao6ieJmhsZ9KA4w2KMZ8bTIk/lZIHRzy2
YwIDAQAB
-----END PUBLIC KEY-----
"""
_INFO = bytes.fromhex("3031300d060960864801650304020105000420")


def sign(message: bytes) -> bytes:
    """RSASSA-PKCS1-v1_5 with SHA-256."""
    return sign_encoded(encoded(message))


def encoded(message: bytes) -> bytes:
    """What is signed: EMSA-PKCS1-v1_5."""
    info = _INFO + hashlib.sha256(message).digest()
    return b"\x00\x01" + b"\xff" * (256 - 3 - len(info)) + b"\x00" + info


def sign_encoded(block: bytes) -> bytes:
    return pow(int.from_bytes(block, "big"), _PRIVATE, MODULUS).to_bytes(256, "big")


def statement(index: bytes, *, serial: int, expires: int, sha256: Optional[str] = None) -> bytes:
    """An ``index.sig`` with a statement."""
    facts = {
        "Sha256": sha256 or hashlib.sha256(index).hexdigest(),
        "Serial": serial,
        "Expires": expires,
    }
    signed = json.dumps(facts)
    signature = base64.b64encode(sign(signed.encode())).decode()
    return json.dumps({"Signed": signed, "Signature": signature}).encode()
