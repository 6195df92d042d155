"""Workload certificates: the instance's SPIFFE identity as files for programs.

Reads ``instance/attributes/enable-workload-certificate`` and, below
``instance/gce-workload-certificates/``, ``config-status``, ``workload-identities`` and
``trust-anchors``. Writes ``/run/secrets/workload-spiffe-contents-<time>/`` (``config_status``,
``certificates.pem``, ``private_key.pem`` unless the platform keeps the key to itself,
``ca_certificates.pem``) and moves the link ``workload-spiffe-credentials`` to it once the set is
complete. A set that cannot be completed is removed; the last complete one stays.

One exception: while there are no credentials yet, the link is moved as soon as there is a
``config_status``, so that a wrong configuration can be seen in the instance.

Source: guest-agent ``gce_workload_cert_refresh/main.go``; google-guest-agent
``cmd/mwlid_extension/refresher.go``; SPIFFE-ID specification, section 2, for the trust domain.
"""

from __future__ import annotations

import datetime
import json
import logging
from collections.abc import Mapping
from typing import Optional, Protocol

from google_guest.booleans import parse_boolean
from google_guest.errors import GuestError
from google_guest.metadata.errors import MetadataError, NotFound
from google_guest.records import field, record
from google_guest.system.files import Files
from google_guest.system.rotation import RotatedDirectory

log = logging.getLogger(__name__)

ENABLE_KEY = "instance/attributes/enable-workload-certificate"
CONFIG_STATUS_KEY = "instance/gce-workload-certificates/config-status"
IDENTITIES_KEY = "instance/gce-workload-certificates/workload-identities"
TRUST_ANCHORS_KEY = "instance/gce-workload-certificates/trust-anchors"
SECRETS_DIRECTORY = "/run/secrets"
DEFAULT_KEY_MODE = 0o644

_SCHEME = "spiffe://"


class MetadataSource(Protocol):
    """What is asked; ``MetadataClient`` is one."""

    def get_bytes(self, path: str) -> bytes:
        """Return the value at ``path``; raise a ``MetadataError``."""


class CredentialsError(GuestError):
    """The metadata server's answer cannot be made into a complete set of files."""


@record
class Identity:
    """The certificate of this workload."""

    spiffe_id: str
    """``spiffe://<trust domain>/ns/<namespace>/sa/<identity>``."""
    certificate_pem: str
    private_key_pem: str = field(default="", repr=False)
    """Empty where the platform keeps the key."""

    @property
    def trust_domain(self) -> str:
        """The identity's trust domain, in lower case."""
        return trust_domain(self.spiffe_id)


def refresh_credentials(
    source: MetadataSource,
    files: Files,
    *,
    now: Optional[datetime.datetime] = None,
    key_mode: int = DEFAULT_KEY_MODE,
    directory: str = SECRETS_DIRECTORY,
) -> bool:
    """Fetch the credentials and put them in force; return False if there are none to fetch.

    ``now`` only serves names. Raises ``GuestError`` or ``OSError`` if there should be credentials
    and the new ones could not be put in force.
    """
    if not is_enabled(source):
        log.debug("workload certificates are not enabled for this instance")
        return False
    try:
        status = source.get_bytes(CONFIG_STATUS_KEY)
    except MetadataError as error:
        log.info("workload certificates are not configured: %s", error)
        return False
    rotated = rotated_directory(files, directory)
    moment = now or datetime.datetime.now(datetime.timezone.utc)
    stamp = moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
    before = rotated.current()
    has_credentials = before is not None and files.exists(f"{before}/certificates.pem")
    fresh = rotated.create(stamp, {"config_status": (status, 0o644)})
    if not has_credentials:
        rotated.point_at(fresh, stamp)
    try:
        rotated.add(fresh, fetch_contents(source, key_mode=key_mode))
        if has_credentials:
            rotated.point_at(fresh, stamp)
    except BaseException:
        if has_credentials:
            rotated.remove(fresh)
        raise
    rotated.remove_all_but(fresh, before)
    return True


def is_enabled(source: MetadataSource) -> bool:
    """Return whether the instance's attribute asks for workload certificates."""
    try:
        value = source.get_bytes(ENABLE_KEY).decode("utf-8", "replace")
    except NotFound:
        return False
    except MetadataError as error:
        log.warning("whether workload certificates are enabled is unknown: %s", error)
        return False
    return bool(parse_boolean(value))


def rotated_directory(files: Files, directory: str = SECRETS_DIRECTORY) -> RotatedDirectory:
    """Return the names that programs and the reference agents agree on."""
    return RotatedDirectory(
        files,
        link=f"{directory}/workload-spiffe-credentials",
        contents_prefix=f"{directory}/workload-spiffe-contents-",
        link_prefix=f"{directory}/workload-spiffe-symlink-",
    )


def fetch_contents(
    source: MetadataSource, *, key_mode: int = DEFAULT_KEY_MODE
) -> Mapping[str, tuple[bytes, int]]:
    """Return the files of a complete set: name to data and mode.

    Raises:
        GuestError: a part is missing.
    """
    identity = parse_identity(source.get_bytes(IDENTITIES_KEY))
    anchors = parse_trust_anchors(source.get_bytes(TRUST_ANCHORS_KEY), identity.trust_domain)
    contents = {"certificates.pem": (identity.certificate_pem.encode(), 0o644)}
    if identity.private_key_pem:
        contents["private_key.pem"] = (identity.private_key_pem.encode(), key_mode)
    contents["ca_certificates.pem"] = (anchors.encode(), 0o644)
    return contents


def parse_identity(data: bytes) -> Identity:
    """Return the identity in the answer of ``workload-identities``.

    Raises:
        CredentialsError: there is none, or none with a certificate.
    """
    credentials = _object(_document(data, IDENTITIES_KEY).get("workloadCredentials"))
    for spiffe_id in sorted(credentials):
        entry = _object(credentials[spiffe_id])
        certificate = _text(entry.get("certificatePem"))
        if certificate and trust_domain(spiffe_id):
            if len(credentials) > 1:
                log.warning("of %d workload identities %s is used", len(credentials), spiffe_id)
            return Identity(spiffe_id, certificate, _text(entry.get("privateKeyPem")))
    raise CredentialsError(f"{IDENTITIES_KEY} has no identity with a certificate")


def parse_trust_anchors(data: bytes, domain: str) -> str:
    """Return the PEM bundle of exactly ``domain`` in the answer of ``trust-anchors``.

    Raises:
        CredentialsError: there is none.
    """
    anchors = _object(_document(data, TRUST_ANCHORS_KEY).get("trustAnchors"))
    for name, entry in anchors.items():
        if name.lower().removeprefix(_SCHEME) == domain:
            bundle = _text(_object(entry).get("trustAnchorsPem"))
            if bundle:
                return bundle
    raise CredentialsError(f"{TRUST_ANCHORS_KEY} has no anchors of trust domain {domain}")


def trust_domain(spiffe_id: str) -> str:
    """Return the trust domain of a SPIFFE ID in lower case; empty if it is no such ID."""
    lowered = spiffe_id.lower()
    return lowered[len(_SCHEME) :].split("/")[0] if lowered.startswith(_SCHEME) else ""


def parse_key_mode(text: str) -> Optional[int]:
    """Return the file mode that ``[MWLID] private_key_mode`` spells in octal, or None."""
    digits = text.strip().removeprefix("0o")
    if not 1 <= len(digits) <= 4 or not set(digits) <= set("01234567"):
        return None
    mode = int(digits, 8)
    return mode if mode & ~0o666 == 0 else None


def _document(data: bytes, key: str) -> dict[str, object]:
    try:
        return _object(json.loads(data))
    except (ValueError, RecursionError):
        # The error's own text would show the document, and with it a private key.
        raise CredentialsError(f"{key} is not JSON") from None


def _object(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
