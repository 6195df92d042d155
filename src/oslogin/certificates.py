"""What an OpenSSH certificate says: the principals it is for, and Google's fingerprint.

sshd hands the certificate of a login to ``google_authorized_principals`` (``%k``) after it has
verified the signature and the authority; the daemon reads two things from it. Principals are names
of users. The fingerprint, by which the metadata server knows the certificate, stands in the *name*
of an extension: ``fingerprint@google.com=FINGERPRINT``.

The text is base64 of a sequence of fields, each a u32 length and bytes, big-endian (OpenSSH's
PROTOCOL.certkeys). Nothing is read beyond its bounds; whatever is no certificate or key of a known
type raises ``BadCertificate``, and nothing else leaves ``parse``. A plain public key has neither
principals nor fingerprint.

Source: guest-oslogin ``src/oslogin_sshca.cc`` (types, the name of the extension).
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Optional

from google_guest.errors import GuestError
from google_guest.records import record

LONGEST = 65536
"""Characters of a certificate."""
FINGERPRINT_NAME = "fingerprint@google.com="

_CERTIFICATE_SUFFIX = "-cert-v01@openssh.com"
# Fields of the key between the nonce and the serial number.
_KEY_FIELDS = {
    "ecdsa-sha2-nistp256": 2,
    "ecdsa-sha2-nistp384": 2,
    "ecdsa-sha2-nistp521": 2,
    "rsa-sha2-256": 2,
    "rsa-sha2-512": 2,
    "ssh-dss": 4,
    "ssh-ed25519": 1,
    "ssh-rsa": 2,
    # Curve or key, and the application.
    "sk-ecdsa-sha2-nistp256": 3,
    "sk-ssh-ed25519": 2,
}
_PLAIN_SUFFIX = "@openssh.com"
_FINGERPRINT = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_MOST_ENTRIES = 1024


class BadCertificate(GuestError):
    """The text is no certificate or public key of a known type."""


@record
class Certificate:
    """What of a certificate decides about a login."""

    key_type: str
    """As written in it, in lower case; ends with ``-cert-v01@openssh.com`` for a certificate."""
    principals: tuple[str, ...] = ()
    fingerprint: str = ""
    """Empty when it has none."""


class _Fields:
    """Bytes that are read from the front, never beyond their end."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def is_empty(self) -> bool:
        return self._at == len(self._data)

    def take(self, size: int) -> bytes:
        if size > len(self._data) - self._at:
            raise BadCertificate("the certificate is cut off")
        self._at += size
        return self._data[self._at - size : self._at]

    def string(self) -> bytes:
        return self.take(int.from_bytes(self.take(4), "big"))


def parse(text: str) -> Certificate:
    """Return what ``text`` says: base64, and after a blank whatever comment there is.

    Raises ``BadCertificate``.
    """
    if len(text) > LONGEST:
        raise BadCertificate("the certificate is longer than 64 KiB")
    words = text.split(maxsplit=1)
    if not words:
        raise BadCertificate("there is no certificate")
    try:
        fields = _Fields(base64.b64decode(words[0].encode("ascii"), validate=True))
    except (binascii.Error, UnicodeEncodeError, ValueError) as error:
        raise BadCertificate("the certificate is no base64") from error
    key_type = fields.string().decode("ascii", "replace").lower()
    if not key_type.endswith(_CERTIFICATE_SUFFIX):
        return _plain_key(key_type, fields)
    key_fields = _KEY_FIELDS.get(key_type[: -len(_CERTIFICATE_SUFFIX)])
    if key_fields is None:
        raise BadCertificate("the certificate is of an unknown type")
    for _ in range(1 + key_fields):
        fields.string()
    fields.take(8 + 4)
    fields.string()
    principals = _principals(_Fields(fields.string()))
    fields.take(8 + 8)
    fields.string()
    fingerprint = _fingerprint(_Fields(fields.string()))
    # Reserved, the authority's key and its signature: a certificate is whole or none.
    for _ in range(3):
        fields.string()
    if not fields.is_empty:
        raise BadCertificate("the certificate has something behind its signature")
    return Certificate(key_type, principals, fingerprint)


def read(text: str) -> Optional[Certificate]:
    """Return what ``parse`` does, or None for what is no certificate."""
    try:
        return parse(text)
    except BadCertificate:
        return None


def _plain_key(key_type: str, fields: _Fields) -> Certificate:
    name = key_type
    if key_type.startswith("sk-") and key_type.endswith(_PLAIN_SUFFIX):
        name = key_type[: -len(_PLAIN_SUFFIX)]
    key_fields = _KEY_FIELDS.get(name)
    if key_fields is None:
        raise BadCertificate("the certificate is of an unknown type")
    for _ in range(key_fields):
        fields.string()
    if not fields.is_empty:
        raise BadCertificate("the public key has something behind its end")
    return Certificate(key_type)


def _principals(fields: _Fields) -> tuple[str, ...]:
    found: list[str] = []
    while not fields.is_empty:
        if len(found) == _MOST_ENTRIES:
            raise BadCertificate("the certificate has too many principals")
        try:
            found.append(fields.string().decode("utf-8"))
        except UnicodeDecodeError as error:
            raise BadCertificate("a principal of the certificate is no UTF-8") from error
    return tuple(found)


def _fingerprint(fields: _Fields) -> str:
    """Return the first fingerprint among all extensions, wherever it stands."""
    fingerprint = ""
    while not fields.is_empty:
        name = fields.string().decode("utf-8", "replace")
        fields.string()
        value = name[len(FINGERPRINT_NAME) :]
        if name.startswith(FINGERPRINT_NAME) and not fingerprint:
            if _FINGERPRINT.fullmatch(value) is None:
                raise BadCertificate("the fingerprint in the certificate is malformed")
            fingerprint = value
    return fingerprint
